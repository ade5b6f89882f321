/**
 * What one node should do with traffic to Services: a table computed from Services, EndpointSlices and the node's name.
 * Pure. Follows kube-proxy's rules for which endpoints count (KEP-1669 terminating endpoints, KEP-2086 internal traffic
 * policy): ready ones, else those that still serve while terminating.
 * Invariant: entries are frozen values; an unchanged Service keeps its entry, so a difference is found by identity.
 */

import type { Service } from '../api/core/v1.gen.ts';
import type { EndpointSlice, Endpoint as SliceEndpoint } from '../api/discovery/v1.gen.ts';

export type Protocol = 'TCP' | 'UDP' | 'SCTP';

export interface Endpoint {
  readonly ip: string;
  readonly port: number;
  /** On this node. */
  readonly local: boolean;
}

/**
 * One address and port that leads to a Service. `masquerade`: `off-cluster` hides senders that are no pods behind the node,
 * so that answers come back this way; `always` all senders.
 */
export interface Frontend {
  readonly kind: 'cluster-ip' | 'external-ip' | 'load-balancer-ip' | 'node-port';
  /** Undefined for a node port: every address of the node. */
  readonly address: string | undefined;
  readonly family: 4 | 6;
  readonly protocol: Protocol;
  readonly port: number;
  /** Sorted by address and port. */
  readonly endpoints: readonly Endpoint[];
  /** With external traffic policy Local: what traffic from outside the cluster may use. Undefined with policy Cluster. */
  readonly localEndpoints: readonly Endpoint[] | undefined;
  readonly masquerade: 'off-cluster' | 'always';
  /** Session affinity by client address for this long. */
  readonly affinitySeconds: number | undefined;
  /** What happens when no endpoint may be used. */
  readonly whenEmpty: 'reject' | 'drop';
  /** Who may use a load-balancer address; undefined: everybody. */
  readonly sourceRanges: readonly string[] | undefined;
}

export interface ServiceEntry {
  /** `namespace/name`. */
  readonly key: string;
  readonly frontends: readonly Frontend[];
  /** Of the Service, for traffic to ports that it does not have. */
  readonly clusterIps: readonly string[];
}

export type ServiceTable = ReadonlyMap<string, ServiceEntry>;

export const SERVICE_NAME_LABEL = 'kubernetes.io/service-name';
const PROXY_NAME_LABEL = 'service.kubernetes.io/service-proxy-name';
const HEADLESS_LABEL = 'service.kubernetes.io/headless';
const AFFINITY_SECONDS_DEFAULT = 10_800;

export interface NodeView {
  readonly nodeName: string;
  /** Service addresses that the node itself serves (cluster DNS): they get no rules. */
  readonly localVips: ReadonlySet<string>;
}

/** Whether kube-proxy handles the Service at all. */
export function isProxied(service: Service): boolean {
  const { clusterIP, type } = service.spec;
  if (type === 'ExternalName' || !clusterIP || clusterIP === 'None') return false;
  const labels = service.metadata.labels;
  return labels?.[PROXY_NAME_LABEL] === undefined && labels?.[HEADLESS_LABEL] === undefined;
}

/** The entry of one Service; undefined when nothing is to be done for it. `slices` are those of this Service. */
export function entryOf(service: Service, slices: readonly EndpointSlice[], view: NodeView): ServiceEntry | undefined {
  if (!isProxied(service)) return undefined;
  const { spec, metadata } = service;
  const frontends: Frontend[] = [];
  const affinitySeconds =
    spec.sessionAffinity === 'ClientIP'
      ? (spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? AFFINITY_SECONDS_DEFAULT)
      : undefined;
  const internalLocal = spec.internalTrafficPolicy === 'Local';
  const externalLocal =
    spec.externalTrafficPolicy === 'Local' &&
    (spec.type === 'NodePort' || spec.type === 'LoadBalancer' || (spec.externalIPs?.length ?? 0) > 0);
  const clusterIps = (spec.clusterIPs?.length ? spec.clusterIPs : [spec.clusterIP!]).filter(
    ip => !view.localVips.has(ip),
  );

  const families = new Set(clusterIps.map(familyOf));
  for (const servicePort of spec.ports ?? []) {
    const protocol = (servicePort.protocol ?? 'TCP') as Protocol;
    for (const family of families) {
      const candidates = endpointsOf(slices, {
        family,
        name: servicePort.name ?? '',
        protocol,
        nodeName: view.nodeName,
      });
      const all = usable(candidates);
      const local = usable(candidates.filter(endpoint => endpoint.local));
      const base = { family, protocol, affinitySeconds, sourceRanges: undefined };
      // No endpoint anywhere: say so at once. None on this node, which policy demands: stay silent, another node may have one.
      const whenEmpty = all.length === 0 ? 'reject' : 'drop';
      for (const address of clusterIps) {
        if (familyOf(address) !== family) continue;
        frontends.push({
          ...base,
          kind: 'cluster-ip',
          address,
          port: servicePort.port,
          endpoints: internalLocal ? local : all,
          localEndpoints: undefined,
          masquerade: 'off-cluster',
          whenEmpty,
        });
      }
      const external = {
        ...base,
        endpoints: all,
        localEndpoints: externalLocal ? local : undefined,
        masquerade: 'always',
        whenEmpty,
      } as const;
      for (const address of spec.externalIPs ?? []) {
        if (familyOf(address) === family)
          frontends.push({ ...external, kind: 'external-ip', address, port: servicePort.port });
      }
      if (spec.type === 'LoadBalancer') {
        const ranges = spec.loadBalancerSourceRanges?.filter(range => familyOf(range) === family);
        for (const { ip, ipMode } of service.status?.loadBalancer?.ingress ?? []) {
          if (!ip || ipMode === 'Proxy' || familyOf(ip) !== family) continue;
          frontends.push({
            ...external,
            kind: 'load-balancer-ip',
            address: ip,
            port: servicePort.port,
            sourceRanges: ranges?.length ? ranges : undefined,
          });
        }
      }
      if (servicePort.nodePort && (spec.type === 'NodePort' || spec.type === 'LoadBalancer')) {
        frontends.push({ ...external, kind: 'node-port', address: undefined, port: servicePort.nodePort });
      }
    }
  }
  return { key: `${metadata.namespace}/${metadata.name}`, frontends, clusterIps };
}

/** Whether two entries ask for the same; then the older one is kept. */
export function sameEntry(a: ServiceEntry | undefined, b: ServiceEntry | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && JSON.stringify(a) === JSON.stringify(b));
}

export function familyOf(text: string): 4 | 6 {
  return text.includes(':') ? 6 : 4;
}

interface Candidate extends Endpoint {
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
}

function usable(candidates: readonly Candidate[]): readonly Endpoint[] {
  const ready = candidates.filter(candidate => candidate.ready);
  const chosen = ready.length > 0 ? ready : candidates.filter(candidate => candidate.serving && candidate.terminating);
  return chosen.map(({ ip, port, local }) => ({ ip, port, local }));
}

function endpointsOf(
  slices: readonly EndpointSlice[],
  wanted: { family: 4 | 6; name: string; protocol: Protocol; nodeName: string },
): Candidate[] {
  const found = new Map<string, Candidate>();
  for (const slice of slices) {
    if (slice.addressType !== (wanted.family === 4 ? 'IPv4' : 'IPv6')) continue;
    for (const port of slice.ports ?? []) {
      if ((port.name ?? '') !== wanted.name || (port.protocol ?? 'TCP') !== wanted.protocol || port.port === undefined)
        continue;
      for (const endpoint of slice.endpoints ?? []) {
        const candidate = candidateOf(endpoint, port.port, wanted.nodeName);
        if (!candidate) continue;
        const key = `${candidate.ip}:${candidate.port}`;
        // While endpoints move between slices one may be in two: the more usable counts.
        const before = found.get(key);
        if (!before || rank(candidate) > rank(before)) found.set(key, candidate);
      }
    }
  }
  return [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, candidate]) => candidate);
}

function rank({ ready, serving, terminating }: Candidate): number {
  return ready ? 3 : serving && terminating ? 2 : serving ? 1 : 0;
}

// Absent conditions: ready and serving are true, terminating false (API doc of EndpointConditions).
function candidateOf(
  { addresses, conditions, nodeName }: SliceEndpoint,
  port: number,
  here: string,
): Candidate | undefined {
  const ip = addresses[0];
  if (ip === undefined) return undefined;
  const ready = conditions?.ready ?? true;
  return {
    ip,
    port,
    local: nodeName === here,
    ready,
    serving: conditions?.serving ?? ready,
    terminating: conditions?.terminating ?? false,
  };
}
