/**
 * Makes namespaces without a process to hold them: the calling thread enters new ones, pins each with a bind mount, and goes
 * back, all within one synchronous call (those of a user namespace: `user-namespace.ts`). Invariant: the thread ends in the namespaces it began in, or the process aborts.
 */

import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import {
  CLONE_NEWIPC,
  CLONE_NEWNET,
  CLONE_NEWUTS,
  declare,
  MS_BIND,
  mount,
  sethostname,
  setns,
  unshare,
} from './libc.ts';
import { unmount } from './mount.ts';

const FLAGS = { net: CLONE_NEWNET, ipc: CLONE_NEWIPC, uts: CLONE_NEWUTS } as const;
export type PinnedNamespace = keyof typeof FLAGS;

const socket = declare<[domain: number, type: number, protocol: number]>(
  'int socket(int domain, int type, int protocol)',
);
const ioctlBuffer = declare<[fd: number, request: number, argument: Uint8Array]>(
  'int ioctl(int fd, unsigned long request, _Inout_ void *argument)',
);

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM_NONBLOCK_CLOEXEC = 1 | 0o4000 | 0o2000000;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;
const SIOCSIFFLAGS = 0x8914;
const IFF_UP = 1;

export interface NamespaceRequest {
  /** Folder for the pins; `<folder>/net` and so on. */
  readonly folder: string;
  readonly kinds: readonly PinnedNamespace[];
  readonly hostname?: string;
  /** Written under /proc/sys inside the new namespaces: `net.ipv4.ip_forward` → `1`. */
  readonly sysctls?: Readonly<Record<string, string>>;
}

/** Pins new namespaces under `folder`; `lo` of a new network namespace is up. */
export function pinNamespaces(request: NamespaceRequest): void {
  const { folder, kinds } = request;
  mkdirSync(folder, { recursive: true, mode: 0o711 });
  const homes = kinds.map(kind => ({ kind, fd: openSync(`/proc/thread-self/ns/${kind}`, 'r') }));
  try {
    for (const kind of kinds) writeFileSync(`${folder}/${kind}`, '');
    unshare(kinds.reduce((flags, kind) => flags | FLAGS[kind], 0));
    try {
      furnish(request);
      for (const kind of kinds) mount(`/proc/thread-self/ns/${kind}`, `${folder}/${kind}`, null, MS_BIND, null);
    } finally {
      try {
        for (const home of homes) setns(home.fd, FLAGS[home.kind]);
      } catch {
        // A thread lost in a pod's namespaces would do its next work in the wrong place.
        process.abort();
      }
    }
  } catch (error) {
    unpinNamespaces(folder);
    throw error;
  } finally {
    for (const home of homes) closeSync(home.fd);
  }
}

function furnish({ kinds, hostname, sysctls = {} }: NamespaceRequest): void {
  if (kinds.includes('uts') && hostname !== undefined) sethostname(hostname, Buffer.byteLength(hostname));
  if (kinds.includes('net')) raiseLoopback();
  for (const [name, value] of Object.entries(sysctls)) writeFileSync(`/proc/sys/${name.replaceAll('.', '/')}`, value);
}

/** What `pinNamespaces` does inside new namespaces, inside those that are pinned under `folder` already. */
export function arrangeNamespaces(request: NamespaceRequest): void {
  const enter = (kinds: readonly PinnedNamespace[]): void => {
    const [kind, ...others] = kinds;
    if (kind === undefined) return furnish(request);
    insideNamespace(kind, `${request.folder}/${kind}`, () => enter(others));
  };
  enter(request.kinds);
}

/** Runs a synchronous function on this thread inside the namespace at `path`. */
export function insideNamespace<T>(kind: PinnedNamespace, path: string, run: () => T): T {
  const home = openSync(`/proc/thread-self/ns/${kind}`, 'r');
  try {
    const target = openSync(path, 'r');
    try {
      setns(target, FLAGS[kind]);
    } finally {
      closeSync(target);
    }
    try {
      return run();
    } finally {
      try {
        setns(home, FLAGS[kind]);
      } catch {
        process.abort();
      }
    }
  } finally {
    closeSync(home);
  }
}

export function unpinNamespaces(folder: string): void {
  for (const kind of [...Object.keys(FLAGS), 'user']) unmount(`${folder}/${kind}`);
}

/** Of the network namespace that this thread is in. */
export function raiseLoopback(): void {
  const fd = socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0);
  try {
    const request = Buffer.alloc(40);
    request.write('lo', 0, 'latin1');
    request.writeInt16LE(IFF_UP, 16);
    ioctlBuffer(fd, SIOCSIFFLAGS, request);
  } finally {
    closeSync(fd);
  }
}

/** An unconnected TCP socket that belongs to the network namespace at `path`, wherever it is connected from. */
export function tcpSocketInside(path: string, family: 4 | 6): number {
  return insideNamespace('net', path, () => socket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM_NONBLOCK_CLOEXEC, 0));
}
