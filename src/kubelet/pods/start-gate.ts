/**
 * Lets few pods start at a time, in order of arrival of those that are new and of those that start again: starting is work for the processor only, so thirty pods that start
 * together would all be as late as the last one, and the first containers would wait for the thirtieth namespace.
 * Invariant: a slot comes back after `holdMsMax` even when its holder waits for something else, so nobody starves.
 */

import type { Clock, Timer } from '../../base/clock.ts';
import { TwoLines } from '../two-lines.ts';

const HOLD_MS_MAX = 2000;

export class StartGate {
  readonly #clock: Clock;
  readonly #size: number;
  readonly #holdMsMax: number;
  readonly #waiting = new TwoLines<() => void>();
  readonly #idle = new Set<() => void>();
  #taken = 0;

  constructor(options: { readonly clock: Clock; readonly size: number; readonly holdMsMax?: number }) {
    this.#clock = options.clock;
    this.#size = options.size;
    this.#holdMsMax = options.holdMsMax ?? HOLD_MS_MAX;
  }

  get isIdle(): boolean {
    return this.#taken === 0;
  }
  /** Runs every time the last slot came back. */
  onIdle(callback: () => void): void {
    this.#idle.add(callback);
  }

  /** Resolves with what gives the slot back; calling that again is harmless. `isFirst` says that the pod is new here. */
  async enter({ isFirst }: { readonly isFirst: boolean }): Promise<() => void> {
    if (this.#taken >= this.#size) await new Promise<void>(resolve => this.#waiting.push(resolve, { isFirst }));
    else this.#taken++;
    let isHeld = true;
    const leave = () => {
      if (!isHeld) return;
      isHeld = false;
      timer.cancel();
      const next = this.#waiting.shift();
      if (next) return next();
      this.#taken--;
      if (this.#taken === 0) for (const callback of this.#idle) callback();
    };
    const timer: Timer = this.#clock.after(this.#holdMsMax, leave, { background: true });
    return leave;
  }
}
