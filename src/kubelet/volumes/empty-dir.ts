/** emptyDir: an empty folder that lives as long as the pod, on disk or in memory. */

import { chmodSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import type { EmptyDirVolumeSource } from '../../api/core/v1.gen.ts';
import { quantityValue } from '../../api/machinery/quantity.ts';
import { isInMemory, mountTmpfs, unmount } from '../../sys/mount.ts';
import type { VolumePlugin } from './volume.ts';

export const emptyDirVolume: VolumePlugin<EmptyDirVolumeSource> = {
  source: 'emptyDir',
  folder: 'kubernetes.io~empty-dir',
  isRelabelled: true,
  ownsFiles: true,
  async mount(source, target, context) {
    // After a restart of the machine the folder is there, but no memory under it.
    if (existsSync(target.path) && (source.medium !== 'Memory' || isInMemory(target.path))) return;
    if (source.medium === 'Memory') {
      const limits = context.pod.spec.containers.map(container =>
        quantityValue(container.resources?.limits?.['memory']),
      );
      const podBytes = limits.every(bytes => bytes > 0)
        ? limits.reduce((sum, bytes) => sum + bytes, 0)
        : context.node.memoryBytes;
      const wishBytes = quantityValue(source.sizeLimit);
      mountTmpfs(target.path, { mode: 0o777, sizeBytes: wishBytes > 0 ? Math.min(wishBytes, podBytes) : podBytes });
    } else if (!source.medium) {
      mkdirSync(target.path);
    } else {
      throw new Error(
        `emptyDir medium ${JSON.stringify(source.medium)} is not supported by this kubelet: it has "" and "Memory"`,
      );
    }
    chmodSync(target.path, 0o777);
  },
  async unmount(target) {
    unmount(target.path);
    rmSync(target.path, { recursive: true, force: true });
  },
};
