/** exec: healthy when the command ends with 0 in time; a late one is killed. Of one that cannot be run there is no telling. */

import type { ExecAction } from '../../api/core/v1.gen.ts';
import type { Prober } from './prober.ts';

export const execProber: Prober<ExecAction> = {
  action: 'exec',
  async probe({ command = [] }, target, { signal, timeoutSeconds }) {
    const late = () => ({
      isSuccess: false,
      output: `command timed out: ${JSON.stringify(command.join(' '))} timed out after ${timeoutSeconds}s`,
    });
    try {
      const { exitCode, output } = await target.exec(command, signal);
      return signal.aborted ? late() : { isSuccess: exitCode === 0, output };
    } catch (error) {
      if (signal.aborted) return late();
      throw error;
    }
  },
};
