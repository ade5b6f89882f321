/** Overlapping CIDR blocks cut into disjoint ranges of addresses, each with the blocks that hold it, and what these mean. Pure. */

import { formatAddress, networkOf, parseAddress, parsePrefix, prefixContains } from '../../sys/address.ts';
import { keyOf } from './policy-table.ts';
import type { PortSet } from './port-set.ts';
import type { BlockPeer } from './statement.ts';

/** Ports by `first last` (addresses); ranges do not overlap. */
export type Ranges = ReadonlyMap<string, PortSet>;

export function holds({ cidr, except }: BlockPeer, address: string): boolean {
  const bytes = parseAddress(address);
  const isIn = (range: string) => prefixContains(parsePrefix(range), bytes);
  return isIn(cidr) && !except.some(isIn);
}

/** What is decided for each range, where it is not `fallback`; neighbours of which the same is said are one range. */
export function portsByRange<B extends { readonly block: BlockPeer }>(
  blocks: readonly B[],
  fallback: PortSet,
  decide: (held: readonly B[]) => PortSet,
): Ranges {
  const out = new Map<string, PortSet>();
  for (const family of blocks.length > 0 ? ([4, 6] as const) : []) {
    let last: { from: string; to: Buffer; ports: PortSet } | undefined;
    const flush = () => {
      if (last) out.set(`${last.from} ${formatAddress(last.to)}`, last.ports);
      last = undefined;
    };
    for (const range of cutBlocks(
      blocks.map(({ block }) => block),
      family,
    )) {
      const ports = decide(range.blocks.map(i => blocks[i]!));
      if (keyOf(ports) === keyOf(fallback)) continue;
      if (last && keyOf(last.ports) === keyOf(ports) && follows(last.to, range.first)) last.to = range.last;
      else {
        flush();
        last = { from: formatAddress(range.first), to: range.last, ports };
      }
    }
    flush();
  }
  return out;
}

function follows(last: Buffer, next: Buffer): boolean {
  return BigInt(`0x${last.toString('hex')}`) + 1n === BigInt(`0x${next.toString('hex')}`);
}

export interface BlockRange {
  /** Inclusive ends, as bytes of one family. */
  readonly first: Buffer;
  readonly last: Buffer;
  /** Indexes of the blocks that hold every address of the range. */
  readonly blocks: readonly number[];
}

interface Cut {
  readonly from: bigint;
  readonly to: bigint;
}

export function cutBlocks(
  blocks: readonly { readonly cidr: string; readonly except: readonly string[] }[],
  family: 4 | 6,
): BlockRange[] {
  const bytes = family === 4 ? 4 : 16;
  const ranges = blocks.map(({ cidr, except }) => ({
    own: rangeOf(cidr, bytes),
    except: except.flatMap(one => rangeOf(one, bytes) ?? []),
  }));
  const edges = new Set<bigint>();
  for (const { own, except } of ranges)
    for (const cut of own ? [own, ...except] : []) edges.add(cut.from).add(cut.to + 1n);
  const sorted = [...edges].sort((a, b) => (a < b ? -1 : 1));
  const out: BlockRange[] = [];
  for (let i = 0; i + 1 < sorted.length; i++) {
    const [from, to] = [sorted[i]!, sorted[i + 1]! - 1n];
    const holds = (cut: Cut) => cut.from <= from && to <= cut.to;
    const inside = ranges.flatMap(({ own, except }, at) => (own && holds(own) && !except.some(holds) ? [at] : []));
    if (inside.length > 0) out.push({ first: toBytes(from, bytes), last: toBytes(to, bytes), blocks: inside });
  }
  return out;
}

function rangeOf(cidr: string, bytes: number): Cut | undefined {
  const prefix = parsePrefix(cidr);
  if (prefix.address.length !== bytes) return undefined;
  const from = BigInt(`0x${networkOf(prefix).toString('hex')}`);
  return { from, to: from + (1n << BigInt(bytes * 8 - prefix.length)) - 1n };
}

function toBytes(value: bigint, bytes: number): Buffer {
  return Buffer.from(value.toString(16).padStart(bytes * 2, '0'), 'hex');
}
