/** Exponential back-off per key, forgotten after a quiet period. Durations in milliseconds. */

import { type Clock, systemClock } from './clock.ts';

export interface BackoffOptions {
  readonly initialMs: number;
  readonly maxMs: number;
  readonly factor?: number;
  /** A key unused for this long starts over; default 2 × maxMs, as client-go's flowcontrol.Backoff. */
  readonly resetMs?: number;
  readonly clock?: Clock;
}

export class Backoff {
  readonly #options: Required<BackoffOptions>;
  readonly #entries = new Map<string, { delayMs: number; lastMs: number }>();

  constructor(options: BackoffOptions) {
    this.#options = { factor: 2, resetMs: 2 * options.maxMs, clock: systemClock, ...options };
  }
  /** Delay that now applies to the key; 0 when it has none. */
  get(key: string): number {
    return this.#entries.get(key)?.delayMs ?? 0;
  }
  /** Doubles the key's delay (or starts it) and returns the new one. */
  next(key: string): number {
    const { initialMs, maxMs, factor, resetMs, clock } = this.#options;
    const entry = this.#entries.get(key);
    const nowMs = clock.monotonic();
    const delayMs = !entry || nowMs - entry.lastMs > resetMs ? initialMs : Math.min(entry.delayMs * factor, maxMs);
    this.#entries.set(key, { delayMs, lastMs: nowMs });
    return delayMs;
  }
  reset(key: string): void {
    this.#entries.delete(key);
  }
}
