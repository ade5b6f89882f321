/**
 * Network namespaces: made, pinned to a path by a bind mount, entered and left again, deleted.
 * Invariant: `inNamespace` returns on the calling thread's own namespace whatever `work` did; should the way back fail, the
 * process aborts, because everything after would change the wrong namespace. It refuses asynchronous work, which would run
 * after the return.
 */

import { closeSync, mkdirSync, openSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { assert } from '../base/assert.ts';
import {
  CLONE_NEWNET,
  MNT_DETACH,
  MS_BIND,
  MS_REC,
  MS_SHARED,
  mount,
  SystemError,
  setns,
  umount2,
  unshare,
} from './libc.ts';

/** Where `ip netns` keeps names; a bare name means a file in here. */
export const NETNS_DIRECTORY = '/run/netns';

/** An open descriptor, an absolute path of a pinned namespace or `/proc/PID/ns/net`, or a bare name. */
export type NetnsRef = number | string;

export function netnsPath(nameOrPath: string): string {
  return nameOrPath.startsWith('/') ? nameOrPath : `${NETNS_DIRECTORY}/${nameOrPath}`;
}

/** Opens a namespace; the caller closes it with `closeNetns`. Throws ENOENT and the like. */
export function openNetns(nameOrPath: string): number {
  return openSync(netnsPath(nameOrPath), 'r');
}

export function closeNetns(fd: number): void {
  closeSync(fd);
}

/** A descriptor of the calling thread's own namespace. */
export function openOwnNetns(): number {
  return openSync('/proc/thread-self/ns/net', 'r');
}

/** Runs `work` with the calling thread inside the namespace, and comes back. `work` must be synchronous. */
export function inNamespace<T>(namespace: NetnsRef, work: () => T): T {
  const target = typeof namespace === 'number' ? namespace : openNetns(namespace);
  try {
    return visit(() => setns(target, CLONE_NEWNET), work);
  } finally {
    if (typeof namespace !== 'number') closeSync(target);
  }
}

function visit<T>(go: () => void, work: () => T): T {
  const home = openOwnNetns();
  try {
    go();
    try {
      const result = work();
      assert(!(result instanceof Promise), 'work inside a namespace must be synchronous');
      return result;
    } finally {
      try {
        setns(home, CLONE_NEWNET);
      } catch {
        process.abort();
      }
    }
  } finally {
    closeSync(home);
  }
}

/**
 * Makes a namespace and pins it at the name or path. Only `lo` is in it, and down unless `loopbackUp`. Throws EEXIST when
 * something is pinned there; a plain file left by a crash between creation and pinning is reused.
 */
export function createNetns(nameOrPath: string, work?: () => void): void {
  const path = netnsPath(nameOrPath);
  if (path.startsWith(`${NETNS_DIRECTORY}/`)) shareNetnsDirectory();
  else mkdirSync(dirname(path), { recursive: true });
  if (isNetns(path)) throw new SystemError('mount', 17, path);
  writeFileSync(path, '', { mode: 0o444 });
  try {
    visit(
      () => unshare(CLONE_NEWNET),
      () => {
        mount('/proc/thread-self/ns/net', path, 'none', MS_BIND, null);
        work?.();
      },
    );
  } catch (error) {
    deleteNetns(path);
    throw error;
  }
}

/** Unpins and removes the file; the kernel frees the namespace once nothing is in it. Idempotent. */
export function deleteNetns(nameOrPath: string): void {
  const path = netnsPath(nameOrPath);
  try {
    umount2(path, MNT_DETACH);
  } catch (error) {
    // ENOENT: gone; EINVAL: a plain file, nothing mounted.
    if (!(error instanceof SystemError) || !['ENOENT', 'EINVAL'].includes(error.code)) throw error;
  }
  rmSync(path, { force: true });
}

/** Whether a live namespace is pinned at the name or path. */
export function isNetns(nameOrPath: string): boolean {
  const path = netnsPath(nameOrPath);
  const found = statSync(path, { throwIfNoEntry: false });
  // Every namespace is a file of the nsfs file system, whose device is that of our own.
  return found !== undefined && found.dev === statSync('/proc/thread-self/ns/net').dev;
}

/** Names pinned in the directory (default that of `ip netns`), sorted. */
export function listNetns(directory: string = NETNS_DIRECTORY): string[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    return [];
  }
  return names.filter(name => isNetns(`${directory}/${name}`)).sort();
}

// As `ip netns add` does: shared, so that unpinning also reaches mount namespaces that copied the mounts. Without it, a
// container's copy would keep a deleted namespace alive.
function shareNetnsDirectory(): void {
  mkdirSync(NETNS_DIRECTORY, { recursive: true });
  try {
    mount('', NETNS_DIRECTORY, 'none', MS_SHARED | MS_REC, null);
  } catch (error) {
    if (!(error instanceof SystemError) || error.code !== 'EINVAL') throw error;
    mount(NETNS_DIRECTORY, NETNS_DIRECTORY, 'none', MS_BIND | MS_REC, null);
    mount('', NETNS_DIRECTORY, 'none', MS_SHARED | MS_REC, null);
  }
}
