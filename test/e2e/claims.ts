/** Claims, pods that use them, and the disks behind them, as the tests of storage need them. */

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { KubeObject } from '../../src/api/meta.ts';
import { type Cluster, pod } from './cluster.ts';

export const IMAGE = 'busybox:1.35';

export const claim = (name: string, storage: string, spec: object = {}): object => ({
  apiVersion: 'v1',
  kind: 'PersistentVolumeClaim',
  metadata: { name },
  spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage } }, ...spec },
});

/** A pod with the claim at /data that runs the script and stays. */
export const user = (
  name: string,
  claimName: string,
  options: { script?: string; spec?: object; container?: object } = {},
): KubeObject =>
  pod(name, IMAGE, {
    command: ['sh', '-c', `${options.script ?? 'true'}; sleep 3600`],
    container: { volumeMounts: [{ name: 'data', mountPath: '/data' }], ...options.container },
    spec: { volumes: [{ name: 'data', persistentVolumeClaim: { claimName } }], ...options.spec },
  });

/** Names of cox-local's disks on all nodes. */
export const localDisks = (cluster: Cluster): string[] =>
  readdirSync(cluster.stateDir)
    .filter(name => name.startsWith('node-'))
    .flatMap(node => {
      const folder = join(cluster.stateDir, node, 'local-volumes', 'volumes');
      return existsSync(folder) ? readdirSync(folder) : [];
    });
