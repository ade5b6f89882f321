/**
 * Every kind of volume this kubelet has, of pods and of persistent volumes. To add one: a file (or folder) that exports a
 * VolumePlugin and a line here. A volume of another kind is refused with an event that lists these.
 */

import { cephfsVolume } from './cephfs.ts';
import { csiVolume } from './csi/csi-volume.ts';
import { emptyDirVolume } from './empty-dir.ts';
import { configMapVolume, downwardVolume, projectedVolume, secretVolume } from './file-volumes.ts';
import { gitRepoVolume } from './git-repo.ts';
import { glusterfsVolume } from './glusterfs.ts';
import { hostPathVolume } from './host-path.ts';
import { imageVolume } from './image.ts';
import { iscsiVolume } from './iscsi/iscsi-volume.ts';
import { localVolume } from './local.ts';
import { nfsVolume } from './nfs.ts';
import type { VolumePlugin } from './volume.ts';

export const VOLUME_PLUGINS: readonly VolumePlugin<never>[] = [
  emptyDirVolume,
  hostPathVolume,
  configMapVolume,
  secretVolume,
  downwardVolume,
  projectedVolume,
  localVolume,
  gitRepoVolume,
  nfsVolume,
  iscsiVolume,
  glusterfsVolume,
  cephfsVolume,
  imageVolume,
  csiVolume,
];
