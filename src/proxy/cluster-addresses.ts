/**
 * Which addresses are the cluster's own and so no Service's to take by `externalIPs`: those of pods (the cluster's ranges and
 * every node's), of Services (ServiceCIDR objects, and every cluster IP there is) and of nodes.
 * An administrator may allow some all the same: `allowed` ranges are nobody's.
 */

import type { Node } from '../api/core/v1.gen.ts';
import type { ServiceCIDR } from '../api/networking/v1.gen.ts';
import { formatAddress, type Prefix, parsePrefix, prefixContains, tryParseAddress } from '../sys/address.ts';

export interface ClusterRanges {
  readonly podRanges: readonly string[];
  readonly serviceRanges: readonly string[];
  readonly allowed: readonly string[];
}

export class ClusterAddresses {
  readonly #pods: readonly Prefix[];
  readonly #services: readonly Prefix[];
  readonly #allowed: readonly Prefix[];
  readonly #nodes: ReadonlySet<string>;
  /** Equal when the same addresses are the cluster's. */
  readonly fingerprint: string;

  constructor(ranges: ClusterRanges, nodes: Iterable<Node>, serviceCidrs: Iterable<ServiceCIDR>) {
    const pods = new Set(ranges.podRanges);
    const addresses = new Set<string>();
    for (const { spec, status } of nodes) {
      for (const range of spec?.podCIDRs ?? (spec?.podCIDR ? [spec.podCIDR] : [])) pods.add(range);
      for (const { type, address } of status?.addresses ?? [])
        if (type === 'InternalIP' || type === 'ExternalIP') addresses.add(address);
    }
    const services = new Set(ranges.serviceRanges);
    for (const { spec } of serviceCidrs) for (const range of spec?.cidrs ?? []) services.add(range);
    this.#pods = [...pods].map(parsePrefix);
    this.#services = [...services].map(parsePrefix);
    this.#allowed = ranges.allowed.map(parsePrefix);
    this.#nodes = addresses;
    this.fingerprint = JSON.stringify([[...pods].sort(), [...services].sort(), [...addresses].sort()]);
  }

  /** Undefined: nobody's in the cluster, or allowed. */
  ownerOf(address: string): 'pod' | 'service' | 'node' | undefined {
    const bytes = tryParseAddress(address);
    if (!bytes) return undefined;
    const within = (prefixes: readonly Prefix[]) => prefixes.some(prefix => prefixContains(prefix, bytes));
    if (within(this.#allowed)) return undefined;
    if (within(this.#pods)) return 'pod';
    if (within(this.#services)) return 'service';
    return this.#nodes.has(formatAddress(bytes)) ? 'node' : undefined;
  }
}
