/**
 * A pod's claims as the scheduler sees them: bound ones limit it to nodes that reach their volumes, others wait for its node, which
 * then decides what they are bound to or where they are provisioned. Pure: `decide` is asked for each node when filtering and again
 * for the chosen one when binding, and gives the same answer on the same cluster.
 */

import type { Node, PersistentVolume, PersistentVolumeClaim } from '../api/core/v1.gen.ts';
import { migratedDriver } from '../api/machinery/csi-migration.ts';
import { labelSelectorMatch } from '../api/machinery/labels.ts';
import { quantityValue } from '../api/machinery/quantity.ts';
import {
  BIND_COMPLETED,
  claimBytes,
  claimClass,
  findVolume,
  isDelayed,
  NO_PROVISIONER,
  SELECTED_NODE,
} from '../api/machinery/volume.ts';
import { controllerOf } from '../api/meta.ts';
import type { StorageClass } from '../api/storage/v1.gen.ts';
import type { PodInfo } from './node-info.ts';
import type { Lookup, Rejection } from './plugin.ts';

export interface PodClaims {
  readonly bound: readonly { readonly claim: PersistentVolumeClaim; readonly volume: PersistentVolume }[];
  /** Bound only once the pod has a node; smallest first. */
  readonly waiting: readonly PersistentVolumeClaim[];
}

export interface VolumeDecision {
  readonly bindings: readonly { readonly claim: PersistentVolumeClaim; readonly volume: PersistentVolume }[];
  readonly provisions: readonly PersistentVolumeClaim[];
}

export const NO_VOLUME = "node(s) didn't find available persistent volumes to bind";
export const NO_SPACE = 'node(s) did not have enough free storage';

/** Claims by the names of a pod's volumes; an ephemeral volume's claim is named after pod and volume. */
interface ClaimName {
  readonly name: string;
  readonly isEphemeral: boolean;
}
export function claimNames({ pod }: PodInfo): readonly ClaimName[] {
  return (pod.spec?.volumes ?? []).flatMap((volume): ClaimName[] =>
    volume.persistentVolumeClaim
      ? [{ name: volume.persistentVolumeClaim.claimName, isEphemeral: false }]
      : volume.ephemeral
        ? [{ name: `${pod.metadata.name}-${volume.name}`, isEphemeral: true }]
        : [],
  );
}

/** What no node could mend is a rejection. */
export function podClaims(info: PodInfo, lookup: Lookup): PodClaims | Rejection {
  const { pod } = info;
  const namespace = pod.metadata.namespace ?? '';
  const bound: { claim: PersistentVolumeClaim; volume: PersistentVolume }[] = [];
  const waiting: PersistentVolumeClaim[] = [];
  for (const { name, isEphemeral } of claimNames(info)) {
    const claim = lookup.claim(namespace, name);
    if (!claim)
      return {
        rejection: isEphemeral
          ? `waiting for ephemeral volume controller to create the persistentvolumeclaim "${name}"`
          : `persistentvolumeclaim "${name}" not found`,
      };
    if (isEphemeral && controllerOf(claim)?.uid !== pod.metadata.uid)
      return {
        rejection: `PVC ${namespace}/${name} was not created for pod ${namespace}/${pod.metadata.name} (pod is not owner)`,
      };
    if (claim.metadata.deletionTimestamp) return { rejection: `persistentvolumeclaim "${name}" is being deleted` };
    if (claim.status?.phase === 'Lost')
      return {
        rejection: `persistentvolumeclaim "${name}" bound to non-existent persistentvolume "${claim.spec?.volumeName ?? ''}"`,
      };
    const volumeName = claim.spec?.volumeName;
    if (volumeName && claim.metadata.annotations?.[BIND_COMPLETED] !== undefined) {
      const volume = lookup.volume(volumeName);
      if (!volume) return { rejection: `persistentvolume "${volumeName}" not found` };
      bound.push({ claim, volume });
      continue;
    }
    // Named beforehand, but not complete yet: the binder works on it.
    if (volumeName || !isDelayed(lookup.storageClass(claimClass(claim))))
      return { rejection: 'pod has unbound immediate PersistentVolumeClaims' };
    waiting.push(claim);
  }
  return { bound, waiting: waiting.sort((a, b) => claimBytes(a) - claimBytes(b)) };
}

/** How the waiting claims would be served on the node, or why not. */
export function decide(
  waiting: readonly PersistentVolumeClaim[],
  { node, lookup }: { readonly node: Node; readonly lookup: Lookup },
): VolumeDecision | { readonly reason: string } {
  const bindings: { claim: PersistentVolumeClaim; volume: PersistentVolume }[] = [];
  const provisions: PersistentVolumeClaim[] = [];
  const taken = new Set<string>();
  for (const claim of waiting) {
    const selected = claim.metadata.annotations?.[SELECTED_NODE];
    // A provisioner is at work on it there already.
    if (selected !== undefined && selected !== node.metadata.name) return { reason: NO_VOLUME };
    const volume =
      selected === undefined
        ? findVolume(claim, lookup.volumesOf(claimClass(claim)), { node, isDelayed: true, excluded: taken })
        : undefined;
    if (volume) {
      taken.add(volume.metadata.name);
      bindings.push({ claim, volume });
      continue;
    }
    const storageClass = lookup.storageClass(claimClass(claim));
    if (!storageClass || storageClass.provisioner === NO_PROVISIONER || !isAllowed(storageClass, node))
      return { reason: NO_VOLUME };
    if (!hasRoom(claim, storageClass, node, lookup)) return { reason: NO_SPACE };
    provisions.push(claim);
  }
  return { bindings, provisions };
}

function isAllowed({ allowedTopologies }: StorageClass, { metadata }: Node): boolean {
  if (!allowedTopologies?.length) return true;
  return allowedTopologies.some(({ matchLabelExpressions = [] }) =>
    matchLabelExpressions.every(({ key, values }) => values.includes(metadata.labels?.[key] ?? '')),
  );
}

/** By the capacities that the driver reports; drivers that report none have room. */
function hasRoom(
  claim: PersistentVolumeClaim,
  storageClass: StorageClass,
  { metadata }: Node,
  lookup: Lookup,
): boolean {
  const driver = lookup.csiDriver(migratedDriver(storageClass.provisioner) ?? storageClass.provisioner);
  if (!driver?.spec.storageCapacity) return true;
  const bytes = claimBytes(claim);
  for (const { storageClassName, nodeTopology, capacity, maximumVolumeSize } of lookup.capacities()) {
    const limit = maximumVolumeSize ?? capacity;
    if (storageClassName !== storageClass.metadata.name || limit === undefined || quantityValue(limit) < bytes)
      continue;
    if (nodeTopology && labelSelectorMatch(nodeTopology)(metadata.labels)) return true;
  }
  return false;
}
