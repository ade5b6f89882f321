/**
 * What counts as a failed pod of a Job, and what follows from it: its failure policy, and back-off limits that each index
 * has for itself. Pure: everything is read from the Job and its pods. How often an index failed is an annotation that a
 * pod hands on to its replacement, so the last failed pod of an index must not go before the replacement is made.
 */

import type { Job, PodFailurePolicyRule } from '../../api/batch/v1.gen.ts';
import type { ContainerStatus, Pod } from '../../api/core/v1.gen.ts';
import { isPodActive } from '../../api/machinery/pod.ts';
import { indexOf, parseIndexes } from './indexes.ts';

const FAILURE_COUNT = 'batch.kubernetes.io/job-index-failure-count';
const IGNORED_FAILURE_COUNT = 'batch.kubernetes.io/job-index-ignored-failure-count';
const BACKOFF_MS_MIN = 10_000;
const BACKOFF_MS_MAX = 10 * 60_000;

/** Pods that are being deleted have failed too, unless replacements are to wait for their end. */
export function isPodFailed(pod: Pod, job: Job): boolean {
  if (pod.status?.phase === 'Failed') return true;
  if (job.spec?.podReplacementPolicy === 'Failed') return false;
  return pod.metadata.deletionTimestamp !== undefined && pod.status?.phase !== 'Succeeded';
}

export interface PolicyMatch {
  readonly action: PodFailurePolicyRule['action'];
  readonly message: string;
}

/** The first rule of the Job's failure policy that the failed pod meets. */
export function policyMatch(job: Job, pod: Pod): PolicyMatch | undefined {
  for (const [at, rule] of (job.spec?.podFailurePolicy?.rules ?? []).entries()) {
    const { action } = rule;
    const ending = `matching ${action} rule at index ${at}`;
    const where = `${pod.metadata.namespace}/${pod.metadata.name}`;
    const container = rule.onExitCodes && containerOf(rule, pod);
    if (container) {
      const code = container.state!.terminated!.exitCode;
      return {
        action,
        message: `Container ${container.name} for pod ${where} failed with exit code ${code} ${ending}`,
      };
    }
    const condition = rule.onPodConditions?.find(wanted =>
      pod.status?.conditions?.some(found => found.type === wanted.type && found.status === (wanted.status || 'True')),
    );
    if (condition) return { action, message: `Pod ${where} has condition ${condition.type} ${ending}` };
  }
  return undefined;
}

function containerOf({ onExitCodes }: PodFailurePolicyRule, pod: Pod): ContainerStatus | undefined {
  const { containerName, operator, values } = onExitCodes!;
  return statusesOf(pod).find(({ name, state }) => {
    const code = state?.terminated?.exitCode;
    if (!code || (containerName && containerName !== name)) return false;
    return operator === 'In' ? values.includes(code) : !values.includes(code);
  });
}

function statusesOf(pod: Pod): readonly ContainerStatus[] {
  return [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])];
}

export function restartsOf(pod: Pod): number {
  return statusesOf(pod).reduce((total, { restartCount }) => total + restartCount, 0);
}

/** When the pod's last container ended; 0 when nothing tells. */
export function finishedAtMs(pod: Pod): number {
  const ended = statusesOf(pod).map(({ state }) => Date.parse(state?.terminated?.finishedAt ?? '') || 0);
  const ready = pod.status?.conditions?.find(({ type }) => type === 'Ready')?.lastTransitionTime;
  return Math.max(0, ...ended) || Date.parse(pod.metadata.deletionTimestamp ?? ready ?? '') || 0;
}

/** 10 s after the first failure, doubled by each further one, up to ten minutes. */
export function backoffMs(failures: number): number {
  return failures < 1 ? 0 : Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(20, failures - 1));
}

export const hasLimitPerIndex = (job: Job): boolean => job.spec?.backoffLimitPerIndex !== undefined;

const countOf = (pod: Pod, annotation: string): number => Number(pod.metadata.annotations?.[annotation] ?? 0) || 0;

/** Indexes that have used up their limit, those already on record included. */
export function failedIndexes(job: Job, pods: readonly Pod[]): Set<number> {
  const failed = parseIndexes(job.status?.failedIndexes);
  for (const pod of pods) {
    const index = indexOf(pod);
    if (index === undefined || index >= (job.spec?.completions ?? 0) || !isPodFailed(pod, job)) continue;
    const action = policyMatch(job, pod)?.action;
    if (action === 'FailIndex') failed.add(index);
    else if (action !== 'Ignore' && countOf(pod, FAILURE_COUNT) >= job.spec!.backoffLimitPerIndex!) failed.add(index);
  }
  return failed;
}

/** For each index that awaits a replacement: the failed pod that the replacement follows. */
export function awaitingReplacement(job: Job, pods: readonly Pod[], settled: ReadonlySet<number>): Map<number, Pod> {
  const last = new Map<number, Pod>();
  const replaced = new Set(pods.filter(pod => isPodActive(pod)).map(indexOf));
  const failures = (pod: Pod) => countOf(pod, FAILURE_COUNT) + countOf(pod, IGNORED_FAILURE_COUNT);
  for (const pod of pods) {
    const index = indexOf(pod);
    if (index === undefined || settled.has(index) || replaced.has(index) || !isPodFailed(pod, job)) continue;
    const other = last.get(index);
    if (!other || failures(pod) > failures(other)) last.set(index, pod);
  }
  return last;
}

/** When the failed pod's index may run again. */
export function replaceableAtMs(failed: Pod): number {
  const failures = 1 + countOf(failed, FAILURE_COUNT) + countOf(failed, IGNORED_FAILURE_COUNT);
  return finishedAtMs(failed) + backoffMs(failures);
}

/** Annotations of an index's next pod, after its last failed one. */
export function failureAnnotations(job: Job, failed: Pod | undefined): Record<string, string> {
  const ignored = failed !== undefined && policyMatch(job, failed)?.action === 'Ignore';
  const counted = failed ? countOf(failed, FAILURE_COUNT) + (ignored ? 0 : 1) : 0;
  const ignoredCount = failed ? countOf(failed, IGNORED_FAILURE_COUNT) + (ignored ? 1 : 0) : 0;
  return {
    [FAILURE_COUNT]: String(counted),
    ...(ignoredCount > 0 ? { [IGNORED_FAILURE_COUNT]: String(ignoredCount) } : {}),
  };
}

/** What the success policy says to the indexes that succeeded; undefined while it is not met. */
export function successPolicyMatch(job: Job, succeeded: ReadonlySet<number>): string | undefined {
  for (const [at, rule] of (job.spec?.successPolicy?.rules ?? []).entries()) {
    const among = rule.succeededIndexes === undefined ? undefined : parseIndexes(rule.succeededIndexes);
    const count = among ? [...among].filter(index => succeeded.has(index)).length : succeeded.size;
    const wanted = rule.succeededCount ?? among?.size ?? Number.POSITIVE_INFINITY;
    if (count >= wanted && count > 0) return `Matched rules at index ${at}`;
  }
  return undefined;
}
