/** A CIDR as a row of addresses that Services may have: the network address, and IPv4's broadcast address, are left out. */

import { isIP, SocketAddress } from 'node:net';
import { addressBytes } from '../certificates/certificate.ts';

export type Family = 'IPv4' | 'IPv6';

/** A range is used up to this many addresses, more than any cluster has Services. */
const SIZE_MAX = 2 ** 32;

export function familyOf(address: string): Family {
  return address.includes(':') ? 'IPv6' : 'IPv4';
}

/** The one spelling of an address under which it is kept; undefined when it is not an address. */
export function canonicalAddress(address: string): string | undefined {
  const version = isIP(address);
  if (version === 0) return undefined;
  return version === 4 ? address : new SocketAddress({ address, family: 'ipv6' }).address;
}

export class AddressRange {
  readonly cidr: string;
  readonly family: Family;
  /** How many addresses it has: offsets run from 1 to `size`. */
  readonly size: number;
  /** Dynamic allocation starts behind this offset; below it are addresses that people choose (KEP-3070). */
  readonly staticSize: number;
  readonly #base: bigint;

  /** Throws on malformed text: the caller has validated it. */
  constructor(cidr: string) {
    const [address, length] = cidr.split('/') as [string, string];
    this.cidr = cidr;
    this.family = familyOf(address);
    const bits = (this.family === 'IPv4' ? 32 : 128) - Number(length);
    const value = BigInt(`0x${addressBytes(address).toString('hex')}`);
    this.#base = (value >> BigInt(bits)) << BigInt(bits);
    const total = bits >= 32 ? SIZE_MAX : 2 ** bits;
    this.size = Math.max(0, total - (this.family === 'IPv4' ? 2 : 1));
    // min(max(16, size / 16), 256), and none at all in tiny ranges.
    this.staticSize = total < 16 ? 0 : Math.min(Math.max(16, Math.floor(total / 16)), 256);
  }

  at(offset: number): string {
    const value = this.#base + BigInt(offset);
    if (this.family === 'IPv4') {
      const number = Number(value);
      return `${number >>> 24}.${(number >>> 16) & 255}.${(number >>> 8) & 255}.${number & 255}`;
    }
    const hex = value.toString(16).padStart(32, '0');
    return canonicalAddress(hex.match(/.{4}/g)!.join(':'))!;
  }

  /** Offset of an address; undefined when the CIDR does not contain it. 0 and beyond `size` are contained but unusable. */
  offsetOf(address: string): number | undefined {
    if (familyOf(address) !== this.family) return undefined;
    const offset = BigInt(`0x${addressBytes(address).toString('hex')}`) - this.#base;
    const last = BigInt(this.size + (this.family === 'IPv4' ? 1 : 0));
    return offset < 0n || offset > last ? undefined : Number(offset);
  }
}
