/** The subsets of a legacy Endpoints object: ports that the same pods serve share a subset; sorted, so equal input gives equal output. Pure. */

import type { EndpointAddress, EndpointPort, EndpointSubset, Pod, Service } from '../../api/core/v1.gen.ts';
import { ipFamily } from '../../api/machinery/names.ts';
import { findPort, isPodReady, podIPs } from '../../api/machinery/pod.ts';
import { endpointHostname, isHeadless, mayBeEndpoint } from '../runtime/service-selection.ts';

interface Served {
  readonly address: EndpointAddress;
  readonly ready: boolean;
}

/** Upstream's limit; more are cut off, and the object is annotated `truncated`. */
export const ADDRESSES_MAX = 1000;

export function endpointSubsets(
  service: Service,
  pods: readonly Pod[],
): { subsets: EndpointSubset[]; truncated: boolean } {
  const byPort = new Map<string, { port: EndpointPort | undefined; served: Map<string, Served> }>();
  const family = service.spec?.ipFamilies?.[0] === 'IPv6' ? 6 : 4;
  const everyAddress = service.spec?.publishNotReadyAddresses === true;
  for (const pod of pods) {
    if (!mayBeEndpoint(pod, { terminating: everyAddress })) continue;
    const ip = podIPs(pod).find(candidate => ipFamily(candidate) === family);
    if (!ip) continue;
    const hostname = endpointHostname(pod, service);
    const served: Served = {
      address: {
        ip,
        ...(hostname ? { hostname } : {}),
        ...(pod.spec?.nodeName ? { nodeName: pod.spec.nodeName } : {}),
        targetRef: { kind: 'Pod', namespace: pod.metadata.namespace!, name: pod.metadata.name, uid: pod.metadata.uid! },
      },
      ready: everyAddress || isPodReady(pod),
    };
    for (const port of portsOf(service, pod)) {
      const key = port ? `${port.name ?? ''}/${port.protocol}/${port.port}` : '';
      let entry = byPort.get(key);
      if (!entry) byPort.set(key, (entry = { port, served: new Map() }));
      entry.served.set(`${ip}/${pod.metadata.uid}`, served);
    }
  }
  return pack([...byPort.values()]);
}

function portsOf(service: Service, pod: Pod): (EndpointPort | undefined)[] {
  const ports = service.spec?.ports ?? [];
  if (ports.length === 0) return isHeadless(service) ? [undefined] : [];
  const found: EndpointPort[] = [];
  for (const { name, protocol = 'TCP', port, targetPort, appProtocol } of ports) {
    const number = findPort(pod, targetPort || port, protocol);
    if (number !== undefined)
      found.push({ ...(name ? { name } : {}), port: number, protocol, ...(appProtocol ? { appProtocol } : {}) });
  }
  return found;
}

function pack(entries: readonly { port: EndpointPort | undefined; served: Map<string, Served> }[]): {
  subsets: EndpointSubset[];
  truncated: boolean;
} {
  const groups = new Map<string, { ports: EndpointPort[]; served: Served[] }>();
  for (const { port, served } of entries) {
    const key = [...served.keys()].sort().join();
    let group = groups.get(key);
    if (!group) groups.set(key, (group = { ports: [], served: [...served.values()] }));
    if (port) group.ports.push(port);
  }
  let room = ADDRESSES_MAX;
  let truncated = false;
  const take = (served: Served[]): EndpointAddress[] => {
    const kept = served
      .map(({ address }) => address)
      .sort((a, b) => (a.ip < b.ip ? -1 : 1))
      .slice(0, room);
    if (kept.length < served.length) truncated = true;
    room -= kept.length;
    return kept;
  };
  const subsets = [...groups]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, { ports, served }]): EndpointSubset => {
      const addresses = take(served.filter(({ ready }) => ready));
      const notReadyAddresses = take(served.filter(({ ready }) => !ready));
      return {
        ...(addresses.length ? { addresses } : {}),
        ...(notReadyAddresses.length ? { notReadyAddresses } : {}),
        ...(ports.length
          ? { ports: ports.sort((a, b) => (a.name ?? '').localeCompare(b.name ?? '') || a.port - b.port) }
          : {}),
      };
    });
  return { subsets, truncated };
}
