/** A CIDR as a row of addresses that Services may have: the network address, and IPv4's broadcast address, are left out. */

import { formatIp, IpPrefix, parseIp } from '../../api/machinery/ip-prefix.ts';

export type Family = 'IPv4' | 'IPv6';

/** A range is used up to this many addresses, more than any cluster has Services. */
const SIZE_MAX = 2 ** 32;

export function familyOf(address: string): Family {
  return address.includes(':') ? 'IPv6' : 'IPv4';
}

export class AddressRange {
  readonly cidr: string;
  readonly family: Family;
  /** How many addresses it has: offsets run from 1 to `size`. */
  readonly size: number;
  /** Dynamic allocation starts behind this offset; below it are addresses that people choose (KEP-3070). */
  readonly staticSize: number;
  readonly #prefix: IpPrefix;
  readonly #base: bigint;
  /** The same of IPv4, whose arithmetic need not be slow. */
  readonly #base4: number | undefined;

  /** Of validated text. */
  constructor(cidr: string) {
    this.cidr = cidr;
    this.family = familyOf(cidr);
    this.#prefix = new IpPrefix(cidr);
    this.#base = this.#prefix.base;
    this.#base4 = this.family === 'IPv4' ? Number(this.#base) : undefined;
    const { hostBits } = this.#prefix;
    const total = hostBits >= 32 ? SIZE_MAX : 2 ** hostBits;
    this.size = Math.max(0, total - (this.family === 'IPv4' ? 2 : 1));
    // min(max(16, size / 16), 256), and none at all in tiny ranges.
    this.staticSize = total < 16 ? 0 : Math.min(Math.max(16, Math.floor(total / 16)), 256);
  }

  at(offset: number): string {
    if (this.#base4 !== undefined) {
      const value = this.#base4 + offset;
      return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;
    }
    return formatIp({ value: this.#base + BigInt(offset), bits: this.#prefix.bits });
  }

  /** Offset of an address; undefined when the CIDR does not contain it. 0 and beyond `size` are contained but unusable. */
  offsetOf(address: string): number | undefined {
    return this.#prefix.has(address) ? Number(parseIp(address).value - this.#base) : undefined;
  }
}
