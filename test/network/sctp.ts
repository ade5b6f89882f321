/**
 * SCTP without the kernel's own: this one may lack CONFIG_IP_SCTP, yet tracks and rewrites SCTP. A raw socket sends an
 * INIT chunk and another sees where it arrives.
 */

import {
  AF_INET,
  bind,
  close,
  MSG_DONTWAIT,
  recv,
  SOCK_CLOEXEC,
  SOCK_RAW,
  socket,
} from '../../src/sys/file-descriptor.ts';
import { declare, SystemError } from '../../src/sys/libc.ts';
import { inNamespace } from '../../src/sys/netns.ts';
import { encodeSocketAddress } from '../../src/sys/socket.ts';

const IPPROTO_SCTP = 132;
const sendto = declare<[fd: number, bytes: Buffer, length: number, flags: number, to: Buffer, toLength: number]>(
  'long sendto(int fd, const void *bytes, size_t length, int flags, const void *to, uint32_t toLength)',
);

/** Sees SCTP packets that arrive in the namespace. */
export class SctpEar {
  readonly #fd: number;
  constructor(namespace: string) {
    this.#fd = inNamespace(namespace, () => socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_SCTP));
    const any = encodeSocketAddress({ address: '0.0.0.0', port: 0 });
    bind(this.#fd, any, any.length);
  }
  /** Destination ports of what has arrived since the last call. */
  ports(): number[] {
    const found: number[] = [];
    const buffer = Buffer.alloc(2048);
    for (;;) {
      try {
        recv(this.#fd, buffer, buffer.length, MSG_DONTWAIT);
      } catch (error) {
        if (error instanceof SystemError && error.code === 'EAGAIN') return found;
        if (error instanceof SystemError && error.code === 'EWOULDBLOCK') return found;
        throw error;
      }
      found.push(buffer.readUInt16BE((buffer[0]! & 15) * 4 + 2));
    }
  }
  close(): void {
    close(this.#fd);
  }
}

/** The first packet of an association. */
export function sendInit(namespace: string, to: { address: string; port: number; from: number }): void {
  const packet = Buffer.alloc(12 + 20);
  packet.writeUInt16BE(to.from, 0);
  packet.writeUInt16BE(to.port, 2);
  packet.writeUInt8(1, 12);
  packet.writeUInt16BE(20, 14);
  packet.writeUInt32BE(0x1234_5678, 16);
  packet.writeUInt32BE(65_536, 20);
  packet.writeUInt16BE(1, 24);
  packet.writeUInt16BE(1, 26);
  packet.writeUInt32BE(1, 28);
  packet.writeUInt32LE(crc32c(packet), 8);
  const fd = inNamespace(namespace, () => socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_SCTP));
  const address = encodeSocketAddress({ address: to.address, port: 0 });
  try {
    sendto(fd, packet, packet.length, 0, address, address.length);
  } finally {
    close(fd);
  }
}

function crc32c(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}
