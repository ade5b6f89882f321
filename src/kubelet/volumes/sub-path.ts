/**
 * Mounts of a part of a volume. Invariant: what is bound into the container lies inside the volume, even if a process of the
 * pod swaps folders for links meanwhile: the path is opened, the open file's real place checked, and that very file bound.
 */

import {
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { bindMount, unmount } from '../../sys/mount.ts';

const O_PATH = 0o10000000;

/** Binds `volume/subPath` at `pin` (made here) and returns `pin`. A missing path is made as a folder. */
export function pinSubPath(options: {
  readonly volume: string;
  readonly subPath: string;
  readonly pin: string;
}): string {
  const { volume, subPath, pin } = options;
  if (subPath.startsWith('/') || subPath.split('/').includes('..'))
    throw new Error(`subPath ${JSON.stringify(subPath)} must be a relative path inside the volume`);
  const base = realpathSync(volume);
  makeMissing(base, subPath);
  const fd = openSync(join(base, subPath), O_PATH | constants.O_RDONLY);
  try {
    const real = readlinkSync(`/proc/self/fd/${fd}`);
    if (real !== base && !real.startsWith(`${base}/`))
      throw new Error(`subPath ${JSON.stringify(subPath)} leads outside of the volume`);
    if (existsSync(pin)) unmount(pin);
    mkdirSync(dirname(pin), { recursive: true, mode: 0o750 });
    if (statSync(`/proc/self/fd/${fd}`).isDirectory()) mkdirSync(pin, { recursive: true });
    else writeFileSync(pin, '');
    bindMount(`/proc/self/fd/${fd}`, pin, { recursive: true });
    return pin;
  } finally {
    closeSync(fd);
  }
}

// One folder at a time, each checked to lie inside before anything is made in it.
function makeMissing(base: string, subPath: string): void {
  let at = base;
  for (const part of subPath.split('/').filter(part => part !== '' && part !== '.')) {
    const next = join(at, part);
    const stat = lstatSync(next, { throwIfNoEntry: false });
    if (!stat) mkdirSync(next, { mode: 0o750 });
    at = stat?.isSymbolicLink() ? realpathSync(next) : next;
    if (at !== base && !at.startsWith(`${base}/`))
      throw new Error(`subPath ${JSON.stringify(subPath)} leads outside of the volume`);
  }
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
