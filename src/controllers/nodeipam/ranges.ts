/** Subnets of one cluster range, handed out lowest first. Pure. */

import { formatIp, IpPrefix } from '../../api/machinery/ip-prefix.ts';
import { assert } from '../../base/assert.ts';

export class SubnetAllocator {
  readonly #range: IpPrefix;
  readonly #maskSize: number;
  readonly #used = new Set<number>();
  #next = 0;

  /** `maskSize` must not be shorter than the range's prefix. */
  constructor(range: string, maskSize: number) {
    this.#range = new IpPrefix(range);
    this.#maskSize = maskSize;
    assert(
      maskSize >= this.#range.length && maskSize <= this.#range.bits,
      `subnet mask /${maskSize} does not fit in ${range}`,
    );
  }
  get #size(): number {
    return 2 ** Math.min(30, this.#maskSize - this.#range.length);
  }
  #indexOf(subnet: string): number | undefined {
    const { base, bits } = new IpPrefix(subnet);
    if (bits !== this.#range.bits) return undefined;
    const index = (base - this.#range.base) >> BigInt(bits - this.#maskSize);
    return index >= 0n && index < BigInt(this.#size) ? Number(index) : undefined;
  }
  /** Takes a subnet that a node has already; one outside the range is ignored. */
  occupy(subnet: string): void {
    const index = this.#indexOf(subnet);
    if (index !== undefined) this.#used.add(index);
  }
  release(subnet: string): void {
    const index = this.#indexOf(subnet);
    if (index !== undefined) this.#used.delete(index);
  }
  /** The next free subnet after the last one given, so that a freed range is not reused at once; undefined when none is left. */
  allocate(): string | undefined {
    for (let tried = 0; tried < this.#size; tried++) {
      const index = (this.#next + tried) % this.#size;
      if (this.#used.has(index)) continue;
      this.#used.add(index);
      this.#next = index + 1;
      const { base, bits } = this.#range;
      const value = base + (BigInt(index) << BigInt(bits - this.#maskSize));
      return `${formatIp({ value, bits })}/${this.#maskSize}`;
    }
    return undefined;
  }
}
