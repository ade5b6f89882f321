/** `cox list`: every cluster of this machine, running or stopped. */

import { listRecords, stateOf } from '../../app/cluster-record.ts';
import { type Command, printJson, printTable } from '../command.ts';

export const command: Command = {
  name: 'list',
  summary: 'list the clusters of this machine',
  usage: '',
  run({ json }) {
    const clusters = listRecords().map(record => ({
      name: record.name,
      state: stateOf(record),
      nodes: record.nodes.length,
      apiPort: record.apiPort,
      stateDir: record.stateDir,
      createdAt: record.createdAt,
    }));
    if (json) return printJson(clusters);
    if (clusters.length === 0) process.stdout.write('No clusters; start one with: cox up\n');
    else
      printTable(
        ['NAME', 'STATE', 'NODES', 'API', 'DATA'],
        clusters.map(item => [item.name, item.state, String(item.nodes), `127.0.0.1:${item.apiPort}`, item.stateDir]),
      );
  },
};
