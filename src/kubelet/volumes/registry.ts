/** Every kind of volume this kubelet has. A volume of another kind is refused with an event that lists these. */

import { emptyDirVolume } from './empty-dir.ts';
import { configMapVolume, downwardVolume, projectedVolume, secretVolume } from './file-volumes.ts';
import { hostPathVolume } from './host-path.ts';
import type { VolumePlugin } from './volume.ts';

export const VOLUME_PLUGINS: readonly VolumePlugin<never>[] = [
  emptyDirVolume,
  hostPathVolume,
  configMapVolume,
  secretVolume,
  downwardVolume,
  projectedVolume,
];
