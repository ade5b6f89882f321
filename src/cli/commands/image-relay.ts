/** `cox image-relay SOCKET`: the nodes' way to registries outside, started by the server process. */

import { runRelay } from '../../app/registry-relay.ts';
import { type Command, usageError } from '../command.ts';

export const command: Command = {
  name: 'image-relay',
  summary: 'relay connections to registries for a cluster',
  usage: 'SOCKET',
  takesWords: true,
  hidden: true,
  run: ({ words }) => (words.length === 1 ? runRelay(words[0]!) : usageError('image-relay needs one socket')),
};
