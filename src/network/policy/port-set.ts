/**
 * Sets of ports of all protocols as one sorted list of intervals, so that rules can be added, subtracted and compared.
 * The line: TCP's ports, then UDP's, then SCTP's, then one place for whatever else there is (ICMP has no ports). Pure.
 */

import type { Protocol } from './statement.ts';

/** Inclusive ends in turn: from, to, from, to …; disjoint, ascending, not adjacent. */
export type PortSet = readonly number[];

const PORTS = 65_536;
const START: Readonly<Record<Protocol, number>> = { TCP: 0, UDP: PORTS, SCTP: 2 * PORTS };
const PROTOCOL_NUMBERS = [6, 17, 132] as const;
const OTHER = 3 * PORTS;

export const NO_PORTS: PortSet = [];
export const ALL_PORTS: PortSet = [0, OTHER];

export function portRange(protocol: Protocol, from: number, to: number): PortSet {
  return [START[protocol] + from, START[protocol] + to];
}

export function union(a: PortSet, b: PortSet): PortSet {
  if (a.length === 0) return b;
  if (b.length === 0) return a;
  const pairs: [number, number][] = [];
  for (const set of [a, b]) for (let i = 0; i < set.length; i += 2) pairs.push([set[i]!, set[i + 1]!]);
  pairs.sort((x, y) => x[0] - y[0]);
  const out: number[] = [];
  for (const [from, to] of pairs) {
    const last = out.length - 1;
    if (last > 0 && from <= out[last]! + 1) out[last] = Math.max(out[last]!, to);
    else out.push(from, to);
  }
  return out;
}

export function intersect(a: PortSet, b: PortSet): PortSet {
  const out: number[] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const [from, to] = [Math.max(a[i]!, b[j]!), Math.min(a[i + 1]!, b[j + 1]!)];
    if (from <= to) out.push(from, to);
    if (a[i + 1]! < b[j + 1]!) i += 2;
    else j += 2;
  }
  return out;
}

export function subtract(a: PortSet, b: PortSet): PortSet {
  const gaps: number[] = [];
  let next = 0;
  for (let i = 0; i < b.length; i += 2) {
    if (b[i]! > next) gaps.push(next, b[i]! - 1);
    next = b[i + 1]! + 1;
  }
  if (next <= OTHER) gaps.push(next, OTHER);
  return intersect(a, gaps);
}

/** `protocol` of any other name counts as one without ports. */
export function hasPort(set: PortSet, protocol: string, port: number): boolean {
  const start = Object.hasOwn(START, protocol) ? START[protocol as Protocol] : undefined;
  return intersect(set, start === undefined ? [OTHER, OTHER] : [start + port, start + port]).length > 0;
}

export interface PortRectangle {
  /** Protocol numbers of IP, inclusive. */
  readonly protocols: readonly [number, number];
  readonly ports: readonly [number, number];
}

/** The set as disjoint rectangles of (protocol number, port). */
export function rectanglesOf(set: PortSet): PortRectangle[] {
  const all = [0, PORTS - 1] as const;
  if (set.length === 2 && set[0] === 0 && set[1] === OTHER) return [{ protocols: [0, 255], ports: all }];
  const out: PortRectangle[] = [];
  PROTOCOL_NUMBERS.forEach((number, i) => {
    const own = intersect(set, [i * PORTS, (i + 1) * PORTS - 1]);
    for (let at = 0; at < own.length; at += 2)
      out.push({ protocols: [number, number], ports: [own[at]! - i * PORTS, own[at + 1]! - i * PORTS] });
  });
  if (intersect(set, [OTHER, OTHER]).length > 0) {
    let next = 0;
    for (const number of [...PROTOCOL_NUMBERS, 256]) {
      if (next < number) out.push({ protocols: [next, number - 1], ports: all });
      next = number + 1;
    }
  }
  return out;
}
