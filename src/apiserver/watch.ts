/**
 * Watches: a cursor that moves through a cache's recent events, or through the store's history when it lags behind them.
 * Events reach the watcher in revision order without gaps; a watcher that is slower than history lasts gets 410, never a
 * silent gap. No queue is kept for a watcher.
 */

import type { KubeObject } from '../api/meta.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { ApiError, failure, type Status } from '../base/errors.ts';
import { CompactedError } from '../store/store.ts';
import { type CacheEvent, type Caches, eventFromStore, type ResourceCache } from './cache.ts';
import type { Entry } from './entry.ts';
import { parseResourceVersion, waitFresh } from './list.ts';
import type { Selector } from './selectors.ts';

const BOOKMARK_MS = 60_000;
/** Handed over at once; a reader that is slow holds no more than these. */
const BATCH_EVENTS_MAX = 100;

export interface WatchQuery {
  readonly namespace: string;
  readonly selector: Selector;
  readonly resourceVersion: string;
  readonly resourceVersionMatch: string;
  readonly allowWatchBookmarks: boolean;
  readonly sendInitialEvents: boolean | undefined;
}

/**
 * What a watcher sees. `source` lets encodings of the same change be shared by all watchers; it is absent for initial
 * events, and for changes that only this selector sees as something else.
 */
export type Seen =
  | { readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'; readonly entry: Entry; readonly source?: CacheEvent }
  | { readonly type: 'BOOKMARK'; readonly revision: number; readonly initialEventsEnd: boolean }
  | { readonly type: 'ERROR'; readonly status: Status };

export function checkWatchQuery(query: WatchQuery): void {
  const refuse = (detail: string) => {
    throw failure(422, 'Invalid', `ListOptions.meta.k8s.io "" is invalid: ${detail}`, {
      group: 'meta.k8s.io',
      kind: 'ListOptions',
    });
  };
  const { sendInitialEvents, resourceVersionMatch: match, allowWatchBookmarks } = query;
  if (sendInitialEvents === undefined) {
    if (match)
      refuse(
        'resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided',
      );
    return;
  }
  if (match !== 'NotOlderThan')
    refuse(`resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan`);
  if (sendInitialEvents && !allowWatchBookmarks)
    refuse('allowWatchBookmarks: Forbidden: sendInitialEvents requires setting allowWatchBookmarks to true');
}

/**
 * Batches of events, those together that happened together: a step for each would cost more than most of them do.
 * Rejects before the first event for a bad query; later failures are the last event, of type ERROR. Ends with the signal.
 */
export async function* watchEntries(
  caches: Caches,
  cache: ResourceCache,
  query: WatchQuery,
  options: { clock: Clock; signal: AbortSignal },
): AsyncGenerator<readonly Seen[]> {
  const { clock, signal } = options;
  checkWatchQuery(query);
  const asked = parseResourceVersion(query.resourceVersion);
  if (query.sendInitialEvents && asked > 0) await waitFresh(caches, asked, clock);
  const wantsInitial = query.sendInitialEvents ?? (query.resourceVersion === '' || query.resourceVersion === '0');
  const inScope = scopeOf(query.namespace);
  let cursor = wantsInitial || asked === 0 ? caches.revision : asked;
  if (wantsInitial) {
    const initial: Entry[] = [];
    cache.entries.walk(query.namespace ? `${query.namespace}/` : '', undefined, entry => {
      if (query.selector.everything || query.selector.matches(entry.object)) initial.push(entry);
      return true;
    });
    for (let at = 0; at < initial.length; at += BATCH_EVENTS_MAX) {
      if (signal.aborted) return;
      yield initial.slice(at, at + BATCH_EVENTS_MAX).map(entry => ({ type: 'ADDED', entry }));
    }
    if (query.sendInitialEvents) yield [{ type: 'BOOKMARK', revision: cursor, initialEventsEnd: true }];
  }
  let bookmarkAt = clock.monotonic() + BOOKMARK_MS;
  const alarm = new Alarm(cache, options);
  try {
    while (!signal.aborted && !caches.closed) {
      let events: readonly CacheEvent[] | undefined = cache.recentAfter(cursor);
      let reached = caches.revision;
      if (events === undefined) {
        try {
          ({ events, reached } = await readHistory(caches, cache, cursor));
        } catch (error) {
          yield [{ type: 'ERROR', status: goneStatus(error, cursor) }];
          return;
        }
      }
      let batch: Seen[] = [];
      for (const event of events) {
        cursor = event.revision;
        const seen = inScope(event) ? select(event, query.selector) : undefined;
        if (!seen) continue;
        batch.push(seen);
        if (batch.length < BATCH_EVENTS_MAX) continue;
        yield batch;
        if (signal.aborted) return;
        batch = [];
      }
      if (batch.length > 0) {
        yield batch;
        if (signal.aborted) return;
      }
      cursor = Math.max(cursor, reached);
      if (cache.changed > cursor) continue;
      if (query.allowWatchBookmarks && clock.monotonic() >= bookmarkAt) {
        bookmarkAt = clock.monotonic() + BOOKMARK_MS;
        yield [{ type: 'BOOKMARK', revision: cursor, initialEventsEnd: false }];
        continue;
      }
      await alarm.next(query.allowWatchBookmarks ? bookmarkAt : undefined);
    }
  } finally {
    alarm.close();
  }
}

function scopeOf(namespace: string): (event: CacheEvent) => boolean {
  if (!namespace) return () => true;
  const prefix = `${namespace}/`;
  return event => (event.type === 'DELETED' ? event.previous!.key : event.entry.key).startsWith(prefix);
}

/** The change as a watcher with this selector sees it: an object that stops matching is deleted, one that starts is added. */
function select(event: CacheEvent, selector: Selector): Seen | undefined {
  if (selector.everything) return { type: event.type, entry: event.entry, source: event };
  const before = event.previous !== undefined && selector.matches(event.previous.object);
  if (event.type === 'DELETED') return before ? { type: 'DELETED', entry: event.entry, source: event } : undefined;
  const now = selector.matches(event.entry.object);
  if (now) return { type: before ? 'MODIFIED' : 'ADDED', entry: event.entry, source: event };
  return before ? { type: 'DELETED', entry: event.previous!.at(event.revision) } : undefined;
}

const HISTORY_EVENTS_MAX = 1000;

/** A stretch of history behind the cursor, complete up to `reached`; the caller comes back for the rest. */
async function readHistory(
  caches: Caches,
  cache: ResourceCache,
  from: number,
): Promise<{ events: CacheEvent[]; reached: number }> {
  const stop = new AbortController();
  const events: CacheEvent[] = [];
  let reached = from;
  for await (const event of caches.store.watch(cache.prefix, from, stop.signal)) {
    if (event.type === 'progress') {
      reached = event.revision;
      break;
    }
    const change = eventFromStore(event);
    // What readers of the cache do not see yet is left for later.
    if (change.revision > caches.revision) break;
    events.push(change);
    reached = change.revision;
    if (events.length >= HISTORY_EVENTS_MAX) break;
  }
  stop.abort();
  return { events, reached: Math.min(reached, caches.revision) };
}

function goneStatus(error: unknown, cursor: number): Status {
  if (error instanceof CompactedError)
    return failure(410, 'Expired', `too old resource version: ${cursor} (${error.compactedAt + 1})`).status;
  return error instanceof ApiError ? error.status : failure(500, 'InternalError', 'watch of the store failed').status;
}

/**
 * Wakes at most once a call of `next`. One listener serves all waits of a watch, since a signal finds its listeners by searching,
 * and a timer goes on through them until its time has come.
 */
class Alarm {
  readonly #cache: ResourceCache;
  readonly #clock: Clock;
  readonly #signal: AbortSignal;
  #ring: (() => void) | undefined;
  #timer: Timer | undefined;
  readonly #abort = () => this.#ring?.();

  constructor(cache: ResourceCache, options: { signal: AbortSignal; clock: Clock }) {
    this.#cache = cache;
    this.#clock = options.clock;
    this.#signal = options.signal;
    this.#signal.addEventListener('abort', this.#abort);
  }
  /** Resolves at the next change of the cache, at the latest at that time of the monotonic clock, or when the signal aborts. */
  next(untilMs: number | undefined): Promise<void> {
    if (untilMs !== undefined) this.#timer ??= this.#at(untilMs);
    return new Promise(resolve => {
      const done = () => {
        this.#ring = undefined;
        withdraw();
        resolve();
      };
      this.#ring = done;
      const withdraw = this.#cache.onNext(done);
      if (this.#signal.aborted) done();
    });
  }
  close(): void {
    this.#timer?.cancel();
    this.#signal.removeEventListener('abort', this.#abort);
  }
  #at(untilMs: number): Timer {
    const ring = () => {
      this.#timer = undefined;
      this.#ring?.();
    };
    return this.#clock.after(Math.max(0, untilMs - this.#clock.monotonic()), ring, { background: true });
  }
}

/** The object of a BOOKMARK event. */
export function bookmarkObject(
  of: { apiVersion: string; kind: string },
  seen: { revision: number; initialEventsEnd: boolean },
): KubeObject {
  return {
    kind: of.kind,
    apiVersion: of.apiVersion,
    metadata: {
      resourceVersion: String(seen.revision),
      ...(seen.initialEventsEnd ? { annotations: { 'k8s.io/initial-events-end': 'true' } } : {}),
    },
  } as unknown as KubeObject;
}
