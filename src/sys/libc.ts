/**
 * The C library, in process: declares functions once and turns a failing return value into a SystemError.
 * Everything in `src/sys` that calls the kernel goes through here. Calls are synchronous and on the calling thread,
 * which is what makes `setns` there-and-back safe: nothing else runs in between.
 */

import koffi from 'koffi';

const library = koffi.load('libc.so.6');

export class SystemError extends Error {
  override name = 'SystemError';
  readonly call: string;
  readonly errno: number;
  /** `ENOENT`, `EBUSY` … */
  readonly code: string;
  constructor(call: string, errno: number, what = '') {
    const code = ERRNO_NAMES.get(errno) ?? `errno ${errno}`;
    super(`${call}${what ? ` ${what}` : ''}: ${code}`);
    this.call = call;
    this.errno = errno;
    this.code = code;
  }
}

const ERRNO_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(koffi.os.errno as Record<string, number>).map(([name, number]) => [number, name]),
);

/**
 * Declares a function by its C prototype: `declare('int setns(int fd, int nstype)')`. The result throws SystemError when
 * the C function returns -1; `what` (last argument of the returned function) names the object in the message.
 */
export function declare<Args extends unknown[]>(prototype: string): (...args: Args) => number {
  const fn = library.func(prototype);
  const name = /(\w+)\s*\(/.exec(prototype)![1]!;
  return (...args) => {
    const result = Number(fn(...args));
    if (result === -1)
      throw new SystemError(name, koffi.errno(), args.filter(arg => typeof arg === 'string').join(' '));
    return result;
  };
}

export const CLONE_NEWNS = 0x00020000;
export const CLONE_NEWUTS = 0x04000000;
export const CLONE_NEWIPC = 0x08000000;
export const CLONE_NEWUSER = 0x10000000;
export const CLONE_NEWPID = 0x20000000;
export const CLONE_NEWNET = 0x40000000;

export const setns = declare<[fd: number, type: number]>('int setns(int fd, int nstype)');
export const unshare = declare<[flags: number]>('int unshare(int flags)');
export const sethostname = declare<[name: string, length: number]>('int sethostname(const char *name, size_t len)');

export const MS_RDONLY = 1;
export const MS_NOSUID = 2;
export const MS_NODEV = 4;
export const MS_NOEXEC = 8;
export const MS_REMOUNT = 32;
export const MS_BIND = 4096;
export const MS_MOVE = 8192;
export const MS_REC = 16384;
export const MS_UNBINDABLE = 1 << 17;
export const MS_PRIVATE = 1 << 18;
export const MS_SLAVE = 1 << 19;
export const MS_SHARED = 1 << 20;
export const MNT_DETACH = 2;

export const mount = declare<[source: string, target: string, type: string | null, flags: number, data: string | null]>(
  'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
);
export const umount2 = declare<[target: string, flags: number]>('int umount2(const char *target, int flags)');
