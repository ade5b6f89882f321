/** What slices should mirror of an Endpoints object that somebody wrote by hand. Pure. */

import type { EndpointAddress, EndpointSubset, Endpoints } from '../../api/core/v1.gen.ts';
import type { Endpoint, EndpointPort } from '../../api/discovery/v1.gen.ts';
import { ipFamily } from '../../api/machinery/names.ts';
import { type AddressType, type DesiredGroup, portsKey } from '../endpointslice/desired.ts';

/** Upstream's --mirroring-max-endpoints-per-subset default. */
export const ADDRESSES_PER_SUBSET_MAX = 1000;

const SKIP_LABEL = 'endpointslice.kubernetes.io/skip-mirror';
const LEADER_ANNOTATION = 'control-plane.alpha.kubernetes.io/leader';
const NOT_COPIED = [
  'endpoints.kubernetes.io/last-change-trigger-time',
  'kubectl.kubernetes.io/last-applied-configuration',
];

/** Whether its author left it to us; locks of leader elections are no endpoints. */
export function isMirrored({ metadata: { labels, annotations } }: Endpoints): boolean {
  return labels?.[SKIP_LABEL] !== 'true' && annotations?.[LEADER_ANNOTATION] === undefined;
}

export function copiedAnnotations(endpoints: Endpoints): Record<string, string> {
  return Object.fromEntries(
    Object.entries(endpoints.metadata.annotations ?? {}).filter(([name]) => !NOT_COPIED.includes(name)),
  );
}

export interface Mirror {
  readonly groups: Readonly<Record<AddressType, readonly DesiredGroup[]>>;
  readonly invalid: number;
  readonly skipped: number;
}

export function mirrorOf(endpoints: Endpoints): Mirror {
  const groups = { IPv4: new Map<string, Group>(), IPv6: new Map<string, Group>() };
  let [invalid, skipped] = [0, 0];
  for (const subset of endpoints.subsets ?? []) {
    const ports = portsOf(subset);
    const key = portsKey(ports);
    const all = [
      ...(subset.addresses ?? []).map(address => ({ address, ready: true })),
      ...(subset.notReadyAddresses ?? []).map(address => ({ address, ready: false })),
    ];
    let added = 0;
    for (const { address, ready } of all) {
      const family = ipFamily(address.ip);
      if (added === ADDRESSES_PER_SUBSET_MAX) {
        skipped++;
        continue;
      }
      if (!family) {
        invalid++;
        continue;
      }
      added++;
      const group = groupOf(groups[family === 6 ? 'IPv6' : 'IPv4'], key, ports);
      const endpoint = endpointOf(address, ready);
      // One address in two subsets of the same ports is one endpoint.
      if (!group.endpoints.has(address.ip)) group.endpoints.set(address.ip, endpoint);
    }
  }
  const listed = (found: Map<string, Group>) =>
    [...found.values()].map(group => ({ ports: group.ports, endpoints: [...group.endpoints.values()] }));
  return { groups: { IPv4: listed(groups.IPv4), IPv6: listed(groups.IPv6) }, invalid, skipped };
}

interface Group {
  readonly ports: EndpointPort[];
  readonly endpoints: Map<string, Endpoint>;
}

function groupOf(groups: Map<string, Group>, key: string, ports: EndpointPort[]): Group {
  let group = groups.get(key);
  if (!group) groups.set(key, (group = { ports, endpoints: new Map() }));
  return group;
}

function portsOf(subset: EndpointSubset): EndpointPort[] {
  return (subset.ports ?? []).map(({ name = '', port, protocol = 'TCP', appProtocol }) => ({
    name,
    port,
    protocol,
    ...(appProtocol ? { appProtocol } : {}),
  }));
}

function endpointOf({ ip, hostname, nodeName, targetRef }: EndpointAddress, ready: boolean): Endpoint {
  return {
    addresses: [ip],
    conditions: { ready },
    ...(hostname ? { hostname } : {}),
    ...(targetRef ? { targetRef } : {}),
    ...(nodeName ? { nodeName } : {}),
  };
}
