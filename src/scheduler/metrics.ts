/** The scheduler's metrics, by upstream's names and labels. */

import type { Clock } from '../base/clock.ts';
import { metrics, type SeriesHandle } from '../base/metrics.ts';

const SECONDS = [
  0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];
const SLI_SECONDS = [
  0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36,
  1310.72, 2621.44, 5242.88,
];
const POINT_SECONDS = [0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048];
const RESULT = ['result', 'profile'];

/** The only profile, by which pods ask for it. */
export const SCHEDULER_NAME = 'default-scheduler';

export const attempts = metrics.counter(
  'scheduler_schedule_attempts_total',
  "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.",
  RESULT,
);
export const attemptDurations = metrics.histogram(
  'scheduler_scheduling_attempt_duration_seconds',
  'Scheduling attempt latency in seconds (scheduling algorithm + binding)',
  SECONDS,
  RESULT,
);
export const algorithmDurations = metrics.histogram(
  'scheduler_scheduling_algorithm_duration_seconds',
  'Scheduling algorithm latency in seconds',
  SECONDS,
);
export const unschedulablePods = metrics.gauge(
  'scheduler_unschedulable_pods',
  'The number of unschedulable pods broken down by plugin name. A pod will increment the gauge for all plugins that caused it to not schedule and so this metric have meaning only when broken down by plugin.',
  ['plugin', 'profile'],
);
const evaluations = metrics.counter(
  'scheduler_plugin_evaluation_total',
  'Number of attempts to schedule pods by each plugin and the extension point (available only in PreFilter, Filter, PreScore, and Score).',
  ['plugin', 'extension_point', 'profile'],
);
const executions = metrics.histogram(
  'scheduler_plugin_execution_duration_seconds',
  'Duration for running a plugin at a specific extension point.',
  Array.from({ length: 20 }, (_, i) => 0.000_01 * 1.5 ** i),
  ['plugin', 'extension_point', 'status'],
);
/** What has something to do beside the loop of decisions, by upstream's word for it. */
export const goroutines = metrics.gauge(
  'scheduler_goroutines',
  'Number of running goroutines split by the work they do such as binding.',
  ['operation'],
);
export const pendingPods = metrics.gauge(
  'scheduler_pending_pods',
  "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in backoffQ; 'unschedulable' means number of pods in unschedulablePods that the scheduler attempted to schedule and failed; 'gated' is the number of unschedulable pods that the scheduler never attempted to schedule because they are gated.",
  ['queue'],
);
export const incomingPods = metrics.counter(
  'scheduler_queue_incoming_pods_total',
  'Number of pods added to scheduling queues by event and queue type.',
  ['queue', 'event'],
);
export const cacheSize = metrics.gauge(
  'scheduler_cache_size',
  'Number of nodes, pods, and assumed (bound) pods in the scheduler cache.',
  ['type'],
);
export const podAttempts = metrics.histogram(
  'scheduler_pod_scheduling_attempts',
  'Number of attempts to successfully schedule a pod.',
  [1, 2, 4, 8, 16],
);
export const podDurations = metrics.histogram(
  'scheduler_pod_scheduling_sli_duration_seconds',
  'E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.',
  SLI_SECONDS,
  ['attempts'],
);
export const preemptionAttempts = metrics.counter(
  'scheduler_preemption_attempts_total',
  'Total preemption attempts in the cluster till now',
);
export const preemptionVictims = metrics.histogram(
  'scheduler_preemption_victims',
  'Number of selected preemption victims',
  [1, 2, 4, 8, 16, 32, 64],
);

const points = metrics.histogram(
  'scheduler_framework_extension_point_duration_seconds',
  'Latency for running all plugins of a specific extension point.',
  POINT_SECONDS,
  ['extension_point', 'status', 'profile'],
);
export type ExtensionPoint =
  | 'PreFilter'
  | 'Filter'
  | 'PostFilter'
  | 'PreScore'
  | 'Score'
  | 'Reserve'
  | 'Unreserve'
  | 'PreBind'
  | 'Bind';
export type PointStatus = 'Success' | 'Unschedulable' | 'UnschedulableAndUnresolvable' | 'Error';
const knownPoints = new Map<string, SeriesHandle>();

/** Tells how long the plugins of an extension point took, all together. */
export function countPoint(point: ExtensionPoint, status: PointStatus, ms: number): void {
  const key = `${point} ${status}`;
  let series = knownPoints.get(key);
  if (!series) knownPoints.set(key, (series = points.series(point, status, SCHEDULER_NAME)));
  series.observe(ms / 1000);
}

const knownEvaluations = new Map<string, SeriesHandle>();

/** The plugin had something to say of a pod. */
export function countEvaluation(plugin: string, point: ExtensionPoint): void {
  const key = `${plugin} ${point}`;
  let series = knownEvaluations.get(key);
  if (!series) knownEvaluations.set(key, (series = evaluations.series(plugin, point, SCHEDULER_NAME)));
  series.add(1);
}

/** Upstream looks at a tenth of all attempts too: what is measured takes hardly longer than measuring it. */
const SAMPLED_EVERY = 10;

/** How long each plugin takes, in every tenth attempt. */
export class PluginTimes {
  readonly #clock: Clock;
  #attempts = 0;
  constructor(clock: Clock) {
    this.#clock = clock;
  }
  /** For the next attempt, where it is one that is looked at. */
  next(): this | undefined {
    return this.#attempts++ % SAMPLED_EVERY === 0 ? this : undefined;
  }
  run<T>(plugin: string, { point, statusOf, work }: PluginRun<T>): T {
    const startMs = this.#clock.monotonic();
    const result = work();
    executions.observe((this.#clock.monotonic() - startMs) / 1000, plugin, point, statusOf?.(result) ?? 'Success');
    return result;
  }
}

export interface PluginRun<T> {
  readonly point: ExtensionPoint;
  readonly work: () => T;
  /** Default: a success. */
  readonly statusOf?: (result: T) => PointStatus;
}

/** Runs an extension point and tells how long it took; it rejects or throws as the point does. */
export class PointTimes {
  readonly #clock: Clock;
  constructor(clock: Clock) {
    this.#clock = clock;
  }
  run<T>(point: ExtensionPoint, work: () => T, statusOf: (result: T) => PointStatus = () => 'Success'): T {
    const startMs = this.#clock.monotonic();
    let status: PointStatus = 'Error';
    try {
      const result = work();
      status = statusOf(result);
      return result;
    } finally {
      countPoint(point, status, this.#clock.monotonic() - startMs);
    }
  }
  async wait(point: ExtensionPoint, work: () => Promise<unknown>): Promise<void> {
    const startMs = this.#clock.monotonic();
    let status: PointStatus = 'Error';
    try {
      await work();
      status = 'Success';
    } finally {
      countPoint(point, status, this.#clock.monotonic() - startMs);
    }
  }
}
