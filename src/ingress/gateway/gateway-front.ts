/**
 * The Service and EndpointSlices in front of a Gateway's data planes, as they are to be: TCP ports lead to the nodes that listen for them, UDP
 * ports straight to pods. Purely from what is known; `gateway-controller.ts` writes them.
 */

import type { Node, Service } from '../../api/core/v1.gen.ts';
import type { EndpointSlice } from '../../api/discovery/v1.gen.ts';
import type { Gateway } from '../../api/gateway/v1.ts';
import type { OwnerReference } from '../../api/meta.ts';
import type { ServiceEndpoints } from '../service-endpoints.ts';
import type { GatewayResult } from './gateway-model.ts';
import {
  CLASS_LABEL,
  DATA_PLANE_ANNOTATION,
  GATEWAY_LABEL,
  MANAGED_LABEL,
  MANAGER,
  serviceName,
} from './gateway-service.ts';

const FAMILIES = ['IPv4', 'IPv6'] as const;
type Family = (typeof FAMILIES)[number];
const ADDRESSES_ANNOTATION = 'loadbalancer.coxswain.dev/loadBalancerIPs';

export function labelsOf({ metadata, spec }: Gateway): Record<string, string> {
  return {
    ...spec.infrastructure?.labels,
    [MANAGED_LABEL]: MANAGER,
    [GATEWAY_LABEL]: metadata.name.slice(0, 63),
    [CLASS_LABEL]: spec.gatewayClassName.slice(0, 63),
  };
}

function ownerOf({ metadata }: Gateway): OwnerReference {
  return {
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'Gateway',
    name: metadata.name,
    uid: metadata.uid ?? '',
    controller: true,
    blockOwnerDeletion: true,
  };
}

/** A Service has one address of each family: the first of those that the Gateway asks for. */
function askedAddresses({ spec }: Gateway): string[] {
  const asked = (spec.addresses ?? []).flatMap(({ value }) => value || []);
  return FAMILIES.flatMap(family => asked.find(each => familyOf(each) === family) ?? []);
}

const familyOf = (address: string): Family => (address.includes(':') ? 'IPv6' : 'IPv4');

export function serviceOf(
  { gateway, udpPorts }: GatewayResult,
  targets: ReadonlyMap<number, number>,
  before: Service | undefined,
): Service {
  const known = (name: string) => before?.spec?.ports?.find(each => each.name === name);
  const [first, ...others] = askedAddresses(gateway);
  const ports = [
    ...[...targets].map(([port, targetPort]) => ({ name: `tcp-${port}`, port, targetPort, protocol: 'TCP' })),
    ...[...udpPorts.keys()].map(port => ({ name: `udp-${port}`, port, targetPort: port, protocol: 'UDP' })),
  ].map(each => {
    const nodePort = known(each.name)?.nodePort;
    return nodePort ? { ...each, nodePort } : each;
  });
  const { loadBalancerIP: _, ...spec } = before?.spec ?? {};
  const { [ADDRESSES_ANNOTATION]: __, ...annotations } = before?.metadata.annotations ?? {};
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      ...before?.metadata,
      name: serviceName(gateway),
      namespace: gateway.metadata.namespace ?? '',
      labels: { ...before?.metadata.labels, ...labelsOf(gateway) },
      annotations: {
        ...annotations,
        ...gateway.spec.infrastructure?.annotations,
        ...(first && others.length > 0 ? { [ADDRESSES_ANNOTATION]: [first, ...others].join(',') } : {}),
      },
      ownerReferences: [ownerOf(gateway)],
    },
    spec: {
      ...spec,
      type: 'LoadBalancer',
      // Keeps the addresses of clients; pods of UDP routes may be on other nodes than the address.
      externalTrafficPolicy: udpPorts.size > 0 ? 'Cluster' : 'Local',
      ports,
      // One address that is asked for is of one family; otherwise one of each that the cluster has.
      ...(first && others.length === 0
        ? { loadBalancerIP: first, ipFamilyPolicy: 'SingleStack', ipFamilies: [familyOf(first)] }
        : { ipFamilyPolicy: 'PreferDualStack' }),
    },
  };
}

/** Nodes that listen on all of these ports. */
export function servingNodes(nodes: Iterable<Node>, ports: readonly number[]): Node[] {
  return [...nodes]
    .filter(node => {
      const listening = new Set(node.metadata.annotations?.[DATA_PLANE_ANNOTATION]?.split(','));
      return ports.every(port => listening.has(String(port)));
    })
    .sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
}

export function isReady(node: Node): boolean {
  return node.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;
}

export function slicesOf(
  result: GatewayResult,
  targets: ReadonlyMap<number, number>,
  nodes: readonly Node[],
  endpoints: ServiceEndpoints,
): EndpointSlice[] {
  const { gateway, udpPorts } = result;
  const service = serviceName(gateway);
  const slice = (name: string, family: Family, rest: Pick<EndpointSlice, 'endpoints' | 'ports'>): EndpointSlice => ({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `${service}-${name}-${family.toLowerCase()}`,
      namespace: gateway.metadata.namespace ?? '',
      labels: {
        ...labelsOf(gateway),
        'kubernetes.io/service-name': service,
        'endpointslice.kubernetes.io/managed-by': MANAGER,
      },
      ownerReferences: [ownerOf(gateway)],
    },
    addressType: family,
    ...rest,
  });
  const slices: EndpointSlice[] = [];
  // A slice for each port: the nodes do not listen yet for one that is new, and go on with the others.
  for (const [port, target] of targets) {
    const listening = servingNodes(nodes, [target]);
    for (const family of FAMILIES) {
      const serving = listening.flatMap(node => {
        const address = node.status?.addresses?.find(
          each => each.type === 'InternalIP' && familyOf(each.address) === family,
        )?.address;
        const ready = isReady(node);
        return address === undefined
          ? []
          : [
              {
                addresses: [address],
                nodeName: node.metadata.name,
                conditions: { ready, serving: ready, terminating: false },
              },
            ];
      });
      if (serving.length === 0 && family === 'IPv6') continue;
      const ports = [{ name: `tcp-${port}`, port: target, protocol: 'TCP' }];
      slices.push(slice(`tcp-${port}`, family, { endpoints: serving, ports }));
    }
  }
  for (const [port, services] of udpPorts) {
    const byPort = new Map<string, Set<string>>();
    for (const ref of services)
      for (const address of endpoints.of({ ...ref, protocol: 'UDP' }).addresses) {
        const at = address.lastIndexOf(':');
        const ip = address.slice(0, at).replace(/[[\]]/g, '');
        const key = `${ip.includes(':') ? 'IPv6' : 'IPv4'} ${address.slice(at + 1)}`;
        byPort.set(key, (byPort.get(key) ?? new Set()).add(ip));
      }
    for (const [key, ips] of byPort) {
      const [family, target] = key.split(' ') as [Family, string];
      slices.push(
        slice(`udp-${port}-${target}`, family, {
          endpoints: [...ips]
            .sort()
            .map(ip => ({ addresses: [ip], conditions: { ready: true, serving: true, terminating: false } })),
          ports: [{ name: `udp-${port}`, port: Number(target), protocol: 'UDP' }],
        }),
      );
    }
  }
  return slices;
}
