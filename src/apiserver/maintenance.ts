/**
 * Work that nobody asks for: giving up history that is no longer promised, and removing events after their hour. Both are
 * bounded a round and never hold up requests.
 */

import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Caches } from './cache.ts';

const COMPACT_EVERY_MS = 60_000;
/** How long a revision can be read and watched from at least, as upstream's etcd-compaction-interval. */
const HISTORY_MS = 5 * 60_000;
/** History is given up earlier when there is more of it: at 1 KB a revision this bounds it to about 200 MB. */
const HISTORY_REVISIONS_MAX = 200_000;
const EVENT_TTL_MS = 60 * 60_000;
const EVENTS_PREFIX = '/registry/core/events/';

export class Maintenance {
  readonly #caches: Caches;
  readonly #clock: Clock;
  readonly #log: Logger;
  /** Revisions by the time at which they were the newest. */
  #marks: { atMs: number; revision: number }[] = [];

  constructor(options: { caches: Caches; clock: Clock; log: Logger }) {
    this.#caches = options.caches;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Rounds until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.round().catch(error => this.#log.warn('maintenance of the store failed', { error: messageOf(error) }));
      await new Promise<void>(resolve => {
        const timer = this.#clock.after(COMPACT_EVERY_MS, done, { background: true });
        signal.addEventListener('abort', done);
        function done(): void {
          timer.cancel();
          signal.removeEventListener('abort', done);
          resolve();
        }
      });
    }
  }

  async round(): Promise<void> {
    await this.#expireEvents();
    const nowMs = this.#clock.now();
    const { revision, store } = this.#caches;
    this.#marks.push({ atMs: nowMs, revision });
    const old = this.#marks.filter(mark => mark.atMs <= nowMs - HISTORY_MS).at(-1)?.revision ?? 0;
    const before = Math.max(old, revision - HISTORY_REVISIONS_MAX);
    this.#marks = this.#marks.filter(mark => mark.revision > before);
    if (before > 0) await store.compact(before);
  }

  async #expireEvents(): Promise<void> {
    const cache = this.#caches.of(EVENTS_PREFIX);
    const expired: { key: string; revision: number }[] = [];
    const beforeMs = this.#clock.now() - EVENT_TTL_MS;
    for (const entry of cache.entries.values()) {
      const { lastTimestamp, eventTime, metadata } = entry.object as unknown as Record<string, never> & {
        lastTimestamp?: string;
        eventTime?: string;
        metadata: { creationTimestamp?: string };
      };
      // The last write renews an event; every writer stamps it.
      const newest = Math.max(
        ...[lastTimestamp, eventTime, metadata.creationTimestamp].map(time => (time ? Date.parse(time) : 0)),
      );
      if (newest <= beforeMs) expired.push({ key: entry.key, revision: entry.revision });
    }
    await Promise.all(expired.map(({ key, revision }) => this.#caches.delete(cache, key, revision).catch(() => {})));
  }
}
