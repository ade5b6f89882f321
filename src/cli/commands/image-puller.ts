/** `cox image-puller`: one pull, started by an agent, which speaks to it through its standard input and output. */

import { runPuller } from '../../app/process-puller.ts';
import type { Command } from '../command.ts';

export const command: Command = {
  name: 'image-puller',
  summary: 'pull one image for an agent',
  usage: '',
  hidden: true,
  run: runPuller,
};
