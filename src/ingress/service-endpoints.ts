/**
 * Endpoints of Service ports as addresses, from Services and EndpointSlices: the ready ones, or those that still serve while they end
 * when none is ready. A port is found by its number or its name in the Service, and by name in the slices.
 */

import type { Service } from '../api/core/v1.gen.ts';
import type { EndpointSlice } from '../api/discovery/v1.gen.ts';
import { keyOf } from '../api/meta.ts';
import type { Informer, InformerFactory } from '../client/informer.ts';
import { ENDPOINT_SLICES, SERVICES } from '../client/resources.ts';
import { tryParseAddress } from '../sys/address.ts';
import { isNodesOwn } from './node-own-host.ts';
import type { ServiceRef } from './route-table.ts';

const SERVICE_NAME = 'kubernetes.io/service-name';
const BY_SERVICE = 'by-service';

export interface Endpoints {
  /** `10.244.0.5:8080`, `[fd00::5]:8080`; sorted. */
  readonly addresses: readonly string[];
  /** Of a Service of type ExternalName: where to go instead, by name or address. */
  readonly external?: { readonly host: string; readonly port: number };
  readonly problem?: string;
}

const PORT_MAX = 65_535;

export class ServiceEndpoints {
  readonly #services: Informer<Service>;
  readonly #slices: Informer<EndpointSlice>;

  constructor(informers: InformerFactory) {
    this.#services = informers.get<Service>(SERVICES);
    this.#slices = informers.get<EndpointSlice>(ENDPOINT_SLICES);
    this.#slices.addIndex(BY_SERVICE, slice => [serviceKeyOf(slice)]);
  }
  get hasSynced(): boolean {
    return this.#services.hasSynced && this.#slices.hasSynced;
  }
  /** Called with `namespace/name` of the Service whose endpoints may have changed. */
  onChange(handler: (service: string) => void): void {
    this.#services.onChange(({ object, old }) => {
      if (object?.spec !== old?.spec) handler(keyOf((object ?? old)!));
    });
    this.#slices.onChange(({ object, old }) => handler(serviceKeyOf((object ?? old)!)));
    void Promise.all([this.#services.synced, this.#slices.synced]).then(() => handler(''));
  }

  /** Called when a Service leads out of the cluster, or no longer does, or elsewhere. */
  onExternal(handler: () => void): void {
    this.#services.onChange(({ object, old }) => {
      if (object?.spec === old?.spec) return;
      if (object?.spec?.type === 'ExternalName' || old?.spec?.type === 'ExternalName') handler();
    });
  }

  of({ namespace, name, port, protocol: wantedProtocol = 'TCP', usesClusterIp }: ServiceRef): Endpoints {
    const service = this.#services.get(`${namespace}/${name}`);
    if (!service) return { addresses: [], problem: `Service ${name} does not exist` };
    if (service.spec?.type === 'ExternalName') return externalOf(service, port);
    const ports = (service.spec?.ports ?? []).filter(({ protocol = 'TCP' }) => protocol === wantedProtocol);
    const wanted = port === undefined ? ports[0] : ports.find(each => each.name === port || each.port === port);
    if (!wanted) return { addresses: [], problem: `Service ${name} has no ${wantedProtocol} port ${port ?? ''}` };
    const { clusterIP = 'None' } = service.spec ?? {};
    if (usesClusterIp && clusterIP !== 'None' && clusterIP !== '')
      return { addresses: [clusterIP.includes(':') ? `[${clusterIP}]:${wanted.port}` : `${clusterIP}:${wanted.port}`] };
    const ready = new Set<string>();
    const ending = new Set<string>();
    for (const slice of this.#slices.byIndex(BY_SERVICE, `${namespace}/${name}`)) {
      const number = slice.ports?.find(each => (each.name ?? '') === (wanted.name ?? ''))?.port;
      if (!number || slice.addressType === 'FQDN') continue;
      for (const { addresses, conditions } of slice.endpoints ?? []) {
        const into = conditions?.ready !== false ? ready : conditions.serving ? ending : undefined;
        if (addresses[0])
          into?.add(addresses[0].includes(':') ? `[${addresses[0]}]:${number}` : `${addresses[0]}:${number}`);
      }
    }
    return { addresses: [...(ready.size > 0 ? ready : ending)].sort() };
  }
}

/** As ingress-nginx: the port is that of the Service if it has it, else the number that was asked for. */
function externalOf({ metadata, spec }: Service, wanted: string | number | undefined): Endpoints {
  const found = spec?.ports?.find(each => wanted === undefined || each.name === wanted || each.port === wanted);
  const port = found ? (typeof found.targetPort === 'number' && found.targetPort) || found.port : wanted;
  const host = (spec?.externalName ?? '').replace(/\.$/, '').toLowerCase();
  const refuse = (why: string): Endpoints => ({ addresses: [], problem: `Service ${metadata.name} ${why}` });
  if (typeof port !== 'number' || port < 1 || port > PORT_MAX) return refuse(`has no port ${wanted ?? ''}`);
  const address = tryParseAddress(host);
  if (!address && !/^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$/.test(host))
    return refuse(`has the externalName ${host.slice(0, 100)}, which is no name of DNS`);
  if (isNodesOwn(host)) return refuse(`leads to the node's own ${host}`);
  return { addresses: [], external: { host: address && host.includes(':') ? `[${host}]` : host, port } };
}

function serviceKeyOf(slice: EndpointSlice): string {
  return `${slice.metadata.namespace}/${slice.metadata.labels?.[SERVICE_NAME] ?? ''}`;
}
