/**
 * A virtual address of the API server on the nodes' segment, as kube-vip gives one: a Service of type LoadBalancer that leads to the
 * server, announced like any other by a node that is elected, and taken over when that fails. It asks for an address of the pool; it does not
 * reach the machine's own 127.0.0.1, where the API is anyway.
 */

import type { Service } from '../api/core/v1.gen.ts';
import type { EndpointSlice } from '../api/discovery/v1.gen.ts';
import { LOAD_BALANCER_CLASS } from '../api/loadbalancer/v1beta1.ts';
import { failure, isReason, messageOf } from '../base/errors.ts';
import { ENDPOINT_SLICES, SERVICES } from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';
import { formatAddress, parseAddress } from '../sys/address.ts';
import { parseAddressRange, rangeHolds } from '../sys/address-range.ts';

const NAMESPACE = 'kube-system';
const NAME = 'kubernetes-vip';

export const isApiVirtualAddress = ({ metadata }: { metadata: { namespace?: string; name: string } }): boolean =>
  metadata.namespace === NAMESPACE && metadata.name === NAME;

/** Canonical; throws BadRequest unless one of `ranges` holds it. */
export function checkVirtualAddress(text: string, ranges: readonly string[]): string {
  const refuse = (why: string): never => {
    throw failure(400, 'BadRequest', `--api-vip: Invalid value: "${text}": ${why}`);
  };
  let address: string;
  try {
    address = formatAddress(parseAddress(text));
  } catch (error) {
    return refuse(messageOf(error));
  }
  if (!ranges.some(range => rangeHolds(parseAddressRange(range), address)))
    refuse(`must be an address of the cluster's load balancers: ${ranges.join(', ')}`);
  return address;
}

/** Makes it so, or takes it away. */
export async function ensureApiVirtualAddress(
  transport: Transport,
  {
    address,
    servers,
    port,
  }: { readonly address: string | undefined; readonly servers: readonly string[]; readonly port: number },
): Promise<void> {
  const service = { of: SERVICES, namespace: NAMESPACE, name: NAME };
  const slice = { of: ENDPOINT_SLICES, namespace: NAMESPACE, name: NAME };
  if (address === undefined) {
    for (const target of [service, slice])
      await transport.delete(target, {}).catch(error => {
        if (!isReason(error, 'NotFound')) throw error;
      });
    return;
  }
  const family = address.includes(':') ? 'IPv6' : 'IPv4';
  const ports = [{ name: 'https', protocol: 'TCP', port }];
  const wantedService = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: NAME, namespace: NAMESPACE },
    spec: {
      type: 'LoadBalancer',
      loadBalancerClass: LOAD_BALANCER_CLASS,
      loadBalancerIP: address,
      allocateLoadBalancerNodePorts: false,
      ipFamilies: [family],
      ports: ports.map(one => ({ ...one, targetPort: port })),
    },
  } as Service;
  const wantedSlice = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: NAME, namespace: NAMESPACE, labels: { 'kubernetes.io/service-name': NAME } },
    addressType: family,
    endpoints: servers
      .filter(server => server.includes(':') === (family === 'IPv6'))
      .map(server => ({ addresses: [server], conditions: { ready: true, serving: true, terminating: false } })),
    ports,
  } as EndpointSlice;
  const put = async (target: typeof service, object: Service | EndpointSlice, patch: object) => {
    try {
      await transport.create({ of: target.of, namespace: NAMESPACE }, object);
    } catch (error) {
      if (!isReason(error, 'AlreadyExists')) throw error;
      await transport.patch(target, patch, 'application/merge-patch+json');
    }
  };
  await put(service, wantedService, { spec: { loadBalancerIP: address } });
  await put(slice, wantedSlice, { endpoints: wantedSlice.endpoints, ports });
}
