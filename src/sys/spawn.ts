/**
 * Starts a program without copying this process's page tables (posix_spawn shares memory until exec), which costs a process
 * as large as ours ten times less than fork. For programs that put themselves in the background and answer on one pipe.
 * Invariant: signals start at their defaults, only the given descriptors are inherited, and the child is reaped.
 */

import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { declare } from './libc.ts';

type Bytes = Uint8Array;
const posixSpawn = declare<
  [pid: Bytes, path: string, actions: Bytes, attributes: Bytes, argv: (string | null)[], env: (string | null)[]]
>(
  'int posix_spawn(_Out_ int *pid, const char *path, const void *actions, const void *attributes, const char **argv, const char **envp)',
);
const actionsInit = declare<[actions: Bytes]>('int posix_spawn_file_actions_init(_Inout_ void *actions)');
const actionsOpen = declare<[actions: Bytes, fd: number, path: string, flags: number, mode: number]>(
  'int posix_spawn_file_actions_addopen(_Inout_ void *actions, int fd, const char *path, int flags, uint32_t mode)',
);
const actionsDup = declare<[actions: Bytes, from: number, to: number]>(
  'int posix_spawn_file_actions_adddup2(_Inout_ void *actions, int fd, int newfd)',
);
const actionsChdir = declare<[actions: Bytes, path: string]>(
  'int posix_spawn_file_actions_addchdir_np(_Inout_ void *actions, const char *path)',
);
const actionsDestroy = declare<[actions: Bytes]>('int posix_spawn_file_actions_destroy(_Inout_ void *actions)');
const attributesInit = declare<[attributes: Bytes]>('int posix_spawnattr_init(_Inout_ void *attributes)');
const attributesFlags = declare<[attributes: Bytes, flags: number]>(
  'int posix_spawnattr_setflags(_Inout_ void *attributes, int16_t flags)',
);
const attributesDefaults = declare<[attributes: Bytes, set: Bytes]>(
  'int posix_spawnattr_setsigdefault(_Inout_ void *attributes, const void *set)',
);
const attributesMask = declare<[attributes: Bytes, set: Bytes]>(
  'int posix_spawnattr_setsigmask(_Inout_ void *attributes, const void *set)',
);
const pipe2 = declare<[fds: Bytes, flags: number]>('int pipe2(_Out_ int *fds, int flags)');
const waitpid = declare<[pid: number, status: Bytes, options: number]>(
  'int waitpid(int pid, _Out_ int *status, int options)',
);

const O_RDWR = 2;
const O_CLOEXEC = 0o2000000;
const POSIX_SPAWN_SETSIGDEF = 4;
const POSIX_SPAWN_SETSIGMASK = 8;
const WNOHANG = 1;
// Larger than glibc's structures (80, 336 and 128 bytes).
const STRUCTURE_BYTES = 512;
const SIGSET_BYTES = 128;
const REPLY_FD = 3;

export interface Spawned {
  readonly pid: number;
  /** Reading end of the pipe that the program has as descriptor 3. */
  readonly reply: Socket;
  /** True once the program has ended and is reaped; call until then. */
  reap(): boolean;
}

/** Throws when the program cannot be executed. Its standard streams are /dev/null. */
export function spawnReplying(
  path: string,
  args: readonly string[],
  { env, cwd }: { readonly env: Readonly<Record<string, string>>; readonly cwd: string },
): Spawned {
  const fds = new Int32Array(2);
  pipe2(new Uint8Array(fds.buffer), O_CLOEXEC);
  const [readEnd, writeEnd] = fds as unknown as [number, number];
  const actions = Buffer.alloc(STRUCTURE_BYTES);
  const attributes = Buffer.alloc(STRUCTURE_BYTES);
  const pid = new Int32Array(1);
  actionsInit(actions);
  try {
    for (const fd of [0, 1, 2]) actionsOpen(actions, fd, '/dev/null', O_RDWR, 0);
    actionsDup(actions, writeEnd, REPLY_FD);
    actionsChdir(actions, cwd);
    attributesInit(attributes);
    attributesFlags(attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    attributesDefaults(attributes, Buffer.alloc(SIGSET_BYTES, 0xff));
    attributesMask(attributes, Buffer.alloc(SIGSET_BYTES));
    const errno = posixSpawn(
      new Uint8Array(pid.buffer),
      path,
      actions,
      attributes,
      [path, ...args, null],
      [...Object.entries(env).map(([name, value]) => `${name}=${value}`), null],
    );
    if (errno !== 0) throw new Error(`cannot execute ${path}: errno ${errno}`);
  } catch (error) {
    closeSync(readEnd);
    throw error;
  } finally {
    closeSync(writeEnd);
    actionsDestroy(actions);
  }
  let isReaped = false;
  return {
    pid: pid[0]!,
    reply: new Socket({ fd: readEnd, readable: true, writable: false }),
    reap() {
      if (!isReaped) {
        try {
          isReaped = waitpid(pid[0]!, new Uint8Array(4), WNOHANG) === pid[0];
        } catch {
          isReaped = true;
        }
      }
      return isReaped;
    },
  };
}
