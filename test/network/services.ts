/** Short ways to write Services and EndpointSlices in tests. */

import type { Service } from '../../src/api/core/v1.gen.ts';
import type { Endpoint, EndpointSlice } from '../../src/api/discovery/v1.gen.ts';

export interface ShortPort {
  readonly name?: string;
  readonly port: number;
  readonly targetPort: number;
  readonly protocol?: string;
  readonly nodePort?: number;
}

export interface ShortService {
  readonly name: string;
  readonly type?: string;
  readonly clusterIP: string;
  readonly ports: readonly ShortPort[];
  readonly ingress?: readonly string[];
  readonly externalIPs?: string[];
  readonly loadBalancerSourceRanges?: string[];
  readonly externalTrafficPolicy?: string;
  readonly internalTrafficPolicy?: string;
  readonly sessionAffinity?: string;
}

export function service({ name, ingress, ports, ...spec }: ShortService): Service {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'default' },
    spec: {
      type: 'ClusterIP',
      ...spec,
      clusterIPs: [spec.clusterIP],
      ports: ports.map(port => ({ protocol: 'TCP', ...port })),
    },
    ...(ingress ? { status: { loadBalancer: { ingress: ingress.map(ip => ({ ip, ipMode: 'VIP' })) } } } : {}),
  };
}

export function slice(options: {
  service: string;
  endpoints: readonly Endpoint[];
  ports: readonly ShortPort[];
  name?: string;
}): EndpointSlice {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    addressType: 'IPv4',
    metadata: {
      name: options.name ?? options.service,
      namespace: 'default',
      labels: { 'kubernetes.io/service-name': options.service },
    },
    endpoints: [...options.endpoints],
    ports: options.ports.map(({ name, targetPort, protocol }) => ({
      ...(name ? { name } : {}),
      port: targetPort,
      protocol: protocol ?? 'TCP',
    })),
  };
}

export function endpoint(ip: string, options: { nodeName?: string; ready?: boolean } = {}): Endpoint {
  return {
    addresses: [ip],
    conditions: { ready: options.ready ?? true },
    ...(options.nodeName ? { nodeName: options.nodeName } : {}),
  };
}
