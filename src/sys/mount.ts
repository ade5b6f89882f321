/**
 * Mounts of the calling process's mount namespace: bind, overlay, tmpfs, unmount and the mount table.
 * Invariant: every unmount is idempotent and detaches (open files keep working). It refuses to follow a symlink it unmounts.
 */

import { mkdirSync, readFileSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import {
  MNT_DETACH,
  MS_BIND,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_PRIVATE,
  MS_RDONLY,
  MS_REC,
  MS_REMOUNT,
  MS_SHARED,
  mount,
  SystemError,
  umount2,
} from './libc.ts';

const UMOUNT_NOFOLLOW = 8;
/** An option string longer than one page is refused by the kernel. */
const MOUNT_DATA_BYTES_MAX = 4095;

export interface OverlayOptions {
  /** Top layer first, relative to `lowerBase`. */
  readonly lower: readonly string[];
  readonly lowerBase: string;
  readonly upper: string;
  readonly work: string;
  readonly target: string;
  /** Where `lowerBase` is, if the layers are to be seen through another mount of it. */
  readonly lowerView?: string;
  /** SELinux label of everything in it. */
  readonly label?: string;
}

/** The mount option that gives all files a label; the quotes are for its commas. */
export const contextOption = (label: string): string => `context="${label}"`;

/**
 * Mounts an overlay. Layers are named relative to their common folder, so that a hundred of them fit the option page.
 * The working directory changes for the length of one synchronous call only. Writes are not synced at unmount
 * (`volatile`): a writable layer never outlives the machine's boot anyway.
 */
export function mountOverlay(options: OverlayOptions): void {
  const { lower, lowerBase, lowerView = lowerBase, upper, work, target, label } = options;
  const layers = `lowerdir=${lower.join(':')},upperdir=${upper},workdir=${work}`;
  const base = label === undefined ? layers : `${layers},${contextOption(label)}`;
  if (base.length > MOUNT_DATA_BYTES_MAX)
    throw new Error(`image has too many layers for one overlay mount: ${lower.length}`);
  const before = process.cwd();
  process.chdir(lowerView);
  try {
    try {
      mount('overlay', target, 'overlay', 0, `${base},volatile`);
    } catch (error) {
      if (!(error instanceof SystemError) || error.code !== 'EINVAL') throw error;
      mount('overlay', target, 'overlay', 0, base);
    }
  } finally {
    process.chdir(before);
  }
}

/** Layers (top first, relative to `lowerBase`) as one folder that cannot be written, and from which nothing can be run. */
export function mountLayers(options: {
  readonly lower: readonly string[];
  readonly lowerBase: string;
  readonly target: string;
  /** As of an overlay's. */
  readonly lowerView?: string;
}): void {
  const { lowerBase, lowerView = lowerBase, target } = options;
  // An overlay without an upper layer needs two: nothing is the second of one.
  const lower = options.lower.length > 1 ? options.lower : [...options.lower, 'empty', 'empty2'].slice(0, 2);
  for (const name of ['empty', 'empty2'])
    if (lower.includes(name)) mkdirSync(join(lowerBase, name), { recursive: true, mode: 0o755 });
  const data = `lowerdir=${lower.join(':')}`;
  if (data.length > MOUNT_DATA_BYTES_MAX)
    throw new Error(`image has too many layers for one overlay mount: ${options.lower.length}`);
  const before = process.cwd();
  process.chdir(lowerView);
  try {
    mount('overlay', target, 'overlay', MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, data);
  } finally {
    process.chdir(before);
  }
}

export function mountTmpfs(
  target: string,
  options: { sizeBytes?: number; mode?: number; inodesMax?: number } = {},
): void {
  const data = [`mode=${(options.mode ?? 0o755).toString(8)}`];
  if (options.sizeBytes !== undefined) data.push(`size=${options.sizeBytes}`);
  if (options.inodesMax !== undefined) data.push(`nr_inodes=${options.inodesMax}`);
  mkdirSync(target, { recursive: true });
  mount('tmpfs', target, 'tmpfs', MS_NOSUID | MS_NODEV, data.join(','));
}

export function mountHugePages(
  target: string,
  { pageBytes, sizeBytes }: { readonly pageBytes: number; readonly sizeBytes?: number },
): void {
  mkdirSync(target, { recursive: true });
  const data = [`mode=777,pagesize=${pageBytes}`, ...(sizeBytes === undefined ? [] : [`size=${sizeBytes}`])];
  mount('nodev', target, 'hugetlbfs', MS_NOSUID | MS_NODEV, data.join(','));
}

const HUGETLBFS_MAGIC = 0x958458f6;

/** Whether a path lies on huge pages. */
export function isOnHugePages(path: string): boolean {
  return statfsSync(path).type >>> 0 === HUGETLBFS_MAGIC;
}

const TMPFS_MAGIC = 0x01021994;

/** Whether a path lies on a tmpfs. */
export function isInMemory(path: string): boolean {
  return statfsSync(path).type === TMPFS_MAGIC;
}

export function mountShm(target: string, options: { readonly sizeBytes: number; readonly owner?: number }): void {
  const { sizeBytes, owner = 0 } = options;
  mkdirSync(target, { recursive: true });
  const data = `mode=1777,size=${sizeBytes},uid=${owner},gid=${owner}`;
  mount('shm', target, 'tmpfs', MS_NOSUID | MS_NODEV | MS_NOEXEC, data);
}

/** Binds `source` at `target`, which must exist and be of the same sort (file or folder). */
export function bindMount(
  source: string,
  target: string,
  options: { readOnly?: boolean; recursive?: boolean; private?: boolean; shared?: boolean } = {},
): void {
  mount(source, target, null, MS_BIND | (options.recursive ? MS_REC : 0), null);
  if (options.readOnly) mount('none', target, null, MS_BIND | MS_REMOUNT | MS_RDONLY, null);
  if (options.private) mount('none', target, null, MS_PRIVATE, null);
  if (options.shared) mount('none', target, null, MS_SHARED | MS_REC, null);
}

/** Detaches what is mounted at `target`, all of a stack of mounts; false when nothing was. */
export function unmount(target: string): boolean {
  let found = false;
  for (let layer = 0; layer < 16; layer++) {
    try {
      umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW);
      found = true;
    } catch (error) {
      if (
        error instanceof SystemError &&
        (error.code === 'EINVAL' || error.code === 'ENOENT' || error.code === 'ENOTDIR')
      )
        return found;
      throw error;
    }
  }
  return found;
}

export interface MountEntry {
  /** `major:minor` of the file system. */
  readonly device: string;
  /** What was mounted: `/dev/loop0`, `server:/share`. */
  readonly source: string;
  readonly mountPoint: string;
  readonly fsType: string;
  readonly root: string;
  readonly superOptions: string;
}

const unescapeOctal = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));

/** The mount table in mount order. */
export function mountTable(text = readFileSync('/proc/self/mountinfo', 'utf8')): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const [left, right] = line.split(' - ');
    if (!left || !right) continue;
    const fields = left.split(' ');
    const tail = right.split(' ');
    entries.push({
      device: fields[2]!,
      source: unescapeOctal(tail[1] ?? ''),
      root: unescapeOctal(fields[3]!),
      mountPoint: unescapeOctal(fields[4]!),
      fsType: tail[0]!,
      superOptions: tail[2] ?? '',
    });
  }
  return entries;
}

/** Detaches everything mounted at or below `folder`, deepest first. */
export function unmountBelow(folder: string): void {
  const points = mountTable()
    .map(entry => entry.mountPoint)
    .filter(point => point === folder || point.startsWith(`${folder}/`));
  for (const point of points.reverse()) unmount(point);
}

/** Whether something is mounted at just this path, a bind of the same file system too. It touches only the mount table. */
export function isMountPoint(path: string): boolean {
  return mountTable().some(entry => entry.mountPoint === path);
}
