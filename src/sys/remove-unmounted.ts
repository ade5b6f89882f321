/**
 * Removal of folders in which file systems may still be mounted, whose content is then somebody else's. Invariant: nothing is
 * removed before everything below was seen to belong to the folder's own mount. It looks at no mounted root, which may be a dead
 * server's, and not at the mount table, which on a full node has thousands of entries.
 */

import { closeSync, constants, openSync, readdirSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { declare, type SystemError } from './libc.ts';
import { mountTable } from './mount.ts';

const O_PATH = 0o10000000;
const RESOLVE_NO_XDEV = 1n;
const RESOLVE_BENEATH = 8n;
/** The same number on every architecture; C libraries have no function for it. */
const SYS_OPENAT2 = 437;
const HOW_BYTES = 24;

const openat2 = declare<[call: number, at: number, path: string, how: Uint8Array, bytes: number]>(
  'long syscall(long call, int at, const char *path, _In_ void *how, size_t bytes)',
);
const HOW = Buffer.alloc(HOW_BYTES);
HOW.writeBigUInt64LE(BigInt(O_PATH | constants.O_NOFOLLOW | 0o2000000), 0);
HOW.writeBigUInt64LE(RESOLVE_NO_XDEV | RESOLVE_BENEATH, 16);

/** Removes a folder and all in it, but refuses, removing nothing, when something is mounted at or below it. */
export function removeUnmounted(folder: string): void {
  let parent: number;
  try {
    parent = openSync(dirname(folder), constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  try {
    const mounted = mountedBelow(parent, basename(folder), folder);
    if (mounted) throw new Error(`${folder} is not removed: ${mounted} is still mounted`);
  } finally {
    closeSync(parent);
  }
  rmSync(folder, { recursive: true, force: true });
}

/** The first path at or below `name` where something is mounted; `path` is what it is called in the answer. */
function mountedBelow(parent: number, name: string, path: string, isFolder = true): string | undefined {
  let fd: number;
  try {
    fd = openat2(SYS_OPENAT2, parent, name, HOW, HOW_BYTES);
  } catch (error) {
    const { code } = error as SystemError;
    if (code === 'EXDEV') return path;
    if (code === 'ENOENT') return undefined;
    if (code !== 'ENOSYS') throw error;
    return mountTable().find(({ mountPoint }) => mountPoint === path || mountPoint.startsWith(`${path}/`))?.mountPoint;
  }
  try {
    for (const entry of isFolder ? readdirSync(`/proc/self/fd/${fd}/`, { withFileTypes: true }) : []) {
      const found = mountedBelow(fd, entry.name, join(path, entry.name), entry.isDirectory());
      if (found) return found;
    }
    return undefined;
  } finally {
    closeSync(fd);
  }
}
