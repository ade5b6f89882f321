/** `cox status`: the processes, nodes and addresses of one cluster. Exit code 0 when it runs, 3 when it does not. */

import { clusterStatus } from '../../app/cluster-status.ts';
import { type Command, printJson, printTable } from '../command.ts';

export const command: Command = {
  name: 'status',
  summary: 'show how a cluster is',
  usage: '',
  async run({ cluster, json }) {
    const status = await clusterStatus(cluster);
    if (json) printJson(status);
    else {
      process.stdout.write(
        `Cluster "${status.name}" is ${status.state}${status.problem ? `: ${status.problem}` : ''}\n  API         ${status.server}\n  kubeconfig  ${status.kubeconfig}\n  data        ${status.stateDir}\n\n`,
      );
      printTable(
        ['PROCESS', 'NODE', 'PID', 'MEMORY', 'LOG'],
        status.processes.map(item => [
          item.role,
          item.node ?? '-',
          item.pid ? String(item.pid) : '-',
          item.residentBytes ? `${Math.round(item.residentBytes / 2 ** 20)} MiB` : '-',
          item.log,
        ]),
      );
      if (status.nodes.length) {
        process.stdout.write('\n');
        printTable(
          ['NODE', 'READY', 'ADDRESS', 'PODS'],
          status.nodes.map(node => [node.name, node.ready, node.address, node.podCidr ?? '-']),
        );
      }
    }
    return status.state === 'running' ? 0 : 3;
  },
};
