/** `cox agent`: the agent process itself, as its supervisor starts it. */

import { readFileSync } from 'node:fs';
import { runAgent } from '../../app/agent.ts';
import { type Command, usageError } from '../command.ts';

export const command: Command = {
  name: 'agent',
  summary: 'run the agent process in the foreground',
  usage: '--config FILE',
  hidden: true,
  options: { config: { type: 'string', value: 'FILE', help: 'its configuration, JSON' } },
  async run({ options }) {
    const file = options['config'] as string | undefined;
    if (!file) usageError('agent needs --config FILE');
    await runAgent(JSON.parse(readFileSync(file, 'utf8')));
  },
};
