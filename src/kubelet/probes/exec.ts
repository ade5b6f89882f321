/** exec: healthy when the command ends with 0 in time; a late one is killed. */

import type { ExecAction } from '../../api/core/v1.gen.ts';
import { messageOf } from '../../base/errors.ts';
import type { Prober } from './prober.ts';

export const execProber: Prober<ExecAction> = {
  action: 'exec',
  async probe({ command = [] }, target, { signal, timeoutSeconds }) {
    try {
      const { exitCode, output } = await target.exec(command, signal);
      if (signal.aborted)
        return {
          isSuccess: false,
          output: `command timed out: ${JSON.stringify(command.join(' '))} timed out after ${timeoutSeconds}s`,
        };
      return { isSuccess: exitCode === 0, output };
    } catch (error) {
      return { isSuccess: false, output: messageOf(error) };
    }
  },
};
