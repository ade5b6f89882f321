/** What is told of a work queue that has a name, as upstream's queues tell it. */

import { metrics } from '../base/metrics.ts';

const SECONDS = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10];
const NAME = ['name'];
const adds = metrics.counter('workqueue_adds_total', 'Total number of adds handled by workqueue', NAME);
const depth = metrics.gauge('workqueue_depth', 'Current depth of workqueue', NAME);
const retries = metrics.counter('workqueue_retries_total', 'Total number of retries handled by workqueue', NAME);
const waits = metrics.histogram(
  'workqueue_queue_duration_seconds',
  'How long in seconds an item stays in workqueue before being requested.',
  SECONDS,
  NAME,
);
const works = metrics.histogram(
  'workqueue_work_duration_seconds',
  'How long in seconds processing an item from workqueue takes.',
  SECONDS,
  NAME,
);

const unfinished = metrics.gauge(
  'workqueue_unfinished_work_seconds',
  "How many seconds of work has done that is in progress and hasn't been observed by work_duration. Large values indicate stuck threads. One can deduce the number of stuck threads by observing the rate at which this increases.",
  NAME,
);
const longest = metrics.gauge(
  'workqueue_longest_running_processor_seconds',
  'How many seconds has the longest running processor for workqueue been running.',
  NAME,
);

export class WorkQueueMetrics {
  readonly #name: string;
  readonly #adds;
  readonly #waits;
  readonly #works;
  readonly #since = new Map<string, number>();
  /** When the work on a key began. */
  readonly #underWay = new Map<string, number>();

  constructor(name: string, { length, nowMs }: { readonly length: () => number; readonly nowMs: () => number }) {
    this.#name = name;
    this.#adds = adds.series(name);
    this.#waits = waits.series(name);
    this.#works = works.series(name);
    metrics.onCollect(() => {
      depth.set(length(), name);
      let sum = 0;
      let most = 0;
      const now = nowMs();
      for (const startMs of this.#underWay.values()) {
        sum += now - startMs;
        most = Math.max(most, now - startMs);
      }
      unfinished.set(sum / 1000, name);
      longest.set(most / 1000, name);
    });
  }
  added(key: string, nowMs: number): void {
    this.#adds.add(1);
    this.#since.set(key, nowMs);
  }
  taken(key: string, nowMs: number): void {
    this.#underWay.set(key, nowMs);
    const since = this.#since.get(key);
    this.#since.delete(key);
    if (since !== undefined) this.#waits.observe((nowMs - since) / 1000);
  }
  worked(key: string, nowMs: number): void {
    this.#works.observe((nowMs - this.#underWay.get(key)!) / 1000);
    this.#underWay.delete(key);
  }
  retried(): void {
    retries.add(1, this.#name);
  }
}
