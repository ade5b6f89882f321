/**
 * Mounts of a part of a volume. Invariant: what is bound into the container, and every folder that is made, lies inside the volume, even
 * if a process of the pod swaps folders for links meanwhile: each step goes from an open folder to an entry of it that is no link, and
 * the very file that was reached is bound. A swap in the middle is an error, and the pod is tried again.
 */

import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { bindMount, unmount } from '../../sys/mount.ts';

const O_PATH = 0o10000000;
const ENTRY = O_PATH | constants.O_NOFOLLOW;
const FOLDER = ENTRY | constants.O_DIRECTORY;

/** Of a volume that cannot be written. In the words of upstream's runtimes, which look into images themselves. */
export class SubPathMissing extends Error {
  override name = 'SubPathMissing';
}

/** Binds `volume/subPath` at `pin` (made here) and returns `pin`. A missing path is made as folders, as open as the volume itself. */
export function pinSubPath(options: {
  readonly volume: string;
  readonly subPath: string;
  readonly pin: string;
}): string {
  const { volume, subPath, pin } = options;
  if (subPath.startsWith('/') || subPath.split('/').includes('..'))
    throw new Error(`subPath ${JSON.stringify(subPath)} must be a relative path inside the volume`);
  const base = realpathSync(volume);
  const fd = openInside(base, withoutLinks(base, subPath), subPath);
  try {
    const real = readlinkSync(`/proc/self/fd/${fd}`);
    if (real !== base && !real.startsWith(`${base}/`)) throw outside(subPath);
    if (existsSync(pin)) unmount(pin);
    mkdirSync(dirname(pin), { recursive: true, mode: 0o750 });
    if (fstatSync(fd).isDirectory()) mkdirSync(pin, { recursive: true });
    else writeFileSync(pin, '');
    bindMount(`/proc/self/fd/${fd}`, pin, { recursive: true });
    return pin;
  } finally {
    closeSync(fd);
  }
}

const outside = (subPath: string) => new Error(`subPath ${JSON.stringify(subPath)} leads outside of the volume`);
const isMissing = (error: unknown) => (error as NodeJS.ErrnoException).code === 'ENOENT';

/** The names below the volume to which the path leads now: links in it are followed, what is missing stands as it is. */
function withoutLinks(base: string, subPath: string): string[] {
  const names = subPath.split('/').filter(name => name !== '' && name !== '.');
  for (let known = names.length; known >= 0; known--) {
    try {
      const real = realpathSync(join(base, ...names.slice(0, known)));
      if (real !== base && !real.startsWith(`${base}/`)) throw outside(subPath);
      return [...real.slice(base.length).split('/').filter(Boolean), ...names.slice(known)];
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }
  throw new Error(`volume ${base} is gone`);
}

function openInside(base: string, names: readonly string[], subPath: string): number {
  let fd = openSync(base, O_PATH | constants.O_DIRECTORY);
  const mode = fstatSync(fd).mode & 0o7777;
  for (const [i, name] of names.entries()) {
    const parent = fd;
    const isLast = i === names.length - 1;
    const at = `/proc/self/fd/${parent}/${name}`;
    try {
      fd = openEntry(at, { flags: isLast ? ENTRY : FOLDER, mode });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EROFS') throw error;
      throw new SubPathMissing(`ImageVolumeMountFailed: subPath ${JSON.stringify(subPath)} does not exist`);
    } finally {
      closeSync(parent);
    }
    if (isLast && fstatSync(fd).isSymbolicLink()) {
      closeSync(fd);
      throw new Error(`subPath ${JSON.stringify(subPath)} was changed while it was looked up`);
    }
  }
  return fd;
}

function openEntry(at: string, { flags, mode }: { readonly flags: number; readonly mode: number }): number {
  try {
    return openSync(at, flags);
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  // Makes no more than a name in the open folder; a link that is there by now is refused.
  mkdirSync(at, { mode });
  const fd = openSync(at, flags);
  // The umask took a part; a link is left alone, and refused by the caller.
  if (fstatSync(fd).isDirectory()) chmodSync(`/proc/self/fd/${fd}`, mode);
  return fd;
}

/** Undoes all pins below a pod's `volume-subpaths` folder. */
export function unpinSubPaths(folder: string): void {
  if (!existsSync(folder)) return;
  const visit = (at: string, depth: number) => {
    for (const name of readdirSync(at)) {
      const path = join(at, name);
      if (depth === 0) unmount(path);
      else visit(path, depth - 1);
    }
  };
  // <volume>/<container>/<index>
  visit(folder, 2);
  rmSync(folder, { recursive: true, force: true });
}
