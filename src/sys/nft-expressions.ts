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
const [NFT_NG_RANDOM, NFT_HASH_JENKINS] = [1, 0];
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

/** Loads a number in [offset, offset + modulus) that depends on the bytes from a register on, and on nothing else. */
export function loadHash(options: {
  readonly to: number;
  readonly from: number;
  readonly bytes: number;
  readonly modulus: number;
  readonly offset: number;
}): Expression {
  // A fixed seed: the same client gets the same number on every node and after every restart.
  return expression(
    'hash',
    register(1, options.from),
    register(2, options.to),
    number(3, options.bytes),
    number(4, options.modulus),
    number(5, 0x636f7873),
    number(6, options.offset),
    number(7, NFT_HASH_JENKINS),
  );
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
