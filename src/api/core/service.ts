/**
 * Services. ClusterIPs, families and node ports are claimed by the API server's allocators between preparation and
 * validation; here is everything else.
 */

import { defineKind } from '../kind.ts';
import { warnOfAddress, warnOfRange } from '../machinery/address-forms.ts';
import { ageColumn, formatLabels, nameColumn, text, wideText } from '../machinery/columns.ts';
import { labelName } from '../machinery/names.ts';
import { eachAt } from '../machinery/validation.ts';
import {
  isExternallyAccessible,
  isHeadless,
  TOPOLOGY_HINTS_ANNOTATION,
  TOPOLOGY_MODE_ANNOTATION,
  validateService,
  validateServiceStatus,
  validateServiceUpdate,
} from './service-validation.ts';
import type { Service, ServicePort } from './v1.gen.ts';

const AFFINITY_SECONDS_DEFAULT = 10_800;

function serviceDefaults(service: Service): void {
  const spec = (service.spec ??= {});
  spec.sessionAffinity ||= 'None';
  if (spec.sessionAffinity === 'None') delete spec.sessionAffinityConfig;
  else if (spec.sessionAffinity === 'ClientIP') {
    const config = (spec.sessionAffinityConfig ??= {});
    (config.clientIP ??= {}).timeoutSeconds ??= AFFINITY_SECONDS_DEFAULT;
  }
  spec.type ||= 'ClusterIP';
  for (const port of spec.ports ?? []) {
    port.protocol ||= 'TCP';
    port.targetPort ||= port.port;
  }
  if (isExternallyAccessible(spec)) spec.externalTrafficPolicy ||= 'Cluster';
  if (spec.type !== 'ExternalName') spec.internalTrafficPolicy ??= 'Cluster';
  if (spec.type === 'LoadBalancer') {
    spec.allocateLoadBalancerNodePorts ??= true;
    for (const ingress of service.status?.loadBalancer?.ingress ?? []) if (ingress.ip) ingress.ipMode ??= 'VIP';
  }
  (service.status ??= {}).loadBalancer ??= {};
}

export const service = defineKind<Service>({
  group: '',
  version: 'v1',
  kind: 'Service',
  statusWarnings: ({ status }) => {
    const found: string[] = [];
    eachAt(status?.loadBalancer?.ingress, 'status.loadBalancer.ingress', ({ ip }, at) => warnOfAddress(found, at, ip));
    return found;
  },
  createOnUpdate: true,
  validateName: labelName,
  defaults: serviceDefaults,
  prepareCreate: object => {
    object.status = { loadBalancer: {} };
  },
  prepareUpdate: (object, old) => {
    // A load balancer's addresses go with the type.
    object.status = object.spec?.type === 'LoadBalancer' ? old.status! : { ...old.status, loadBalancer: {} };
  },
  prepareStatusUpdate: (object, old) => {
    object.spec = old.spec!;
  },
  validate: validateService,
  validateUpdate: validateServiceUpdate,
  validateStatusUpdate: validateServiceStatus,
  selectableFields: {
    'spec.clusterIP': object => object.spec?.clusterIP ?? '',
    'spec.type': object => object.spec?.type ?? '',
  },
  columns: [
    nameColumn,
    text('Type', object => object.spec?.type ?? ''),
    text('Cluster-IP', object => object.spec?.clusterIPs?.[0] || object.spec?.clusterIP || '<none>'),
    text('External-IP', externalAddress),
    text('Port(s)', object => (object.spec?.ports ?? []).map(portText).join(',') || '<none>'),
    ageColumn,
    wideText('Selector', object => formatLabels(object.spec?.selector)),
  ],
  warnings,
});

/** Upstream's, of what is ignored, deprecated or oddly written. */
function warnings({ metadata, spec = {} }: Service): string[] {
  const found: string[] = [];
  if (metadata.annotations?.[TOPOLOGY_HINTS_ANNOTATION] !== undefined)
    found.push(`annotation ${TOPOLOGY_HINTS_ANNOTATION} is deprecated, please use ${TOPOLOGY_MODE_ANNOTATION} instead`);
  if (isHeadless(spec)) {
    if (spec.loadBalancerIP) found.push('spec.loadBalancerIP is ignored for headless services');
    if (spec.externalIPs?.length) found.push('spec.externalIPs is ignored for headless services');
    if (spec.sessionAffinity !== 'None') found.push('spec.SessionAffinity is ignored for headless services');
  }
  if (!isHeadless(spec)) eachAt(spec.clusterIPs, 'spec.clusterIPs', (ip, at) => warnOfAddress(found, at, ip));
  eachAt(spec.externalIPs, 'spec.externalIPs', (ip, at) => warnOfAddress(found, at, ip));
  warnOfAddress(found, 'spec.loadBalancerIP', spec.loadBalancerIP);
  eachAt(spec.loadBalancerSourceRanges, 'spec.loadBalancerSourceRanges', (range, at) => warnOfRange(found, at, range));
  if (spec.externalIPs?.length) {
    if (spec.type === 'ExternalName') found.push('spec.externalIPs is ignored when spec.type is "ExternalName"');
    else if (!isHeadless(spec)) found.push('spec.externalIPs is deprecated');
  }
  if (spec.externalName && spec.type !== 'ExternalName')
    found.push('spec.externalName is ignored when spec.type is not "ExternalName"');
  return found;
}

/** Addresses of a load balancer, sorted and without repetition. */
export function loadBalancerAddresses(
  status: { ingress?: readonly { ip?: string; hostname?: string }[] } | undefined,
): string[] {
  const addresses = (status?.ingress ?? []).map(ingress => ingress.ip || ingress.hostname || '').filter(Boolean);
  return [...new Set(addresses)].sort();
}

function externalAddress(object: Service): string {
  const spec = object.spec ?? {};
  const external = spec.externalIPs ?? [];
  switch (spec.type) {
    case 'ClusterIP':
    case 'NodePort':
      return external.join(',') || '<none>';
    case 'LoadBalancer':
      return [...loadBalancerAddresses(object.status?.loadBalancer), ...external].join(',') || '<pending>';
    case 'ExternalName':
      return spec.externalName ?? '';
    default:
      return '<unknown>';
  }
}

function portText(port: ServicePort): string {
  return port.nodePort ? `${port.port}:${port.nodePort}/${port.protocol}` : `${port.port}/${port.protocol}`;
}
