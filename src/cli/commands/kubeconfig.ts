/** `cox kubeconfig`: prints the cluster's kubeconfig, its path, or merges it into the user's own. */

import { readFileSync } from 'node:fs';
import { kubeconfigPath } from '../../app/cluster-record.ts';
import { requireRecord } from '../../app/cluster-status.ts';
import { contextName, mergeKubeconfig, userKubeconfigPath } from '../../app/kubeconfig.ts';
import { type Command, printJson, usageError } from '../command.ts';

export const command: Command = {
  name: 'kubeconfig',
  summary: 'print the kubeconfig, or its path',
  usage: '[--path | --merge]',
  options: {
    path: { type: 'boolean', help: 'print only where the file is' },
    merge: { type: 'boolean', help: 'add the context to ~/.kube/config (or $KUBECONFIG) and make it current' },
  },
  examples: [
    'export KUBECONFIG=$(cox kubeconfig --path)',
    'cox kubeconfig --merge && kubectl config use-context coxswain-dev',
  ],
  run({ options, cluster, json }) {
    if (options['path'] && options['merge']) usageError('--path and --merge exclude each other');
    const path = kubeconfigPath(requireRecord(cluster));
    if (options['merge']) {
      mergeKubeconfig(path, cluster);
      process.stdout.write(`context "${contextName(cluster)}" is now current in ${userKubeconfigPath()}\n`);
    } else if (json) printJson({ path, context: contextName(cluster) });
    else process.stdout.write(options['path'] ? `${path}\n` : readFileSync(path, 'utf8'));
  },
};
