/**
 * local: a folder or disk of this node, given as a persistent volume. A folder is bound to the target; a disk is formatted when
 * it is empty, mounted once for the node, and bound from there; in block mode it is handed over as it is.
 */

import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, rmdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { LocalVolumeSource } from '../../api/core/v1.gen.ts';
import { mountDisk } from '../../sys/block-device.ts';
import { bindMount, isMountPoint, mountTable, unmount } from '../../sys/mount.ts';
import type { VolumeContext, VolumePlugin, VolumeTarget } from './volume.ts';

const FS_TYPE_DEFAULT = 'ext4';

function stat(path: string) {
  const found = statSync(path, { throwIfNoEntry: false });
  if (!found) throw new Error(`path ${JSON.stringify(path)} does not exist`);
  return found;
}

/** Where a disk is mounted for all pods of the node. */
function diskMount(rootDir: string, path: string): string {
  return join(
    rootDir,
    'plugins',
    'kubernetes.io~local-volume',
    'mounts',
    createHash('sha256').update(path).digest('hex').slice(0, 32),
  );
}

async function folderOf({ path, fsType }: LocalVolumeSource, context: VolumeContext): Promise<string> {
  const found = stat(path);
  if (found.isDirectory()) return path;
  if (!found.isBlockDevice()) throw new Error(`path ${JSON.stringify(path)} is neither a directory nor a block device`);
  const folder = diskMount(context.volumes.rootDir, path);
  if (isMountPoint(folder)) return folder;
  mkdirSync(folder, { recursive: true, mode: 0o750 });
  await mountDisk({
    device: path,
    target: folder,
    fsType: fsType || FS_TYPE_DEFAULT,
    options: context.use.mountOptions,
    isReadOnly: context.use.isReadOnly,
    signal: context.signal,
  });
  return folder;
}

export const localVolume: VolumePlugin<LocalVolumeSource> = {
  source: 'local',
  folder: 'kubernetes.io~local-volume',
  isRelabelled: true,
  ownsFiles: true,
  async mount(source: LocalVolumeSource, target: VolumeTarget, context: VolumeContext) {
    if (isMountPoint(target.path)) return;
    const folder = await folderOf(source, context);
    mkdirSync(target.path, { recursive: true, mode: 0o750 });
    bindMount(folder, target.path, { readOnly: context.use.isReadOnly });
  },
  async unmount({ path }, { rootDir }) {
    const device = deviceBelow(path, join(rootDir, 'plugins', 'kubernetes.io~local-volume', 'mounts'));
    unmount(path);
    if (existsSync(path)) rmdirSync(path);
    if (!device) return;
    // The last pod takes the node's own mount of the disk with it.
    const users = mountTable().filter(entry => entry.device === device.id);
    if (users.length === 1 && users[0]!.mountPoint === device.folder) {
      unmount(device.folder);
      rmdirSync(device.folder);
    }
  },
  async map({ path }: LocalVolumeSource) {
    if (!stat(path).isBlockDevice()) throw new Error(`path ${JSON.stringify(path)} is not a block device`);
    return path;
  },
  async unmap() {},
};

function deviceBelow(path: string, folder: string): { readonly id: string; readonly folder: string } | undefined {
  const table = mountTable();
  const mounted = table.findLast(entry => entry.mountPoint === path);
  const own =
    mounted && table.find(entry => entry.device === mounted.device && entry.mountPoint.startsWith(`${folder}/`));
  return own ? { id: own.device, folder: own.mountPoint } : undefined;
}
