/**
 * User namespaces: a set of pinned namespaces that belong to a new one, and mounts whose files show other owners (idmapped
 * mounts). Invariant: files keep the owners they have on disk; only who looks through such a mount sees them shifted. A thread
 * of this process cannot enter a user namespace, so a short-lived process makes it.
 */

import { spawn } from 'node:child_process';
import { closeSync, lstatSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { declare, MS_BIND, mount, SystemError } from './libc.ts';
import { arrangeNamespaces, type NamespaceRequest, unpinNamespaces } from './namespaces.ts';

/** Users and groups `0 … length - 1` of the namespace are `hostId …` of the machine. */
export interface IdRange {
  readonly hostId: number;
  readonly length: number;
}

const [MAJOR = 0, MINOR = 0] = release().split('.').map(Number);
/** Overlays can be stacked on idmapped layers since Linux 5.19, and a tmpfs can be mounted so since 6.3. */
export const hasUserNamespaces: boolean = MAJOR > 6 || (MAJOR === 6 && MINOR >= 3);

const MAKE_MS_MAX = 30_000;
const UNSHARE_FLAGS = { net: '--net', ipc: '--ipc', uts: '--uts' } as const;

/** As `pinNamespaces`, all owned by a user namespace that is pinned beside them as `<folder>/user`. */
export async function pinUserNamespaces(request: NamespaceRequest & { readonly ids: IdRange }): Promise<void> {
  const { folder, kinds, ids } = request;
  mkdirSync(folder, { recursive: true, mode: 0o711 });
  for (const kind of ['user', ...kinds]) writeFileSync(join(folder, kind), '');
  try {
    await insideOf(kinds, ids, own => {
      for (const kind of ['user', ...kinds]) mount(`${own}/${kind}`, join(folder, kind), null, MS_BIND, null);
      arrangeNamespaces(request);
    });
  } catch (error) {
    unpinNamespaces(folder);
    throw error;
  }
}

/** Calls with the path of a user namespace that ends with the call. */
export function withUserNamespace(ids: IdRange, use: (namespace: string) => void): Promise<void> {
  return insideOf([], ids, own => use(`${own}/user`));
}

/** Calls with the folder of a process's namespaces, new ones, while it lives. */
async function insideOf(
  kinds: NamespaceRequest['kinds'],
  ids: IdRange,
  use: (namespaces: string) => void,
): Promise<void> {
  const flags = ['--user', ...kinds.map(kind => UNSHARE_FLAGS[kind])];
  // It says when it is inside, and lives until its input ends.
  const child = spawn('unshare', [...flags, '--', 'sh', '-c', 'echo; read -r _'], { timeout: MAKE_MS_MAX });
  const ended = new Promise<void>(resolve => child.once('close', () => resolve()));
  try {
    let complaint = '';
    child.stderr.on('data', chunk => (complaint += chunk));
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.stdout.once('data', () => resolve());
      child.once('close', () => reject(new Error(`no user namespace could be made: ${complaint.trim()}`)));
    });
    for (const map of ['uid_map', 'gid_map'])
      writeFileSync(`/proc/${child.pid}/${map}`, `0 ${ids.hostId} ${ids.length}\n`);
    use(`/proc/${child.pid}/ns`);
  } finally {
    child.stdin.on('error', () => {});
    child.stdin.end();
    await ended;
  }
}

const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;
const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = 0o2000000;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOUNT_ATTR_RDONLY = 1n;
const MOUNT_ATTR_NOEXEC = 8n;
const MOUNT_ATTR_IDMAP = 0x00100000n;
const MOUNT_ATTR_BYTES = 32;
// The same number on every architecture; older C libraries have no functions for them.
const SYS_OPEN_TREE = 428;
const SYS_MOVE_MOUNT = 429;
const SYS_MOUNT_SETATTR = 442;

const openTree = declare<[call: number, at: number, path: string, flags: number]>(
  'long syscall(long call, int at, const char *path, unsigned int flags)',
);
const moveMount = declare<[call: number, from: number, fromPath: string, to: number, toPath: string, flags: number]>(
  'long syscall(long call, int from, const char *fromPath, int to, const char *toPath, unsigned int flags)',
);
const mountSetattr = declare<
  [call: number, at: number, path: string, flags: number, attributes: Uint8Array, bytes: number]
>('long syscall(long call, int at, const char *path, unsigned int flags, _In_ void *attributes, size_t bytes)');

export interface IdmapOptions {
  /** Path of a user namespace: what is user 0 on disk is its user 0. Absent: owners are as they are. */
  readonly namespace?: string;
  /** What is mounted below comes along. */
  readonly recursive?: boolean;
  readonly readOnly?: boolean;
  readonly recursiveReadOnly?: boolean;
  readonly noExec?: boolean;
}

/** Binds `source` at `target`, made if it is not there. Throws where a file system cannot be mounted so. */
export function bindIdmapped(source: string, target: string, options: IdmapOptions): void {
  const below = options.recursive ? AT_RECURSIVE : 0;
  const user = options.namespace === undefined ? undefined : openSync(options.namespace, 'r');
  try {
    const tree = openTree(SYS_OPEN_TREE, AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | below);
    try {
      const set = (attribute: bigint, flags: number): void => {
        const attributes = Buffer.alloc(MOUNT_ATTR_BYTES);
        attributes.writeBigUInt64LE(attribute, 0);
        if (user !== undefined && attribute === MOUNT_ATTR_IDMAP) attributes.writeBigUInt64LE(BigInt(user), 24);
        mountSetattr(SYS_MOUNT_SETATTR, tree, '', AT_EMPTY_PATH | flags, attributes, MOUNT_ATTR_BYTES);
      };
      if (options.readOnly) set(MOUNT_ATTR_RDONLY, options.recursiveReadOnly ? below : 0);
      if (options.noExec) set(MOUNT_ATTR_NOEXEC, 0);
      try {
        if (user !== undefined) set(MOUNT_ATTR_IDMAP, below);
      } catch (error) {
        if (!(error instanceof SystemError)) throw error;
        throw new Error(
          `failed to set MOUNT_ATTR_IDMAP on ${source}: ${error.code} (maybe the filesystem used doesn't support idmap mounts on this kernel?)`,
        );
      }
      if (!lstatSync(target, { throwIfNoEntry: false })) {
        if (lstatSync(source).isDirectory()) mkdirSync(target, { mode: 0o755 });
        else writeFileSync(target, '');
      }
      moveMount(SYS_MOVE_MOUNT, tree, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH);
    } finally {
      closeSync(tree);
    }
  } finally {
    if (user !== undefined) closeSync(user);
  }
}
