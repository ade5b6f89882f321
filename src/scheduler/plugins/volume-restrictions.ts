/**
 * Volumes that only one may use: a ReadWriteOncePod claim by one pod in the cluster, and cloud disks and iSCSI targets named in pods
 * themselves by one pod of a node, unless all only read.
 */

import type { Pod, Volume } from '../../api/core/v1.gen.ts';
import type { PodInfo } from '../node-info.ts';
import { type Plugin, refuse } from '../plugin.ts';
import { claimNames } from '../pod-volumes.ts';

const IN_USE = 'node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode';
const NO_DISK = 'node(s) had no available disk';

/** Disks a pod names itself, and whether it writes them. AWS disks are never shared. */
function disksOf({ spec }: Pod): { readonly id: string; readonly isExclusive: boolean }[] {
  return (spec?.volumes ?? []).flatMap(({ gcePersistentDisk: gce, awsElasticBlockStore: aws, iscsi, rbd }: Volume) => {
    if (gce) return [{ id: `gce/${gce.pdName}`, isExclusive: !gce.readOnly }];
    if (aws) return [{ id: `aws/${aws.volumeID}`, isExclusive: true }];
    if (iscsi) return [{ id: `iscsi/${iscsi.iqn}`, isExclusive: !iscsi.readOnly }];
    if (rbd) return [{ id: `rbd/${rbd.monitors.join(',')}/${rbd.pool}/${rbd.image}`, isExclusive: !rbd.readOnly }];
    return [];
  });
}

export const volumeRestrictions: Plugin = {
  name: 'VolumeRestrictions',
  weight: 0,
  wakesOn: ['pod-removed', 'volume', 'node-added'],
  filter: (pod, { lookup, nodes }) => {
    const namespace = pod.pod.metadata.namespace ?? '';
    const single = new Set(
      claimNames(pod)
        .map(({ name }) => name)
        .filter(name => lookup.claim(namespace, name)?.spec?.accessModes?.includes('ReadWriteOncePod')),
    );
    const disks = disksOf(pod.pod);
    if (single.size === 0 && disks.length === 0) return undefined;
    const uses = (other: PodInfo) =>
      other.pod.metadata.namespace === namespace &&
      other.pod.metadata.uid !== pod.pod.metadata.uid &&
      claimNames(other).some(({ name }) => single.has(name));
    return node => {
      if (single.size > 0)
        for (const one of nodes.values()) {
          // A copy of the node may stand for it, with pods taken away to see whether that helps.
          const at = one.name === node.name ? node : one;
          for (const other of at.pods.values()) if (uses(other)) return refuse(IN_USE);
        }
      for (const { id, isExclusive } of disks)
        for (const other of node.pods.values())
          if (disksOf(other.pod).some(disk => disk.id === id && (disk.isExclusive || isExclusive)))
            return refuse(NO_DISK);
      return undefined;
    };
  },
};
