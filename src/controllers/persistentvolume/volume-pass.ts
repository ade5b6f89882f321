/**
 * One look at a volume: its phase follows its claim, and when the claim is gone its reclaim policy is carried out.
 * Invariant: nothing is deleted or scrubbed before the API server itself, not the cache, has said that the claim is gone.
 */

import type { PersistentVolume, PersistentVolumeClaim } from '../../api/core/v1.gen.ts';
import { BOUND_BY_CONTROLLER, PROVISIONED_BY } from '../../api/machinery/volume.ts';
import { isReason } from '../../base/errors.ts';
import { PERSISTENT_VOLUME_CLAIMS } from '../../client/resources.ts';
import type { ReconcileContext } from '../runtime/controller.ts';
import type { Bindings } from './binding.ts';
import { recycle } from './recycling.ts';

export async function reconcileVolume(
  ctx: ReconcileContext,
  bindings: Bindings,
  volume: PersistentVolume,
): Promise<void> {
  const reference = volume.spec?.claimRef;
  if (!reference?.uid) {
    await bindings.setPhase(volume, 'Available');
    if (reference) ctx.enqueue(`${reference.namespace}/${reference.name}`);
    return;
  }
  const claim = await claimOf(ctx, bindings, volume);
  if (!claim) {
    const isEnded = volume.status?.phase === 'Released' || volume.status?.phase === 'Failed';
    const released = isEnded ? volume : await bindings.setPhase(volume, 'Released');
    return reclaim(ctx, bindings, released);
  }
  if (!claim.spec?.volumeName) {
    // Named beforehand: the claim's pass completes it.
    if ((claim.spec?.volumeMode ?? 'Filesystem') !== (volume.spec?.volumeMode ?? 'Filesystem')) {
      const message = `Cannot bind PersistentVolume to requested PersistentVolumeClaim ${JSON.stringify(claim.metadata.name)} due to incompatible volumeMode.`;
      ctx.events.event(volume, 'Warning', 'VolumeMismatch', message);
      ctx.events.event(
        claim,
        'Warning',
        'VolumeMismatch',
        `Cannot bind PersistentVolume ${JSON.stringify(volume.metadata.name)} to requested PersistentVolumeClaim due to incompatible volumeMode.`,
      );
      return;
    }
    ctx.enqueue(`${claim.metadata.namespace}/${claim.metadata.name}`);
    return;
  }
  if (claim.spec.volumeName === volume.metadata.name) {
    await bindings.setPhase(volume, 'Bound');
    return;
  }
  // The claim was bound elsewhere.
  if (
    volume.metadata.annotations?.[PROVISIONED_BY] !== undefined &&
    volume.spec?.persistentVolumeReclaimPolicy === 'Delete'
  ) {
    await reclaim(ctx, bindings, await bindings.setPhase(volume, 'Released'));
  } else if (volume.metadata.annotations?.[BOUND_BY_CONTROLLER] !== undefined || volume.status?.phase !== 'Available') {
    await bindings.unbind(volume);
  }
}

/** The very claim that the volume names; a namesake is not it. */
async function claimOf(
  ctx: ReconcileContext,
  bindings: Bindings,
  volume: PersistentVolume,
): Promise<PersistentVolumeClaim | undefined> {
  const { namespace = '', name = '', uid } = volume.spec!.claimRef!;
  const known = bindings.claims.get(`${namespace}/${name}`);
  if (known?.metadata.uid === uid) return known;
  if (volume.status?.phase === 'Released' || volume.status?.phase === 'Failed') return undefined;
  try {
    const claim = await ctx.client.of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS).get(namespace, name);
    return claim.metadata.uid === uid ? claim : undefined;
  } catch (error) {
    if (isReason(error, 'NotFound')) return undefined;
    throw error;
  }
}

async function reclaim(ctx: ReconcileContext, bindings: Bindings, volume: PersistentVolume): Promise<void> {
  switch (volume.spec?.persistentVolumeReclaimPolicy) {
    case 'Recycle':
      return recycle(ctx, bindings, volume);
    case 'Delete':
      // Whoever provisioned it deletes it, seeing its phase.
      if (volume.metadata.annotations?.[PROVISIONED_BY] !== undefined || volume.spec.csi) return;
      return cannotDelete(ctx, bindings, volume);
    default:
  }
}

async function cannotDelete(ctx: ReconcileContext, bindings: Bindings, volume: PersistentVolume): Promise<void> {
  if (volume.metadata.deletionTimestamp) return;
  const message = `error getting deleter volume plugin for volume ${JSON.stringify(volume.metadata.name)}: no deletable volume plugin matched`;
  await bindings.setPhase(volume, 'Failed', message);
  ctx.events.event(volume, 'Warning', 'VolumeFailedDelete', message);
}
