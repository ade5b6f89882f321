/**
 * The Service `default/kubernetes`, through which pods reach the API server, with its Endpoints and EndpointSlice, and the
 * ServiceCIDR `kubernetes`. Written at start and again when somebody deletes one, and only where they differ from what they
 * should be.
 */

import type { Endpoints, Service } from '../../api/core/v1.gen.ts';
import type { EndpointSlice } from '../../api/discovery/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { ServiceCIDR } from '../../api/networking/v1.gen.ts';
import { type Clock, formatTime } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { ApiEventRecorder } from '../../client/event-recorder.ts';
import { ENDPOINT_SLICES, ENDPOINTS, SERVICE_CIDRS, SERVICES } from '../../client/resources.ts';
import type { ResourceId, Transport } from '../../client/transport.ts';
import type { Reader } from '../request.ts';
import { AddressRange } from './address-range.ts';
import { DEFAULT_SERVICE_CIDR } from './cluster-addresses.ts';

const MEND_MS = 1000;

export interface KubernetesServiceOptions {
  readonly reader: () => Reader;
  readonly transport: () => Transport;
  readonly clock: Clock;
  readonly log: Logger;
  readonly cidrs: readonly string[];
  /** Where pods and nodes reach this API server; not a loopback address. */
  readonly advertise: { readonly address: string; readonly port: number };
}

/** Idempotent; the namespace `default` must exist. */
export async function ensureKubernetesService(options: KubernetesServiceOptions): Promise<void> {
  const { address, port } = options.advertise;
  const meta = { name: 'kubernetes', namespace: 'default' };
  const range = new AddressRange(options.cidrs[0]!);
  const service: Service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { ...meta, labels: { component: 'apiserver', provider: 'kubernetes' } },
    spec: {
      type: 'ClusterIP',
      clusterIP: range.at(1),
      clusterIPs: [range.at(1)],
      ipFamilies: [range.family],
      ipFamilyPolicy: 'SingleStack',
      sessionAffinity: 'None',
      internalTrafficPolicy: 'Cluster',
      ports: [{ name: 'https', port: 443, protocol: 'TCP', targetPort: port }],
    },
  };
  const endpoints: Endpoints = {
    apiVersion: 'v1',
    kind: 'Endpoints',
    metadata: { ...meta, labels: { 'endpointslice.kubernetes.io/skip-mirror': 'true' } },
    subsets: [{ addresses: [{ ip: address }], ports: [{ name: 'https', port, protocol: 'TCP' }] }],
  };
  const slice: EndpointSlice = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { ...meta, labels: { 'kubernetes.io/service-name': 'kubernetes' } },
    addressType: address.includes(':') ? 'IPv6' : 'IPv4',
    endpoints: [{ addresses: [address], conditions: { ready: true } }],
    ports: [{ name: 'https', port, protocol: 'TCP' }],
  };
  const targetPort = (object: KubeObject) => (object as Service).spec?.ports?.[0]?.targetPort;
  await Promise.all([
    ensureServiceCidr(options),
    ensure(
      options,
      SERVICES,
      service,
      existing => targetPort(existing) === port,
      existing => ({ ...existing, spec: { ...(existing as Service).spec, ports: service.spec!.ports! } }) as KubeObject,
    ),
    ensure(
      options,
      ENDPOINTS,
      endpoints,
      existing => same((existing as Endpoints).subsets, endpoints.subsets),
      existing => ({ ...existing, subsets: endpoints.subsets }) as KubeObject,
    ),
    ensure(
      options,
      ENDPOINT_SLICES,
      slice,
      existing => same(endpointsOf(existing), endpointsOf(slice)),
      existing => ({ ...existing, endpoints: slice.endpoints, ports: slice.ports }) as KubeObject,
    ),
  ]);
}

/** Brings back what was deleted, soon after. */
export function keepKubernetesService(options: KubernetesServiceOptions): void {
  let isDue = false;
  const mend = (object: KubeObject | undefined, old: KubeObject | undefined) => {
    const { name, namespace } = old?.metadata ?? {};
    if (object || name !== 'kubernetes' || (namespace ?? 'default') !== 'default' || isDue) return;
    isDue = true;
    const run = () => {
      isDue = false;
      void ensureKubernetesService(options).catch(error =>
        options.log.warn('the Service kubernetes could not be mended', { error: messageOf(error) }),
      );
    };
    options.clock.after(MEND_MS, run, { background: true });
  };
  for (const resource of [SERVICES, ENDPOINTS, ENDPOINT_SLICES, SERVICE_CIDRS])
    options.reader().onChange(resource, mend);
}

// A range of the other family may be added to it, nothing else: what Services have must stay within.
async function ensureServiceCidr(options: KubernetesServiceOptions): Promise<void> {
  const { reader, transport, clock, log, cidrs } = options;
  const target = { of: SERVICE_CIDRS, name: DEFAULT_SERVICE_CIDR };
  let object = reader().get(SERVICE_CIDRS, '', DEFAULT_SERVICE_CIDR) as ServiceCIDR | undefined;
  object ??= (await transport().create(target, {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'ServiceCIDR',
    metadata: { name: DEFAULT_SERVICE_CIDR },
    spec: { cidrs: [...cidrs] },
  } as KubeObject)) as ServiceCIDR;
  if (object.metadata.deletionTimestamp) return;
  const stored = object.spec?.cidrs ?? [];
  if (stored.length === 1 && cidrs.length === 2 && stored[0] === cidrs[0])
    object = (await transport().update(target, {
      ...object,
      spec: { cidrs: [...cidrs] },
    } as KubeObject)) as ServiceCIDR;
  else if (!same(stored, cidrs)) {
    const message = `The default ServiceCIDR [${stored.join(' ')}] does not match the controller flag configurations [${cidrs.join(' ')}]`;
    log.warn(message);
    const component = 'kubernetes-service-cidr-controller';
    const events = new ApiEventRecorder({ transport: transport(), component, clock, log });
    events.event(object, 'Warning', 'KubernetesDefaultServiceCIDRInconsistent', message);
    return;
  }
  if (object.status?.conditions?.some(({ type }) => type === 'Ready')) return;
  const ready = {
    type: 'Ready',
    status: 'True',
    reason: '',
    message: 'Kubernetes default Service CIDR is ready',
    lastTransitionTime: formatTime(clock.now()),
  };
  await transport().update({ ...target, subresource: 'status' }, {
    ...object,
    status: { conditions: [ready] },
  } as KubeObject);
}

async function ensure(
  options: KubernetesServiceOptions,
  of: ResourceId,
  wanted: KubeObject,
  isRight: (existing: KubeObject) => boolean,
  mend: (existing: KubeObject) => KubeObject,
): Promise<void> {
  const { namespace = '', name } = wanted.metadata;
  const existing = options.reader().get(of, namespace, name);
  try {
    if (!existing) await options.transport().create({ of, namespace }, wanted);
    else if (!isRight(existing)) await options.transport().update({ of, namespace, name }, mend(existing));
  } catch (error) {
    if (!isReason(error, 'AlreadyExists', 'Conflict')) throw error;
  }
}

// Defaults that the server added must not make it look different.
function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function endpointsOf(object: KubeObject): unknown {
  const { endpoints, ports } = object as EndpointSlice;
  return [
    endpoints?.map(({ addresses, conditions }) => [addresses, conditions?.ready]),
    ports?.map(({ name, port, protocol }) => [name, port, protocol]),
  ];
}
