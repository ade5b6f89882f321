/**
 * Tells at once when somebody else changes given nftables tables of a namespace: the kernel multicasts each transaction, and
 * signals the arrival of the message (`SIGIO`), so nothing polls and no thread waits.
 * Transactions of sockets named `own` are dropped in the kernel, by a filter on the socket; those that libnftables makes are told
 * by `own(work)`. It knows what was touched, not what is there now: the owner of the table looks.
 */

import koffi from 'koffi';
import {
  AF_NETLINK,
  bind,
  close,
  fcntl,
  MSG_DONTWAIT,
  recv,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOL_SOCKET,
  setIntOption,
  setsockopt,
  socket,
} from './file-descriptor.ts';
import { SystemError } from './libc.ts';
import { NETLINK_NETFILTER, readAttributes, textOf } from './netlink-socket.ts';
import { inNamespace, type NetnsRef } from './netns.ts';

const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const NFNLGRP_NFTABLES = 7;
const NFNL_SUBSYS_NFTABLES = 10;
const SO_RCVBUFFORCE = 33;
const SO_ATTACH_FILTER = 26;
const [F_SETFL, F_SETOWN] = [4, 8];
const [O_NONBLOCK, O_ASYNC] = [0o4000, 0o20000];
const [ENOBUFS, EAGAIN] = [105, 11];
const BUFFER_BYTES = 4 * 1024 * 1024;
const RECEIVE_BYTES = 64 * 1024;
const HEADER_BYTES = 16;
const NLMSG_PORT_AT = 12;

const listeners = new Set<() => void>();
let armed = false;

// The signal's default action ends the process: once there, the handler stays for ever.
function armSignal(): void {
  if (armed) return;
  armed = true;
  process.on('SIGIO', () => {
    for (const listener of listeners) listener();
  });
}

export interface NftMonitorOptions {
  /** The calling thread's own when absent. */
  readonly namespace?: NetnsRef;
  readonly tables: readonly { readonly family: number; readonly table: string }[];
  /** `portId` of the socket whose transactions are the owner's own. */
  readonly ownPort: number;
  /** Called soon after somebody else's change, on the event loop. */
  readonly onChange: () => void;
}

export class NftMonitor {
  readonly #fd: number;
  readonly #options: NftMonitorOptions;
  readonly #onSignal = () => this.#look();
  readonly #buffer = Buffer.allocUnsafeSlow(RECEIVE_BYTES);
  #touched = false;
  #closed = false;

  constructor(options: NftMonitorOptions) {
    this.#options = options;
    const open = () => socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
    this.#fd = options.namespace === undefined ? open() : inNamespace(options.namespace, open);
    try {
      attachFilter(this.#fd, options.ownPort);
      setIntOption(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES);
      const address = Buffer.alloc(12);
      address.writeUInt16LE(AF_NETLINK, 0);
      bind(this.#fd, address, address.length);
      setIntOption(this.#fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES);
      armSignal();
      listeners.add(this.#onSignal);
      fcntl(this.#fd, F_SETOWN, process.pid);
      fcntl(this.#fd, F_SETFL, O_NONBLOCK | O_ASYNC);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Whether somebody else has touched the tables since the last call. */
  takeTouched(): boolean {
    this.#drain();
    const touched = this.#touched;
    this.#touched = false;
    return touched;
  }

  /** Runs work that changes the tables by other sockets of this process: synchronous, so what arrives meanwhile is its own. */
  own<T>(work: () => T): T {
    this.#drain();
    const before = this.#touched;
    try {
      return work();
    } finally {
      this.#drain();
      this.#touched = before;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    listeners.delete(this.#onSignal);
    close(this.#fd);
  }

  #look(): void {
    if (this.#closed) return;
    this.#drain();
    if (this.#touched) this.#options.onChange();
  }

  #drain(): void {
    for (;;) {
      try {
        this.#read(recv(this.#fd, this.#buffer, RECEIVE_BYTES, MSG_DONTWAIT));
      } catch (error) {
        if (error instanceof SystemError && error.errno === EAGAIN) return;
        // Messages were lost: they may have been about our tables.
        if (error instanceof SystemError && error.errno === ENOBUFS) this.#touched = true;
        else throw error;
      }
    }
  }

  // Every message about a table, whatever it is about, names it in its first attribute and the family in its first byte.
  #read(length: number): void {
    const bytes = this.#buffer;
    for (let at = 0; at + HEADER_BYTES + 4 <= length; ) {
      const size = bytes.readUInt32LE(at);
      if (size < HEADER_BYTES || at + size > length) return;
      const isNft = bytes.readUInt16LE(at + 4) >> 8 === NFNL_SUBSYS_NFTABLES;
      const own = bytes.readUInt32LE(at + NLMSG_PORT_AT) === this.#options.ownPort;
      if (isNft && !own && !this.#touched) {
        const family = bytes[at + HEADER_BYTES];
        const table = textOf(readAttributes(bytes.subarray(at + HEADER_BYTES + 4, at + size)).get(1));
        this.#touched = this.#options.tables.some(ours => ours.family === family && ours.table === table);
      }
      at += (size + 3) & ~3;
    }
  }
}

/** Drops datagrams whose first message answers a request of that port: a datagram holds messages of one transaction. */
function attachFilter(fd: number, port: number): void {
  // The filter reads big-endian, the header is of the machine: little-endian.
  const swapped = Buffer.alloc(4);
  swapped.writeUInt32LE(port);
  const instructions: [code: number, yes: number, no: number, k: number][] = [
    [0x20, 0, 0, NLMSG_PORT_AT], // load word
    [0x15, 0, 1, swapped.readUInt32BE()], // equal?
    [0x06, 0, 0, 0], // drop
    [0x06, 0, 0, 0xffffffff], // keep
  ];
  const program = Buffer.alloc(instructions.length * 8);
  instructions.forEach(([code, yes, no, k], i) => {
    program.writeUInt16LE(code, i * 8);
    program[i * 8 + 2] = yes;
    program[i * 8 + 3] = no;
    program.writeUInt32LE(k, i * 8 + 4);
  });
  const reference = Buffer.alloc(16);
  reference.writeUInt16LE(instructions.length, 0);
  reference.writeBigUInt64LE(BigInt(koffi.address(program)), 8);
  setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, reference, reference.length);
}
