/** The fixed Huffman code of HPACK (RFC 7541, appendix B), read four bits at a step. The tables are made when first needed. */

import { CODE, ConnectionError } from './frame.ts';

/** Bits of each symbol's code, in base 36. The code is canonical: they say everything. The last symbol ends a string and never occurs. */
const CODE_BITS =
  'dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777878djde6f565' +
  '65666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmnqqkjmnmp' +
  'qqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu';
const END_OF_STRING = CODE_BITS.length - 1;
const PADDING_BITS_MAX = 7;

/** A step is the next state, the symbol that it completes, and what it means. */
const EMITS = 1 << 16;
const FAILS = 1 << 17;

interface Machine {
  /** By state and four bits. States are the inner nodes of the code's tree; 0 is its root. */
  readonly steps: Int32Array;
  /** Whether a string may end in the state: at most seven bits of padding, all of them ones. */
  readonly ends: Uint8Array;
}

let machine: Machine | undefined;

function buildMachine(): Machine {
  // Inner nodes by number, leaves by ~symbol.
  const tree: [zero: number | undefined, one: number | undefined][] = [[undefined, undefined]];
  const bitsOf = [...CODE_BITS].map(digit => Number.parseInt(digit, 36));
  const symbols = bitsOf.map((_, symbol) => symbol).sort((a, b) => bitsOf[a]! - bitsOf[b]! || a - b);
  let code = 0;
  let length = bitsOf[symbols[0]!]!;
  for (const symbol of symbols) {
    code <<= bitsOf[symbol]! - length;
    length = bitsOf[symbol]!;
    let node = 0;
    for (let bit = length - 1; bit >= 0; bit--) {
      const side = (code >> bit) & 1;
      if (bit === 0) tree[node]![side] = ~symbol;
      else {
        let next = tree[node]![side];
        if (next === undefined) tree[node]![side] = next = tree.push([undefined, undefined]) - 1;
        node = next;
      }
    }
    code++;
  }
  const steps = new Int32Array(tree.length * 16);
  for (let state = 0; state < tree.length; state++)
    for (let bits = 0; bits < 16; bits++) steps[state * 16 + bits] = step(tree, state, bits);
  const ends = new Uint8Array(tree.length);
  for (let depth = 0, node: number | undefined = 0; depth <= PADDING_BITS_MAX && node !== undefined; depth++) {
    ends[node] = 1;
    node = tree[node]![1];
  }
  return { steps, ends };
}

function step(tree: readonly (readonly (number | undefined)[])[], state: number, bits: number): number {
  let node = state;
  let emitted = 0;
  for (let bit = 3; bit >= 0; bit--) {
    const next: number = tree[node]![(bits >> bit) & 1]!;
    if (next >= 0) {
      node = next;
      continue;
    }
    const symbol = ~next;
    if (symbol === END_OF_STRING) return FAILS;
    emitted = EMITS | (symbol << 8);
    node = 0;
  }
  return emitted | node;
}

/** Bytes of the shortest code, by which a decoded string may be longer than its code. */
const GROWTH = 8 / 5;
let scratch = Buffer.alloc(0);

/** The string (Latin-1) between the two offsets. Throws a compression error. */
export function decodeHuffman(source: Buffer, { start, end }: { start: number; end: number }): string {
  machine ??= buildMachine();
  const { steps, ends } = machine;
  const size = Math.ceil((end - start) * GROWTH);
  if (scratch.length < size) scratch = Buffer.allocUnsafeSlow(Math.max(size, 4096));
  const target = scratch;
  let length = 0;
  let state = 0;
  for (let at = start; at < end; at++) {
    const byte = source[at]!;
    for (let bits = byte >> 4, half = 0; half < 2; half++, bits = byte & 15) {
      const next = steps[(state << 4) | bits]!;
      if (next & FAILS) throw new ConnectionError(CODE.compression, 'a string holds the end of strings');
      if (next & EMITS) target[length++] = next >> 8;
      state = next & 0xff;
    }
  }
  if (!ends[state]) throw new ConnectionError(CODE.compression, 'a string ends within a symbol');
  return target.toString('latin1', 0, length);
}
