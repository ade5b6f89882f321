/** emptyDir: an empty folder that lives as long as the pod, on disk, in memory or on huge pages. */

import { chmodSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import type { EmptyDirVolumeSource, Pod } from '../../api/core/v1.gen.ts';
import { quantityValue } from '../../api/machinery/quantity.ts';
import { isInMemory, isOnHugePages, mountHugePages, mountTmpfs, unmount } from '../../sys/mount.ts';
import { hugePageNames } from '../pods/resources.ts';
import type { VolumePlugin } from './volume.ts';

export const emptyDirVolume: VolumePlugin<EmptyDirVolumeSource> = {
  source: 'emptyDir',
  folder: 'kubernetes.io~empty-dir',
  isRelabelled: true,
  ownsFiles: true,
  async mount(source, target, context) {
    // After a restart of the machine the folder is there, but no memory under it.
    const isHuge = /^HugePages(-|$)/.test(source.medium ?? '');
    if (
      existsSync(target.path) &&
      (isHuge ? isOnHugePages(target.path) : source.medium !== 'Memory' || isInMemory(target.path))
    )
      return;
    if (source.medium === 'Memory') {
      const limits = context.pod.spec.containers.map(container =>
        quantityValue(container.resources?.limits?.['memory']),
      );
      const podBytes = limits.every(bytes => bytes > 0)
        ? limits.reduce((sum, bytes) => sum + bytes, 0)
        : context.node.memoryBytes;
      const wishBytes = quantityValue(source.sizeLimit);
      mountTmpfs(target.path, { mode: 0o777, sizeBytes: wishBytes > 0 ? Math.min(wishBytes, podBytes) : podBytes });
    } else if (isHuge) {
      const sizeBytes = quantityValue(source.sizeLimit);
      mountHugePages(target.path, {
        pageBytes: pageBytesOf(context.pod, source.medium!),
        ...(sizeBytes > 0 ? { sizeBytes } : {}),
      });
    } else if (!source.medium) {
      mkdirSync(target.path);
    } else {
      throw new Error(
        `emptyDir medium ${JSON.stringify(source.medium)} is not supported by this kubelet: it has "", "Memory" and "HugePages"`,
      );
    }
    chmodSync(target.path, 0o777);
  },
  async unmount(target) {
    unmount(target.path);
    rmSync(target.path, { recursive: true, force: true });
  },
};

/** The size that the medium names, or the only one that the pod asks for. */
function pageBytesOf(pod: Pod, medium: string): number {
  const asked = hugePageNames(pod);
  if (medium === 'HugePages') {
    if (asked.length > 1)
      throw new Error(
        `medium HugePages is for pods that ask for huge pages of one size; this one asks for ${asked.join(' and ')}: say medium HugePages-SIZE`,
      );
    if (asked.length === 0)
      throw new Error('medium HugePages: hugePages storage requested, but there is no resource request for huge pages');
    return quantityValue(asked[0]!.slice('hugepages-'.length));
  }
  const size = medium.slice('HugePages-'.length);
  if (!asked.includes(`hugepages-${size}`))
    throw new Error(
      `medium ${medium}: hugePages storage requested, but there is no resource request for hugepages-${size}`,
    );
  return quantityValue(size);
}
