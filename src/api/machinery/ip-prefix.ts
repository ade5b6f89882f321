/** Arithmetic on addresses and ranges of both families, as numbers. Pure; text that is no address or range is a bug of the caller's. */

export interface IpNumber {
  readonly value: bigint;
  /** Of the family. */
  readonly bits: 32 | 128;
}

/** The caller has validated the text. */
export function parseIp(text: string): IpNumber {
  if (!text.includes(':'))
    return { value: BigInt(text.split('.').reduce((value, part) => value * 256 + Number(part), 0)), bits: 32 };
  const [head = [], tail] = text.split('::').map(half => (half === '' ? [] : half.split(':').flatMap(wordsOf)));
  const gap = tail ? Array<string>(8 - head.length - tail.length).fill('0') : [];
  const words = [...head, ...gap, ...(tail ?? [])];
  return { value: words.reduce((value, word) => (value << 16n) | BigInt(`0x${word}`), 0n), bits: 128 };
}

// The last word may be an IPv4 address, which is two.
function wordsOf(word: string): string[] {
  if (!word.includes('.')) return [word];
  const { value } = parseIp(word);
  return [(value >> 16n).toString(16), (value & 0xffffn).toString(16)];
}

/** The one spelling: a dotted quad, or as RFC 5952 wants it. */
export function formatIp({ value, bits }: IpNumber): string {
  if (bits === 32) {
    const number = Number(value);
    return `${number >>> 24}.${(number >>> 16) & 255}.${(number >>> 8) & 255}.${number & 255}`;
  }
  const words = Array.from({ length: 8 }, (_, i) => ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16));
  // The longest run of zero words becomes `::`.
  let best = { start: -1, length: 1 };
  for (let start = 0; start < 8; start++) {
    let end = start;
    while (end < 8 && words[end] === '0') end++;
    if (end - start > best.length) best = { start, length: end - start };
  }
  if (best.start < 0) return words.join(':');
  return `${words.slice(0, best.start).join(':')}::${words.slice(best.start + best.length).join(':')}`;
}

export class IpPrefix {
  /** The address as written, host bits and all. */
  readonly address: bigint;
  readonly bits: 32 | 128;
  readonly length: number;

  constructor(cidr: string) {
    const [address, length] = cidr.split('/') as [string, string];
    const { value, bits } = parseIp(address);
    this.address = value;
    this.bits = bits;
    this.length = Number(length);
  }
  get hostBits(): number {
    return this.bits - this.length;
  }
  /** The first address. */
  get base(): bigint {
    return (this.address >> BigInt(this.hostBits)) << BigInt(this.hostBits);
  }
  has(address: string): boolean {
    const { value, bits } = parseIp(address);
    return bits === this.bits && (value ^ this.address) >> BigInt(this.hostBits) === 0n;
  }
  /** All of the other lies within. */
  covers(other: IpPrefix): boolean {
    return (
      other.bits === this.bits &&
      other.length >= this.length &&
      (other.address ^ this.address) >> BigInt(this.hostBits) === 0n
    );
  }
  overlaps(other: IpPrefix): boolean {
    return this.covers(other) || other.covers(this);
  }
}
