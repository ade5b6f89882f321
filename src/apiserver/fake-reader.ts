/** For tests: a Reader and Transport over a map, without defaults, admission or validation. */

import type { KubeList, KubeObject, WatchEvent } from '../api/meta.ts';
import { alreadyExists, conflict, notFound } from '../base/errors.ts';
import type { ResourceId, Target, Transport } from '../client/transport.ts';
import type { Reader } from './request.ts';

type Handler = (object: KubeObject | undefined, old: KubeObject | undefined) => void;

export class FakeReader implements Reader, Transport {
  readonly #objects = new Map<string, Map<string, KubeObject>>();
  readonly #handlers = new Map<string, Set<Handler>>();
  #revision = 0;
  /** Writes that went through the Transport methods, `create configmaps/ns/name`. */
  readonly writes: string[] = [];

  /** Puts an object as if committed; returns what is stored. */
  put(of: ResourceId, object: KubeObject): KubeObject {
    const objects = this.#of(of);
    const key = `${object.metadata.namespace ?? ''}/${object.metadata.name}`;
    const old = objects.get(key);
    const stored = {
      ...object,
      metadata: {
        uid: old?.metadata.uid ?? `uid-${this.#revision}`,
        ...object.metadata,
        resourceVersion: String(++this.#revision),
      },
    };
    objects.set(key, stored);
    for (const handler of this.#handlers.get(of.resource) ?? []) handler(stored, old);
    return stored;
  }
  remove(of: ResourceId, namespace: string, name: string): KubeObject | undefined {
    const old = this.#of(of).get(`${namespace}/${name}`);
    this.#of(of).delete(`${namespace}/${name}`);
    if (old) for (const handler of this.#handlers.get(of.resource) ?? []) handler(undefined, old);
    return old;
  }

  get(of: ResourceId, namespace: string, name: string): KubeObject | undefined;
  get(target: Target): Promise<KubeObject>;
  get(first: ResourceId | Target, namespace = '', name = ''): KubeObject | undefined | Promise<KubeObject> {
    if ('resource' in first) return this.#of(first).get(`${namespace}/${name}`);
    const found = this.#of(first.of).get(`${first.namespace ?? ''}/${first.name}`);
    return found ? Promise.resolve(found) : Promise.reject(notFound(first.of, first.name!));
  }
  list(of: ResourceId, namespace?: string): readonly KubeObject[];
  list(target: Target): Promise<KubeList>;
  list(first: ResourceId | Target, namespace?: string): readonly KubeObject[] | Promise<KubeList> {
    if ('resource' in first)
      return [...this.#of(first).values()].filter(object => !namespace || object.metadata.namespace === namespace);
    return Promise.resolve({ apiVersion: 'v1', kind: 'List', metadata: {}, items: [...this.#of(first.of).values()] });
  }
  onChange(of: ResourceId, handler: Handler): () => void {
    const handlers = this.#handlers.get(of.resource) ?? new Set();
    this.#handlers.set(of.resource, handlers.add(handler));
    return () => handlers.delete(handler);
  }

  async create({ of, namespace, subresource }: Target, object: KubeObject): Promise<KubeObject> {
    this.writes.push(
      `create ${of.resource}/${namespace ?? ''}/${object.metadata.name}${subresource ? `/${subresource}` : ''}`,
    );
    if (this.get(of, namespace ?? '', object.metadata.name)) throw alreadyExists(of, object.metadata.name);
    return this.put(of, object);
  }
  async update({ of, namespace, name, subresource }: Target, object: KubeObject): Promise<KubeObject> {
    this.writes.push(`update ${of.resource}/${namespace ?? ''}/${name}${subresource ? `/${subresource}` : ''}`);
    const existing = this.get(of, namespace ?? '', name!);
    if (!existing) throw notFound(of, name!);
    if (object.metadata.resourceVersion && object.metadata.resourceVersion !== existing.metadata.resourceVersion)
      throw conflict(of, name!, 'stale');
    return this.put(of, object);
  }
  async patch({ of, namespace, name }: Target, patch: unknown): Promise<KubeObject> {
    const existing = this.get(of, namespace ?? '', name!);
    if (!existing) throw notFound(of, name!);
    return this.put(of, { ...existing, ...(patch as object) });
  }
  async delete({ of, namespace, name }: Target): Promise<KubeObject> {
    this.writes.push(`delete ${of.resource}/${namespace ?? ''}/${name}`);
    const old = this.remove(of, namespace ?? '', name!);
    if (!old) throw notFound(of, name!);
    return old;
  }
  async deleteCollection(): Promise<void> {}
  async *watch(): AsyncIterable<readonly WatchEvent[]> {}

  #of(of: ResourceId): Map<string, KubeObject> {
    let objects = this.#objects.get(of.resource);
    if (!objects) this.#objects.set(of.resource, (objects = new Map()));
    return objects;
  }
}
