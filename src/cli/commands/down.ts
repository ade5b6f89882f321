/** `cox down`: ends a cluster; afterwards no process, namespace, mount or cgroup of it is left. */

import { bringDown } from '../../app/dev-cluster.ts';
import { type Command, printJson } from '../command.ts';

export const command: Command = {
  name: 'down',
  summary: 'stop a cluster and delete its data',
  usage: '[--keep-data]',
  options: { 'keep-data': { type: 'boolean', help: 'keep its data, so that `cox up` resumes it' } },
  examples: ['cox down', 'cox down --name ci --keep-data'],
  async run({ options, cluster, json }) {
    const result = await bringDown({
      name: cluster,
      keepData: options['keep-data'] === true,
      say: line => void (json ? process.stderr : process.stdout).write(`${line}\n`),
    });
    if (json) printJson(result);
  },
};
