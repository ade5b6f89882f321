/** Overlapping CIDR blocks cut into disjoint ranges of addresses, each with the blocks that hold it. Pure. */

import { networkOf, parsePrefix } from '../../sys/address.ts';

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
