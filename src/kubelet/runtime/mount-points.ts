/**
 * The lowest layer of every container: folders and files that system mounts cover. With them in place crun makes none in the
 * container's own layer, which costs a write to the disk each, twice over. An image's own entries lie above and win.
 * Invariant: a layer is complete once it can be seen, and never changes. It holds only mount points that the container has.
 */

import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** By destination; the position is the bit in a layer's name. Order is part of the names on disk. */
const POINTS = [
  { path: '/proc', isFolder: true },
  { path: '/sys', isFolder: true },
  { path: '/dev', isFolder: true },
  { path: '/etc/hosts', isFolder: false },
  { path: '/etc/hostname', isFolder: false },
  { path: '/etc/resolv.conf', isFolder: false },
  { path: '/var/run/secrets/kubernetes.io/serviceaccount', isFolder: true },
] as const;

const SCRATCH = '.new-';

export class MountPoints {
  readonly #dir: string;
  readonly #made = new Set<string>();

  constructor(dir: string) {
    this.#dir = dir;
    mkdirSync(dir, { recursive: true, mode: 0o711 });
    for (const name of readdirSync(dir))
      if (name.startsWith(SCRATCH)) rmSync(join(dir, name), { recursive: true, force: true });
  }

  /** Folder of the layer for a container with these mounts. */
  layer(destinations: readonly string[]): string {
    const points = POINTS.filter(point => destinations.includes(point.path));
    const name = points.reduce((bits, point) => bits | (1 << POINTS.indexOf(point)), 0).toString(16);
    const path = join(this.#dir, name);
    if (this.#made.has(name)) return path;
    if (!existsSync(path)) {
      const fresh = join(this.#dir, `${SCRATCH}${randomBytes(4).toString('hex')}`);
      mkdirSync(fresh, { mode: 0o755 });
      for (const point of points) {
        const at = join(fresh, point.path);
        mkdirSync(point.isFolder ? at : dirname(at), { recursive: true, mode: 0o755 });
        if (!point.isFolder) writeFileSync(at, '', { mode: 0o755 });
      }
      renameSync(fresh, path);
    }
    this.#made.add(name);
    return path;
  }
}
