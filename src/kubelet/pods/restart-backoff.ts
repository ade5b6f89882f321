/** When a crashed container may run again: 10 s, doubled at each crash up to 5 min, forgotten after 10 min of calm. */

import type { Clock } from '../../base/clock.ts';

const INITIAL_MS = 10_000;
const MAX_MS = 300_000;

export class RestartBackoff {
  readonly #clock: Clock;
  readonly #entries = new Map<string, { delayMs: number; updatedMs: number }>();
  constructor(clock: Clock) {
    this.#clock = clock;
  }
  /** How long the container that ended at `finishedMs` (wall clock) must still wait, and of how long a pause; 0 left means: now. */
  left(name: string, finishedMs: number): { readonly leftMs: number; readonly delayMs: number } {
    const entry = this.#entries.get(name);
    if (!entry || finishedMs - entry.updatedMs > 2 * MAX_MS) return { leftMs: 0, delayMs: 0 };
    return { leftMs: Math.max(0, finishedMs + entry.delayMs - this.#clock.now()), delayMs: entry.delayMs };
  }
  /** The container is being restarted: the next pause is longer. */
  restarted(name: string, finishedMs: number): void {
    const entry = this.#entries.get(name);
    const isFresh = !entry || finishedMs - entry.updatedMs > 2 * MAX_MS;
    this.#entries.set(name, {
      delayMs: isFresh ? INITIAL_MS : Math.min(entry.delayMs * 2, MAX_MS),
      updatedMs: this.#clock.now(),
    });
  }
}
