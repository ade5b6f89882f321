/**
 * Persistent volumes: claims must exist, be bound or be allowed to wait for the pod's node, and a bound volume must be
 * reachable from the node.
 */

import { nodeSelectorMatch } from '../../api/machinery/node-selector.ts';
import type { PodInfo } from '../node-info.ts';
import { type Cluster, type Plugin, refuseForGood } from '../plugin.ts';

/** Names of the claims a pod uses; an ephemeral volume's claim is named after pod and volume. */
export function claimNames({ pod }: PodInfo): string[] {
  return (pod.spec?.volumes ?? []).flatMap(volume =>
    volume.persistentVolumeClaim
      ? [volume.persistentVolumeClaim.claimName]
      : volume.ephemeral
        ? [`${pod.metadata.name}-${volume.name}`]
        : [],
  );
}

/** Claims that are bound only once the scheduler has picked a node. */
export function waitingClaims(pod: PodInfo, cluster: Pick<Cluster, 'lookup'>): string[] {
  const namespace = pod.pod.metadata.namespace ?? '';
  return claimNames(pod).filter(name => {
    const claim = cluster.lookup.claim(namespace, name);
    return (
      claim &&
      !claim.spec?.volumeName &&
      cluster.lookup.storageClass(claim.spec?.storageClassName ?? '')?.volumeBindingMode === 'WaitForFirstConsumer'
    );
  });
}

export const volumeBinding: Plugin = {
  name: 'VolumeBinding',
  weight: 0,
  wakesOn: ['node-added', 'node-labels', 'volume'],
  filter: (pod, cluster) => {
    const names = claimNames(pod);
    if (names.length === 0) return undefined;
    const namespace = pod.pod.metadata.namespace ?? '';
    const waiting = new Set(waitingClaims(pod, cluster));
    const reachable: ReturnType<typeof nodeSelectorMatch>[] = [];
    for (const name of names) {
      const claim = cluster.lookup.claim(namespace, name);
      if (!claim) return { rejection: `persistentvolumeclaim "${name}" not found` };
      if (claim.metadata.deletionTimestamp) return { rejection: `persistentvolumeclaim "${name}" is being deleted` };
      if (claim.status?.phase === 'Lost')
        return {
          rejection: `persistentvolumeclaim "${name}" bound to non-existent persistentvolume "${claim.spec?.volumeName ?? ''}"`,
        };
      if (!claim.spec?.volumeName) {
        if (!waiting.has(name)) return { rejection: 'pod has unbound immediate PersistentVolumeClaims' };
        continue;
      }
      const volume = cluster.lookup.volume(claim.spec.volumeName);
      const required = volume?.spec?.nodeAffinity?.required;
      if (!volume) return { rejection: `persistentvolume "${claim.spec.volumeName}" not found` };
      if (required) reachable.push(nodeSelectorMatch(required));
    }
    if (reachable.length === 0) return undefined;
    return ({ node }) =>
      reachable.every(matches => matches(node))
        ? undefined
        : refuseForGood("node(s) didn't match PersistentVolume's node affinity");
  },
};
