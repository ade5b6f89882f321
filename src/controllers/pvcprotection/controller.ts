/**
 * Holds a deleted claim, by its finalizer, as long as a pod on a node uses it. Invariant: the finalizer goes only after the API
 * server's own list of pods, not a cache, shows none.
 */

import type { PersistentVolumeClaim, Pod } from '../../api/core/v1.gen.ts';
import { controllerOf, keyOf } from '../../api/meta.ts';
import { PERSISTENT_VOLUME_CLAIMS, PODS } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  watch,
} from '../runtime/controller.ts';

const FINALIZER = 'kubernetes.io/pvc-protection';

function uses(pod: Pod, claim: PersistentVolumeClaim): boolean {
  // A kubelet starts no pod on a claim that is being deleted, so one without a node does not count.
  if (!pod.spec?.nodeName) return false;
  const isShutDown = pod.metadata.deletionTimestamp !== undefined && pod.metadata.deletionGracePeriodSeconds === 0;
  return (pod.spec.volumes ?? []).some(
    ({ name, persistentVolumeClaim, ephemeral }) =>
      persistentVolumeClaim?.claimName === claim.metadata.name ||
      (ephemeral !== undefined &&
        !isShutDown &&
        `${pod.metadata.name}-${name}` === claim.metadata.name &&
        controllerOf(claim)?.uid === pod.metadata.uid),
  );
}

function claimKeys(pod: Pod): string[] {
  const { namespace, name } = pod.metadata;
  return (pod.spec?.volumes ?? []).flatMap(({ name: volume, persistentVolumeClaim, ephemeral }) =>
    persistentVolumeClaim
      ? [`${namespace}/${persistentVolumeClaim.claimName}`]
      : ephemeral
        ? [`${namespace}/${name}-${volume}`]
        : [],
  );
}

function create(ctx: ReconcileContext): Controller {
  const claims = ctx.informers.get<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS);
  const isWaiting = (claim: PersistentVolumeClaim | undefined) =>
    claim?.metadata.deletionTimestamp !== undefined && claim.metadata.finalizers?.includes(FINALIZER) === true;
  return {
    name: 'pvcprotection',
    watches: [
      watch<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, change =>
        !change.deleted && isWaiting(change.object) ? [keyOf(change.object)] : [],
      ),
      watch<Pod>(PODS, change => claimKeys(latest(change)).filter(key => isWaiting(claims.get(key)))),
    ],
    async reconcile({ namespace, name }) {
      const claim = claims.get(`${namespace}/${name}`);
      if (!claim || !isWaiting(claim)) return;
      const pods = await ctx.client.of<Pod>(PODS).list(namespace);
      if (pods.items.some(pod => uses(pod, claim))) return;
      await ctx.client.of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS).update({
        ...claim,
        metadata: { ...claim.metadata, finalizers: claim.metadata.finalizers!.filter(one => one !== FINALIZER) },
      });
    },
  };
}

export const pvcProtection: ControllerDefinition = {
  folder: 'pvcprotection',
  component: 'pvc-protection-controller',
  create,
};
