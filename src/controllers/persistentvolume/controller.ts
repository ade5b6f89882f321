/**
 * Binds claims to persistent volumes and reclaims what claims let go. Keys are claims (`namespace/name`) and volumes (`name`);
 * a change of either side wakes both. It makes no volumes itself: provisioners do, told by annotations of the claim.
 */

import type { PersistentVolume, PersistentVolumeClaim, Pod } from '../../api/core/v1.gen.ts';
import { claimClass, volumeClass } from '../../api/machinery/volume.ts';
import { keyOf } from '../../api/meta.ts';
import type { StorageClass } from '../../api/storage/v1.gen.ts';
import { PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  watch,
} from '../runtime/controller.ts';
import { Bindings } from './binding.ts';
import { CLAIM_INDEX, CLAIMED_INDEX, CLASS_INDEX, claimsOf, FREE_INDEX, reconcileClaim } from './claim-pass.ts';
import { recycledBy } from './recycling.ts';
import { reconcileVolume } from './volume-pass.ts';

/** Claims that wait are looked at this often without any change, as upstream's resync: their event is told again. */
const RESYNC_MS = 15_000;

function create(ctx: ReconcileContext): Controller {
  const bindings = new Bindings(ctx);
  const claims = ctx.informers.get<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS);
  const volumes = ctx.informers.get<PersistentVolume>(PERSISTENT_VOLUMES);
  const pods = ctx.informers.get<Pod>(PODS);
  pods.addIndex(CLAIM_INDEX, claimsOf);
  volumes.addIndex(FREE_INDEX, volume => (volume.spec?.claimRef ? [] : [volumeClass(volume)]));
  volumes.addIndex(CLAIMED_INDEX, ({ spec }) =>
    spec?.claimRef ? [`${spec.claimRef.namespace}/${spec.claimRef.name}`] : [],
  );
  const isUnbound = (claim: PersistentVolumeClaim) => !claim.spec?.volumeName;
  claims.addIndex(CLASS_INDEX, claim => (isUnbound(claim) ? [claimClass(claim)] : []));

  /** Claims that a volume which is free (again) may satisfy. */
  const waiting = (volume: PersistentVolume) => claims.byIndex(CLASS_INDEX, volumeClass(volume)).map(keyOf);

  return {
    name: 'persistentvolume',
    workers: 16,
    watches: [
      watch<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, change => {
        const claim = latest(change);
        const volume = claim.spec?.volumeName;
        const named = change.deleted || !volume ? [] : [volume];
        if (change.deleted && volume) return [volume];
        return [keyOf(claim), ...named];
      }),
      watch<PersistentVolume>(PERSISTENT_VOLUMES, change => {
        const volume = latest(change);
        const { claimRef } = volume.spec ?? {};
        const claim = claimRef ? [`${claimRef.namespace}/${claimRef.name}`] : [];
        if (change.deleted) return claim;
        const isFree = !claimRef && volume.status?.phase === 'Available' && change.old?.status?.phase !== 'Available';
        return [volume.metadata.name, ...claim, ...(isFree ? waiting(volume) : [])];
      }),
      watch<StorageClass>(STORAGE_CLASSES, change => {
        if (change.deleted) return [];
        const name = change.object.metadata.name;
        // A class that became the default concerns claims without one.
        return [...claims.byIndex(CLASS_INDEX, name), ...claims.byIndex(CLASS_INDEX, '')].map(keyOf);
      }),
      watch<Pod>(PODS, change => {
        const pod = latest(change);
        const recycled = recycledBy(pod);
        if (recycled !== undefined) return [recycled];
        // Claims that wait for a pod say for which.
        return change.old && !change.deleted && change.old.spec.nodeName === change.object.spec.nodeName
          ? []
          : claimsOf(pod).filter(isWaitingClaim);
      }),
    ],
    async reconcile({ namespace, name }) {
      if (!namespace) {
        const volume = bindings.volumes.get(name);
        if (volume) await reconcileVolume(ctx, bindings, volume);
        return;
      }
      const claim = bindings.claims.get(`${namespace}/${name}`);
      if (!claim) return;
      await reconcileClaim(ctx, bindings, claim);
      const after = bindings.claims.get(`${namespace}/${name}`);
      if (after && isUnbound(after) && !after.metadata.deletionTimestamp) return { requeueAfterMs: RESYNC_MS };
    },
  };

  function isWaitingClaim(key: string): boolean {
    const claim = claims.get(key);
    return claim !== undefined && isUnbound(claim);
  }
}

export const persistentVolume: ControllerDefinition = {
  folder: 'persistentvolume',
  component: 'persistentvolume-controller',
  create,
};
