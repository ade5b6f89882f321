/**
 * Calls back once nothing has happened for a while. Touching it is one clock reading: the pending timer is moved only
 * when it fires.
 */

import type { Clock, Timer } from '../../base/clock.ts';

export class IdleTimer {
  readonly #clock: Clock;
  readonly #idleMs: number;
  readonly #onIdle: () => void;
  #lastMs: number;
  #timer: Timer;

  constructor(clock: Clock, idleMs: number, onIdle: () => void) {
    this.#clock = clock;
    this.#idleMs = idleMs;
    this.#onIdle = onIdle;
    this.#lastMs = clock.monotonic();
    this.#timer = this.#arm(idleMs);
  }
  touch(): void {
    this.#lastMs = this.#clock.monotonic();
  }
  stop(): void {
    this.#timer.cancel();
  }
  #arm(delayMs: number): Timer {
    return this.#clock.after(
      delayMs,
      () => {
        const leftMs = this.#lastMs + this.#idleMs - this.#clock.monotonic();
        if (leftMs > 0) this.#timer = this.#arm(leftMs);
        else this.#onIdle();
      },
      { background: true },
    );
  }
}
