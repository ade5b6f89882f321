/** Pseudo-terminals, made in process. Both descriptors are the caller's to close. */

import { closeSync, constants, openSync } from 'node:fs';
import { declare } from './libc.ts';

const ioctlBuffer = declare<[fd: number, request: number, argument: Uint8Array]>(
  'int ioctl(int fd, unsigned long request, _Inout_ void *argument)',
);
const ioctlFlags = declare<[fd: number, request: number, flags: number]>(
  'int ioctl(int fd, unsigned long request, int flags)',
);

const TIOCSPTLCK = 0x40045431;
const TIOCGPTPEER = 0x5441;
const TIOCSWINSZ = 0x5414;

export interface PseudoTerminal {
  readonly master: number;
  readonly peer: number;
}

export function openTerminal(): PseudoTerminal {
  const flags = constants.O_RDWR | constants.O_NOCTTY;
  const master = openSync('/dev/ptmx', flags);
  try {
    ioctlBuffer(master, TIOCSPTLCK, Buffer.alloc(4));
    return { master, peer: ioctlFlags(master, TIOCGPTPEER, flags | 0o2000000) };
  } catch (error) {
    closeSync(master);
    throw error;
  }
}

export function resizeTerminal(fd: number, size: { readonly width: number; readonly height: number }): void {
  const request = Buffer.alloc(8);
  request.writeUInt16LE(size.height, 0);
  request.writeUInt16LE(size.width, 2);
  ioctlBuffer(fd, TIOCSWINSZ, request);
}
