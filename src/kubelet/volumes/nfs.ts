/** nfs: a share of an NFS server, version 3 or 4 as the mount options or the server say. Locks live on the server. */

import type { NFSVolumeSource } from '../../api/core/v1.gen.ts';
import { bracketed, mountRemote, unmountRemote } from './remote-mount.ts';
import type { VolumePlugin } from './volume.ts';

export const nfsVolume: VolumePlugin<NFSVolumeSource> = {
  source: 'nfs',
  folder: 'kubernetes.io~nfs',
  isRemote: true,
  async mount({ server, path, readOnly = false }, target, { use, signal }) {
    await mountRemote({
      type: 'nfs',
      source: `${bracketed(server)}:${path}`,
      target: target.path,
      options: use.mountOptions,
      isReadOnly: readOnly || use.isReadOnly,
      debianPackage: 'nfs-common',
      signal,
    });
  },
  async unmount({ path }) {
    unmountRemote(path);
  },
};
