/** The Job controller's metrics, by upstream's names (stable and beta). */

import type { Job } from '../../api/batch/v1.gen.ts';
import { metrics } from '../../base/metrics.ts';

const SYNC = ['completion_mode', 'result', 'action'];
const syncs = metrics.counter('job_controller_job_syncs_total', 'The number of job syncs', SYNC);
const syncSeconds = metrics.histogram(
  'job_controller_job_sync_duration_seconds',
  'The time it took to sync a job',
  Array.from({ length: 15 }, (_, i) => 0.004 * 2 ** i),
  SYNC,
);
const finished = metrics.counter('job_controller_jobs_finished_total', 'The number of finished jobs', [
  'completion_mode',
  'result',
  'reason',
]);
const finishedPods = metrics.counter(
  'job_controller_job_pods_finished_total',
  'The number of finished Pods that are fully tracked',
  ['completion_mode', 'result'],
);

const handledFailures = metrics.counter(
  'job_controller_pod_failures_handled_by_failure_policy_total',
  'The number of failed Pods handled by failure policy with respect to the failure policy action applied based on the matched rule. Possible values of the action label correspond to the possible values for the failure policy rule action, which are: "FailJob", "Ignore" and "Count".',
  ['action'],
);
const trackedPods = metrics.counter(
  'job_controller_terminated_pods_tracking_finalizer_total',
  'The number of terminated pods (phase=Failed|Succeeded) that have the finalizer batch.kubernetes.io/job-tracking. The event label can be "add" or "delete".',
  ['event'],
);

/** What a pass over a Job did: waited for what it asked for before, nothing, or changed pods. */
export type JobAction = 'reconciling' | 'tracking' | 'pods_created' | 'pods_deleted';

const modeOf = ({ spec }: Job): string => spec?.completionMode ?? 'NonIndexed';

export function countSync(job: Job, result: 'success' | 'error', did: { action: JobAction; seconds: number }): void {
  syncs.add(1, modeOf(job), result, did.action);
  syncSeconds.observe(did.seconds, modeOf(job), result, did.action);
}
export function countFinished(job: Job, { type, reason }: { readonly type: string; readonly reason: string }): void {
  finished.add(1, modeOf(job), type === 'Complete' ? 'succeeded' : 'failed', reason);
}
export function countPods(job: Job, counts: { readonly succeeded: number; readonly failed: number }): void {
  for (const result of ['succeeded', 'failed'] as const)
    if (counts[result] > 0) finishedPods.add(counts[result], modeOf(job), result);
}

/** A failed pod of a Job with a failure policy is on record. */
export function countHandledFailure(action: string): void {
  handledFailures.add(1, action);
}
/** Whether a finished pod waits to be counted: before a change of it, and after. */
export function countTracked(before: boolean, { after }: { readonly after: boolean }): void {
  if (before !== after) trackedPods.add(1, after ? 'add' : 'delete');
}
