/**
 * Which pod holds which address of this node's range, on disk: one name an address, `ADDRESS~UID`. The names are hard links to
 * one file, because a new file costs the disk ten times as much as a new name.
 * Invariant: the name exists before its address is handed out and is removed only after the address is out of use, so a crash
 * at any point never gives one address to two pods. Addresses are taken in turn: one just freed is the last to be reused.
 */

import {
  closeSync,
  constants,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../base/errors.ts';
import {
  addressAfter,
  formatAddress,
  networkOf,
  type Prefix,
  parsePrefix,
  prefixContains,
  tryParseAddress,
} from '../sys/address.ts';

const LAST_FILE = 'last';
/** Longest IPv6 address in text. */
const LAST_BYTES = 45;

export class AddressPool {
  readonly #directory: string;
  readonly #ownerByAddress = new Map<string, string>();
  readonly #addressByOwner = new Map<string, string>();
  #last: string | undefined;

  /** Loads what a former process left, and removes what is none of its names. */
  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(directory)) {
      const [address = '', owner] = name.split('~');
      if (name === LAST_FILE) this.#last = readFileSync(join(directory, name), 'utf8').trim() || undefined;
      else if (tryParseAddress(address) && owner) this.#remember(address, owner);
      else rmSync(join(directory, name), { recursive: true });
    }
  }

  /** Addresses by pod uid. */
  owners(): ReadonlyMap<string, string> {
    return this.#addressByOwner;
  }
  addressOf(owner: string): string | undefined {
    return this.#addressByOwner.get(owner);
  }

  /**
   * The owner's address within the range; the one it holds already, or a new one. Never the network address, the first
   * (the gateway's) or the last (broadcast). Throws when none is free.
   */
  assign(owner: string, range: string): string {
    const prefix = parsePrefix(range);
    const held = this.#addressByOwner.get(owner);
    if (held) {
      if (prefixContains(prefix, tryParseAddress(held)!)) return held;
      this.release(owner);
    }
    const address = this.#nextFree(prefix);
    if (!address) throw new Error(`no IP addresses available in range ${range}`);
    this.#saveLast(address);
    linkSync(join(this.#directory, LAST_FILE), this.#file(address, owner));
    this.#last = address;
    this.#remember(address, owner);
    return address;
  }

  #file(address: string, owner: string): string {
    return join(this.#directory, `${address}~${owner}`);
  }

  // In place and of one length: a file that is cut to nothing first is flushed to the disk when it is closed.
  #saveLast(address: string): void {
    const fd = openSync(join(this.#directory, LAST_FILE), constants.O_WRONLY | constants.O_CREAT, 0o600);
    try {
      writeSync(fd, address.padEnd(LAST_BYTES), 0);
    } finally {
      closeSync(fd);
    }
  }

  /** Idempotent. */
  release(owner: string): void {
    const address = this.#addressByOwner.get(owner);
    if (!address) return;
    try {
      rmSync(this.#file(address, owner), { force: true });
    } catch (error) {
      throw new Error(`address ${address} not released: ${messageOf(error)}`, { cause: error });
    }
    this.#addressByOwner.delete(owner);
    this.#ownerByAddress.delete(address);
  }

  #remember(address: string, owner: string): void {
    this.#ownerByAddress.set(address, owner);
    this.#addressByOwner.set(owner, address);
  }

  #nextFree(prefix: Prefix): string | undefined {
    const network = networkOf(prefix);
    const hostBits = network.length * 8 - prefix.length;
    // Offsets 0, 1 and the last are never given; a large IPv6 range is used as far as 2^20 addresses.
    const count = 2 ** Math.min(hostBits, 20) - 3;
    const last = this.#last === undefined ? undefined : tryParseAddress(this.#last);
    const start =
      last && prefixContains(prefix, last)
        ? (last.readUInt32BE(last.length - 4) - network.readUInt32BE(network.length - 4)) >>> 0
        : 1;
    for (let step = 0; step < count; step++) {
      const address = formatAddress(addressAfter(network, 2 + ((start - 1 + step) % count)));
      if (!this.#ownerByAddress.has(address)) return address;
    }
    return undefined;
  }
}
