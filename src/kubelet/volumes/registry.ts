/**
 * Every kind of volume this kubelet has, of pods and of persistent volumes. To add one: a file (or folder) that exports a
 * VolumePlugin and a line here. A volume of another kind is refused with an event that tells the way out.
 */

import { cephfsVolume } from './cephfs.ts';
import { csiVolume } from './csi/csi-volume.ts';
import { emptyDirVolume } from './empty-dir.ts';
import { configMapVolume, downwardVolume, projectedVolume, secretVolume } from './file-volumes.ts';
import { flexVolume } from './flex-volume.ts';
import { gitRepoVolume } from './git-repo.ts';
import { glusterfsVolume } from './glusterfs.ts';
import { hostPathVolume } from './host-path.ts';
import { imageVolume } from './image.ts';
import { iscsiVolume } from './iscsi/iscsi-volume.ts';
import { localVolume } from './local.ts';
import { nfsVolume } from './nfs.ts';
import type { SourceName, VolumePlugin } from './volume.ts';

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
  flexVolume,
];

const GONE = 'Kubernetes itself has it no longer';
/** Kinds that the API names and no node here has: why, and what to use instead. */
const WAYS_OUT: Partial<Record<SourceName, string>> = {
  fc: 'no Fibre Channel here: use the CSI driver of the storage, or give the attached disk as a local persistent volume',
  rbd: `${GONE} (since 1.31): use Ceph's CSI driver, rbd.csi.ceph.com`,
  flocker: `${GONE} (since 1.25) and its maker is gone: use a CSI driver`,
  quobyte: `${GONE} (since 1.25): use the CSI driver csi.quobyte.com`,
  storageos: `${GONE} (since 1.25): use the CSI driver csi.storageos.com`,
  scaleIO: `${GONE} (since 1.22): use the CSI driver csi-vxflexos.dellemc.com`,
  photonPersistentDisk: `${GONE} and its platform is gone: use a CSI driver`,
};

export function wayOut(source: SourceName): string {
  return WAYS_OUT[source] ?? `it has ${VOLUME_PLUGINS.map(one => one.source).join(', ')}`;
}
