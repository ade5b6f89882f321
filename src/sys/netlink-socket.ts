/**
 * Netlink itself: message framing, attributes, a socket bound to one namespace, acknowledgements and dumps.
 * Invariant: the kernel answers rtnetlink and nfnetlink requests within `send`, so every call here is synchronous and short.
 * A socket stays in the namespace it was opened in. It knows no family's meaning: see `netlink.ts`, `nfnetlink.ts`.
 */

import { assert } from '../base/assert.ts';
import {
  AF_NETLINK,
  bind,
  close,
  getsockname,
  MSG_DONTWAIT,
  recv,
  SOCK_CLOEXEC,
  SOCK_RAW,
  SOL_SOCKET,
  send,
  sendDetached,
  setIntOption,
  setsockopt,
  socket,
} from './file-descriptor.ts';
import { SystemError } from './libc.ts';
import { inNamespace, type NetnsRef } from './netns.ts';

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

export const NLM_F_REQUEST = 1;
export const NLM_F_ACK = 4;
export const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;
const NLM_F_MULTI = 2;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLMSGERR_ATTR_MSG = 1;
const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const SO_RCVBUFFORCE = 33;
const SO_SNDBUFFORCE = 32;
const SO_RCVTIMEO = 20;

const EAGAIN = 11;
const HEADER_BYTES = 16;
const RECEIVE_BYTES = 256 * 1024;
// Each acknowledgement occupies about 1 KiB of the receive buffer: 100 stay far below the default of 208 KiB.
const BATCH_MESSAGES_MAX = 100;

/** One request. `what` says in an error message what was attempted: `add link cox0`. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly body: Buffer;
  readonly what: string;
  /** An error of this code counts as success: `EEXIST` for idempotent adding, `ENOENT` for removing. */
  readonly ignore?: readonly string[];
}

export interface NetlinkReply {
  readonly type: number;
  readonly flags: number;
  readonly body: Buffer;
}

/** An attribute: header, payload, padding to four bytes. */
export function attribute(type: number, payload: Uint8Array): Buffer {
  const out = Buffer.alloc((4 + payload.length + 3) & ~3);
  out.writeUInt16LE(4 + payload.length, 0);
  out.writeUInt16LE(type, 2);
  out.set(payload, 4);
  return out;
}

export function nested(type: number, ...children: readonly Buffer[]): Buffer {
  return attribute(type | NLA_F_NESTED, Buffer.concat(children));
}

export function attributeU8(type: number, value: number): Buffer {
  return attribute(type, Uint8Array.of(value));
}

export function attributeU16BE(type: number, value: number): Buffer {
  return attribute(type, Uint8Array.of(value >> 8, value & 255));
}

export function attributeU32(type: number, value: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeUInt16LE(8, 0);
  out.writeUInt16LE(type, 2);
  out.writeUInt32LE(value >>> 0, 4);
  return out;
}

export function attributeU32BE(type: number, value: number): Buffer {
  const out = attributeU32(type, 0);
  out.writeUInt32BE(value >>> 0, 4);
  return out;
}

export function attributeText(type: number, text: string): Buffer {
  return attribute(type, Buffer.from(`${text}\0`));
}

/** Attributes by type; of repeated ones the last. Values are views into `bytes`. */
export function readAttributes(bytes: Buffer, offset = 0): Map<number, Buffer> {
  const out = new Map<number, Buffer>();
  for (const [type, value] of eachAttribute(bytes, offset)) out.set(type, value);
  return out;
}

export function* eachAttribute(bytes: Buffer, offset = 0): Generator<readonly [type: number, value: Buffer]> {
  for (let at = offset; at + 4 <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < 4 || at + length > bytes.length) return;
    yield [bytes.readUInt16LE(at + 2) & NLA_TYPE_MASK, bytes.subarray(at + 4, at + length)];
    at += (length + 3) & ~3;
  }
}

export function textOf(value: Buffer | undefined): string {
  if (!value) return '';
  const end = value.indexOf(0);
  return value.toString('utf8', 0, end < 0 ? value.length : end);
}

/** Frames one message behind a 16-byte header. */
export function frame(options: { type: number; flags: number; sequence: number; body: Buffer }): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(HEADER_BYTES + options.body.length, 0);
  header.writeUInt16LE(options.type, 4);
  header.writeUInt16LE(options.flags, 6);
  header.writeUInt32LE(options.sequence, 8);
  const padding = -options.body.length & 3;
  return Buffer.concat(padding ? [header, options.body, Buffer.alloc(padding)] : [header, options.body]);
}

// One receive buffer for all sockets of the thread: calls are synchronous and copy what they keep.
let receiveBuffer: Buffer | undefined;

export class NetlinkSocket {
  readonly #fd: number;
  #sequence = 0;
  #closed = false;

  /** Opens a socket inside `namespace`, or the calling thread's own when absent. */
  constructor(options: { protocol: number; namespace?: NetnsRef; bufferBytes?: number }) {
    const open = () => socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, options.protocol);
    this.#fd = options.namespace === undefined ? open() : inNamespace(options.namespace, open);
    try {
      setIntOption(this.#fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
      setIntOption(this.#fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
      if (options.bufferBytes) {
        setIntOption(this.#fd, SOL_SOCKET, SO_SNDBUFFORCE, options.bufferBytes);
        setIntOption(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, options.bufferBytes);
      }
      // The kernel answers within send; a wait this long means a bug, and must not hang the process.
      const timeout = Buffer.alloc(16);
      timeout.writeBigInt64LE(10n, 0);
      setsockopt(this.#fd, SOL_SOCKET, SO_RCVTIMEO, timeout, timeout.length);
      const address = Buffer.alloc(12);
      address.writeUInt16LE(AF_NETLINK, 0);
      bind(this.#fd, address, address.length);
    } catch (error) {
      close(this.#fd);
      throw error;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    close(this.#fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Sends all messages, in order, in as few system calls as possible. Not atomic: the kernel carries on after a failing
   * message; the first failure that is not ignored is thrown when all are answered.
   */
  request(messages: readonly NetlinkMessage[]): void {
    let failure: SystemError | undefined;
    for (let start = 0; start < messages.length; start += BATCH_MESSAGES_MAX) {
      const chunk = messages.slice(start, start + BATCH_MESSAGES_MAX);
      const first = this.#sequence + 1;
      this.#sequence += chunk.length;
      this.sendRaw(
        Buffer.concat(
          chunk.map(({ type, flags, body }, i) =>
            frame({ type, flags: flags | NLM_F_REQUEST | NLM_F_ACK, sequence: first + i, body }),
          ),
        ),
      );
      let waiting = chunk.length;
      while (waiting > 0) {
        for (const reply of this.receive()) {
          const message = chunk[reply.sequence - first];
          if (reply.type !== NLMSG_ERROR || !message) continue;
          waiting--;
          const error = acknowledgementError(reply, message.what);
          if (error && !message.ignore?.includes(error.code)) failure ??= error;
        }
      }
    }
    if (failure) throw failure;
  }

  /**
   * As `request` for one message, but without keeping the thread: removing a link takes the kernel 10 ms and more. The
   * socket must be used for nothing else until it resolves.
   */
  async requestDetached(message: NetlinkMessage): Promise<void> {
    const sequence = ++this.#sequence;
    await sendDetached(
      this.#fd,
      frame({ type: message.type, flags: message.flags | NLM_F_REQUEST | NLM_F_ACK, sequence, body: message.body }),
    );
    for (;;) {
      for (const reply of this.receive()) {
        if (reply.type !== NLMSG_ERROR || reply.sequence !== sequence) continue;
        const error = acknowledgementError(reply, message.what);
        if (error && !message.ignore?.includes(error.code)) throw error;
        return;
      }
    }
  }

  /** All objects that a dump request answers with. Throws when the kernel refuses or reports an inconsistent dump. */
  dump(message: NetlinkMessage): NetlinkReply[] {
    const sequence = ++this.#sequence;
    this.sendRaw(
      frame({ type: message.type, flags: message.flags | NLM_F_REQUEST | NLM_F_DUMP, sequence, body: message.body }),
    );
    const out: NetlinkReply[] = [];
    for (;;) {
      for (const reply of this.receive()) {
        if (reply.sequence !== sequence) continue;
        if (reply.type === NLMSG_ERROR || reply.type === NLMSG_DONE) {
          const error = reply.body.length >= 4 ? acknowledgementError(reply, message.what) : undefined;
          if (error) throw error;
          return out;
        }
        // Views into the shared buffer would change under the caller.
        out.push({ type: reply.type, flags: reply.flags, body: Buffer.from(reply.body) });
      }
    }
  }

  /** The one object that a get request answers with. */
  get(message: NetlinkMessage): NetlinkReply {
    const sequence = ++this.#sequence;
    this.sendRaw(frame({ type: message.type, flags: message.flags | NLM_F_REQUEST, sequence, body: message.body }));
    for (;;) {
      for (const reply of this.receive()) {
        if (reply.sequence !== sequence) continue;
        const error = reply.type === NLMSG_ERROR ? acknowledgementError(reply, message.what) : undefined;
        if (error) throw error;
        return { type: reply.type, flags: reply.flags, body: Buffer.from(reply.body) };
      }
    }
  }

  /** What the kernel calls this socket in notifications about its requests. */
  portId(): number {
    const address = Buffer.alloc(12);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(address.length);
    getsockname(this.#fd, address, length);
    return address.readUInt32LE(4);
  }

  nextSequence(): number {
    return ++this.#sequence;
  }

  sendRaw(bytes: Buffer): void {
    assert(!this.#closed, 'netlink socket used after close');
    send(this.#fd, bytes, bytes.length, 0);
  }

  /** Replies of one datagram, as views that the next call overwrites; with `wait: false`, none when nothing is queued. */
  receive(options: { wait?: boolean } = {}): (NetlinkReply & { readonly sequence: number })[] {
    receiveBuffer ??= Buffer.allocUnsafeSlow(RECEIVE_BYTES);
    let length: number;
    try {
      length = recv(this.#fd, receiveBuffer, RECEIVE_BYTES, options.wait === false ? MSG_DONTWAIT : 0);
    } catch (error) {
      if (options.wait === false && error instanceof SystemError && error.errno === EAGAIN) return [];
      throw error;
    }
    const replies = [];
    for (let at = 0; at + HEADER_BYTES <= length; ) {
      const size = receiveBuffer.readUInt32LE(at);
      assert(size >= HEADER_BYTES && at + size <= length, 'truncated netlink reply');
      replies.push({
        type: receiveBuffer.readUInt16LE(at + 4),
        flags: receiveBuffer.readUInt16LE(at + 6),
        sequence: receiveBuffer.readUInt32LE(at + 8),
        body: receiveBuffer.subarray(at + HEADER_BYTES, at + size),
      });
      at += (size + 3) & ~3;
    }
    return replies;
  }
}

/** The failure that an NLMSG_ERROR (or NLMSG_DONE) reports, with the kernel's own explanation; undefined for success. */
export function acknowledgementError(reply: NetlinkReply, what: string): SystemError | undefined {
  const code = reply.body.readInt32LE(0);
  if (code >= 0) return undefined;
  let explanation = '';
  if (reply.flags & NLM_F_ACK_TLVS) {
    const original =
      reply.type === NLMSG_DONE || reply.flags & NLM_F_MULTI
        ? 0
        : reply.flags & NLM_F_CAPPED
          ? HEADER_BYTES
          : reply.body.readUInt32LE(4);
    explanation = textOf(readAttributes(reply.body, 4 + original).get(NLMSGERR_ATTR_MSG));
  }
  return new SystemError('netlink', -code, explanation ? `${what} (${explanation})` : what);
}

export const isErrorReply = (reply: NetlinkReply): boolean => reply.type === NLMSG_ERROR;
