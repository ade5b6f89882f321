/**
 * A local, always-current copy of one resource: list, then watch, for ever. Objects are frozen and shared.
 * Invariants: handlers run in event order, one at a time and synchronously; `synced` resolves after the first list has been
 * handed to handlers; after a break the watch resumes at the last resourceVersion, or relists on 410 and hands out the
 * differences. It refuses to write.
 */

import { type KubeObject, keyOf } from '../api/meta.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import { ApiError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ResourceId, Transport } from './transport.ts';

export interface Handler<T> {
  /** `old` is undefined for an object seen first; `object` is undefined once it is deleted. */
  (
    change:
      | { readonly object: T; readonly old: T | undefined; readonly deleted: false }
      | { readonly object: undefined; readonly old: T; readonly deleted: true },
  ): void;
}

export interface InformerOptions {
  readonly transport: Transport;
  readonly of: ResourceId;
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  /** What is kept of each object: metadata that names it must stay. */
  readonly transform?: (object: never) => KubeObject;
  readonly log: Logger;
  readonly clock?: Clock;
}

// Quick at first, because a node usually starts beside its server; 1.5 leaves a lasting outage at the slow end within seconds.
const RETRY_MS_MIN = 25;
const RETRY_FACTOR = 1.5;
const RETRY_MS_MAX = 10_000;

export class Informer<T extends KubeObject> {
  readonly #options: InformerOptions;
  readonly #clock: Clock;
  readonly #objects = new Map<string, T>();
  readonly #handlers: Handler<T>[] = [];
  readonly #indexes = new Map<
    string,
    { keysOf: (object: T) => readonly string[]; entries: Map<string, Map<string, T>> }
  >();
  readonly synced: Promise<void>;
  #resolveSynced!: () => void;
  #hasSynced = false;

  constructor(options: InformerOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.synced = new Promise(resolve => {
      this.#resolveSynced = resolve;
    });
  }
  get hasSynced(): boolean {
    return this.#hasSynced;
  }
  /** By `namespace/name`, or `name` for cluster-scoped. */
  get(key: string): T | undefined {
    return this.#objects.get(key);
  }
  values(): IterableIterator<T> {
    return this.#objects.values();
  }
  get size(): number {
    return this.#objects.size;
  }
  /** Objects present now are handed over at once as first seen. */
  onChange(handler: Handler<T>): void {
    for (const object of this.#objects.values()) handler({ object, old: undefined, deleted: false });
    this.#handlers.push(handler);
  }
  /** Registers an index once; `byIndex` then finds objects by any of the keys the function gave them. */
  addIndex(name: string, keysOf: (object: T) => readonly string[]): void {
    if (this.#indexes.has(name)) return;
    const entries = new Map<string, Map<string, T>>();
    this.#indexes.set(name, { keysOf, entries });
    for (const [key, object] of this.#objects) for (const at of keysOf(object)) bucket(entries, at).set(key, object);
  }
  byIndex(name: string, at: string): T[] {
    return [...(this.#indexes.get(name)?.entries.get(at)?.values() ?? [])];
  }

  /** Lists and watches until the signal aborts. Errors are logged and retried with back-off. */
  async run(signal: AbortSignal): Promise<void> {
    const { transport, of, namespace, labelSelector, fieldSelector, log } = this.#options;
    const target = { of, ...(namespace ? { namespace } : {}) };
    const selectors = { ...(labelSelector ? { labelSelector } : {}), ...(fieldSelector ? { fieldSelector } : {}) };
    let resourceVersion: string | undefined;
    let retryMs = RETRY_MS_MIN;
    while (!signal.aborted) {
      try {
        if (resourceVersion === undefined) {
          const list = await transport.list(target, selectors);
          this.#replace(list.items as T[]);
          resourceVersion = list.metadata.resourceVersion ?? '0';
          if (!this.#hasSynced) {
            this.#hasSynced = true;
            this.#resolveSynced();
          }
        }
        const options = { ...selectors, resourceVersion, allowWatchBookmarks: true };
        for await (const batch of transport.watch(target, options, signal)) {
          for (const event of batch) {
            if (signal.aborted) return;
            if (event.type === 'ERROR') throw new ApiError(event.object);
            resourceVersion = event.object.metadata.resourceVersion ?? resourceVersion;
            if (event.type === 'DELETED') this.#remove(keyOf(event.object));
            else if (event.type !== 'BOOKMARK') this.#put(event.object as T);
          }
          retryMs = RETRY_MS_MIN;
        }
        // The server ended the stream in good order; a pause keeps a server that closes at once from being hammered.
        await this.#clock.sleep(10, signal);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && error.code === 410) {
          resourceVersion = undefined;
          continue;
        }
        log.debug('list or watch failed, retrying', { resource: of.resource, error: messageOf(error), retryMs });
        await this.#clock.sleep(retryMs, signal);
        retryMs = Math.min(retryMs * RETRY_FACTOR, RETRY_MS_MAX);
      }
    }
  }

  #replace(items: readonly T[]): void {
    const present = new Set<string>();
    for (const object of items) {
      const key = keyOf(object);
      present.add(key);
      if (
        this.#objects.get(key)?.metadata.resourceVersion !== object.metadata.resourceVersion ||
        !object.metadata.resourceVersion
      )
        this.#put(object);
    }
    for (const key of [...this.#objects.keys()]) if (!present.has(key)) this.#remove(key);
  }
  #put(received: T): void {
    const { transform } = this.#options;
    const object = transform ? (transform(received as never) as T) : received;
    const key = keyOf(object);
    const old = this.#objects.get(key);
    this.#objects.set(key, object);
    for (const { keysOf, entries } of this.#indexes.values()) {
      if (old) for (const at of keysOf(old)) unindex(entries, at, key);
      for (const at of keysOf(object)) bucket(entries, at).set(key, object);
    }
    for (const handler of this.#handlers) handler({ object, old, deleted: false });
  }
  #remove(key: string): void {
    const old = this.#objects.get(key);
    if (!old) return;
    this.#objects.delete(key);
    for (const { keysOf, entries } of this.#indexes.values()) for (const at of keysOf(old)) unindex(entries, at, key);
    for (const handler of this.#handlers) handler({ object: undefined, old, deleted: true });
  }
}

function bucket<T>(entries: Map<string, Map<string, T>>, at: string): Map<string, T> {
  let found = entries.get(at);
  if (!found) entries.set(at, (found = new Map()));
  return found;
}

function unindex<T>(entries: Map<string, Map<string, T>>, at: string, key: string): void {
  const found = entries.get(at);
  found?.delete(key);
  if (found?.size === 0) entries.delete(at);
}

interface Started {
  readonly informer: Informer<KubeObject>;
  started: boolean;
  readonly stop: AbortController;
}

/** One informer a resource, shared by everything in the process. */
export class InformerFactory {
  readonly #transport: Transport;
  readonly #log: Logger;
  readonly #informers = new Map<string, Started>();
  #signal: AbortSignal | undefined;

  constructor(options: { transport: Transport; log: Logger }) {
    this.#transport = options.transport;
    this.#log = options.log;
  }
  /** The shared informer; it starts at once when the factory has started. */
  get<T extends KubeObject>(
    of: ResourceId,
    options: { fieldSelector?: string; labelSelector?: string; namespace?: string } = {},
  ): Informer<T> {
    const id = `${of.group}/${of.version}/${of.resource}?${options.namespace ?? ''}&${options.fieldSelector ?? ''}&${options.labelSelector ?? ''}`;
    let entry = this.#informers.get(id);
    if (!entry) {
      entry = {
        informer: new Informer<KubeObject>({ transport: this.#transport, of, log: this.#log, ...options }),
        started: false,
        stop: new AbortController(),
      };
      this.#informers.set(id, entry);
      if (this.#signal) this.#start(entry, this.#signal);
    }
    return entry.informer as unknown as Informer<T>;
  }
  /** Ends the informer of a resource that is no longer served; `get` makes a new one. */
  release(of: ResourceId): void {
    const id = `${of.group}/${of.version}/${of.resource}?&&`;
    this.#informers.get(id)?.stop.abort();
    this.#informers.delete(id);
  }
  /** Starts all informers, present and future, until the signal aborts. */
  start(signal: AbortSignal): void {
    this.#signal = signal;
    for (const entry of this.#informers.values()) this.#start(entry, signal);
  }
  async allSynced(): Promise<void> {
    await Promise.all([...this.#informers.values()].map(entry => entry.informer.synced));
  }
  #start(entry: Started, signal: AbortSignal): void {
    if (entry.started) return;
    entry.started = true;
    void entry.informer.run(AbortSignal.any([signal, entry.stop.signal]));
  }
}
