/** Subnets of one cluster range, handed out lowest first. Pure arithmetic on addresses as BigInt. */

import { assert } from '../../base/assert.ts';

interface Cidr {
  readonly base: bigint;
  readonly prefix: number;
  readonly bits: 32 | 128;
}

function parseAddress(text: string): { value: bigint; bits: 32 | 128 } {
  if (!text.includes(':'))
    return { value: text.split('.').reduce((value, part) => (value << 8n) | BigInt(part), 0n), bits: 32 };
  const [head = '', tail] = text.split('::');
  const words = (part: string) => (part === '' ? [] : part.split(':'));
  const left = words(head);
  const right = tail === undefined ? [] : words(tail);
  const all = [...left, ...Array.from({ length: 8 - left.length - right.length }, () => '0'), ...right];
  return { value: all.reduce((value, word) => (value << 16n) | BigInt(`0x${word}`), 0n), bits: 128 };
}

function formatAddress(value: bigint, bits: 32 | 128): string {
  if (bits === 32) return [24n, 16n, 8n, 0n].map(shift => (value >> shift) & 255n).join('.');
  const words = Array.from({ length: 8 }, (_, i) => ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16));
  // The longest run of zero words becomes `::` (RFC 5952).
  let best = { start: -1, length: 1 };
  for (let start = 0; start < 8; start++) {
    let end = start;
    while (end < 8 && words[end] === '0') end++;
    if (end - start > best.length) best = { start, length: end - start };
  }
  if (best.start < 0) return words.join(':');
  return `${words.slice(0, best.start).join(':')}::${words.slice(best.start + best.length).join(':')}`;
}

export function parseCidr(text: string): Cidr {
  const slash = text.indexOf('/');
  assert(slash > 0, `not a CIDR: ${text}`);
  const { value, bits } = parseAddress(text.slice(0, slash));
  const prefix = Number(text.slice(slash + 1));
  const host = BigInt(bits - prefix);
  return { base: (value >> host) << host, prefix, bits };
}

export class SubnetAllocator {
  readonly #range: Cidr;
  readonly #maskSize: number;
  readonly #used = new Set<number>();
  #next = 0;

  /** `maskSize` must not be shorter than the range's prefix. */
  constructor(range: string, maskSize: number) {
    this.#range = parseCidr(range);
    this.#maskSize = maskSize;
    assert(
      maskSize >= this.#range.prefix && maskSize <= this.#range.bits,
      `subnet mask /${maskSize} does not fit in ${range}`,
    );
  }
  get #size(): number {
    return 2 ** Math.min(30, this.#maskSize - this.#range.prefix);
  }
  #indexOf(subnet: string): number | undefined {
    const { base, bits } = parseCidr(subnet);
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
      const base = this.#range.base + (BigInt(index) << BigInt(this.#range.bits - this.#maskSize));
      return `${formatAddress(base, this.#range.bits)}/${this.#maskSize}`;
    }
    return undefined;
  }
}
