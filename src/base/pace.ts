/** How often something may happen: a number of times at once, then once in a while. Times in milliseconds of the clock's `monotonic`. */

import { type Clock, systemClock } from './clock.ts';

export interface PaceOptions {
  readonly atOnce: number;
  readonly everyMs: number;
  readonly clock?: Clock;
}

export class Pace {
  readonly #sparedMs: number;
  readonly #everyMs: number;
  readonly #clock: Clock;
  #nextMs = Number.NEGATIVE_INFINITY;

  constructor({ atOnce, everyMs, clock = systemClock }: PaceOptions) {
    this.#sparedMs = (atOnce - 1) * everyMs;
    this.#everyMs = everyMs;
    this.#clock = clock;
  }
  /** When it may happen again; in the past when it may now. */
  get nextMs(): number {
    return this.#nextMs;
  }
  get mayNow(): boolean {
    return this.#clock.monotonic() >= this.#nextMs;
  }
  /** Counts one. Those that had to happen out of turn count too, and put off the next. */
  took(): void {
    this.#nextMs = Math.max(this.#nextMs, this.#clock.monotonic() - this.#sparedMs) + this.#everyMs;
  }
}
