/**
 * A cluster in memory for tests and benchmarks of DNS: informers fed by `put` and `remove` instead of an API server.
 * Changes reach the informers' handlers before `put` resolves.
 */

import type { Service } from '../api/core/v1.gen.ts';
import type { Endpoint, EndpointSlice } from '../api/discovery/v1.gen.ts';
import { type KubeObject, keyOf, type WatchEvent } from '../api/meta.ts';
import { silentLogger } from '../base/log.ts';
import { type Informer, InformerFactory } from '../client/informer.ts';
import type { ResourceId, Target, Transport } from '../client/transport.ts';

const RESOURCE_OF_KIND: Readonly<Record<string, string>> = {
  Service: 'services',
  EndpointSlice: 'endpointslices',
  Namespace: 'namespaces',
  ConfigMap: 'configmaps',
  Pod: 'pods',
};

export class ClusterFixture {
  readonly #objects = new Map<string, Map<string, KubeObject>>();
  readonly #watchers = new Map<string, (event: WatchEvent) => void>();
  readonly #factory: InformerFactory;
  readonly #gone = new AbortController();
  #revision = 0;

  constructor() {
    const transport = {
      list: async ({ of }: Target) => ({
        apiVersion: 'v1',
        kind: 'List',
        metadata: { resourceVersion: String(this.#revision) },
        items: [...(this.#objects.get(of.resource)?.values() ?? [])],
      }),
      watch: ({ of }: Target, _options: unknown, signal: AbortSignal) => this.#watch(of.resource, signal),
    } as unknown as Transport;
    this.#factory = new InformerFactory({ transport, log: silentLogger });
  }
  get<T extends KubeObject>(of: ResourceId, options: { fieldSelector?: string; namespace?: string } = {}): Informer<T> {
    return this.#factory.get<T>(of, options);
  }
  /** Starts the informers there are and waits for them. */
  async start(signal: AbortSignal): Promise<void> {
    this.#factory.start(AbortSignal.any([signal, this.#gone.signal]));
    await this.#factory.allSynced();
    await settled();
  }
  /** The API server is gone for good. */
  disconnect(): void {
    this.#gone.abort();
  }
  async put(...objects: KubeObject[]): Promise<void> {
    for (const object of objects) {
      const resource = RESOURCE_OF_KIND[object.kind]!;
      const stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(++this.#revision) } };
      let all = this.#objects.get(resource);
      if (!all) this.#objects.set(resource, (all = new Map()));
      const type = all.has(keyOf(object)) ? 'MODIFIED' : 'ADDED';
      all.set(keyOf(object), stored);
      this.#watchers.get(resource)?.({ type, object: stored });
    }
    await settled();
  }
  async remove(object: KubeObject): Promise<void> {
    const resource = RESOURCE_OF_KIND[object.kind]!;
    this.#objects.get(resource)?.delete(keyOf(object));
    this.#watchers.get(resource)?.({ type: 'DELETED', object });
    await settled();
  }

  async *#watch(resource: string, signal: AbortSignal): AsyncIterable<readonly WatchEvent[]> {
    const queue: WatchEvent[] = [];
    let wake: () => void = () => {};
    this.#watchers.set(resource, event => {
      queue.push(event);
      wake();
    });
    signal.addEventListener('abort', () => wake(), { once: true });
    while (!signal.aborted) {
      while (queue.length > 0) yield queue.splice(0);
      await new Promise<void>(resolve => {
        wake = resolve;
      });
    }
  }
}

const settled = (): Promise<void> => new Promise(resolve => setImmediate(resolve));

export function namespace(name: string): KubeObject {
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name } };
}

export function service(name: string, spec: Partial<Service['spec']>, inNamespace = 'default'): Service {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: inNamespace },
    spec: { ...spec },
  } as Service;
}

export function slice(
  name: string,
  of: string,
  endpoints: readonly (Partial<Endpoint> & { addresses: string[] })[],
  ports: EndpointSlice['ports'],
  addressType = 'IPv4',
): EndpointSlice {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name, namespace: 'default', labels: { 'kubernetes.io/service-name': of } },
    addressType,
    endpoints: [...endpoints],
    ...(ports ? { ports } : {}),
  } as EndpointSlice;
}
