/**
 * How claims and persistent volumes belong together: which volume satisfies a claim, which one fits best, and the annotations
 * in which binder, scheduler and provisioners talk to each other. Shared by the binder and the scheduler, which must agree. Pure.
 */

import type { Node, PersistentVolume, PersistentVolumeClaim } from '../core/v1.gen.ts';
import type { StorageClass } from '../storage/v1.gen.ts';
import { labelSelectorMatch } from './labels.ts';
import { nodeSelectorMatch } from './node-selector.ts';
import { quantityValue } from './quantity.ts';

/** On a claim: the binding is complete, both sides say so. */
export const BIND_COMPLETED = 'pv.kubernetes.io/bind-completed';
/** On either side: the controller chose, so it may undo it. */
export const BOUND_BY_CONTROLLER = 'pv.kubernetes.io/bound-by-controller';
/** On a volume: the provisioner that made it and that deletes it. */
export const PROVISIONED_BY = 'pv.kubernetes.io/provisioned-by';
/** On an object of an in-tree driver: the CSI driver that serves it now. */
export const MIGRATED_TO = 'pv.kubernetes.io/migrated-to';
/** On a claim: the node the scheduler chose for its first pod. */
export const SELECTED_NODE = 'volume.kubernetes.io/selected-node';
/** On a claim: who is to provision it. */
export const STORAGE_PROVISIONER = 'volume.kubernetes.io/storage-provisioner';
export const BETA_STORAGE_PROVISIONER = 'volume.beta.kubernetes.io/storage-provisioner';
export const BETA_CLASS = 'volume.beta.kubernetes.io/storage-class';
/** The provisioner of classes whose volumes an administrator makes. */
export const NO_PROVISIONER = 'kubernetes.io/no-provisioner';

/** '' for none. */
export function claimClass({ metadata, spec }: PersistentVolumeClaim): string {
  return metadata.annotations?.[BETA_CLASS] ?? spec?.storageClassName ?? '';
}
export function volumeClass({ metadata, spec }: PersistentVolume): string {
  return metadata.annotations?.[BETA_CLASS] ?? spec?.storageClassName ?? '';
}
export function isDelayed(storageClass: StorageClass | undefined): boolean {
  return storageClass?.volumeBindingMode === 'WaitForFirstConsumer';
}

const sizes = new WeakMap<object, number>();
function bytesOf(object: PersistentVolume | PersistentVolumeClaim, text: string | undefined): number {
  let bytes = sizes.get(object);
  if (bytes === undefined) sizes.set(object, (bytes = quantityValue(text)));
  return bytes;
}
export const volumeBytes = (volume: PersistentVolume): number => bytesOf(volume, volume.spec?.capacity?.['storage']);
export const claimBytes = (claim: PersistentVolumeClaim): number =>
  bytesOf(claim, claim.spec?.resources?.requests?.['storage']);

/** The volume names this very claim, by uid once it has one. */
export function isBoundTo(volume: PersistentVolume, claim: PersistentVolumeClaim): boolean {
  const reference = volume.spec?.claimRef;
  return (
    reference !== undefined &&
    reference.name === claim.metadata.name &&
    reference.namespace === claim.metadata.namespace &&
    (!reference.uid || reference.uid === claim.metadata.uid)
  );
}

const mode = (of: PersistentVolume | PersistentVolumeClaim) => of.spec?.volumeMode ?? 'Filesystem';

/** Why the claim cannot have the volume, in the binder's words; undefined when it can. The selector is not asked. */
export function volumeMismatch(volume: PersistentVolume, claim: PersistentVolumeClaim): string | undefined {
  if (volumeBytes(volume) < claimBytes(claim)) return 'requested PV is too small';
  if (volumeClass(volume) !== claimClass(claim)) return 'storageClassName does not match';
  if (mode(volume) !== mode(claim)) return 'incompatible volumeMode';
  if ((volume.spec?.volumeAttributesClassName ?? '') !== (claim.spec?.volumeAttributesClassName ?? ''))
    return 'VolumeAttributesClassName does not match';
  const modes = volume.spec?.accessModes ?? [];
  if (!(claim.spec?.accessModes ?? []).every(one => modes.includes(one))) return 'incompatible accessMode';
  return undefined;
}

export function reachesNode(volume: PersistentVolume, node: Pick<Node, 'metadata'>): boolean {
  const required = volume.spec?.nodeAffinity?.required;
  return !required || nodeSelectorMatch(required)(node);
}

/**
 * The volume for a claim: one that names it already, else the smallest available that fits. With `node` only those reachable
 * from it; a delayed claim without a node gets none but what names it.
 */
export function findVolume(
  claim: PersistentVolumeClaim,
  volumes: Iterable<PersistentVolume>,
  options: { readonly node?: Node; readonly isDelayed: boolean; readonly excluded?: ReadonlySet<string> },
): PersistentVolume | undefined {
  const { node, excluded } = options;
  const { selector } = claim.spec ?? {};
  const matches = selector ? labelSelectorMatch(selector) : undefined;
  let best: PersistentVolume | undefined;
  for (const volume of volumes) {
    if (excluded?.has(volume.metadata.name)) continue;
    const isOurs = isBoundTo(volume, claim);
    if (volume.spec?.claimRef && !isOurs) continue;
    if (volumeBytes(volume) < claimBytes(claim) || mode(volume) !== mode(claim)) continue;
    if (volume.metadata.deletionTimestamp) continue;
    if (node && !reachesNode(volume, node)) continue;
    if (isOurs) return volume;
    if (options.isDelayed && !node) continue;
    if (volume.status?.phase !== 'Available' || volumeMismatch(volume, claim)) continue;
    if (matches && !matches(volume.metadata.labels)) continue;
    if (
      !best ||
      volumeBytes(volume) < volumeBytes(best) ||
      (volumeBytes(volume) === volumeBytes(best) && volume.metadata.name < best.metadata.name)
    )
      best = volume;
  }
  return best;
}
