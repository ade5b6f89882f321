/**
 * Time, injected. Product code asks a Clock instead of Date or setTimeout, so that the control plane can run under a
 * virtual one. Milliseconds throughout; `now` is wall-clock since the epoch and may jump, `monotonic` never goes back.
 */

export interface Timer {
  cancel(): void;
}

export interface Clock {
  now(): number;
  monotonic(): number;
  /** Runs `callback` once after `delayMs`; a pending timer does not keep the process alive when `background`. */
  after(delayMs: number, callback: () => void, options?: { background?: boolean }): Timer;
  /** Resolves after `delayMs`, or at once when `signal` aborts (it never rejects: look at the signal). */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
}

abstract class TimerClock implements Clock {
  abstract now(): number;
  abstract monotonic(): number;
  abstract after(delayMs: number, callback: () => void, options?: { background?: boolean }): Timer;

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      if (signal?.aborted) return resolve();
      const done = () => {
        timer.cancel();
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const timer = this.after(delayMs, done);
      signal?.addEventListener('abort', done, { once: true });
    });
  }
}

// setTimeout fires at once for delays beyond 2^31-1 ms.
const TIMER_MS_MAX = 2 ** 31 - 1;

class SystemClock extends TimerClock {
  now(): number {
    return Date.now();
  }
  monotonic(): number {
    return performance.now();
  }
  after(delayMs: number, callback: () => void, options: { background?: boolean } = {}): Timer {
    const timer = setTimeout(callback, Math.min(Math.max(0, delayMs), TIMER_MS_MAX));
    if (options.background) timer.unref();
    return { cancel: () => clearTimeout(timer) };
  }
}

export const systemClock: Clock = new SystemClock();

/** A clock that moves only when `advance` is called; due timers run in order of their time, with microtasks between. */
export class VirtualClock extends TimerClock {
  #nowMs: number;
  #startMs: number;
  #sequence = 0;
  #timers: { atMs: number; sequence: number; callback: () => void }[] = [];

  constructor(startMs = Date.UTC(2026, 0, 1)) {
    super();
    this.#nowMs = startMs;
    this.#startMs = startMs;
  }
  now(): number {
    return this.#nowMs;
  }
  monotonic(): number {
    return this.#nowMs - this.#startMs;
  }
  after(delayMs: number, callback: () => void): Timer {
    const timer = { atMs: this.#nowMs + Math.max(0, delayMs), sequence: this.#sequence++, callback };
    this.#timers.push(timer);
    this.#timers.sort((a, b) => a.atMs - b.atMs || a.sequence - b.sequence);
    return {
      cancel: () => {
        const index = this.#timers.indexOf(timer);
        if (index >= 0) this.#timers.splice(index, 1);
      },
    };
  }
  async advance(byMs: number): Promise<void> {
    const endMs = this.#nowMs + byMs;
    await settle();
    while (this.#timers.length > 0 && this.#timers[0]!.atMs <= endMs) {
      const timer = this.#timers.shift()!;
      this.#nowMs = timer.atMs;
      timer.callback();
      await settle();
    }
    this.#nowMs = endMs;
  }
}

// Lets promise chains and setImmediate callbacks that the last timer woke run to their next wait.
async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise(resolve => setImmediate(resolve));
}

/** RFC 3339 with seconds, the form of `metav1.Time`. */
export function formatTime(ms: number): string {
  const second = Math.floor(ms / 1000);
  if (second !== formattedSecond) {
    formattedSecond = second;
    formatted = `${new Date(ms).toISOString().slice(0, 19)}Z`;
  }
  return formatted;
}

// Nearly all calls are about now, many of them in the same second.
let formattedSecond = Number.NaN;
let formatted = '';

/** RFC 3339 with microseconds, the form of `metav1.MicroTime`. */
export function formatMicroTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 23)}000Z`;
}
