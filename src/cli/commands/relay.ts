/** `cox relay FOLDER`: carries connections through ports of 127.0.0.1, started by the server process and by agents. */

import { runRelay } from '../../network/relay-process.ts';
import { type Command, usageError } from '../command.ts';

export const command: Command = {
  name: 'relay',
  summary: 'relay connections through ports of 127.0.0.1',
  usage: 'FOLDER',
  takesWords: true,
  options: {
    namespace: {
      type: 'string',
      value: 'FD',
      help: 'open the ports in the network namespace of this inherited descriptor',
    },
  },
  hidden: true,
  run: ({ words, options }) => {
    if (words.length !== 1) return usageError('relay needs one folder');
    const namespace = options['namespace'];
    return runRelay({ folder: words[0]!, ...(namespace === undefined ? {} : { namespace: Number(namespace) }) });
  },
};
