/**
 * How long admission takes, by upstream's names: of all plugins together (a step), of each of them, and of each webhook, whose
 * refusals and failures are counted too.
 */

import type { Clock } from '../../base/clock.ts';
import { metrics, type SeriesHandle } from '../../base/metrics.ts';
import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';

export type Step = 'admit' | 'validate';

const BUCKETS = [0.005, 0.025, 0.1, 0.5, 1, 2.5];
const STEP = ['type', 'operation', 'rejected'];
const steps = metrics.histogram(
  'apiserver_admission_step_admission_duration_seconds',
  'Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).',
  BUCKETS,
  STEP,
);
const controllers = metrics.histogram(
  'apiserver_admission_controller_admission_duration_seconds',
  'Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).',
  BUCKETS,
  ['name', ...STEP],
);
const webhooks = metrics.histogram(
  'apiserver_admission_webhook_admission_duration_seconds',
  'Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).',
  [...BUCKETS, 10, 25],
  ['name', ...STEP],
);
const webhookRequests = metrics.counter(
  'apiserver_admission_webhook_request_total',
  'Admission webhook request total, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify whether the request was rejected or not and an HTTP status code. Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.',
  ['name', 'type', 'operation', 'code', 'rejected'],
);
const webhookRejections = metrics.counter(
  'apiserver_admission_webhook_rejection_count',
  'Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify an error type (calling_webhook_error or apiserver_internal_error if an error occurred; no_error otherwise) and optionally a non-zero rejection code if the webhook rejects the request with an HTTP status code (honored by the apiserver when the code is greater or equal to 400). Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.',
  ['name', 'type', 'operation', 'error_type', 'rejection_code'],
);
const webhooksFailedOpen = metrics.counter(
  'apiserver_admission_webhook_fail_open_count',
  'Admission webhook fail open count, identified by name and broken out for each admission type (validating or admit).',
  ['name', 'type'],
);

/** One step of all plugins. Costs a look at the clock for each of them. */
export class StepTimes {
  readonly #step: Step;
  readonly #clock: Clock;
  readonly #series = new Map<string, SeriesHandle>();

  constructor(step: Step, clock: Clock) {
    this.#step = step;
    this.#clock = clock;
  }
  begin({ operation }: AdmissionRequest): StepTime {
    const tell = (plugin: string, rejected: boolean, ms: number) =>
      this.#at(plugin, operation, rejected).observe(ms / 1000);
    return new StepTime(tell, this.#clock);
  }
  /** Without a plugin's name: of the step. */
  #at(plugin: string, operation: string, rejected: boolean): SeriesHandle {
    const key = `${plugin} ${operation} ${rejected}`;
    let series = this.#series.get(key);
    if (!series) {
      const labels = [this.#step, operation, String(rejected)];
      series = plugin === '' ? steps.series(...labels) : controllers.series(plugin, ...labels);
      this.#series.set(key, series);
    }
    return series;
  }
}

/** One request in a step. */
export class StepTime {
  readonly #tell: (plugin: string, rejected: boolean, ms: number) => void;
  readonly #clock: Clock;
  readonly #sinceMs: number;
  #pluginSinceMs: number;

  constructor(tell: (plugin: string, rejected: boolean, ms: number) => void, clock: Clock) {
    this.#tell = tell;
    this.#clock = clock;
    this.#sinceMs = this.#pluginSinceMs = clock.monotonic();
  }
  passed(plugin: AdmissionPlugin): void {
    this.#plugin(plugin, false);
  }
  /** The step is over. */
  end(): void {
    this.#tell('', false, this.#pluginSinceMs - this.#sinceMs);
  }
  /** So is it where a plugin refuses. */
  rejected(plugin: AdmissionPlugin): void {
    this.#plugin(plugin, true);
    this.#tell('', true, this.#pluginSinceMs - this.#sinceMs);
  }
  #plugin({ name }: AdmissionPlugin, rejected: boolean): void {
    const nowMs = this.#clock.monotonic();
    this.#tell(name, rejected, nowMs - this.#pluginSinceMs);
    this.#pluginSinceMs = nowMs;
  }
}

export interface WebhookOutcome {
  readonly name: string;
  readonly type: 'admit' | 'validating';
  readonly operation: string;
  readonly seconds: number;
  /** What it answered: the code of its refusal, or of the failure of the call. */
  readonly code: number;
  readonly rejection?: 'calling_webhook_error' | 'apiserver_internal_error' | 'no_error';
}

const CODE_MAX = 600;

export function countWebhook({ name, type, operation, seconds, code, rejection }: WebhookOutcome): void {
  const rejected = String(rejection !== undefined);
  const shown = String(Math.min(code, CODE_MAX));
  webhooks.observe(seconds, name, type, operation, rejected);
  webhookRequests.add(1, name, type, operation, shown, rejected);
  if (rejection) webhookRejections.add(1, name, type, operation, rejection, shown);
}
export function countFailOpen(name: string, type: WebhookOutcome['type']): void {
  webhooksFailedOpen.add(1, name, type);
}
