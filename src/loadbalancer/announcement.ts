/**
 * Which addresses this node announces, and how: pure, from objects and from who is alive. Every node computes the same answer
 * from the same objects, so nobody has to be asked. Invariant: for layer 2, among nodes that see the same world exactly
 * one announces an address; a node where the traffic could not be served never does while another can.
 */

import { createHash } from 'node:crypto';
import type { Node, Service } from '../api/core/v1.gen.ts';
import type { EndpointSlice } from '../api/discovery/v1.gen.ts';
import {
  type BGPAdvertisement,
  type IPAddressPool,
  type L2Advertisement,
  type PoolChoice,
  servesClass,
} from '../api/loadbalancer/v1beta1.ts';
import { labelSelectorMatch } from '../api/machinery/labels.ts';
import { type AddressRange, parseAddressRange, rangeHolds } from '../sys/address-range.ts';

const EXCLUDE_LABEL = 'node.kubernetes.io/exclude-from-external-load-balancers';

export interface World {
  readonly node: string;
  readonly services: Iterable<Service>;
  readonly slicesOf: (service: Service) => readonly EndpointSlice[];
  readonly nodes: readonly Node[];
  readonly pools: readonly IPAddressPool[];
  readonly l2Advertisements: readonly L2Advertisement[];
  readonly bgpAdvertisements: readonly BGPAdvertisement[];
  /** Nodes whose announcer was heard of lately, this one among them. */
  readonly isAlive: (node: string) => boolean;
}

export interface Announcement {
  readonly address: string;
  /** The Services that have it; the first one's events tell. */
  readonly services: readonly Service[];
  /** Links to announce on by ARP or NDP; `undefined` means the node's own; absent when another node does it, or none. */
  readonly layer2?: { readonly interfaces: readonly string[] | undefined };
  /** Advertisements by BGP that this node makes. */
  readonly bgp: readonly BGPAdvertisement[];
}

/** By address, in no order. An address that this node announces in no way is left out. */
export function announcements(world: World): Map<string, Announcement> {
  const self = world.nodes.find(({ metadata }) => metadata.name === world.node);
  const found = new Map<string, Announcement>();
  if (!self) return found;
  const pools = world.pools.map(readPool);
  const l2 = world.l2Advertisements.map(advertisement => choiceOf(advertisement));
  const bgp = world.bgpAdvertisements.map(advertisement => choiceOf(advertisement));
  for (const [address, holders] of servicesByAddress(world.services)) {
    const pool = pools.find(({ ranges }) => ranges.some(range => rangeHolds(range, address)));
    if (!pool) continue;
    const services = holders.filter(({ spec }) => servesClass(pool.object.spec, spec.loadBalancerClass));
    if (services.length === 0) continue;
    const serving = servingNodes(services, world);
    const mayAnnounce = (node: Node) => isEligible(node) && serving(node.metadata.name);

    const forPool = l2.filter(choice => choice.hasPool(pool.object));
    const candidates = world.nodes.filter(
      node => forPool.some(choice => choice.hasNode(node)) && mayAnnounce(node) && world.isAlive(node.metadata.name),
    );
    const elected = candidates.length > 0 && electedOf(candidates, address) === world.node;
    const own = forPool.filter(choice => choice.hasNode(self));
    const interfaces = own.some(({ advertisement }) => !advertisement.spec?.interfaces?.length)
      ? undefined
      : [...new Set(own.flatMap(({ advertisement }) => advertisement.spec?.interfaces ?? []))];

    const advertised = mayAnnounce(self)
      ? bgp.filter(choice => choice.hasPool(pool.object) && choice.hasNode(self)).map(choice => choice.advertisement)
      : [];
    if (elected || advertised.length > 0)
      found.set(address, { address, services, bgp: advertised, ...(elected ? { layer2: { interfaces } } : {}) });
  }
  return found;
}

/** Rendezvous hashing: a node that leaves takes only its own addresses with it. */
function electedOf(candidates: readonly Node[], address: string): string {
  let best = '';
  let highest = '';
  for (const { metadata } of candidates) {
    const score = createHash('sha256').update(`${metadata.name}#${address}`).digest('hex');
    if (score <= highest) continue;
    highest = score;
    best = metadata.name;
  }
  return best;
}

function servicesByAddress(services: Iterable<Service>): Map<string, Service[]> {
  const found = new Map<string, Service[]>();
  for (const service of services) {
    if (service.spec.type !== 'LoadBalancer') continue;
    for (const { ip, ipMode } of service.status?.loadBalancer?.ingress ?? [])
      if (ip && ipMode !== 'Proxy') found.set(ip, [...(found.get(ip) ?? []), service]);
  }
  return found;
}

/** Whether a connection that comes to the node would be served: every Service of the address must be. */
function servingNodes(services: readonly Service[], { slicesOf }: World): (node: string) => boolean {
  const places = services.map(service => {
    const endpoints = slicesOf(service).flatMap(slice => slice.endpoints ?? []);
    const serving = endpoints.filter(({ conditions }) => conditions?.serving ?? conditions?.ready ?? true);
    if (service.spec.externalTrafficPolicy !== 'Local') return serving.length > 0 ? 'everywhere' : new Set<string>();
    // As kube-proxy: those that are ending count only where there is none that is not.
    const ready = serving.filter(({ conditions }) => !conditions?.terminating);
    return new Set((ready.length > 0 ? ready : serving).map(({ nodeName }) => nodeName));
  });
  return node => places.every(place => place === 'everywhere' || place.has(node));
}

function isEligible({ metadata, status }: Node): boolean {
  if ((metadata.labels?.[EXCLUDE_LABEL] ?? 'false') !== 'false') return false;
  return !status?.conditions?.some(({ type, status }) => type === 'NetworkUnavailable' && status === 'True');
}

interface ReadPool {
  readonly object: IPAddressPool;
  readonly ranges: readonly AddressRange[];
}

/** A range that cannot be read is left out, and the allocator says so: what Services have of the others stays announced. */
function readPool(object: IPAddressPool): ReadPool {
  return {
    object,
    ranges: object.spec.addresses.flatMap(text => {
      try {
        return parseAddressRange(text);
      } catch {
        return [];
      }
    }),
  };
}

function choiceOf<T extends { readonly spec?: PoolChoice }>(advertisement: T) {
  const { ipAddressPools = [], ipAddressPoolSelectors = [], nodeSelectors = [] } = advertisement.spec ?? {};
  const poolMatches = ipAddressPoolSelectors.map(labelSelectorMatch);
  const nodeMatches = nodeSelectors.map(labelSelectorMatch);
  return {
    advertisement,
    hasPool: ({ metadata }: IPAddressPool) =>
      (ipAddressPools.length === 0 && poolMatches.length === 0) ||
      ipAddressPools.includes(metadata.name) ||
      poolMatches.some(match => match(metadata.labels)),
    hasNode: ({ metadata }: Node) => nodeMatches.length === 0 || nodeMatches.some(match => match(metadata.labels)),
  };
}
