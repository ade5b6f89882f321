/** CSI volumes: a node takes no more of a driver than the driver said when it registered there. */

import type { Pod } from '../../api/core/v1.gen.ts';
import { migratedDriver, translateInline, translateVolume } from '../../api/machinery/csi-migration.ts';
import { claimClass } from '../../api/machinery/volume.ts';
import { type Lookup, type Plugin, refuse } from '../plugin.ts';

/** Unique names of a pod's CSI volumes by driver; one that is yet to be made counts by its claim. */
function volumesOf(pod: Pod, lookup: Lookup): { readonly driver: string; readonly id: string }[] {
  const namespace = pod.metadata.namespace ?? '';
  return (pod.spec?.volumes ?? []).flatMap(volume => {
    const inline = translateInline(volume, namespace)?.spec?.csi;
    if (inline) return [{ driver: inline.driver, id: inline.volumeHandle }];
    const name =
      volume.persistentVolumeClaim?.claimName ?? (volume.ephemeral ? `${pod.metadata.name}-${volume.name}` : undefined);
    const claim = name === undefined ? undefined : lookup.claim(namespace, name);
    if (!claim) return [];
    const bound = claim.spec?.volumeName ? lookup.volume(claim.spec.volumeName) : undefined;
    const csi = bound && (translateVolume(bound) ?? bound).spec?.csi;
    if (csi) return [{ driver: csi.driver, id: csi.volumeHandle }];
    const provisioner = bound ? undefined : lookup.storageClass(claimClass(claim))?.provisioner;
    return provisioner ? [{ driver: migratedDriver(provisioner) ?? provisioner, id: `${namespace}/${name}` }] : [];
  });
}

export const nodeVolumeLimits: Plugin = {
  name: 'NodeVolumeLimits',
  weight: 0,
  wakesOn: ['pod-removed', 'node-added', 'volume'],
  filter: ({ pod }, { lookup }) => {
    const wanted = volumesOf(pod, lookup);
    if (wanted.length === 0) return undefined;
    return node => {
      for (const { name, allocatable } of lookup.csiNode(node.name)?.spec.drivers ?? []) {
        const mine = wanted.filter(({ driver }) => driver === name);
        if (allocatable?.count === undefined || mine.length === 0) continue;
        const there = new Set<string>();
        for (const other of node.pods.values())
          for (const { driver, id } of volumesOf(other.pod, lookup)) if (driver === name) there.add(id);
        const fresh = new Set(mine.map(({ id }) => id).filter(id => !there.has(id)));
        if (fresh.size > 0 && there.size + fresh.size > allocatable.count)
          return refuse('node(s) exceed max volume count');
      }
      return undefined;
    };
  },
};
