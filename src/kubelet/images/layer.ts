/**
 * Unpacks one image layer into a folder that overlayfs can use as a lower layer: whiteouts become 0:0 devices, opaque
 * folders get their attribute. Invariant: nothing is ever written outside the folder, whatever the archive says.
 */

import {
  chmodSync,
  closeSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  realpathSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { SystemError } from '../../sys/libc.ts';
import { makeNode, S_IFBLK, S_IFCHR, S_IFIFO, setAttribute } from '../../sys/xattr.ts';
import { resolveBelow } from '../rooted-path.ts';
import { readTar, type TarEntry } from './tar.ts';

const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';

/** Small files cost the disk more than they say. */
const ENTRY_BYTES = 1024;
const ENTRIES_MAX = 2_000_000;
/** So often the disk is asked whether it has room. */
const ROOM_CHECK_BYTES = 16 << 20;

export interface UnpackOptions {
  /** Bytes that the disk can still spare; unpacking ends when there are none. */
  readonly spareBytes?: () => number;
}

/**
 * Writes the layer's files below `root`, which must exist and be empty. Returns the bytes of file content. Rejects, with the folder
 * half full, when the disk has no room.
 */
export async function unpackLayer(
  archive: AsyncIterable<Buffer>,
  root: string,
  { spareBytes = () => Number.POSITIVE_INFINITY }: UnpackOptions = {},
): Promise<number> {
  let unchecked = ROOM_CHECK_BYTES;
  const take = (count: number) => {
    unchecked += count;
    if (unchecked < ROOM_CHECK_BYTES) return;
    unchecked = 0;
    if (spareBytes() <= 0) throw new Error('no space left for the layer on the disk of the image store');
  };
  let bytes = 0;
  let entries = 0;
  // Without links on the way, so that what is inside can be told by its path.
  root = realpathSync(root);
  const folderTimes: { path: string; mtimeMs: number }[] = [];
  chmodSync(root, 0o755);
  for await (const entry of readTar(archive)) {
    if (!(entry.size >= 0)) throw new Error(`layer entry has no size: ${entry.path}`);
    if (++entries > ENTRIES_MAX) throw new Error(`layer has too many entries, more than ${ENTRIES_MAX}`);
    take(ENTRY_BYTES);
    const name = entry.path.replace(/^(\.?\/+)+/, '').replace(/\/+$/, '');
    if (name === '' || name === '.') {
      if (entry.type === 'directory') applyOwner(root, entry);
      continue;
    }
    const parts = name.split('/').filter(part => part !== '' && part !== '.');
    if (parts.includes('..')) throw new Error(`layer entry escapes its folder: ${entry.path}`);
    const base = parts.pop()!;
    const folder = resolveFolder(root, parts);
    if (base === OPAQUE) {
      setAttribute(folder, 'trusted.overlay.opaque', Buffer.from('y'));
      continue;
    }
    if (base.startsWith(WHITEOUT)) {
      const hidden = join(folder, base.slice(WHITEOUT.length));
      if (base.slice(WHITEOUT.length) === '' || base === `${WHITEOUT}..` || base === `${WHITEOUT}.`)
        throw new Error(`bad whiteout: ${entry.path}`);
      rmSync(hidden, { recursive: true, force: true });
      makeNode(hidden, S_IFCHR);
      continue;
    }
    const target = join(folder, base);
    bytes += await place(entry, target, { root, take });
    if (entry.type === 'directory') folderTimes.push({ path: target, mtimeMs: entry.mtimeMs });
  }
  // Children changed their folders' times while they were written.
  // A link may have taken the folder's place, or that of one above it.
  for (const { path, mtimeMs } of folderTimes.reverse())
    if (isRealFolder(path)) utimesSync(path, mtimeMs / 1000, mtimeMs / 1000);
  return bytes;
}

function isRealFolder(path: string): boolean {
  try {
    return realpathSync(path) === path && lstatSync(path).isDirectory();
  } catch {
    return false;
  }
}

async function place(
  entry: TarEntry,
  target: string,
  { root, take }: { readonly root: string; readonly take: (count: number) => void },
): Promise<number> {
  const present = lstatSync(target, { throwIfNoEntry: false });
  if (present && !(entry.type === 'directory' && present.isDirectory()))
    rmSync(target, { recursive: true, force: true });
  switch (entry.type) {
    case 'directory':
      mkdirSync(target, { recursive: true });
      applyOwner(target, entry);
      return 0;
    case 'file': {
      const fd = openSync(target, 'wx', 0o600);
      try {
        for await (const part of entry.body()) {
          take(part.length);
          for (let at = 0; at < part.length; ) at += writeSync(fd, part, at);
        }
      } finally {
        closeSync(fd);
      }
      applyOwner(target, entry);
      utimesSync(target, entry.mtimeMs / 1000, entry.mtimeMs / 1000);
      return entry.size;
    }
    case 'link': {
      const parts = entry.linkPath.split('/').filter(part => part !== '' && part !== '.');
      if (parts.includes('..')) throw new Error(`layer link escapes its folder: ${entry.linkPath}`);
      const base = parts.pop()!;
      linkSync(join(resolveFolder(root, parts), base), target);
      return 0;
    }
    case 'symlink':
      symlinkSync(entry.linkPath, target);
      lchownSync(target, entry.uid, entry.gid);
      applyAttributes(target, entry);
      lutimesSync(target, entry.mtimeMs / 1000, entry.mtimeMs / 1000);
      return 0;
    case 'character':
    case 'block':
    case 'fifo':
      makeNode(
        target,
        (entry.type === 'fifo' ? S_IFIFO : entry.type === 'block' ? S_IFBLK : S_IFCHR) | 0o600,
        entry.deviceMajor,
        entry.deviceMinor,
      );
      applyOwner(target, entry);
      return 0;
    default:
      return 0;
  }
}

// chown clears set-id bits and file capabilities, so mode and attributes come after it.
function applyOwner(target: string, entry: TarEntry): void {
  lchownSync(target, entry.uid, entry.gid);
  chmodSync(target, entry.mode);
  applyAttributes(target, entry);
}

function applyAttributes(target: string, entry: TarEntry): void {
  for (const [name, value] of entry.attributes) {
    if (name.startsWith('trusted.overlay.')) continue;
    try {
      setAttribute(target, name, value);
    } catch (error) {
      if (!(error instanceof SystemError && (error.code === 'EOPNOTSUPP' || error.code === 'EPERM'))) throw error;
    }
  }
}

/** The real folder for path components below `root`, made where missing; symlinks resolve as if `root` were `/`. */
export function resolveFolder(root: string, parts: readonly string[]): string {
  const folder = resolveBelow(root, parts.join('/'), (at, found) => {
    if (found && !found.isDirectory()) rmSync(at, { force: true });
    if (!found?.isDirectory()) mkdirSync(at, { mode: 0o755 });
    return true;
  });
  if (folder === undefined) throw new Error(`too many symlinks in layer at ${parts.join('/')}`);
  return folder;
}
