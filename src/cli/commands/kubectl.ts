/** `cox kubectl …`: kubectl with the cluster's kubeconfig; the machine's own, or the one npm brought. */

import { spawnSync } from 'node:child_process';
import { findClient } from '../../app/bundled-clients.ts';
import { kubeconfigPath } from '../../app/cluster-record.ts';
import { requireRecord } from '../../app/cluster-status.ts';
import type { Command } from '../command.ts';

export const command: Command = {
  name: 'kubectl',
  summary: 'run kubectl against the cluster',
  usage: '[--name NAME] ARGUMENTS...',
  passThrough: true,
  examples: ['cox kubectl get pods -A', 'cox kubectl --name ci apply -f app.yaml'],
  run({ words, cluster }) {
    const kubeconfig = kubeconfigPath(requireRecord(cluster));
    const result = spawnSync(findClient('kubectl'), [...words], {
      stdio: 'inherit',
      env: { ...process.env, KUBECONFIG: kubeconfig },
    });
    return result.status ?? 1;
  },
};
