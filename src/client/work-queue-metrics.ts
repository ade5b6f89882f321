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

export class WorkQueueMetrics {
  readonly #name: string;
  readonly #adds;
  readonly #waits;
  readonly #works;
  readonly #since = new Map<string, number>();

  constructor(name: string, length: () => number) {
    this.#name = name;
    this.#adds = adds.series(name);
    this.#waits = waits.series(name);
    this.#works = works.series(name);
    metrics.onCollect(() => depth.set(length(), name));
  }
  added(key: string, nowMs: number): void {
    this.#adds.add(1);
    this.#since.set(key, nowMs);
  }
  taken(key: string, nowMs: number): void {
    const since = this.#since.get(key);
    this.#since.delete(key);
    if (since !== undefined) this.#waits.observe((nowMs - since) / 1000);
  }
  worked(ms: number): void {
    this.#works.observe(ms / 1000);
  }
  retried(): void {
    retries.add(1, this.#name);
  }
}
