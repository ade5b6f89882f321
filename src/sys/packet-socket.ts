/**
 * SOCK_SEQPACKET client sockets in the Unix domain, which Node cannot open itself: conmon's attach sockets.
 * Calls never block; `receive` says 'later' when nothing is there. The caller polls.
 */

import { closeSync } from 'node:fs';
import { declare, SystemError } from './libc.ts';

const socket = declare<[domain: number, type: number, protocol: number]>(
  'int socket(int domain, int type, int protocol)',
);
const connect = declare<[fd: number, address: Uint8Array, length: number]>(
  'int connect(int fd, const void *address, uint32_t length)',
);
const recv = declare<[fd: number, buffer: Uint8Array, length: number, flags: number]>(
  'long recv(int fd, _Out_ void *buffer, size_t length, int flags)',
);
const send = declare<[fd: number, buffer: Uint8Array, length: number, flags: number]>(
  'long send(int fd, const void *buffer, size_t length, int flags)',
);
const shutdownCall = declare<[fd: number, how: number]>('int shutdown(int fd, int how)');

const AF_UNIX = 1;
const SOCK_SEQPACKET_NONBLOCK_CLOEXEC = 5 | 0o4000 | 0o2000000;
const MSG_NOSIGNAL = 0x4000;
// EWOULDBLOCK is the same number, so the name says nothing.
const EAGAIN = 11;
const PATH_BYTES_MAX = 107;
/** conmon sends at most 8 KiB and one byte that names the stream. */
const PACKET_BYTES_MAX = 32 * 1024;

export class PacketSocket {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(PACKET_BYTES_MAX);
  #closed = false;

  constructor(path: string) {
    const name = Buffer.from(path);
    if (name.length > PATH_BYTES_MAX) throw new Error(`socket path too long: ${path}`);
    const address = Buffer.alloc(2 + PATH_BYTES_MAX + 1);
    address.writeUInt16LE(AF_UNIX, 0);
    name.copy(address, 2);
    this.#fd = socket(AF_UNIX, SOCK_SEQPACKET_NONBLOCK_CLOEXEC, 0);
    try {
      connect(this.#fd, address, 2 + name.length + 1);
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }
  /** A packet (a copy), 'later', or undefined at the end. */
  receive(): Buffer | 'later' | undefined {
    try {
      const length = recv(this.#fd, this.#buffer, this.#buffer.length, 0);
      return length === 0 ? undefined : Buffer.from(this.#buffer.subarray(0, length));
    } catch (error) {
      if (error instanceof SystemError && error.errno === EAGAIN) return 'later';
      if (error instanceof SystemError && error.code === 'ECONNRESET') return undefined;
      throw error;
    }
  }
  /** False when the peer's buffer is full: try again later. */
  send(data: Buffer): boolean {
    try {
      send(this.#fd, data, data.length, MSG_NOSIGNAL);
      return true;
    } catch (error) {
      if (error instanceof SystemError && error.errno === EAGAIN) return false;
      throw error;
    }
  }
  endWriting(): void {
    if (!this.#closed) shutdownCall(this.#fd, 1);
  }
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }
}
