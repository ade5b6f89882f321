/**
 * Everything in the store, in memory: one cache a stored resource, fed by following the whole store, so that what
 * readers see moves forward in revision order for all resources at once. Each cache keeps its objects in key order and
 * its recent events for watchers. It refuses to be written to: only what the store says changes it.
 */

import type { KubeObject } from '../api/meta.ts';
import { serviceUnavailable } from '../base/errors.ts';
import { SortedMap } from '../store/sorted-map.ts';
import type { Change, Store, StoreEvent } from '../store/store.ts';
import { Entry } from './entry.ts';

/** Events a cache keeps for watchers; a watcher that fell further behind reads them from the store. */
const RECENT_EVENTS_MAX = 2000;

/** A larger listing is joined anew for each request, so that it does not double memory. */
const JOINED_BYTES_MAX = 8 * 1024 * 1024;

export type CacheHandler = (object: KubeObject | undefined, old: KubeObject | undefined) => void;

/** A change. For DELETED `entry` is the last state at the deletion's revision and `previous` the last state. */
export class CacheEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly revision: number;
  readonly previous: Entry | undefined;
  #entry: Entry | undefined;
  #encoded: Map<string, Buffer> | undefined;

  constructor(options: { type: CacheEvent['type']; revision: number; entry?: Entry; previous?: Entry | undefined }) {
    this.type = options.type;
    this.revision = options.revision;
    this.previous = options.previous;
    this.#entry = options.entry;
  }
  get entry(): Entry {
    this.#entry ??= this.previous!.at(this.revision);
    return this.#entry;
  }
  /** An encoded form, made once for all watchers that want it. */
  encoded(form: string, make: () => Buffer): Buffer {
    this.#encoded ??= new Map();
    let bytes = this.#encoded.get(form);
    if (!bytes) this.#encoded.set(form, (bytes = make()));
    return bytes;
  }
}

/** The objects of one stored resource. */
export class ResourceCache {
  readonly prefix: string;
  readonly entries = new SortedMap<Entry>();
  /** Revision of the last change of this resource that was seen; at start, that of the load. */
  changed: number;
  /** Events with a greater revision are all in `recent`. */
  #recentFrom: number;
  #recent: CacheEvent[] = [];
  #bytes = 0;
  /** Changes that came from the store since the start. */
  received = 0;
  readonly #sleepers = new Set<() => void>();
  readonly #handlers = new Set<CacheHandler>();
  /** The last whole listing that was asked for twice without a change between: its items, joined. */
  #joined: { scope: string; bytes: Buffer } | undefined;
  #listed: string | undefined;

  constructor(prefix: string, revision: number) {
    this.prefix = prefix;
    this.changed = revision;
    this.#recentFrom = revision;
  }

  /** Events after the revision, or undefined when some of them are no longer in memory. */
  recentAfter(revision: number): readonly CacheEvent[] | undefined {
    if (revision < this.#recentFrom) return undefined;
    const recent = this.#recent;
    let low = 0;
    let high = recent.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (recent[middle]!.revision <= revision) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? recent : recent.slice(low);
  }
  /**
   * The JSON of all entries under the scope, with commas between. Clients that poll an unchanged listing share one
   * buffer; a listing asked for only once is not kept.
   */
  join(scope: string, entries: readonly Entry[]): Buffer {
    if (this.#joined?.scope === scope) return this.#joined.bytes;
    const bytes = joinBytes(entries);
    if (this.#listed === scope && bytes.length <= JOINED_BYTES_MAX) this.#joined = { scope, bytes };
    this.#listed = scope;
    return bytes;
  }
  onChange(handler: CacheHandler): () => void {
    this.#handlers.add(handler);
    return () => this.#handlers.delete(handler);
  }
  /** Calls back once, at the next change of this resource; the function returned takes the wish back. */
  onNext(wake: () => void): () => void {
    this.#sleepers.add(wake);
    return () => this.#sleepers.delete(wake);
  }
  wakeAll(): void {
    if (this.#sleepers.size === 0) return;
    const sleepers = [...this.#sleepers];
    this.#sleepers.clear();
    for (const wake of sleepers) wake();
  }

  /** Bytes of all objects. */
  get bytes(): number {
    return this.#bytes;
  }
  /** An object that was there already, which is no event. */
  load(key: string, entry: Entry): void {
    this.entries.set(key, entry);
    this.#bytes += entry.size;
  }
  apply(event: CacheEvent): void {
    this.received++;
    const key = event.type === 'DELETED' ? event.previous!.key : event.entry.key;
    this.#bytes -= event.previous?.size ?? 0;
    if (event.type === 'DELETED') this.entries.delete(key);
    else this.load(key, event.entry);
    this.changed = event.revision;
    this.#joined = undefined;
    this.#listed = undefined;
    this.#recent.push(event);
    if (this.#recent.length > 2 * RECENT_EVENTS_MAX) {
      this.#recentFrom = this.#recent[this.#recent.length - RECENT_EVENTS_MAX - 1]!.revision;
      this.#recent = this.#recent.slice(-RECENT_EVENTS_MAX);
    }
    if (this.#handlers.size > 0) {
      const object = event.type === 'DELETED' ? undefined : event.entry.object;
      const old = event.previous?.object;
      for (const handler of [...this.#handlers]) handler(object, old);
    }
    this.wakeAll();
  }
}

/** A write that its own event completes. */
interface Writing {
  /** The parsed value, which need not be parsed again. */
  readonly object: KubeObject;
  entry: Entry | undefined;
}

export class Caches {
  readonly store: Store;
  readonly #byPrefix = new Map<string, ResourceCache>();
  readonly #stop = new AbortController();
  readonly #waiters: { revision: number; resolve: () => void }[] = [];
  /** Values on their way through the store. */
  readonly #written = new Map<Uint8Array, Writing>();
  #revision = 0;
  #loadedAt = 0;
  #failure: unknown;

  constructor(store: Store) {
    this.store = store;
  }

  /** Reads the store and follows it until `close`. */
  async open(): Promise<void> {
    const page = await this.store.list('/registry/');
    this.#revision = page.revision;
    this.#loadedAt = page.revision;
    for (const { key, value, modRevision } of page.entries) {
      if (value[0] !== OPENING_BRACE)
        throw new Error(
          `${key} is kept encrypted; start the server with the file that it was written with: --kube-apiserver-arg encryption-provider-config=FILE`,
        );
      const [prefix, rest] = splitStoreKey(key);
      this.of(prefix).load(rest, new Entry({ key: rest, revision: modRevision, value }));
    }
    void this.#follow();
  }
  close(): void {
    this.#stop.abort();
    for (const cache of this.#byPrefix.values()) cache.wakeAll();
  }
  get closed(): boolean {
    return this.#stop.signal.aborted;
  }
  /** Everything up to this revision is visible. */
  get revision(): number {
    return this.#revision;
  }
  get failure(): unknown {
    return this.#failure;
  }
  all(): IterableIterator<ResourceCache> {
    return this.#byPrefix.values();
  }
  of(prefix: string): ResourceCache {
    let cache = this.#byPrefix.get(prefix);
    // A resource without objects has no events since the load either.
    if (!cache) this.#byPrefix.set(prefix, (cache = new ResourceCache(prefix, this.#loadedAt)));
    return cache;
  }

  /** Commits `object` under the key, and resolves with its entry once readers see it. Throws ConflictError. */
  async put(
    cache: ResourceCache,
    key: string,
    options: { value: Uint8Array; object: KubeObject; expect: number | 'absent' },
  ): Promise<Entry> {
    const { value, object, expect } = options;
    const writing: Writing = { object, entry: undefined };
    this.#written.set(value, writing);
    try {
      const revision = await this.store.commit({ type: 'put', key: cache.prefix + key, value, expect });
      if (this.#revision < revision) await this.reached(revision);
      return writing.entry ?? new Entry({ key, revision, value });
    } finally {
      this.#written.delete(value);
    }
  }
  /** Deletes the key at that revision and resolves once readers see it gone. Throws ConflictError. */
  async delete(cache: ResourceCache, key: string, expect: number): Promise<number> {
    const revision = await this.store.commit({ type: 'delete', key: cache.prefix + key, expect });
    await this.reached(revision);
    return revision;
  }
  /** Whether writing the value again without a change makes a difference in the store. */
  isStale(cache: ResourceCache, key: string): boolean {
    return this.store.isStale?.(cache.prefix + key) ?? false;
  }
  /** Resolves when everything up to the revision is visible. */
  reached(revision: number): Promise<void> {
    if (this.#revision >= revision) return Promise.resolve();
    if (this.#failure) return Promise.reject(serviceUnavailable('the API server has lost its store'));
    return new Promise(resolve => this.#waiters.push({ revision, resolve }));
  }

  async #follow(): Promise<void> {
    try {
      await this.store.follow(this.#revision, change => this.#apply(change), this.#stop.signal);
    } catch (error) {
      this.#failure = error;
    }
  }
  #apply(change: Change): void {
    const [prefix, key] = splitStoreKey(change.type === 'put' ? change.entry.key : change.key);
    const cache = this.of(prefix);
    if (change.type === 'put') {
      const { value, createRevision, modRevision: revision } = change.entry;
      this.#revision = revision;
      const previous = createRevision === revision ? undefined : cache.entries.get(key);
      const writing = this.#written.get(value);
      const entry = new Entry({ key, revision, value, object: writing?.object });
      if (writing) writing.entry = entry;
      cache.apply(new CacheEvent({ type: previous ? 'MODIFIED' : 'ADDED', revision, entry, previous }));
    } else {
      this.#revision = change.revision;
      const previous = cache.entries.get(key);
      if (previous) cache.apply(new CacheEvent({ type: 'DELETED', revision: change.revision, previous }));
    }
    if (this.#waiters.length > 0) this.#resolveWaiters();
  }
  #resolveWaiters(): void {
    for (let i = 0; i < this.#waiters.length; ) {
      const waiter = this.#waiters[i]!;
      if (waiter.revision > this.#revision) {
        i++;
        continue;
      }
      this.#waiters.splice(i, 1);
      waiter.resolve();
    }
  }
}

const COMMA = 0x2c;
const OPENING_BRACE = 0x7b;

/** The entries' JSON with commas between: one allocation, one copy. */
export function joinBytes(entries: readonly Entry[]): Buffer {
  let size = Math.max(0, entries.length - 1);
  for (const entry of entries) size += entry.bytes.length;
  const bytes = Buffer.allocUnsafeSlow(size);
  let at = 0;
  for (let i = 0; i < entries.length; i++) {
    if (i > 0) bytes[at++] = COMMA;
    const item = entries[i]!.bytes;
    bytes.set(item, at);
    at += item.length;
  }
  return bytes;
}

/** `/registry/apps/deployments/ns/web` → `['/registry/apps/deployments/', 'ns/web']`. */
export function splitStoreKey(key: string): [prefix: string, rest: string] {
  const group = key.indexOf('/', '/registry/'.length);
  const resource = key.indexOf('/', group + 1) + 1;
  return [key.slice(0, resource), key.slice(resource)];
}

/** A change read from the store's history, as the cache would have seen it. */
export function eventFromStore(event: StoreEvent): CacheEvent {
  const of = (entry: { key: string; value: Uint8Array; modRevision: number }) =>
    new Entry({ key: splitStoreKey(entry.key)[1], revision: entry.modRevision, value: entry.value });
  const previous = event.previous ? of(event.previous) : undefined;
  return event.type === 'put'
    ? new CacheEvent({
        type: previous ? 'MODIFIED' : 'ADDED',
        revision: event.entry.modRevision,
        entry: of(event.entry),
        previous,
      })
    : new CacheEvent({ type: 'DELETED', revision: event.revision, previous });
}
