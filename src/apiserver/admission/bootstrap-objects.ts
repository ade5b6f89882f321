/** Namespaces and PriorityClasses that every cluster has. */

import type { KubeObject } from '../../api/meta.ts';
import type { PriorityClass } from '../../api/scheduling/v1.gen.ts';
import { isReason } from '../../base/errors.ts';
import { NAMESPACES, PRIORITY_CLASSES } from '../../client/resources.ts';
import type { ResourceId, Transport } from '../../client/transport.ts';
import type { Reader } from '../request.ts';

export const SYSTEM_NAMESPACES: readonly string[] = ['kube-system', 'kube-public', 'kube-node-lease', 'default'];

/** Creates what is missing. Idempotent. */
export async function ensureBootstrapObjects(reader: Reader, transport: Transport): Promise<void> {
  const ensure = async (of: ResourceId, object: KubeObject) => {
    if (reader.get(of, '', object.metadata.name)) return;
    await transport.create({ of }, object).catch(error => {
      if (!isReason(error, 'AlreadyExists')) throw error;
    });
  };
  const priorityClass = (name: string, value: number, description: string): PriorityClass => ({
    apiVersion: 'scheduling.k8s.io/v1',
    kind: 'PriorityClass',
    metadata: { name },
    value,
    description,
  });
  await Promise.all([
    ...SYSTEM_NAMESPACES.map(name => ensure(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } })),
    ensure(
      PRIORITY_CLASSES,
      priorityClass(
        'system-node-critical',
        2_000_001_000,
        'Used for system critical pods that must not be moved from their current node.',
      ),
    ),
    ensure(
      PRIORITY_CLASSES,
      priorityClass(
        'system-cluster-critical',
        2_000_000_000,
        'Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.',
      ),
    ),
  ]);
}
