/**
 * One pass over one Job: counts finished pods exactly once (by finalizer), decides whether the Job is done, and makes or
 * removes pods. Invariant: a finished pod keeps its finalizer until its outcome is on record in status, so that no
 * outcome is lost or counted twice, whatever fails in between.
 */

import type { Job, JobCondition, JobStatus } from '../../api/batch/v1.gen.ts';
import type { Pod } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { isPodActive, isPodReady, isPodTerminal } from '../../api/machinery/pod.ts';
import { keyOf } from '../../api/meta.ts';
import { formatTime } from '../../base/clock.ts';
import { isReason } from '../../base/errors.ts';
import { JOBS, PODS } from '../../client/resources.ts';
import type { ReconcileContext, Result } from '../runtime/controller.ts';
import type { Expectations } from '../runtime/expectations.ts';
import { createPod, deletePod, isNamespaceTerminating, podFromTemplate, slowStart } from '../runtime/pod-control.ts';
import {
  awaitingReplacement,
  backoffMs,
  failedIndexes,
  failureAnnotations,
  finishedAtMs,
  hasLimitPerIndex,
  isPodFailed,
  policyMatch,
  replaceableAtMs,
  restartsOf,
  successPolicyMatch,
} from './failures.ts';
import { COMPLETION_INDEX, formatIndexes, indexOf, parseIndexes } from './indexes.ts';
import { countFinished, countHandledFailure, countPods, countSync, type JobAction } from './metrics.ts';

export const TRACKING_FINALIZER = 'batch.kubernetes.io/job-tracking';

const COMPLETIONS_REACHED = 'CompletionsReached';

interface Verdict {
  readonly type: 'Complete' | 'Failed';
  readonly reason: string;
  readonly message: string;
}

const condition = (status: JobStatus | undefined, type: string): JobCondition | undefined =>
  status?.conditions?.find(found => found.type === type && found.status === 'True');
export const isFinished = (job: Job): boolean =>
  condition(job.status, 'Complete') !== undefined || condition(job.status, 'Failed') !== undefined;
const isIndexed = (job: Job): boolean => job.spec?.completionMode === 'Indexed';
const isTracked = (pod: Pod): boolean => pod.metadata.finalizers?.includes(TRACKING_FINALIZER) === true;

export class JobPass {
  readonly #ctx: ReconcileContext;
  readonly #job: Job;
  readonly #pods: readonly Pod[];
  readonly #expectations: Expectations;
  /** Pods whose finalizer this process has taken off, although the informer may still show it. */
  readonly #released: Set<string>;
  #status: JobStatus;
  #action: JobAction = 'reconciling';

  constructor(
    ctx: ReconcileContext,
    options: { job: Job; pods: readonly Pod[]; expectations: Expectations; released: Set<string> },
  ) {
    this.#ctx = ctx;
    this.#job = options.job;
    this.#pods = options.pods;
    this.#expectations = options.expectations;
    this.#released = options.released;
    this.#status = { ...options.job.status };
  }
  #nowMs(): number {
    return this.#ctx.clock.now();
  }

  async run(): Promise<Result | void> {
    const job = this.#job;
    if (isFinished(job)) return this.#releaseAll();
    const { clock } = this.#ctx;
    const sinceMs = clock.monotonic();
    const count = (result: 'success' | 'error') =>
      countSync(job, result, { action: this.#action, seconds: (clock.monotonic() - sinceMs) / 1000 });
    try {
      const then = await this.#sync();
      count('success');
      return then;
    } catch (error) {
      count('error');
      throw error;
    }
  }
  async #sync(): Promise<Result | void> {
    const job = this.#job;
    const mayChange = this.#expectations.satisfied(keyOf(job));
    if (mayChange) this.#action = 'tracking';
    if (!this.#status.startTime && !job.spec?.suspend) this.#status.startTime = formatTime(this.#nowMs());
    this.#noteSuspension();
    await this.#count();
    const active = this.#pods.filter(pod => isPodActive(pod));
    const verdict = this.#verdict();
    let kept = active;
    let waitMs: number | undefined;
    if (verdict) {
      this.#announce(verdict);
      // Pods that a finished Job no longer needs are not counted; those that its end cuts short have failed.
      if (verdict.reason === COMPLETIONS_REACHED) await this.#remove(active);
      else await this.#cutShort(active);
      kept = [];
    } else if (mayChange && !job.metadata.deletionTimestamp) ({ kept, waitMs } = await this.#manage(active));
    const terminating = this.#pods.filter(pod => pod.metadata.deletionTimestamp && !isPodTerminal(pod)).length;
    this.#status = { ...this.#status, active: kept.length, ready: kept.filter(isPodReady).length, terminating };
    if (verdict && terminating + active.length === 0 && !this.#hasUncounted()) this.#finish(verdict);
    await this.#write();
    const counted = (of: 'succeeded' | 'failed') => (this.#status[of] ?? 0) - (job.status?.[of] ?? 0);
    countPods(job, { succeeded: counted('succeeded'), failed: counted('failed') });
    if (verdict) {
      if (!isFinished({ ...job, status: this.#status })) return;
      countFinished(job, verdict);
      return this.#releaseAll();
    }
    const deadlineMs = this.#msUntilDeadline();
    const soonest = [waitMs, deadlineMs].filter(value => value !== undefined);
    if (soonest.length > 0) return { requeueAfterMs: Math.max(1, Math.min(...soonest)) };
  }

  #condition(type: string, reason: string, message: string, status = 'True'): void {
    const now = formatTime(this.#nowMs());
    const others = (this.#status.conditions ?? []).filter(found => found.type !== type);
    this.#status = {
      ...this.#status,
      conditions: [...others, { type, status, reason, message, lastProbeTime: now, lastTransitionTime: now }],
    };
  }

  #noteSuspension(): void {
    const noted = condition(this.#status, 'Suspended') !== undefined;
    if (this.#job.spec?.suspend && !noted) {
      this.#condition('Suspended', 'JobSuspended', 'Job suspended');
      const { startTime: _start, ...rest } = this.#status;
      this.#status = rest;
      this.#ctx.events.event(this.#job, 'Normal', 'Suspended', 'Job suspended');
    } else if (!this.#job.spec?.suspend && noted) {
      this.#condition('Suspended', 'JobResumed', 'Job resumed', 'False');
      this.#status = { ...this.#status, startTime: formatTime(this.#nowMs()) };
      this.#ctx.events.event(this.#job, 'Normal', 'Resumed', 'Job resumed');
    }
  }

  /** Records finished pods as uncounted, takes off their finalizers, and counts those without one. */
  async #count(): Promise<void> {
    const uncounted = {
      succeeded: new Set(this.#status.uncountedTerminatedPods?.succeeded),
      failed: new Set(this.#status.uncountedTerminatedPods?.failed),
    };
    const byUid = new Map(this.#pods.map(pod => [pod.metadata.uid!, pod]));
    const completed = parseIndexes(this.#status.completedIndexes);
    const job = this.#job;
    const completions = job.spec?.completions ?? 0;
    const awaiting = this.#awaiting();
    // The end of the Job ends whatever still runs.
    const isEnding = job.metadata.deletionTimestamp !== undefined || this.#target() !== undefined;
    const isFailing = condition(this.#status, 'FailureTarget') !== undefined;
    const ending: Pod[] = [];
    const handled: string[] = [];
    for (const pod of this.#pods) {
      const uid = pod.metadata.uid!;
      if (!isTracked(pod) || this.#released.has(uid) || uncounted.succeeded.has(uid) || uncounted.failed.has(uid))
        continue;
      const hasSucceeded = pod.status?.phase === 'Succeeded';
      const hasFailed = isPodFailed(pod, job);
      const index = indexOf(pod);
      if (!isEnding && !hasSucceeded && (!hasFailed || awaiting.get(index ?? -1) === pod)) continue;
      ending.push(pod);
      const counts = !isIndexed(job) || (index !== undefined && index < completions);
      if (hasSucceeded) {
        if (!isIndexed(job)) uncounted.succeeded.add(uid);
        else if (counts) completed.add(index!);
      } else if ((hasFailed || isFailing) && counts) {
        const action = policyMatch(job, pod)?.action;
        if (action) handled.push(action);
        if (action !== 'Ignore') uncounted.failed.add(uid);
      }
    }
    if (isIndexed(job))
      this.#status = { ...this.#status, completedIndexes: formatIndexes(completed), succeeded: completed.size };
    if (hasLimitPerIndex(job))
      this.#status = { ...this.#status, failedIndexes: formatIndexes(failedIndexes(job, this.#pods)) };
    const pending = [...uncounted.succeeded, ...uncounted.failed];
    if (ending.length === 0 && pending.length === 0) {
      this.#status = { ...this.#status, uncountedTerminatedPods: {} };
      return;
    }
    const onRecord = {
      ...(uncounted.succeeded.size ? { succeeded: [...uncounted.succeeded] } : {}),
      ...(uncounted.failed.size ? { failed: [...uncounted.failed] } : {}),
    };
    this.#status = { ...this.#status, uncountedTerminatedPods: onRecord };
    await this.#write();
    for (const action of handled) countHandledFailure(action);
    const toRelease = [...ending, ...pending.flatMap(uid => byUid.get(uid) ?? [])].filter(
      pod => isTracked(pod) && !this.#released.has(pod.metadata.uid!),
    );
    await Promise.all(toRelease.map(pod => this.#release(pod)));
    this.#status = {
      ...this.#status,
      failed: (this.#status.failed ?? 0) + uncounted.failed.size,
      ...(isIndexed(this.#job) ? {} : { succeeded: (this.#status.succeeded ?? 0) + uncounted.succeeded.size }),
      uncountedTerminatedPods: {},
    };
  }
  #hasUncounted(): boolean {
    const { succeeded = [], failed = [] } = this.#status.uncountedTerminatedPods ?? {};
    return succeeded.length + failed.length > 0;
  }
  /** Failed pods that their index's next pod has still to learn from. */
  #awaiting(): ReadonlyMap<number, Pod> {
    const job = this.#job;
    if (!hasLimitPerIndex(job)) return new Map();
    const settled = failedIndexes(job, this.#pods);
    for (const index of parseIndexes(this.#status.completedIndexes)) settled.add(index);
    for (const pod of this.#pods) if (pod.status?.phase === 'Succeeded') settled.add(indexOf(pod) ?? -1);
    return awaitingReplacement(job, this.#pods, settled);
  }

  async #release(pod: Pod): Promise<void> {
    const { namespace = '', name, uid } = pod.metadata;
    this.#released.add(uid!);
    try {
      await this.#ctx.client.of(PODS).patch(namespace, name, {
        metadata: {
          uid,
          finalizers: (pod.metadata.finalizers ?? []).filter(finalizer => finalizer !== TRACKING_FINALIZER),
        },
      });
    } catch (error) {
      if (isReason(error, 'NotFound')) return;
      this.#released.delete(uid!);
      throw error;
    }
  }
  async #releaseAll(): Promise<void> {
    await Promise.all(
      this.#pods.filter(pod => isTracked(pod) && !this.#released.has(pod.metadata.uid!)).map(pod => this.#release(pod)),
    );
  }

  /** The interim condition, by which a verdict outlives this pass. */
  #target(): Verdict | undefined {
    const failed = condition(this.#status, 'FailureTarget');
    if (failed) return { type: 'Failed', reason: failed.reason ?? '', message: failed.message ?? '' };
    const success = condition(this.#status, 'SuccessCriteriaMet');
    if (success) return { type: 'Complete', reason: success.reason ?? '', message: success.message ?? '' };
    return undefined;
  }

  #verdict(): Verdict | undefined {
    const job = this.#job;
    const target = this.#target();
    if (target) return target;
    for (const pod of this.#pods) {
      const match = isPodFailed(pod, job) ? policyMatch(job, pod) : undefined;
      if (match?.action === 'FailJob') return { type: 'Failed', reason: 'PodFailurePolicy', message: match.message };
    }
    if (this.#isPastBackoffLimit())
      return { type: 'Failed', reason: 'BackoffLimitExceeded', message: 'Job has reached the specified backoff limit' };
    const deadlineMs = this.#msUntilDeadline();
    if (deadlineMs !== undefined && deadlineMs <= 0)
      return { type: 'Failed', reason: 'DeadlineExceeded', message: 'Job was active longer than specified deadline' };
    return this.#verdictOfIndexes() ?? this.#verdictOfCompletions();
  }
  #isPastBackoffLimit(): boolean {
    const limit = this.#job.spec?.backoffLimit ?? 6;
    if ((this.#status.failed ?? 0) > limit) return true;
    if (this.#job.spec?.template.spec?.restartPolicy !== 'OnFailure') return false;
    const restarts = this.#pods
      .filter(pod => pod.status?.phase === 'Running' || pod.status?.phase === 'Pending')
      .reduce((total, pod) => total + restartsOf(pod), 0);
    return restarts >= Math.max(1, limit);
  }
  #verdictOfIndexes(): Verdict | undefined {
    const job = this.#job;
    if (!isIndexed(job)) return undefined;
    const { completions = 0, maxFailedIndexes } = job.spec!;
    const succeeded = parseIndexes(this.#status.completedIndexes);
    const failed = parseIndexes(this.#status.failedIndexes).size;
    if (maxFailedIndexes !== undefined && failed > maxFailedIndexes)
      return {
        type: 'Failed',
        reason: 'MaxFailedIndexesExceeded',
        message: 'Job has exceeded the specified maximal number of failed indexes',
      };
    if (failed > 0 && failed + succeeded.size >= completions)
      return { type: 'Failed', reason: 'FailedIndexes', message: 'Job has failed indexes' };
    const message = successPolicyMatch(job, succeeded);
    return message === undefined ? undefined : { type: 'Complete', reason: 'SuccessPolicy', message };
  }
  #verdictOfCompletions(): Verdict | undefined {
    const { completions, suspend } = this.#job.spec ?? {};
    const succeeded = this.#status.succeeded ?? 0;
    const isComplete =
      completions === undefined
        ? succeeded > 0 && !this.#pods.some(pod => isPodActive(pod))
        : succeeded >= completions && !suspend;
    return isComplete
      ? { type: 'Complete', reason: COMPLETIONS_REACHED, message: 'Reached expected number of succeeded pods' }
      : undefined;
  }

  #msUntilDeadline(): number | undefined {
    const seconds = this.#job.spec?.activeDeadlineSeconds;
    if (seconds === undefined || !this.#status.startTime || this.#job.spec?.suspend) return undefined;
    return Date.parse(this.#status.startTime) + seconds * 1000 - this.#nowMs();
  }

  #announce(verdict: Verdict): void {
    const type = verdict.type === 'Complete' ? 'SuccessCriteriaMet' : 'FailureTarget';
    if (!condition(this.#status, type)) this.#condition(type, verdict.reason, verdict.message);
  }
  #finish(verdict: Verdict): void {
    this.#condition(verdict.type, verdict.reason, verdict.message);
    if (verdict.type === 'Complete') {
      this.#status = { ...this.#status, completionTime: formatTime(this.#nowMs()) };
      this.#ctx.events.event(this.#job, 'Normal', 'Completed', 'Job completed');
    } else this.#ctx.events.event(this.#job, 'Warning', verdict.reason, verdict.message);
  }

  async #manage(active: readonly Pod[]): Promise<{ kept: Pod[]; waitMs: number | undefined }> {
    const job = this.#job;
    const parallelism = job.spec?.parallelism ?? 1;
    const wantedMax = job.spec?.suspend ? 0 : parallelism;
    const succeeded = this.#status.succeeded ?? 0;
    const { completions } = job.spec ?? {};
    const wanted =
      completions === undefined
        ? succeeded > 0
          ? active.length
          : wantedMax
        : Math.min(wantedMax, Math.max(0, completions - succeeded));
    if (active.length > Math.min(wanted, wantedMax)) {
      const order = [...active].sort(
        (a, b) =>
          Number(isPodReady(a)) - Number(isPodReady(b)) ||
          ((a.metadata.creationTimestamp ?? '') > (b.metadata.creationTimestamp ?? '') ? -1 : 1),
      );
      const doomed = order.slice(0, active.length - wanted);
      this.#action = 'pods_deleted';
      await this.#remove(doomed);
      return { kept: active.filter(pod => !doomed.includes(pod)), waitMs: undefined };
    }
    // With podReplacementPolicy Failed (and always with a failure policy) a terminating pod still holds its place.
    const holding =
      job.spec?.podReplacementPolicy === 'Failed' || job.spec?.podFailurePolicy
        ? this.#pods.filter(pod => pod.metadata.deletionTimestamp && !isPodTerminal(pod)).length
        : 0;
    const missing = wanted - active.length - holding;
    if (missing <= 0) return { kept: [...active], waitMs: undefined };
    if (hasLimitPerIndex(job)) return this.#manageIndexes(missing, active);
    const waitMs = this.#backoffMs();
    if (waitMs > 0) return { kept: [...active], waitMs };
    return { kept: [...active, ...(await this.#create(missing, active))], waitMs: undefined };
  }

  /** Each index waits for itself: one that fails again and again does not hold up the others. */
  async #manageIndexes(count: number, active: readonly Pod[]): Promise<{ kept: Pod[]; waitMs: number | undefined }> {
    const awaiting = this.#awaiting();
    const waitOf = (index: number) => {
      const failed = awaiting.get(index);
      return failed ? replaceableAtMs(failed) - this.#nowMs() : 0;
    };
    const free = this.#freeIndexes(count, active);
    const ready = free.filter(index => waitOf(index) <= 0);
    const waits = free.map(waitOf).filter(ms => ms > 0);
    const made = await this.#create(ready.length, active, { indexes: ready, awaiting });
    return { kept: [...active, ...made], waitMs: waits.length > 0 ? Math.min(...waits) : undefined };
  }

  /** Time until the next pod may be made, after failures since the last success. */
  #backoffMs(): number {
    const succeeded = this.#pods.filter(pod => pod.status?.phase === 'Succeeded').map(finishedAtMs);
    const lastSuccessMs = Math.max(0, ...succeeded);
    const failures = this.#pods
      .filter(pod => pod.status?.phase === 'Failed' && policyMatch(this.#job, pod)?.action !== 'Ignore')
      .map(finishedAtMs)
      .filter(atMs => atMs > lastSuccessMs);
    return failures.length === 0 ? 0 : Math.max(...failures) + backoffMs(failures.length) - this.#nowMs();
  }

  async #create(
    count: number,
    active: readonly Pod[],
    chosen?: { indexes: readonly number[]; awaiting: ReadonlyMap<number, Pod> },
  ): Promise<Pod[]> {
    const job = this.#job;
    const key = keyOf(job);
    const indexes = chosen?.indexes ?? (isIndexed(job) ? this.#freeIndexes(count, active) : undefined);
    const total = indexes ? indexes.length : count;
    if (total === 0) return [];
    this.#expectations.expectCreations(key, total);
    const created: Pod[] = [];
    const { successes, error } = await slowStart({ count: total, first: 1 }, async i => {
      try {
        created.push(await createPod(this.#ctx, job, this.#draft(indexes?.[i], chosen?.awaiting)));
      } catch (failed) {
        if (!isNamespaceTerminating(failed)) throw failed;
      }
    });
    if (successes > 0) this.#action = 'pods_created';
    for (let i = successes; i < total; i++) this.#expectations.created(key);
    if (error !== undefined) throw error;
    return created;
  }

  #freeIndexes(count: number, active: readonly Pod[]): number[] {
    const taken = parseIndexes(this.#status.completedIndexes);
    for (const index of parseIndexes(this.#status.failedIndexes)) taken.add(index);
    for (const pod of active) taken.add(indexOf(pod) ?? -1);
    const free: number[] = [];
    for (let index = 0; index < (this.#job.spec?.completions ?? 0) && free.length < count; index++)
      if (!taken.has(index)) free.push(index);
    return free;
  }

  #draft(index: number | undefined, awaiting?: ReadonlyMap<number, Pod>): Pod {
    const job = this.#job;
    const pod = podFromTemplate(job.spec!.template, job);
    const finalizers = [...(pod.metadata.finalizers ?? []), TRACKING_FINALIZER];
    if (index === undefined) return { ...pod, metadata: { ...pod.metadata, finalizers } };
    const variable = {
      name: 'JOB_COMPLETION_INDEX',
      valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: `metadata.labels['${COMPLETION_INDEX}']` } },
    };
    const withVariable = <T extends { env?: { name: string }[] }>(container: T): T =>
      container.env?.some(({ name }) => name === variable.name)
        ? container
        : { ...container, env: [...(container.env ?? []), variable] };
    return {
      ...pod,
      metadata: {
        ...pod.metadata,
        finalizers,
        generateName: `${job.metadata.name}-${index}-`,
        labels: { ...pod.metadata.labels, [COMPLETION_INDEX]: String(index) },
        annotations: {
          ...pod.metadata.annotations,
          [COMPLETION_INDEX]: String(index),
          ...(awaiting ? failureAnnotations(job, awaiting.get(index)) : {}),
        },
      },
      spec: {
        ...pod.spec!,
        hostname: `${job.metadata.name}-${index}`,
        containers: pod.spec!.containers.map(withVariable),
        ...(pod.spec!.initContainers ? { initContainers: pod.spec!.initContainers.map(withVariable) } : {}),
      },
    };
  }

  /** Deletes pods but leaves their finalizers until they are counted. */
  async #cutShort(pods: readonly Pod[]): Promise<void> {
    await Promise.all(
      pods.map(pod =>
        deletePod(this.#ctx, this.#job, pod).catch(error => {
          if (!isReason(error, 'NotFound')) throw error;
        }),
      ),
    );
  }

  async #remove(pods: readonly Pod[]): Promise<void> {
    if (pods.length === 0) return;
    const key = keyOf(this.#job);
    this.#expectations.expectDeletions(
      key,
      pods.map(pod => pod.metadata.uid!),
    );
    await Promise.all(
      pods.map(async pod => {
        try {
          // It would otherwise stay until its finalizer goes, and it is not to be counted.
          await this.#release(pod);
          await deletePod(this.#ctx, this.#job, pod);
        } catch (error) {
          this.#expectations.deleted(key, pod.metadata.uid!);
          if (!isReason(error, 'NotFound')) throw error;
        }
      }),
    );
  }

  async #write(): Promise<void> {
    const before = this.#written ?? this.#job;
    if (semanticEqual(before.status ?? {}, this.#status)) return;
    this.#written = await this.#ctx.client.of<Job>(JOBS).updateStatus({ ...before, status: this.#status });
  }
  #written: Job | undefined;
}
