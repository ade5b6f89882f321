/**
 * How long admission takes, by upstream's names: of all plugins together (a step), of each of them, and of each webhook, whose
 * refusals and failures are counted too.
 */

import { metrics, type SeriesHandle } from '../../base/metrics.ts';

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
const CHECK = ['policy', 'policy_binding', 'error_type', 'enforcement_action'];
const checks = metrics.counter(
  'apiserver_validating_admission_policy_check_total',
  'Validation admission policy check total, labeled by policy and further identified by binding and enforcement action taken.',
  CHECK,
);
const checkDurations = metrics.histogram(
  'apiserver_validating_admission_policy_check_duration_seconds',
  'Validation admission latency for individual validation expressions in seconds, labeled by policy and further including binding and enforcement action taken.',
  [0.0000005, 0.001, 0.01, 0.1, 1],
  CHECK,
);
const webhooksFailedOpen = metrics.counter(
  'apiserver_admission_webhook_fail_open_count',
  'Admission webhook fail open count, identified by name and broken out for each admission type (validating or admit).',
  ['name', 'type'],
);

/** Where one step of admission is counted. */
export interface StepSeries {
  /** All plugins together. */
  readonly step: SeriesHandle;
  /** In the order of the names. */
  readonly plugins: readonly SeriesHandle[];
}

/** Those that exist already keep what they have counted. */
export function stepSeries(
  { step, operation, rejected }: { readonly step: Step; readonly operation: string; readonly rejected: boolean },
  names: readonly string[],
): StepSeries {
  const labels = [step, operation, String(rejected)];
  return { step: steps.series(...labels), plugins: names.map(name => controllers.series(name, ...labels)) };
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
/** An expression of a policy that found something, or failed; what it allows for good is not counted. */
export interface PolicyCheck {
  readonly policy: string;
  readonly binding: string;
  /** Upstream has no other for an expression that is false. */
  readonly errorType: 'compile_error' | 'out_of_budget' | 'invalid_error';
  readonly action: 'allow' | 'deny' | 'audit' | 'warn';
  readonly ms: number;
}

export function countPolicyCheck({ policy, binding, errorType, action, ms }: PolicyCheck): void {
  checks.add(1, policy, binding, errorType, action);
  checkDurations.observe(ms / 1000, policy, binding, errorType, action);
}
export function countFailOpen(name: string, type: WebhookOutcome['type']): void {
  webhooksFailedOpen.add(1, name, type);
}
