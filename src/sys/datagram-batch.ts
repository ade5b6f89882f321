/**
 * Many datagrams a system call: recvmmsg and sendmmsg on a UDP socket that someone else owns and watches. Replies go
 * back to the address their request came from, which is never turned into a string. Nothing is allocated for a message.
 * It never blocks, and refuses to keep what the kernel's send buffer has no room for: datagrams may be lost.
 */

import { closeSync } from 'node:fs';
import koffi from 'koffi';
import { declare, SystemError } from './libc.ts';

// Layouts of the 64-bit ABIs (x86-64, arm64): struct mmsghdr, struct iovec, struct sockaddr_in6.
const HEADER = { bytes: 64, name: 0, nameLength: 8, vector: 16, vectorLength: 24, flags: 48, length: 56 } as const;
const IOVEC_BYTES = 16;
const SOCKADDR_BYTES = 28;
const MSG_DONTWAIT = 0x40;
const MSG_TRUNC = 0x20;
const AF_INET = 2;
const AF_INET6 = 10;
// SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC
const DATAGRAM_SOCKET = 2 | 0o4000 | 0o2000000;

type MessagesCall = (fd: number, messages: Buffer, count: number, flags: number, timeout?: null) => number;

interface Calls {
  receive: MessagesCall;
  send: MessagesCall;
  addressOf(buffer: Buffer): bigint;
}

let loaded: Calls | undefined;

function calls(): Calls {
  if (loaded) return loaded;
  const library = koffi.load('libc.so.6');
  // memmove returns its first argument; moving nothing tells where a buffer lies.
  const memmove = library.func('uintptr_t memmove(void *to, const void *from, size_t bytes)');
  return (loaded = {
    receive: library.func(
      'int recvmmsg(int fd, void *messages, unsigned int count, int flags, void *timeout)',
    ) as unknown as MessagesCall,
    send: library.func(
      'int sendmmsg(int fd, void *messages, unsigned int count, int flags)',
    ) as unknown as MessagesCall,
    addressOf: buffer => BigInt(memmove(buffer, buffer, 0)),
  });
}

/**
 * A UDP socket bound to a 4 or 16 byte address in the calling thread's network namespace; port 0 takes a free one.
 * The descriptor is the caller's: `node:dgram` takes it over with `bind({ fd })`. Throws SystemError.
 */
export function openDatagramSocket(at: { readonly address: Uint8Array; readonly port: number }): number {
  const open = declare<[family: number, type: number, protocol: number]>(
    'int socket(int family, int type, int protocol)',
  );
  const bind = declare<[fd: number, address: Buffer, length: number]>(
    'int bind(int fd, const void *address, unsigned int length)',
  );
  const v4 = at.address.length === 4;
  const name = Buffer.alloc(v4 ? 16 : SOCKADDR_BYTES);
  name.writeUInt16LE(v4 ? AF_INET : AF_INET6, 0);
  name.writeUInt16BE(at.port, 2);
  name.set(at.address, v4 ? 4 : 8);
  const fd = open(v4 ? AF_INET : AF_INET6, DATAGRAM_SOCKET, 0);
  try {
    bind(fd, name, name.length);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return fd;
}

export class DatagramBatch {
  readonly #fd: number;
  readonly #calls = calls();
  readonly #requests: Buffer;
  readonly #replies: Buffer;
  // Held so that the memory the headers point to stays.
  readonly #vectors: Buffer;
  readonly #addresses: Buffer;
  #staged = 0;
  readonly slots: number;
  readonly requestBytesMax: number;
  readonly replyBytesMax: number;
  /** Slot i's request starts at `i * requestBytesMax`. */
  readonly input: Buffer;
  /** The next reply is to be written at `replyAt`. */
  readonly output: Buffer;

  constructor(
    fd: number,
    options: { readonly slots: number; readonly requestBytesMax: number; readonly replyBytesMax: number },
  ) {
    const { slots, requestBytesMax, replyBytesMax } = options;
    this.#fd = fd;
    this.slots = slots;
    this.requestBytesMax = requestBytesMax;
    this.replyBytesMax = replyBytesMax;
    this.input = Buffer.alloc(slots * requestBytesMax);
    this.output = Buffer.alloc(slots * replyBytesMax);
    this.#addresses = Buffer.alloc(slots * SOCKADDR_BYTES);
    this.#vectors = Buffer.alloc(2 * slots * IOVEC_BYTES);
    this.#requests = Buffer.alloc(slots * HEADER.bytes);
    this.#replies = Buffer.alloc(slots * HEADER.bytes);
    const { addressOf } = this.#calls;
    const [inputAt, outputAt, addressesAt, vectorsAt] = [this.input, this.output, this.#addresses, this.#vectors].map(
      addressOf,
    ) as [bigint, bigint, bigint, bigint];
    for (let slot = 0; slot < slots; slot++) {
      const parts = [
        {
          headers: this.#requests,
          vector: slot,
          data: inputAt + BigInt(slot * requestBytesMax),
          bytes: requestBytesMax,
        },
        {
          headers: this.#replies,
          vector: slots + slot,
          data: outputAt + BigInt(slot * replyBytesMax),
          bytes: replyBytesMax,
        },
      ];
      for (const { headers, vector, data, bytes } of parts) {
        this.#vectors.writeBigUInt64LE(data, vector * IOVEC_BYTES);
        this.#vectors.writeBigUInt64LE(BigInt(bytes), vector * IOVEC_BYTES + 8);
        const at = slot * HEADER.bytes;
        headers.writeBigUInt64LE(addressesAt + BigInt(slot * SOCKADDR_BYTES), at + HEADER.name);
        headers.writeUInt32LE(SOCKADDR_BYTES, at + HEADER.nameLength);
        headers.writeBigUInt64LE(vectorsAt + BigInt(vector * IOVEC_BYTES), at + HEADER.vector);
        headers.writeBigUInt64LE(1n, at + HEADER.vectorLength);
      }
    }
  }

  /** Takes what has arrived, at most `slots`; 0 when nothing has. Throws SystemError. */
  receive(): number {
    for (let slot = 0; slot < this.slots; slot++)
      this.#requests.writeUInt32LE(SOCKADDR_BYTES, slot * HEADER.bytes + HEADER.nameLength);
    const count = this.#calls.receive(this.#fd, this.#requests, this.slots, MSG_DONTWAIT, null);
    if (count >= 0) return count;
    const errno = koffi.errno();
    if (isTransient(errno)) return 0;
    throw new SystemError('recvmmsg', errno);
  }
  /** Size of slot's request; -1 when it did not fit. */
  requestBytes(slot: number): number {
    const at = slot * HEADER.bytes;
    return this.#requests.readUInt32LE(at + HEADER.flags) & MSG_TRUNC
      ? -1
      : this.#requests.readUInt32LE(at + HEADER.length);
  }
  /** The peer of slot's request. */
  peer(slot: number): { readonly address: string; readonly port: number } {
    const at = slot * SOCKADDR_BYTES;
    const port = this.#addresses.readUInt16BE(at + 2);
    if (this.#addresses.readUInt16LE(at) === AF_INET6) {
      const groups = Array.from({ length: 8 }, (_, index) =>
        this.#addresses.readUInt16BE(at + 8 + index * 2).toString(16),
      );
      return { address: groups.join(':'), port };
    }
    return { address: this.#addresses.subarray(at + 4, at + 8).join('.'), port };
  }
  get replyAt(): number {
    return this.#staged * this.replyBytesMax;
  }
  /** Queues the `bytes` written at `replyAt` as the reply to slot's request. */
  stage(slot: number, bytes: number): void {
    const at = this.#staged * HEADER.bytes;
    // The request's header holds the very pointer and length of its peer.
    this.#requests.copy(
      this.#replies,
      at + HEADER.name,
      slot * HEADER.bytes,
      slot * HEADER.bytes + HEADER.nameLength + 4,
    );
    this.#vectors.writeUInt32LE(bytes, (this.slots + this.#staged) * IOVEC_BYTES + 8);
    this.#staged++;
  }
  /** Sends the staged replies. One that the kernel refuses (no route to the peer) is skipped. Returns how many were sent. */
  flush(): number {
    let done = 0;
    let sent = 0;
    while (done < this.#staged) {
      const rest = done === 0 ? this.#replies : this.#replies.subarray(done * HEADER.bytes);
      const count = this.#calls.send(this.#fd, rest, this.#staged - done, MSG_DONTWAIT);
      if (count < 0 && isTransient(koffi.errno())) break;
      sent += Math.max(count, 0);
      done += Math.max(count, 1);
    }
    this.#staged = 0;
    return sent;
  }
}

// EAGAIN, EINTR, ECONNREFUSED (an earlier reply found its port closed), ENOBUFS.
function isTransient(errno: number): boolean {
  return errno === 11 || errno === 4 || errno === 111 || errno === 105;
}
