/** When a crashed container may run again: 10 s, doubled at each crash up to a limit (5 min), forgotten after twice that of calm. */

import type { Clock } from '../../base/clock.ts';

const INITIAL_MS = 10_000;

export class RestartBackoff {
  readonly #clock: Clock;
  readonly #entries = new Map<string, { delayMs: number; updatedMs: number }>();
  readonly #msMax: number;
  constructor(clock: Clock, secondsMax: number) {
    this.#clock = clock;
    this.#msMax = secondsMax * 1000;
  }
  /** How long the container that ended at `finishedMs` (wall clock) must still wait, and of how long a pause; 0 left means: now. */
  left(name: string, finishedMs: number): { readonly leftMs: number; readonly delayMs: number } {
    const entry = this.#entries.get(name);
    if (!entry || finishedMs - entry.updatedMs > 2 * this.#msMax) return { leftMs: 0, delayMs: 0 };
    return { leftMs: Math.max(0, finishedMs + entry.delayMs - this.#clock.now()), delayMs: entry.delayMs };
  }
  /** The container is being restarted: the next pause is longer. */
  restarted(name: string, finishedMs: number): void {
    const entry = this.#entries.get(name);
    const isFresh = !entry || finishedMs - entry.updatedMs > 2 * this.#msMax;
    this.#entries.set(name, {
      delayMs: Math.min(isFresh ? INITIAL_MS : entry.delayMs * 2, this.#msMax),
      updatedMs: this.#clock.now(),
    });
  }
}
