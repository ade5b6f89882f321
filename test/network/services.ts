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

export interface ShortService extends Omit<NonNullable<Service['spec']>, 'ports'> {
  readonly name: string;
  readonly clusterIP: string;
  readonly ports: readonly ShortPort[];
  readonly ingress?: readonly (string | { ip: string; ipMode: string })[];
}

export function service({ name, ingress, ports, ...spec }: ShortService): Service {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'default' },
    spec: {
      type: 'ClusterIP',
      clusterIPs: [spec.clusterIP],
      ...spec,
      ports: ports.map(port => ({ protocol: 'TCP', ...port })),
    },
    ...(ingress
      ? {
          status: {
            loadBalancer: { ingress: ingress.map(ip => (typeof ip === 'string' ? { ip, ipMode: 'VIP' } : ip)) },
          },
        }
      : {}),
  };
}

/** Endpoints of one family. */
export function slice(options: {
  service: string;
  endpoints: readonly Endpoint[];
  ports: readonly ShortPort[];
  name?: string;
}): EndpointSlice {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    addressType: options.endpoints[0]?.addresses[0]?.includes(':') ? 'IPv6' : 'IPv4',
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

export function endpoint(
  ip: string,
  options: {
    nodeName?: string;
    ready?: boolean;
    conditions?: Endpoint['conditions'];
    hints?: Endpoint['hints'];
  } = {},
): Endpoint {
  const { ready = true, conditions = { ready }, nodeName, hints } = options;
  return {
    addresses: [ip],
    conditions,
    ...(nodeName ? { nodeName } : {}),
    ...(hints ? { hints } : {}),
  };
}
