/**
 * An IPAddressPool as the allocator reads it: ranges parsed, selectors compiled. Pure. A pool with a bad range gives out nothing at all, but
 * Services keep what they have of it: a slip of the pen must not take their addresses.
 */

import type { Namespace, Service } from '../../api/core/v1.gen.ts';
import type { IPAddressPool } from '../../api/loadbalancer/v1beta1.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import { messageOf } from '../../base/errors.ts';
import {
  type AddressRange,
  addressOf,
  parseAddressRange,
  rangeHolds,
  rangesOverlap,
  sizeOf,
} from '../../sys/address-range.ts';

export interface Pool {
  readonly name: string;
  /** Why it gives nothing out. */
  readonly problem?: string;
  readonly priority: number;
  readonly ranges: readonly AddressRange[];
  readonly autoAssign: boolean;
  readonly loadBalancerClass: string | undefined;
  /** Whether its `serviceAllocation` lets the Service have an address of it. */
  readonly serves: (service: Service, namespace: Namespace | undefined) => boolean;
  readonly mayGive: (address: string) => boolean;
}

const LAST_PRIORITY = 2 ** 31;

/** In the order in which they are tried. */
export function readPools(objects: Iterable<IPAddressPool>): Pool[] {
  const pools: Pool[] = [];
  // Of two that overlap the older one wins.
  const byAge = [...objects].sort((a, b) => compare(ageOf(a), ageOf(b)) || compare(a.metadata.name, b.metadata.name));
  for (const object of byAge) {
    const pool = readPool(object);
    const rival = pools
      .filter(({ problem }) => !problem)
      .find(other => other.ranges.some(one => pool.ranges.some(two => rangesOverlap(one, two))));
    const overlap = rival && `spec.addresses: overlaps with those of the pool "${rival.name}"`;
    const problem = pool.problem ?? overlap;
    pools.push(problem ? { ...pool, problem } : pool);
  }
  return pools.sort((a, b) => a.priority - b.priority || compare(a.name, b.name));
}

function readPool({ metadata, spec }: IPAddressPool): Pool {
  const ranges: AddressRange[] = [];
  let problem: string | undefined;
  for (const [at, text] of (spec.addresses ?? []).entries())
    try {
      ranges.push(parseAddressRange(text));
    } catch (error) {
      problem ??= `spec.addresses[${at}]: ${messageOf(error)}`;
    }
  if (!spec.addresses?.length) problem = 'spec.addresses: at least one prefix or range is needed';
  const {
    priority = 0,
    namespaces = [],
    namespaceSelectors = [],
    serviceSelectors = [],
  } = spec.serviceAllocation ?? {};
  const namespaceMatches = namespaceSelectors.map(labelSelectorMatch);
  const serviceMatches = serviceSelectors.map(labelSelectorMatch);
  return {
    name: metadata.name,
    ...(problem ? { problem } : {}),
    priority: priority > 0 ? priority : LAST_PRIORITY,
    ranges,
    autoAssign: spec.autoAssign ?? true,
    loadBalancerClass: spec.loadBalancerClass,
    serves: (service, namespace) =>
      ((namespaces.length === 0 && namespaceMatches.length === 0) ||
        namespaces.includes(service.metadata.namespace!) ||
        namespaceMatches.some(match => match(namespace?.metadata.labels))) &&
      (serviceMatches.length === 0 || serviceMatches.some(match => match(service.metadata.labels))),
    mayGive: address => !(spec.avoidBuggyIPs && /\.(0|255)$/.test(address)),
  };
}

export function poolHolds(pool: Pool, address: string): boolean {
  return pool.ranges.some(range => rangeHolds(range, address)) && pool.mayGive(address);
}

/** Addresses of the family in order. Large ranges are walked lazily. */
export function* addressesOf(pool: Pool, family: 4 | 6): Iterable<string> {
  for (const range of pool.ranges) {
    if (range.family !== family) continue;
    for (let number = range.first; number <= range.last; number++) {
      const address = addressOf(family, number);
      if (pool.mayGive(address)) yield address;
    }
  }
}

/** How many addresses it has; beyond what a number holds exactly, that bound. */
export function capacityOf(pool: Pool, family: 4 | 6): number {
  const total = pool.ranges.filter(range => range.family === family).reduce((sum, range) => sum + sizeOf(range), 0n);
  const most = BigInt(Number.MAX_SAFE_INTEGER);
  return Number(total < most ? total : most);
}

const ageOf = (pool: IPAddressPool): string => pool.metadata.creationTimestamp ?? '';
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
