/** Raw file descriptors: opening, closing, and socket calls on plain Buffers. Synchronous, on the calling thread. */

import koffi from 'koffi';
import { declare } from './libc.ts';

export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const AF_PACKET = 17;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const MSG_DONTWAIT = 0x40;

export const socket = declare<[domain: number, type: number, protocol: number]>(
  'int socket(int domain, int type, int protocol)',
);
export const bind = declare<[fd: number, address: Buffer, length: number]>(
  'int bind(int fd, const void *address, uint32_t length)',
);
export const listen = declare<[fd: number, backlog: number]>('int listen(int fd, int backlog)');
export const send = declare<[fd: number, bytes: Buffer, length: number, flags: number]>(
  'long send(int fd, const void *bytes, size_t length, int flags)',
);
export const recv = declare<[fd: number, bytes: Buffer, length: number, flags: number]>(
  'long recv(int fd, void *bytes, size_t length, int flags)',
);
export const setsockopt = declare<[fd: number, level: number, option: number, value: Buffer, length: number]>(
  'int setsockopt(int fd, int level, int option, const void *value, uint32_t length)',
);
export const getsockname = declare<[fd: number, address: Buffer, length: Buffer]>(
  'int getsockname(int fd, void *address, void *length)',
);
export const fcntl = declare<[fd: number, command: number, argument: number]>(
  'int fcntl(int fd, int command, long argument)',
);
export const close = declare<[fd: number]>('int close(int fd)');

const syscall = declare<[number: number, first: number, second: number, third: number]>(
  'long syscall(long number, long first, long second, long third)',
);

const [F_SETFD, FD_CLOEXEC] = [2, 1];
const F_SETFL = 4;
/** The same on all architectures. */
const SYS = { pidfdOpen: 434, pidfdGetfd: 438 } as const;
export const O_APPEND = 0o2000;
export const O_NONBLOCK = 0o4000;

/** An inherited descriptor is this process's own from now on: programs that it starts do not get it. */
export function closeOnExec(fd: number): void {
  fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/** Sets the modes of an open file of another process, which are those of everybody who shares it. Throws ESRCH, EBADF and the like. */
export function setModeOf({ pid, fd }: { readonly pid: number; readonly fd: number }, mode: number): void {
  const process = syscall(SYS.pidfdOpen, pid, 0, 0);
  try {
    const file = syscall(SYS.pidfdGetfd, process, fd, 0);
    try {
      fcntl(file, F_SETFL, mode);
    } finally {
      close(file);
    }
  } finally {
    close(process);
  }
}

/** Sets an option whose value is a C int. */
export function setIntOption(fd: number, level: number, option: number, value: number): void {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  setsockopt(fd, level, option, bytes, 4);
}

let sendFunction: ReturnType<ReturnType<typeof koffi.load>['func']> | undefined;

/** As `send`, on another thread: for requests that the kernel takes long over. The result is not looked at. */
export function sendDetached(fd: number, bytes: Buffer): Promise<void> {
  sendFunction ??= koffi.load('libc.so.6').func('long send(int fd, const void *bytes, size_t length, int flags)');
  return new Promise((resolve, reject) => {
    sendFunction!.async(fd, bytes, bytes.length, 0, (error: unknown) => (error ? reject(error) : resolve()));
  });
}
