/**
 * image: the files of an OCI image as a read-only volume from which nothing can be run. The image is brought as a container's is, by
 * its own pull policy and the pod's secrets. Invariant: while the volume is mounted its image is held, so that nobody removes it.
 */

import { mkdirSync } from 'node:fs';
import type { ImageVolumeSource, Secret } from '../../api/core/v1.gen.ts';
import { SECRETS } from '../../client/resources.ts';
import { isMountPoint, mountLayers, unmount } from '../../sys/mount.ts';
import { removeUnmounted } from '../../sys/remove-unmounted.ts';
import { bindIdmapped, withUserNamespace } from '../../sys/user-namespace.ts';
import type { PullPolicy } from '../images/node-images.ts';
import { parseReference } from '../images/reference.ts';
import { imageVolumeErrors, imageVolumesMounted, imageVolumesRequested } from '../metrics.ts';
import type { VolumeContext, VolumePlugin, VolumeTarget } from './volume.ts';

const holderOf = ({ podUid, name }: VolumeTarget): string => `volume-${podUid}-${name}`;

export const imageVolume: VolumePlugin<ImageVolumeSource> = {
  source: 'image',
  folder: 'kubernetes.io~image',
  isReadOnly: true,
  isNoExec: true,
  isSlow: true,
  isMapped: true,
  async mount(source, target, context) {
    if (isMountPoint(target.path)) return;
    imageVolumesRequested.add();
    try {
      await mountImage(source, target, context);
      imageVolumesMounted.add();
    } catch (error) {
      imageVolumeErrors.add();
      throw error;
    }
  },
  async unmount(target, { images }) {
    unmount(target.path);
    removeUnmounted(target.path);
    images.store.releaseEverywhere(holderOf(target));
  },
};

async function mountImage(
  { reference = '', pullPolicy }: ImageVolumeSource,
  target: VolumeTarget,
  context: VolumeContext,
): Promise<void> {
  const { images } = context.volumes;
  const image = await images.bring({
    pod: context.pod,
    name: reference,
    policy:
      (pullPolicy as PullPolicy | undefined) ??
      (parseReference(reference)?.tag === 'latest' ? 'Always' : 'IfNotPresent'),
    readSecret: name => context.read<Secret>(SECRETS, name),
    tell: context.event,
    signal: context.signal,
  });
  mkdirSync(target.path, { recursive: true, mode: 0o750 });
  images.store.hold(image.id, holderOf(target));
  const { layersDir: lowerBase } = images.store;
  const layers = { lower: [...image.layers].reverse(), lowerBase, target: target.path };
  const ids = context.userIds();
  if (!ids) return mountLayers(layers);
  // An overlay cannot be shown with other owners, its layers can. One that a crash leaves here goes with the volumes.
  const lowerView = `${target.path}~layers`;
  unmount(lowerView);
  try {
    await withUserNamespace(ids, namespace => bindIdmapped(lowerBase, lowerView, { namespace }));
    mountLayers({ ...layers, lowerView });
  } finally {
    unmount(lowerView);
    removeUnmounted(lowerView);
  }
}
