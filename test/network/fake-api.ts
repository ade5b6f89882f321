/** Just enough of an API server for agents under test: objects in memory, list, watch, merge patch. No validation. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeList, KubeObject, WatchEvent } from '../../src/api/meta.ts';
import { keyOf } from '../../src/api/meta.ts';
import { notFound } from '../../src/base/errors.ts';
import { BoundedQueue } from '../../src/base/queue.ts';
import type { PatchType, ResourceId, Target, Transport, WatchOptions } from '../../src/client/transport.ts';

export class FakeApi implements Transport {
  /** By resource: how late watches tell. */
  readonly lagMs = new Map<string, number>();
  readonly #objects = new Map<string, Map<string, KubeObject>>();
  readonly #watchers = new Map<string, Set<BoundedQueue<WatchEvent>>>();
  readonly #history: { of: string; revision: number; event: WatchEvent }[] = [];
  #revision = 1;

  /** Creates or replaces. */
  put<T extends KubeObject>(of: ResourceId, object: T): T {
    const objects = this.#of(of);
    const stored = structuredClone(object);
    stored.metadata.resourceVersion = String(++this.#revision);
    const type = objects.has(keyOf(object)) ? 'MODIFIED' : 'ADDED';
    objects.set(keyOf(object), stored);
    this.#send(of, { type, object: stored });
    return stored;
  }
  remove(of: ResourceId, key: string): void {
    const object = this.#of(of).get(key);
    if (!object) return;
    this.#of(of).delete(key);
    this.#send(of, {
      type: 'DELETED',
      object: { ...object, metadata: { ...object.metadata, resourceVersion: String(++this.#revision) } },
    });
  }
  read<T extends KubeObject>(of: ResourceId, key: string): T | undefined {
    return this.#of(of).get(key) as T | undefined;
  }

  async list(target: Target): Promise<KubeList> {
    return {
      apiVersion: 'v1',
      kind: 'List',
      metadata: { resourceVersion: String(this.#revision) },
      items: [...this.#of(target.of).values()].filter(
        ({ metadata }) => !target.namespace || metadata.namespace === target.namespace,
      ),
    };
  }
  async *watch(target: Target, options: WatchOptions, signal: AbortSignal): AsyncIterable<readonly WatchEvent[]> {
    const queue = new BoundedQueue<WatchEvent>(1_000_000);
    const id = target.of.resource;
    const watchers = this.#watchers.get(id) ?? new Set();
    this.#watchers.set(id, watchers.add(queue));
    for (const { of, revision, event } of this.#history)
      if (of === id && revision > Number(options.resourceVersion ?? 0)) queue.push(event);
    signal.addEventListener('abort', () => queue.close(), { once: true });
    try {
      for await (const event of queue) {
        const lagMs = this.lagMs.get(id);
        if (lagMs !== undefined) await sleep(lagMs);
        yield [event];
      }
    } finally {
      watchers.delete(queue);
    }
  }
  async patch(target: Target, patch: unknown, _type: PatchType): Promise<KubeObject> {
    const key = target.namespace ? `${target.namespace}/${target.name}` : target.name!;
    const object = this.#of(target.of).get(key);
    if (!object) throw notFound(target.of, key);
    return this.put(target.of, merge(object, patch) as KubeObject);
  }
  async get(target: Target): Promise<KubeObject> {
    const key = target.namespace ? `${target.namespace}/${target.name}` : target.name!;
    const object = this.#of(target.of).get(key);
    if (!object) throw notFound(target.of, key);
    return object;
  }
  create = absent;
  update = absent;
  delete = absent;
  deleteCollection = absent;

  #of(of: ResourceId): Map<string, KubeObject> {
    let objects = this.#objects.get(of.resource);
    if (!objects) this.#objects.set(of.resource, (objects = new Map()));
    return objects;
  }
  #send(of: ResourceId, event: WatchEvent): void {
    this.#history.push({ of: of.resource, revision: this.#revision, event });
    for (const queue of this.#watchers.get(of.resource) ?? []) queue.push(event);
  }
}

function absent(): never {
  throw new Error('not in this fake');
}

function merge(base: unknown, patch: unknown): unknown {
  if (patch === null || typeof patch !== 'object' || Array.isArray(patch)) return patch;
  const out: Record<string, unknown> = { ...(base as object) };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete out[key];
    else out[key] = merge(out[key], value);
  }
  return out;
}
