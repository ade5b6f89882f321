/**
 * What a controller has asked for and not yet seen in its informer. While expectations of a key are open, it must neither
 * create nor delete: its view is older than its own writes. As upstream's UIDTrackingControllerExpectations.
 */

import type { Clock } from '../../base/clock.ts';

// Upstream's ExpectationsTimeout: a lost watch event must not stop a controller for ever.
const EXPECTATION_MS_MAX = 5 * 60 * 1000;

interface Expectation {
  creations: number;
  readonly deletions: Set<string>;
  sinceMs: number;
}

export class Expectations {
  readonly #clock: Clock;
  readonly #byKey = new Map<string, Expectation>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }
  satisfied(key: string): boolean {
    const expectation = this.#byKey.get(key);
    if (!expectation) return true;
    if (expectation.creations <= 0 && expectation.deletions.size === 0) return true;
    return this.#clock.monotonic() - expectation.sinceMs > EXPECTATION_MS_MAX;
  }
  /** Call before the first create; lower it with `created` for every one seen or failed. */
  expectCreations(key: string, count: number): void {
    this.#byKey.set(key, { creations: count, deletions: new Set(), sinceMs: this.#clock.monotonic() });
  }
  /** `uids` of the objects about to be deleted. */
  expectDeletions(key: string, uids: readonly string[]): void {
    this.#byKey.set(key, { creations: 0, deletions: new Set(uids), sinceMs: this.#clock.monotonic() });
  }
  /** Both at once, for a controller that replaces pods. */
  expect(key: string, creations: number, uids: readonly string[]): void {
    this.#byKey.set(key, { creations, deletions: new Set(uids), sinceMs: this.#clock.monotonic() });
  }
  created(key: string): void {
    const expectation = this.#byKey.get(key);
    if (expectation) expectation.creations--;
  }
  deleted(key: string, uid: string): void {
    this.#byKey.get(key)?.deletions.delete(uid);
  }
  forget(key: string): void {
    this.#byKey.delete(key);
  }
}
