/**
 * Keys waiting to be reconciled. A key is queued at most once; one key is never processed by two workers at a time; a key
 * added while it is being processed is processed again afterwards; failed keys come back with exponential back-off.
 */

import { Backoff } from '../base/backoff.ts';
import { type Clock, systemClock, type Timer } from '../base/clock.ts';
import { WorkQueueMetrics } from './work-queue-metrics.ts';

export interface WorkQueueOptions {
  /** Whose queue it is, for the metrics; one without a name has none. */
  readonly name?: string;
  readonly clock?: Clock;
  /** First and longest retry delay; client-go's defaults are 5 ms and 1000 s. */
  readonly retryMsMin?: number;
  readonly retryMsMax?: number;
}

export class WorkQueue {
  readonly #clock: Clock;
  readonly #backoff: Backoff;
  readonly #queue: string[] = [];
  readonly #dirty = new Set<string>();
  readonly #processing = new Set<string>();
  readonly #delayed = new Map<string, { atMs: number; timer: Timer }>();
  readonly #waiters: (() => void)[] = [];
  readonly #metrics: WorkQueueMetrics | undefined;

  constructor(options: WorkQueueOptions = {}) {
    this.#clock = options.clock ?? systemClock;
    this.#metrics =
      options.name === undefined
        ? undefined
        : new WorkQueueMetrics(options.name, { length: () => this.length, nowMs: () => this.#clock.monotonic() });
    this.#backoff = new Backoff({
      initialMs: options.retryMsMin ?? 5,
      maxMs: options.retryMsMax ?? 1_000_000,
      clock: this.#clock,
    });
  }
  get length(): number {
    return this.#queue.length;
  }
  add(key: string): void {
    if (this.#dirty.has(key)) return;
    this.#dirty.add(key);
    this.#metrics?.added(key, this.#clock.monotonic());
    if (this.#processing.has(key)) return;
    this.#queue.push(key);
    this.#waiters.shift()?.();
  }
  /** Adds after a delay; of several pending delays for a key the earliest wins. */
  addAfter(key: string, delayMs: number): void {
    if (delayMs <= 0) {
      this.add(key);
      return;
    }
    const atMs = this.#clock.monotonic() + delayMs;
    const pending = this.#delayed.get(key);
    if (pending && pending.atMs <= atMs) return;
    pending?.timer.cancel();
    const timer = this.#clock.after(delayMs, () => {
      this.#delayed.delete(key);
      this.add(key);
    });
    this.#delayed.set(key, { atMs, timer });
  }
  retry(key: string): void {
    this.#metrics?.retried();
    this.addAfter(key, this.#backoff.next(key));
  }
  /** The key succeeded: its back-off starts over. */
  forget(key: string): void {
    this.#backoff.reset(key);
  }
  /** Runs `process` for keys with that many workers until the signal aborts. A rejection is handed to `failed`, then retried. */
  async run(
    options: {
      workers: number;
      process: (key: string) => Promise<void>;
      failed: (key: string, error: unknown) => void;
    },
    signal: AbortSignal,
  ): Promise<void> {
    const wakeAll = () => {
      for (const wake of this.#waiters.splice(0)) wake();
    };
    signal.addEventListener('abort', wakeAll, { once: true });
    await Promise.all(Array.from({ length: options.workers }, () => this.#work(options, signal)));
    for (const { timer } of this.#delayed.values()) timer.cancel();
    this.#delayed.clear();
  }
  async #work(
    options: { process: (key: string) => Promise<void>; failed: (key: string, error: unknown) => void },
    signal: AbortSignal,
  ): Promise<void> {
    while (!signal.aborted) {
      const key = this.#queue.shift();
      if (key === undefined) {
        await new Promise<void>(resolve => this.#waiters.push(resolve));
        continue;
      }
      this.#dirty.delete(key);
      this.#processing.add(key);
      this.#metrics?.taken(key, this.#clock.monotonic());
      try {
        await options.process(key);
        this.forget(key);
      } catch (error) {
        options.failed(key, error);
        this.retry(key);
      } finally {
        this.#processing.delete(key);
        this.#metrics?.worked(key, this.#clock.monotonic());
        if (this.#dirty.has(key)) {
          this.#queue.push(key);
          this.#waiters.shift()?.();
        }
      }
    }
  }
}
