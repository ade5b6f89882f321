/** Sends whole Ethernet frames on one link of a namespace (packet(7)). It does not receive: the kernel answers ARP and NDP. */

import { AF_PACKET, bind, close, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW, send, socket } from './file-descriptor.ts';
import { inNamespace, type NetnsRef } from './netns.ts';

export class LinkSocket {
  readonly #fd: number;

  constructor(options: { readonly index: number; readonly namespace?: NetnsRef }) {
    // Protocol 0: no frame is ever queued for it.
    const open = () => socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    this.#fd = options.namespace === undefined ? open() : inNamespace(options.namespace, open);
    const address = Buffer.alloc(20);
    address.writeUInt16LE(AF_PACKET, 0);
    address.writeInt32LE(options.index, 4);
    bind(this.#fd, address, address.length);
  }
  /** Throws ENETDOWN, ENOBUFS and the like. */
  send(frame: Buffer): void {
    send(this.#fd, frame, frame.length, 0);
  }
  close(): void {
    close(this.#fd);
  }
}
