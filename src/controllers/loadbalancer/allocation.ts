/**
 * Which addresses a LoadBalancer Service gets: the ones it has while they are still right, the ones it asks for, or the first
 * free ones of the pools that serve it. Pure. Invariant: an address has one Service, or several that name the same
 * sharing key, use different ports, and would send a connection to the same places.
 */

import type { Namespace, Service } from '../../api/core/v1.gen.ts';
import { GROUP, LOAD_BALANCER_CLASS, servesClass } from '../../api/loadbalancer/v1beta1.ts';
import { tryParseAddress } from '../../sys/address.ts';
import { addressesOf, type Pool, poolHolds } from './pool.ts';

// The first that is set counts; the others are those of MetalLB and kube-vip, so that their users' manifests work.
const ADDRESS_ANNOTATIONS = [
  `${GROUP}/loadBalancerIPs`,
  'metallb.io/loadBalancerIPs',
  'metallb.universe.tf/loadBalancerIPs',
  'kube-vip.io/loadbalancerIPs',
];
const POOL_ANNOTATIONS = [`${GROUP}/address-pool`, 'metallb.io/address-pool', 'metallb.universe.tf/address-pool'];
const SHARING_ANNOTATIONS = [
  `${GROUP}/allow-shared-ip`,
  'metallb.io/allow-shared-ip',
  'metallb.universe.tf/allow-shared-ip',
];

type Family = 4 | 6;

/** What a Service holds of an address. */
export interface Claim {
  readonly service: string;
  readonly sharingKey: string | undefined;
  /** `TCP/80`. */
  readonly ports: readonly string[];
  /** Two Services with equal ones send a connection to the same places, whichever node it comes to. */
  readonly backends: string;
}

export interface AllocationRequest {
  readonly service: Service;
  readonly namespace: Namespace | undefined;
  readonly pools: readonly Pool[];
  /** Claims of other Services on the address. */
  readonly claimsOn: (address: string) => readonly Claim[];
}

export type Allocation =
  | { readonly addresses: readonly string[] }
  | { readonly reason: 'AllocationFailed' | 'InvalidRequest'; readonly message: string };

/** Whether the Service is ours to serve. `elsewhere`: classes that a LoadBalancerProvider serves, '' for none. */
export function isOurs(service: Service, pools: readonly Pool[], elsewhere: ReadonlySet<string> = new Set()): boolean {
  const { type, loadBalancerClass } = service.spec;
  return (
    type === 'LoadBalancer' &&
    !elsewhere.has(loadBalancerClass ?? '') &&
    (loadBalancerClass === undefined ||
      loadBalancerClass === LOAD_BALANCER_CLASS ||
      pools.some(pool => pool.loadBalancerClass === loadBalancerClass))
  );
}

export function claimOf(service: Service): Claim {
  const { externalTrafficPolicy = 'Cluster', selector = {} } = service.spec;
  return {
    service: `${service.metadata.namespace}/${service.metadata.name}`,
    sharingKey: annotation(service, SHARING_ANNOTATIONS),
    ports: (service.spec.ports ?? []).map(({ protocol = 'TCP', port }) => `${protocol}/${port}`),
    backends: externalTrafficPolicy === 'Cluster' ? 'any' : JSON.stringify(Object.entries(selector).sort()),
  };
}

export const addressesIn = (service: Service): string[] =>
  (service.status?.loadBalancer?.ingress ?? []).flatMap(({ ip }) => (ip ? [ip] : []));

export function allocate(request: AllocationRequest): Allocation {
  const { service } = request;
  const name = `${service.metadata.namespace}/${service.metadata.name}`;
  const asked = requestedAddresses(service);
  const invalid = asked.find(address => !tryParseAddress(address));
  if (invalid !== undefined)
    return { reason: 'InvalidRequest', message: `"${invalid}" is not an IP address: cannot be given to "${name}"` };
  const poolName = annotation(service, POOL_ANNOTATIONS);
  const own = request.pools.filter(
    pool => servesClass(pool, service.spec.loadBalancerClass) && pool.serves(service, request.namespace),
  );
  if (poolName !== undefined && !own.some(pool => pool.name === poolName))
    return failed(name, unusablePool(poolName, request));
  const candidates = poolName === undefined ? own : own.filter(pool => pool.name === poolName);
  const claim = claimOf(service);

  const current = addressesIn(service);
  if (
    current.length > 0 &&
    suits(service, current) &&
    (asked.length === 0 || sameMembers(asked, current)) &&
    current.every(address => candidates.some(pool => poolHolds(pool, address)) && isFree(address, claim, request))
  )
    return { addresses: current };

  const giving = candidates.filter(({ problem }) => !problem);
  const bad = poolName === undefined ? undefined : candidates[0]?.problem;
  if (bad !== undefined) return failed(name, `the requested pool "${poolName}" gives nothing out: ${bad}`);
  if (asked.length > 0) return allocateAsked({ name, asked, candidates: giving, claim, request });
  return allocateFree({ name, candidates: giving, claim, request, pinned: poolName !== undefined });
}

interface Search {
  readonly name: string;
  readonly candidates: readonly Pool[];
  readonly claim: Claim;
  readonly request: AllocationRequest;
}

function allocateAsked({ name, asked, candidates, claim, request }: Search & { asked: readonly string[] }): Allocation {
  if (!suits(request.service, asked))
    return failed(
      name,
      `requested addresses [${asked.join(' ')}] do not fit the Service's families [${(request.service.spec.ipFamilies ?? []).join(' ')}]`,
    );
  for (const address of asked) {
    if (!candidates.some(pool => poolHolds(pool, address)))
      return failed(name, `["${address}"] is not in any pool that serves it: ${poolList(candidates)}`);
    const rival = rivalOf(address, claim, request);
    if (rival) return failed(name, rival);
  }
  return { addresses: asked };
}

function allocateFree({ name, candidates, claim, request, pinned }: Search & { pinned: boolean }): Allocation {
  const { families, all } = wantedFamilies(request.service);
  const pools = pinned ? candidates : candidates.filter(pool => pool.autoAssign);
  // All of a Service's addresses come from one pool where one has both families, as from one network.
  let best: string[] = [];
  for (const pool of pools) {
    const found = families.flatMap(family => firstFree(pool, family, claim, request) ?? []);
    if (found.length === families.length) return { addresses: found };
    if (found.length > best.length) best = found;
  }
  if (!all && best.length > 0) return { addresses: best };
  const wanted = families.map(family => `IPv${family}`).join(' and ');
  return failed(
    name,
    pools.length === 0
      ? `no address pool serves it; make one: kubectl explain ipaddresspools.spec`
      : `no available ${wanted} addresses: ${poolList(pools)}`,
  );
}

function firstFree(pool: Pool, family: Family, claim: Claim, request: AllocationRequest): string | undefined {
  for (const address of addressesOf(pool, family)) if (isFree(address, claim, request)) return address;
  return undefined;
}

const isFree = (address: string, claim: Claim, request: AllocationRequest): boolean =>
  rivalOf(address, claim, request) === undefined;

/** Why the address cannot be had beside those who have it. */
function rivalOf(address: string, claim: Claim, { claimsOn }: AllocationRequest): string | undefined {
  for (const other of claimsOn(address)) {
    if (other.service === claim.service) continue;
    const can = `"${address}" cannot be used: it is in use by "${other.service}"`;
    if (claim.sharingKey === undefined || claim.sharingKey !== other.sharingKey)
      return `${can}, and the two do not name the same sharing key`;
    const port = claim.ports.find(port => other.ports.includes(port));
    if (port) return `${can}, which has port ${port} too`;
    if (claim.backends !== other.backends)
      return `${can}, and with externalTrafficPolicy Local only Services of the same selector can share`;
  }
  return undefined;
}

function wantedFamilies({ spec }: Service): { families: Family[]; all: boolean } {
  const families = (spec.ipFamilies ?? ['IPv4']).map((family): Family => (family === 'IPv6' ? 6 : 4));
  return { families, all: spec.ipFamilyPolicy !== 'PreferDualStack' };
}

/** Whether the addresses are of the Service's families, one each. */
function suits(service: Service, addresses: readonly string[]): boolean {
  const { families, all } = wantedFamilies(service);
  const given = addresses.map((address): Family => (address.includes(':') ? 6 : 4));
  if (new Set(given).size !== given.length || given.some(family => !families.includes(family))) return false;
  return !all || given.length === families.length;
}

function requestedAddresses(service: Service): string[] {
  const text = annotation(service, ADDRESS_ANNOTATIONS) ?? service.spec.loadBalancerIP ?? '';
  return text
    .split(',')
    .map(address => address.trim())
    .filter(address => address !== '');
}

function unusablePool(name: string, { pools }: AllocationRequest): string {
  return pools.some(pool => pool.name === name)
    ? `the requested pool "${name}" does not serve this Service (its loadBalancerClass or serviceAllocation)`
    : `there is no pool "${name}"; there are: ${poolList(pools)}`;
}

const poolList = (pools: readonly Pool[]): string =>
  pools.length === 0 ? 'no pool' : pools.map(pool => `pool "${pool.name}"`).join(', ');

const failed = (name: string, why: string): Allocation => ({
  reason: 'AllocationFailed',
  message: `Failed to allocate IP for "${name}": ${why}`,
});

function annotation({ metadata }: Service, names: readonly string[]): string | undefined {
  for (const name of names) {
    const value = metadata.annotations?.[name];
    if (value) return value;
  }
  return undefined;
}

const sameMembers = (one: readonly string[], other: readonly string[]): boolean =>
  one.length === other.length && one.every(item => other.includes(item));
