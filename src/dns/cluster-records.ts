/**
 * What DNS knows of the cluster: Services, EndpointSlices and Namespaces from informers, found by Service and by address. It
 * tells subscribers which Service may now have another answer, in the same turn in which the informer sees the change, so
 * that no answer is older than the last watch event. It refuses to write.
 */

import { isIP } from 'node:net';
import type { Namespace, Pod, Service } from '../api/core/v1.gen.ts';
import type { EndpointSlice } from '../api/discovery/v1.gen.ts';
import { type KubeObject, keyOf } from '../api/meta.ts';
import type { Informer } from '../client/informer.ts';
import { ENDPOINT_SLICES, NAMESPACES, PODS, SERVICES } from '../client/resources.ts';
import type { ResourceId } from '../client/transport.ts';
import { canonical } from './reverse-name.ts';

/** `InformerFactory` satisfies it. */
export interface InformerSource {
  get<T extends KubeObject>(of: ResourceId, options?: { fieldSelector?: string; namespace?: string }): Informer<T>;
}

const SERVICE_NAME_LABEL = 'kubernetes.io/service-name';
const TRIGGER_TIME_ANNOTATION = 'endpoints.kubernetes.io/last-change-trigger-time';
const BY_SERVICE = 'dns/service';
const BY_ADDRESS = 'dns/address';

export class ClusterRecords {
  readonly #informers: InformerSource;
  readonly #services: Informer<Service>;
  readonly #slices: Informer<EndpointSlice>;
  readonly #namespaces: Informer<Namespace>;
  readonly #listeners = new Set<(serviceKey: string) => void>();
  #pods: Informer<Pod> | undefined;

  /** `onProgrammed` hears when the change behind a slice had begun (wall clock), once it is answered. */
  constructor(
    informers: InformerSource,
    onProgrammed: (service: Service | undefined, triggeredMs: number) => void = () => {},
  ) {
    this.#informers = informers;
    this.#services = informers.get<Service>(SERVICES);
    this.#slices = informers.get<EndpointSlice>(ENDPOINT_SLICES);
    this.#namespaces = informers.get<Namespace>(NAMESPACES);
    this.#services.addIndex(BY_ADDRESS, clusterIpsOf);
    this.#slices.addIndex(BY_SERVICE, serviceKeysOf);
    this.#slices.addIndex(BY_ADDRESS, namedAddressesOf);
    this.#services.onChange(({ object, old }) => this.#tell(keyOf((object ?? old)!)));
    this.#slices.onChange(({ object, old }) => {
      for (const slice of [old, object]) for (const key of slice ? serviceKeysOf(slice) : []) this.#tell(key);
      const triggered = object?.metadata.annotations?.[TRIGGER_TIME_ANNOTATION];
      if (
        triggered !== undefined &&
        triggered !== old?.metadata.annotations?.[TRIGGER_TIME_ANNOTATION] &&
        this.hasSynced
      )
        onProgrammed(this.#services.get(serviceKeysOf(object!)[0] ?? ''), Date.parse(triggered));
    });
  }

  get hasSynced(): boolean {
    return (
      this.#services.hasSynced &&
      this.#slices.hasSynced &&
      this.#namespaces.hasSynced &&
      (this.#pods === undefined || this.#pods.hasSynced)
    );
  }
  async synced(): Promise<void> {
    await Promise.all([this.#services.synced, this.#slices.synced, this.#namespaces.synced]);
  }
  /** Hears `namespace/name` of each Service whose answers may have changed. Returns what ends it. */
  subscribe(listener: (serviceKey: string) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
  #tell(serviceKey: string): void {
    for (const listener of this.#listeners) listener(serviceKey);
  }

  service(key: string): Service | undefined {
    return this.#services.get(key);
  }
  namespace(name: string): Namespace | undefined {
    return this.#namespaces.get(name);
  }
  slicesOf(service: Service): readonly EndpointSlice[] {
    return this.#slices.byIndex(BY_SERVICE, keyOf(service));
  }
  /** Services with this cluster IP, canonically spelled. */
  servicesAt(ip: string): readonly Service[] {
    return this.#services.byIndex(BY_ADDRESS, ip);
  }
  /** Slices with an endpoint that has this address and a hostname. */
  slicesAt(ip: string): readonly EndpointSlice[] {
    return this.#slices.byIndex(BY_ADDRESS, ip);
  }
  /** Starts to follow pods, which only verified pod names need. */
  followPods(): void {
    if (this.#pods) return;
    this.#pods = this.#informers.get<Pod>(PODS);
    this.#pods.addIndex(BY_ADDRESS, pod =>
      isOver(pod) ? [] : (pod.status?.podIPs ?? []).map(({ ip }) => `${pod.metadata.namespace}/${canonical(ip ?? '')}`),
    );
  }
  hasPod(namespace: string, ip: string): boolean {
    return (this.#pods?.byIndex(BY_ADDRESS, `${namespace}/${canonical(ip)}`).length ?? 0) > 0;
  }
}

const isOver = (pod: Pod): boolean => pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';

export function clusterIpsOf(service: Service): string[] {
  const { clusterIP, clusterIPs } = service.spec ?? {};
  const ips = clusterIPs?.length ? clusterIPs : clusterIP ? [clusterIP] : [];
  return ips.filter(ip => isIP(ip) !== 0).map(canonical);
}

/** `namespace/name` of the Service that the slice belongs to: one, or none. */
export function serviceKeysOf(slice: EndpointSlice): readonly string[] {
  const service = slice.metadata.labels?.[SERVICE_NAME_LABEL];
  return service ? [`${slice.metadata.namespace}/${service}`] : [];
}

function namedAddressesOf(slice: EndpointSlice): readonly string[] {
  return (slice.endpoints ?? [])
    .filter(endpoint => endpoint.hostname)
    .flatMap(endpoint => endpoint.addresses.filter(address => isIP(address) !== 0).map(canonical));
}
