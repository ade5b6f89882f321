/** `cox node exec NODE -- CMD`: runs a command inside a node: its network, mount, host name and process namespaces. */

import { spawnSync } from 'node:child_process';
import { constants } from 'node:os';
import { isAlive, netnsPath, nodeNamespace } from '../../app/cluster-record.ts';
import { requireRecord } from '../../app/cluster-status.ts';
import { requireRoot } from '../../app/prerequisites.ts';
import { type Command, usageError } from '../command.ts';

export const command: Command = {
  name: 'node exec',
  summary: "run a command inside a node's network namespace",
  usage: 'NODE -- COMMAND [ARGUMENTS...]',
  takesWords: true,
  examples: ['cox node exec node-1 -- ip address', 'cox node exec node-2 -- wget -qO- http://10.96.0.1'],
  run({ words, cluster }) {
    requireRoot('node exec');
    const [name, ...argv] = words;
    const record = requireRecord(cluster);
    const names = record.nodes.map(node => node.name).join(', ');
    if (!name) usageError(`node exec needs a node; cluster "${cluster}" has: ${names}`);
    const node = record.nodes.find(item => item.name === name);
    if (!node) usageError(`node "${name}" not found; cluster "${cluster}" has: ${names}`);
    if (argv.length === 0)
      usageError('node exec needs a command behind --, such as: cox node exec node-1 -- ip address');
    if (!isAlive(node.supervisor)) usageError(`node "${name}" is not running; start it with: cox up --name ${cluster}`);
    const namespaces = [`--net=${netnsPath(nodeNamespace(cluster, name))}`];
    const result = spawnSync('nsenter', [...namespaces, '--', ...argv], { stdio: 'inherit' });
    if (result.error) throw result.error;
    // As a shell tells of a command that a signal ended.
    return result.status ?? 128 + (result.signal ? constants.signals[result.signal] : 0);
  },
};
