/** Holds a deleted persistent volume, by its finalizer, as long as it is bound to a claim. */

import type { PersistentVolume } from '../../api/core/v1.gen.ts';
import { PERSISTENT_VOLUMES } from '../../client/resources.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';

const FINALIZER = 'kubernetes.io/pv-protection';

function isFree({ metadata, status }: PersistentVolume): boolean {
  return (
    metadata.deletionTimestamp !== undefined &&
    metadata.finalizers?.includes(FINALIZER) === true &&
    status?.phase !== 'Bound'
  );
}

function create(ctx: ReconcileContext): Controller {
  const volumes = ctx.informers.get<PersistentVolume>(PERSISTENT_VOLUMES);
  return {
    name: 'pvprotection',
    watches: [
      watch<PersistentVolume>(PERSISTENT_VOLUMES, change =>
        !change.deleted && isFree(change.object) ? [change.object.metadata.name] : [],
      ),
    ],
    async reconcile({ name }) {
      const volume = volumes.get(name);
      if (!volume || !isFree(volume)) return;
      // Conditional on the version, so a binding meanwhile wins.
      await ctx.client.of<PersistentVolume>(PERSISTENT_VOLUMES).update({
        ...volume,
        metadata: { ...volume.metadata, finalizers: volume.metadata.finalizers!.filter(one => one !== FINALIZER) },
      });
    },
  };
}

export const pvProtection: ControllerDefinition = {
  folder: 'pvprotection',
  component: 'pv-protection-controller',
  create,
};
