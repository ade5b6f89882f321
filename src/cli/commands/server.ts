/** `cox server`: the server process itself, as its supervisor starts it. */

import { readFileSync } from 'node:fs';
import { runServer } from '../../app/server.ts';
import { type Command, usageError } from '../command.ts';

export const command: Command = {
  name: 'server',
  summary: 'run the server process in the foreground',
  usage: '--config FILE',
  hidden: true,
  options: { config: { type: 'string', value: 'FILE', help: 'its configuration, JSON' } },
  async run({ options }) {
    const file = options['config'] as string | undefined;
    if (!file) usageError('server needs --config FILE');
    await runServer(JSON.parse(readFileSync(file, 'utf8')));
  },
};
