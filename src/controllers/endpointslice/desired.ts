/** What a Service's slices should hold: endpoints of one address family grouped by the ports they serve. Pure. */

import type { Node, Pod, Service } from '../../api/core/v1.gen.ts';
import type { Endpoint, EndpointPort } from '../../api/discovery/v1.gen.ts';
import { ipFamily } from '../../api/machinery/names.ts';
import { findPort, isPodReady, podIPs } from '../../api/machinery/pod.ts';
import { endpointHostname, mayBeEndpoint } from '../runtime/service-selection.ts';

export type AddressType = 'IPv4' | 'IPv6';

export interface DesiredGroup {
  readonly ports: readonly EndpointPort[];
  readonly endpoints: readonly Endpoint[];
}

export function addressTypes(service: Service): AddressType[] {
  const families = service.spec?.ipFamilies ?? [];
  if (families.length > 0) return families.map(family => family as AddressType);
  const clusterIP = service.spec?.clusterIP;
  return [clusterIP && ipFamily(clusterIP) === 6 ? 'IPv6' : 'IPv4'];
}

/** Ports by the numbers this pod gives them; a named port that the pod lacks is left out. */
export function endpointPorts(service: Service, pod: Pod): EndpointPort[] {
  const ports: EndpointPort[] = [];
  for (const { name = '', protocol = 'TCP', port, targetPort, appProtocol } of service.spec?.ports ?? []) {
    const number = findPort(pod, targetPort || port, protocol);
    if (number !== undefined) ports.push({ name, protocol, port: number, ...(appProtocol ? { appProtocol } : {}) });
  }
  return ports;
}

function endpointOf(service: Service, pod: Pod, options: { address: string; node: Node | undefined }): Endpoint {
  const serving = isPodReady(pod);
  const terminating = pod.metadata.deletionTimestamp !== undefined;
  const ready = service.spec?.publishNotReadyAddresses === true || (serving && !terminating);
  const hostname = endpointHostname(pod, service);
  const nodeName = pod.spec?.nodeName;
  const zone = options.node?.metadata.labels?.['topology.kubernetes.io/zone'];
  const hints = ready ? hintsFor(service.spec?.trafficDistribution, { zone, nodeName }) : undefined;
  return {
    addresses: [options.address],
    conditions: { ready, serving, terminating },
    ...(hostname ? { hostname } : {}),
    targetRef: { kind: 'Pod', namespace: pod.metadata.namespace!, name: pod.metadata.name, uid: pod.metadata.uid! },
    ...(nodeName ? { nodeName } : {}),
    ...(zone ? { zone } : {}),
    ...(hints ? { hints } : {}),
  };
}

function hintsFor(
  distribution: string | undefined,
  { zone, nodeName }: { zone: string | undefined; nodeName: string | undefined },
): Endpoint['hints'] {
  const forZones = zone ? { forZones: [{ name: zone }] } : {};
  if (distribution === 'PreferClose' || distribution === 'PreferSameZone') return zone ? forZones : undefined;
  if (distribution === 'PreferSameNode' && nodeName) return { ...forZones, forNodes: [{ name: nodeName }] };
  return undefined;
}

export function portsKey(ports: readonly EndpointPort[]): string {
  return ports
    .map(({ name = '', protocol, port, appProtocol = '' }) => `${name}/${protocol}/${port}/${appProtocol}`)
    .sort()
    .join();
}

export function desiredGroups(
  service: Service,
  pods: readonly Pod[],
  options: { addressType: AddressType; nodeOf: (name: string) => Node | undefined },
): { groups: DesiredGroup[]; nodesMissing: boolean } {
  const groups = new Map<string, { ports: EndpointPort[]; endpoints: Endpoint[] }>();
  const family = options.addressType === 'IPv6' ? 6 : 4;
  let nodesMissing = false;
  for (const pod of pods) {
    if (!mayBeEndpoint(pod, { terminating: true })) continue;
    const address = podIPs(pod).find(ip => ipFamily(ip) === family);
    if (!address) continue;
    const node = options.nodeOf(pod.spec?.nodeName ?? '');
    // A pod of a node that is not there is not published, unless the Service publishes everything.
    if (!node && !service.spec?.publishNotReadyAddresses) {
      nodesMissing = true;
      continue;
    }
    const ports = endpointPorts(service, pod);
    const key = portsKey(ports);
    let group = groups.get(key);
    if (!group) groups.set(key, (group = { ports, endpoints: [] }));
    group.endpoints.push(endpointOf(service, pod, { address, node }));
  }
  return { groups: [...groups.values()], nodesMissing };
}
