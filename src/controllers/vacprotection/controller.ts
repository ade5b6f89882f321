/**
 * Gives every VolumeAttributesClass a finalizer and, once it is deleted, holds it as long as a claim or a volume names it. Invariant: the
 * finalizer goes only after the API server's own lists, not a cache, show no user.
 */

import type { PersistentVolume, PersistentVolumeClaim } from '../../api/core/v1.gen.ts';
import type { VolumeAttributesClass } from '../../api/storage/v1.gen.ts';
import { PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, VOLUME_ATTRIBUTES_CLASSES } from '../../client/resources.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';

const FINALIZER = 'kubernetes.io/vac-protection';

/** Names of the classes that the claim has, had until now, or is to have. */
function namedByClaim({ spec, status }: PersistentVolumeClaim): string[] {
  return [
    spec?.volumeAttributesClassName,
    status?.currentVolumeAttributesClassName,
    status?.modifyVolumeStatus?.targetVolumeAttributesClassName,
  ].filter((name): name is string => name !== undefined && name !== '');
}
function namedByVolume({ spec }: PersistentVolume): string[] {
  return spec?.volumeAttributesClassName ? [spec.volumeAttributesClassName] : [];
}

function create(ctx: ReconcileContext): Controller {
  const classes = ctx.informers.get<VolumeAttributesClass>(VOLUME_ATTRIBUTES_CLASSES);
  const target = ctx.client.of<VolumeAttributesClass>(VOLUME_ATTRIBUTES_CLASSES);
  const isHeld = (name: string) => {
    const found = classes.get(name);
    return found?.metadata.deletionTimestamp !== undefined && found.metadata.finalizers?.includes(FINALIZER) === true;
  };
  const isNamed = async (name: string): Promise<boolean> => {
    const claims = await ctx.client.of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS).list();
    if (claims.items.some(claim => namedByClaim(claim).includes(name))) return true;
    const volumes = await ctx.client.of<PersistentVolume>(PERSISTENT_VOLUMES).list();
    return volumes.items.some(volume => namedByVolume(volume).includes(name));
  };
  const withFinalizers = (found: VolumeAttributesClass, finalizers: string[]) =>
    target.update({ ...found, metadata: { ...found.metadata, finalizers } });
  // A user that goes, or takes another class, no longer has in `object` what it had in `old`.
  const released = <T>(named: (one: T) => string[], change: { readonly object?: T; readonly old?: T }) =>
    [change.old, change.object].flatMap(one => (one ? named(one) : [])).filter(isHeld);

  return {
    name: 'vacprotection',
    watches: [
      watch<VolumeAttributesClass>(VOLUME_ATTRIBUTES_CLASSES, change =>
        change.deleted ? [] : [change.object.metadata.name],
      ),
      watch<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, change => released(namedByClaim, change)),
      watch<PersistentVolume>(PERSISTENT_VOLUMES, change => released(namedByVolume, change)),
    ],
    async reconcile({ name }) {
      const found = classes.get(name);
      if (!found) return;
      const finalizers = found.metadata.finalizers ?? [];
      const isThere = finalizers.includes(FINALIZER);
      if (found.metadata.deletionTimestamp === undefined) {
        if (!isThere) await withFinalizers(found, [...finalizers, FINALIZER]);
      } else if (isThere && !(await isNamed(name)))
        await withFinalizers(
          found,
          finalizers.filter(one => one !== FINALIZER),
        );
    },
  };
}

export const vacProtection: ControllerDefinition = {
  folder: 'vacprotection',
  component: 'volumeattributesclass-protection-controller',
  create,
};
