/**
 * What one node should do with traffic to Services: a table computed from Services, EndpointSlices and the node's name.
 * Pure. `endpoint-choice.ts` decides which endpoints count, `claims.ts` who has an address that several Services ask for.
 * Invariant: entries are frozen values; an unchanged Service keeps its entry, so a difference is found by identity.
 */

import type { Service } from '../api/core/v1.gen.ts';
import type { EndpointSlice } from '../api/discovery/v1.gen.ts';
import { chooseEndpoints } from './endpoint-choice.ts';

export type Protocol = 'TCP' | 'UDP' | 'SCTP';

export interface Endpoint {
  readonly ip: string;
  readonly port: number;
  /** On this node. */
  readonly local: boolean;
}

/** Session affinity by client address. Whatever has the same memory, address, port and protocol sends a client to the same endpoint. */
export interface Affinity {
  readonly seconds: number;
  /** The cluster IP and port of the Service's port, for all of its addresses and node ports. */
  readonly address: string;
  readonly port: number;
  /** Whether `endpoints` are all of them or only this node's. `localEndpoints` always have the memory `local`. */
  readonly memory: 'all' | 'local';
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
  /** In the order in which the kernel has them, which lets a change move few: see `endpoint-order.ts`. */
  readonly endpoints: readonly Endpoint[];
  /** With external traffic policy Local: what traffic from outside the cluster may use. Undefined with policy Cluster. */
  readonly localEndpoints: readonly Endpoint[] | undefined;
  readonly masquerade: 'off-cluster' | 'always';
  readonly affinity: Affinity | undefined;
  /** What happens when no endpoint may be used. */
  readonly whenEmpty: 'reject' | 'drop';
  /** Who may use a load-balancer address; undefined: everybody. */
  readonly sourceRanges: readonly string[] | undefined;
}

/** What a load balancer asks a node for, to learn whether it has endpoints (external traffic policy Local). */
export interface HealthCheck {
  readonly port: number;
  /** Ready endpoints on this node, of any port. */
  readonly localEndpoints: number;
}

/** An address that the Service asks for and does not get, and why. */
export interface RefusedAddress {
  readonly field: 'spec.externalIPs' | 'status.loadBalancer.ingress';
  readonly address: string;
  /** `an address of a pod`; reads on after "is". */
  readonly because: string;
}

export interface ServiceEntry {
  /** `namespace/name`. */
  readonly key: string;
  readonly frontends: readonly Frontend[];
  /** Of the Service, for traffic to ports that it does not have. */
  readonly clusterIps: readonly string[];
  readonly healthCheck?: HealthCheck | undefined;
  readonly refused?: readonly RefusedAddress[] | undefined;
  /** RFC 3339; of two Services that ask for one address the older has it. */
  readonly createdAt?: string | undefined;
}

export type ServiceTable = ReadonlyMap<string, ServiceEntry>;

export const SERVICE_NAME_LABEL = 'kubernetes.io/service-name';
const PROXY_NAME_LABEL = 'service.kubernetes.io/service-proxy-name';
const HEADLESS_LABEL = 'service.kubernetes.io/headless';
const AFFINITY_SECONDS_DEFAULT = 10_800;

export interface NodeView {
  readonly nodeName: string;
  /** The node's label `topology.kubernetes.io/zone`. */
  readonly zone?: string | undefined;
  /** Service addresses that the node itself serves (cluster DNS): they get no rules. */
  readonly localVips: ReadonlySet<string>;
  /** Whose an address is that no Service may take for itself: see `cluster-addresses.ts`. Undefined: everything may be taken. */
  readonly ownerOf?: ((address: string) => 'pod' | 'service' | 'node' | undefined) | undefined;
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
  const outer = outerAddresses(service, view);
  const localIps = new Set<string>();

  const families = new Set(clusterIps.map(familyOf));
  for (const servicePort of spec.ports ?? []) {
    const protocol = (servicePort.protocol ?? 'TCP') as Protocol;
    for (const family of families) {
      const { cluster, local, localReady } = chooseEndpoints(slices, {
        family,
        portName: servicePort.name ?? '',
        protocol,
        place: view,
      });
      for (const { ip } of localReady) localIps.add(ip);
      const affinity: Affinity | undefined =
        affinitySeconds === undefined
          ? undefined
          : {
              seconds: affinitySeconds,
              address: clusterIps.find(ip => familyOf(ip) === family)!,
              port: servicePort.port,
              memory: 'all',
            };
      const base = {
        family,
        protocol,
        affinity,
        sourceRanges: undefined,
        // No endpoint anywhere: say so at once. None on this node, which policy demands: stay silent, another node may have one.
        whenEmpty: cluster.length === 0 ? 'reject' : 'drop',
      } as const;
      for (const address of clusterIps) {
        if (familyOf(address) !== family) continue;
        frontends.push({
          ...base,
          kind: 'cluster-ip',
          address,
          port: servicePort.port,
          endpoints: internalLocal ? local : cluster,
          ...(internalLocal && affinity ? { affinity: { ...affinity, memory: 'local' } } : {}),
          localEndpoints: undefined,
          masquerade: 'off-cluster',
        });
      }
      const external = {
        ...base,
        endpoints: cluster,
        localEndpoints: externalLocal ? local : undefined,
        masquerade: 'always',
      } as const;
      for (const { kind, address, sourceRanges } of outer.taken)
        if (familyOf(address) === family)
          frontends.push({ ...external, kind, address, port: servicePort.port, sourceRanges });
      if (servicePort.nodePort && (spec.type === 'NodePort' || spec.type === 'LoadBalancer')) {
        frontends.push({ ...external, kind: 'node-port', address: undefined, port: servicePort.nodePort });
      }
    }
  }
  return {
    key: `${metadata.namespace}/${metadata.name}`,
    frontends,
    clusterIps,
    ...(spec.type === 'LoadBalancer' && externalLocal && spec.healthCheckNodePort
      ? { healthCheck: { port: spec.healthCheckNodePort, localEndpoints: localIps.size } }
      : {}),
    ...(outer.refused.length > 0 ? { refused: outer.refused } : {}),
    ...(metadata.creationTimestamp ? { createdAt: metadata.creationTimestamp } : {}),
  };
}

interface OuterAddress {
  readonly kind: 'external-ip' | 'load-balancer-ip';
  readonly address: string;
  readonly sourceRanges: readonly string[] | undefined;
}

/**
 * Addresses beside the cluster IPs. What is a pod's or a Service's own is refused, wherever it stands, and what is a node's
 * in `externalIPs`, which whoever may write a Service may write; a node's address in the status was put there by a load balancer.
 */
function outerAddresses(service: Service, view: NodeView): { taken: OuterAddress[]; refused: RefusedAddress[] } {
  const { spec, status } = service;
  const taken: OuterAddress[] = [];
  const refused: RefusedAddress[] = [];
  const seen = new Set<string>();
  const offer = (address: string, field: RefusedAddress['field'], take: () => OuterAddress) => {
    if (seen.has(address)) return;
    seen.add(address);
    const owner = view.ownerOf?.(address);
    if (owner === undefined || (owner === 'node' && field === 'status.loadBalancer.ingress')) taken.push(take());
    else refused.push({ field, address, because: `an address of a ${owner === 'service' ? 'Service' : owner}` });
  };
  if (spec.type === 'LoadBalancer') {
    for (const { ip, ipMode } of status?.loadBalancer?.ingress ?? []) {
      if (!ip || ipMode === 'Proxy') continue;
      const ranges = spec.loadBalancerSourceRanges
        ?.map(range => range.trim())
        .filter(range => familyOf(range) === familyOf(ip));
      offer(ip, 'status.loadBalancer.ingress', () => ({
        kind: 'load-balancer-ip',
        address: ip,
        sourceRanges: ranges?.length ? ranges : undefined,
      }));
    }
  }
  for (const address of spec.externalIPs ?? [])
    offer(address, 'spec.externalIPs', () => ({ kind: 'external-ip', address, sourceRanges: undefined }));
  return { taken, refused };
}

/** Whether two entries ask for the same; then the older one is kept. */
export function sameEntry(a: ServiceEntry | undefined, b: ServiceEntry | undefined): boolean {
  if (a === b) return true;
  if (!a || !b || a.frontends.length !== b.frontends.length) return false;
  return (
    a.frontends.every((frontend, i) => sameFrontend(frontend, b.frontends[i]!)) &&
    JSON.stringify({ ...a, frontends: undefined }) === JSON.stringify({ ...b, frontends: undefined })
  );
}

function sameFrontend(a: Frontend, b: Frontend): boolean {
  const rest = (frontend: Frontend) =>
    JSON.stringify({ ...frontend, endpoints: undefined, localEndpoints: frontend.localEndpoints?.length });
  return (
    sameList(a.endpoints, b.endpoints) &&
    sameList(a.localEndpoints ?? [], b.localEndpoints ?? []) &&
    rest(a) === rest(b)
  );
}

function sameList(a: readonly Endpoint[], b: readonly Endpoint[]): boolean {
  if (a === b) return true;
  return (
    a.length === b.length &&
    a.every(({ ip, port, local }, i) => ip === b[i]!.ip && port === b[i]!.port && local === b[i]!.local)
  );
}

export function familyOf(text: string): 4 | 6 {
  return text.includes(':') ? 6 : 4;
}
