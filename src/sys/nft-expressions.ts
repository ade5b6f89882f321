/**
 * nftables rules as the kernel takes them: lists of expressions on registers. For the few rules that libnftables cannot
 * write, because it infers a protocol from the types of a map; everything else is text.
 * Registers here are the 32-bit ones: number 0 to 15, each four bytes; longer values fill several.
 */

import { attribute, attributeText, attributeU32BE, nested } from './netlink-socket.ts';

/** One expression, encoded. */
export type Expression = Buffer;

const [NFTA_LIST_ELEM, NFTA_EXPR_NAME, NFTA_EXPR_DATA] = [1, 1, 2];
const FIRST_REGISTER = 8;
const META_L4PROTO = 16;
const NFT_NG_RANDOM = 1;
const VERDICT_REGISTER = 0;
const VERDICTS = { drop: 0, jump: -3, goto: -4, return: -5 } as const;
const NFT_LOOKUP_F_INV = 1;
const [NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_SADDR, RTN_LOCAL] = [3, 1, 2];
const NFT_DYNSET_OP_UPDATE = 1;
const NFT_NAT_DNAT = 1;
const [NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PROTO_SPECIFIED] = [1, 2];

function expression(name: string, ...attributes: readonly Buffer[]): Expression {
  return nested(NFTA_LIST_ELEM, attributeText(NFTA_EXPR_NAME, name), nested(NFTA_EXPR_DATA, ...attributes));
}

const number = (type: number, value: number) => attributeU32BE(type, value);
const register = (type: number, index: number) => number(type, FIRST_REGISTER + index);

/** Loads bytes of the packet. */
export function loadPayload(options: {
  readonly to: number;
  readonly base: 'network' | 'transport';
  readonly offset: number;
  readonly bytes: number;
}): Expression {
  return expression(
    'payload',
    register(1, options.to),
    number(2, options.base === 'network' ? 1 : 2),
    number(3, options.offset),
    number(4, options.bytes),
  );
}

/** Loads the transport protocol's number. */
export function loadProtocol(to: number): Expression {
  return expression('meta', number(2, META_L4PROTO), register(1, to));
}

/** Loads a random number in [offset, offset + modulus). */
export function loadRandom(options: {
  readonly to: number;
  readonly modulus: number;
  readonly offset: number;
}): Expression {
  return expression(
    'numgen',
    register(1, options.to),
    number(2, options.modulus),
    number(3, NFT_NG_RANDOM),
    number(4, options.offset),
  );
}

/** Goes on only where the sender's address is one of this machine's. */
export function senderIsLocal(): Expression {
  const scratch = 0;
  return Buffer.concat([
    expression('fib', register(1, scratch), number(2, NFT_FIB_RESULT_ADDRTYPE), number(3, NFTA_FIB_F_SADDR)),
    expression('cmp', register(1, scratch), number(2, 0), nested(3, attribute(1, littleEndian(RTN_LOCAL)))),
  ]);
}

/** Goes on only where the key that starts at a register is in the set, or with `absent` where it is not. */
export function isIn(options: { readonly set: string; readonly from: number; readonly absent?: boolean }): Expression {
  const flags = options.absent ? [number(5, NFT_LOOKUP_F_INV)] : [];
  return expression('lookup', attributeText(1, options.set), register(2, options.from), ...flags);
}

/** Goes to a chain, for good (`goto`) or to come back (`jump`). */
export function toChain(how: 'goto' | 'jump', name: string): Expression {
  return verdict(number(1, VERDICTS[how]), attributeText(2, name));
}

/** Drops the packet, or goes back to where this chain was jumped to from. */
export function end(how: 'drop' | 'return'): Expression {
  return verdict(number(1, VERDICTS[how]));
}

function verdict(...attributes: readonly Buffer[]): Expression {
  return expression('immediate', number(1, VERDICT_REGISTER), nested(2, nested(2, ...attributes)));
}

/** Goes on only where the bytes from a register on, under the mask, are these. */
export function equals(options: {
  readonly from: number;
  readonly bytes: Uint8Array;
  readonly mask: Uint8Array;
}): Expression {
  const { from, bytes, mask } = options;
  return Buffer.concat([
    masked(mask, { from, to: from }),
    expression('cmp', register(1, from), number(2, 0), nested(3, attribute(1, bytes))),
  ]);
}

/** Copies so many registers, four at a time; the two stretches must not overlap. */
export function copy(options: { readonly from: number; readonly to: number; readonly words: number }): Expression {
  // The kernel takes no more at once.
  const most = 4;
  const parts: Expression[] = [];
  for (let at = 0; at < options.words; at += most)
    parts.push(
      masked(Buffer.alloc(4 * Math.min(most, options.words - at), 255), {
        from: options.from + at,
        to: options.to + at,
      }),
    );
  return Buffer.concat(parts);
}

function masked(mask: Uint8Array, { from, to }: { readonly from: number; readonly to: number }): Expression {
  return expression(
    'bitwise',
    register(1, from),
    register(2, to),
    number(3, mask.length),
    nested(4, attribute(1, mask)),
    nested(5, attribute(1, Buffer.alloc(mask.length))),
  );
}

/** Adds the element with this key, or refreshes it, with data and a time to live. */
export function remember(options: {
  readonly map: string;
  readonly key: number;
  readonly data: number;
  readonly seconds: number;
}): Expression {
  const timeout = Buffer.alloc(8);
  timeout.writeBigUInt64BE(BigInt(options.seconds) * 1000n);
  return expression(
    'dynset',
    attributeText(1, options.map),
    number(3, NFT_DYNSET_OP_UPDATE),
    register(4, options.key),
    register(5, options.data),
    attribute(6, timeout),
  );
}

function littleEndian(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
}

/** Looks the key up that starts at a register and loads the map's data; the rule ends here when there is none. */
export function lookUp(options: { readonly map: string; readonly from: number; readonly to: number }): Expression {
  return expression('lookup', attributeText(1, options.map), register(2, options.from), register(3, options.to));
}

/** Rewrites the destination to the address and port in registers; the verdict is final. */
export function rewriteDestination(options: {
  readonly family: number;
  readonly address: number;
  readonly port: number;
}): Expression {
  const { family, address, port } = options;
  return expression(
    'nat',
    number(1, NFT_NAT_DNAT),
    number(2, family),
    register(3, address),
    register(4, address),
    register(5, port),
    register(6, port),
    number(7, NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED),
  );
}

/** The rule's expressions, as one attribute of a message. */
export function encodeRule(type: number, rule: readonly Expression[]): Buffer {
  return attribute(type | 0x8000, Buffer.concat(rule));
}
