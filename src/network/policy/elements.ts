/** Entries of the policy table as elements of nftables' sets and maps. Pure. */

import { parseAddress } from '../../sys/address.ts';
import type { Element } from '../../sys/nfnetlink.ts';
import { type Change, MAPS, type MapName, type PolicyTable } from './policy-table.ts';
import { FAMILIES } from './rules.ts';

const NFPROTO_IPV4 = 2;
const NFPROTO_IPV6 = 10;

/** Names of all sets that hold entries. */
export const ELEMENT_SETS: readonly string[] = MAPS.flatMap(map =>
  map === 'ports' ? [map] : FAMILIES.map(({ number }) => `${map}${number}`),
);

export function elementOf(map: MapName, key: string, value: number): Element {
  const [first = '', second = '', third = ''] = key.split(' ');
  if (map === 'ports') {
    const [protocols, ports] = [second.split('-').map(Number), third.split('-').map(Number)];
    const end = (i: 0 | 1) =>
      Buffer.concat([
        bigEndian(Number(first)),
        Buffer.from([protocols[i]!, 0, 0, 0, ports[i]! >> 8, ports[i]! & 255, 0, 0]),
      ]);
    return { set: map, key: end(0), end: end(1), data: undefined };
  }
  const set = `${map}${first.includes(':') ? 6 : 4}`;
  const address = parseAddress(first);
  switch (map) {
    case 'peers':
    case 'ingress-default':
    case 'egress-default':
    case 'node-default':
      return { set, key: address, data: number32(value) };
    case 'selves':
      return { set, key: Buffer.concat([address, address]), data: undefined };
    case 'ingress-class':
    case 'egress-class':
      return { set, key: Buffer.concat([address, number32(Number(second))]), data: number32(value) };
    case 'ingress-block':
    case 'egress-block':
    case 'node-block':
      return {
        set,
        key: Buffer.concat([address, parseAddress(second)]),
        end: Buffer.concat([address, parseAddress(third)]),
        data: number32(value),
      };
  }
}

/** One transaction's worth: an entry with a new value is removed and added. */
export function elementsOf(changes: readonly Change[]): { remove: Element[]; add: Element[] } {
  const [remove, add]: [Element[], Element[]] = [[], []];
  for (const { map, key, before, after } of changes) {
    if (before !== undefined) remove.push(elementOf(map, key, before));
    if (after !== undefined) add.push(elementOf(map, key, after));
  }
  return { remove, add };
}

export function allElements(table: PolicyTable): Element[] {
  return MAPS.flatMap(map => [...table.entries(map)].map(([key, value]) => elementOf(map, key, value)));
}

/** Flows judged in this epoch need no other look. */
export function epochElements(epoch: number): Element[] {
  return [
    { set: 'epoch', key: number32(epoch), data: undefined },
    ...[NFPROTO_IPV4, NFPROTO_IPV6].map(family => ({ set: 'now', key: Buffer.from([family]), data: number32(epoch) })),
  ];
}

export function elementKey({ set, key, end }: Element): string {
  return `${set} ${hex(key)} ${end ? hex(end) : ''}`;
}

export function sameData(a: Element, b: Element): boolean {
  if (!(a.data instanceof Uint8Array) || !(b.data instanceof Uint8Array)) return a.data === b.data;
  return Buffer.compare(a.data, b.data) === 0;
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');

// Numbers are in the machine's byte order, but for those that ranges are made of.
function number32(value: number): Buffer {
  const out = Buffer.allocUnsafe(4);
  out.writeUInt32LE(value);
  return out;
}

function bigEndian(value: number): Buffer {
  const out = Buffer.allocUnsafe(4);
  out.writeUInt32BE(value);
  return out;
}
