/**
 * CronJobs: a Job at each scheduled time, named after the minute, so that a time never starts two. Wakes by timer at the
 * next time; nothing polls.
 */

import type { CronJob, CronJobStatus, Job } from '../../api/batch/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { controllerOf, keyOf } from '../../api/meta.ts';
import { formatTime } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import { metrics } from '../../base/metrics.ts';
import { CRON_JOBS, JOBS } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';
import { controllerReference, dependents, indexByController } from '../runtime/ownership.ts';
import { parseSchedule, type Schedule } from './schedule.ts';

const creationSkew = metrics.histogram(
  'cronjob_controller_job_creation_skew_duration_seconds',
  'Time between when a cronjob is scheduled to be run, and when the corresponding job is created',
  Array.from({ length: 10 }, (_, i) => 2 ** i),
);

const SCHEDULED = 'batch.kubernetes.io/cronjob-scheduled-timestamp';
/** Beyond this many missed times something is wrong with the clock or the schedule. */
const MISSED_MAX = 100;
/** The timer may fire a moment early against the wall clock. */
const SLACK_MS = 100;

const outcomeOf = (job: Job): 'Complete' | 'Failed' | undefined =>
  job.status?.conditions?.find(({ type, status }) => status === 'True' && (type === 'Complete' || type === 'Failed'))
    ?.type as 'Complete' | 'Failed' | undefined;

class CronJobs {
  readonly #ctx: ReconcileContext;
  readonly #jobs;

  constructor(ctx: ReconcileContext) {
    this.#ctx = ctx;
    this.#jobs = ctx.informers.get<Job>(JOBS);
  }

  async reconcile(cron: CronJob): Promise<Result | void> {
    const own = dependents(this.#jobs, cron);
    let status = this.#noteFinished(cron, own);
    await this.#cleanup(cron, own);
    let result: Result | undefined;
    if (!cron.metadata.deletionTimestamp && !cron.spec?.suspend) {
      const schedule = this.#schedule(cron);
      if (schedule) ({ status, result } = await this.#start(cron, status, schedule));
    }
    if (!semanticEqual(cron.status ?? {}, status))
      await this.#ctx.client.of<CronJob>(CRON_JOBS).updateStatus({ ...cron, status });
    return result;
  }

  #schedule(cron: CronJob): Schedule | undefined {
    try {
      return parseSchedule(cron.spec!.schedule, cron.spec?.timeZone);
    } catch (error) {
      const reason = cron.spec?.timeZone && error instanceof RangeError ? 'UnknownTimeZone' : 'UnparseableSchedule';
      const text =
        reason === 'UnknownTimeZone'
          ? `invalid timeZone: ${cron.spec?.timeZone}: unknown time zone ${cron.spec?.timeZone}`
          : `unparseable schedule: ${JSON.stringify(cron.spec?.schedule)} : ${messageOf(error)}`;
      this.#ctx.events.event(cron, 'Warning', reason, text);
      return undefined;
    }
  }

  #noteFinished(cron: CronJob, own: readonly Job[]): CronJobStatus {
    const status: CronJobStatus = { ...cron.status };
    const active = (status.active ?? []).filter(reference => {
      const found = own.find(job => job.metadata.uid === reference.uid);
      if (!found) {
        this.#ctx.events.event(cron, 'Normal', 'MissingJob', `Active job went missing: ${reference.name}`);
        return false;
      }
      const outcome = outcomeOf(found);
      if (!outcome) return true;
      this.#ctx.events.event(
        cron,
        'Normal',
        'SawCompletedJob',
        `Saw completed job: ${found.metadata.name}, condition: ${outcome}`,
      );
      return false;
    });
    for (const found of own) {
      const { completionTime } = found.status ?? {};
      if (outcomeOf(found) === 'Complete' && completionTime && completionTime > (status.lastSuccessfulTime ?? ''))
        status.lastSuccessfulTime = completionTime;
    }
    return { ...status, active };
  }

  async #cleanup(cron: CronJob, own: readonly Job[]): Promise<void> {
    const limits = { Complete: cron.spec?.successfulJobsHistoryLimit, Failed: cron.spec?.failedJobsHistoryLimit };
    for (const outcome of ['Complete', 'Failed'] as const) {
      const limit = limits[outcome];
      if (limit === undefined) continue;
      const finished = own
        .filter(found => outcomeOf(found) === outcome)
        .sort((a, b) => ((a.status?.startTime ?? '') < (b.status?.startTime ?? '') ? -1 : 1));
      for (const found of finished.slice(0, Math.max(0, finished.length - limit))) await this.#delete(cron, found);
    }
  }

  async #delete(cron: CronJob, found: Job): Promise<void> {
    try {
      await this.#ctx.client
        .of<Job>(JOBS)
        .delete(found.metadata.namespace!, found.metadata.name, { propagationPolicy: 'Background' });
      this.#ctx.events.event(cron, 'Normal', 'SuccessfulDelete', `Deleted job ${found.metadata.name}`);
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
    }
  }

  /** The most recent time that is due and not started yet. */
  #dueMs(cron: CronJob, status: CronJobStatus, schedule: Schedule, nowMs: number): number | undefined {
    const deadlineSeconds = cron.spec?.startingDeadlineSeconds;
    let fromMs = Date.parse(status.lastScheduleTime ?? cron.metadata.creationTimestamp ?? '');
    if (deadlineSeconds !== undefined) fromMs = Math.max(fromMs, nowMs - deadlineSeconds * 1000);
    let dueMs: number | undefined;
    let missed = 0;
    for (let atMs = schedule.next(fromMs); atMs !== undefined && atMs <= nowMs + SLACK_MS; atMs = schedule.next(atMs)) {
      dueMs = atMs;
      if (++missed > MISSED_MAX) {
        this.#ctx.events.event(
          cron,
          'Warning',
          'TooManyMissedTimes',
          `too many missed start times: ${missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew`,
        );
        // Jump close to now instead of walking through every missed time.
        atMs = Math.max(atMs, nowMs - 24 * 3600 * 1000);
        missed = Number.NEGATIVE_INFINITY;
      }
    }
    return dueMs;
  }

  async #start(
    cron: CronJob,
    status: CronJobStatus,
    schedule: Schedule,
  ): Promise<{ status: CronJobStatus; result: Result | undefined }> {
    const nowMs = this.#ctx.clock.now();
    const nextMs = schedule.next(nowMs + SLACK_MS);
    const result = nextMs === undefined ? undefined : { requeueAfterMs: nextMs - nowMs };
    const dueMs = this.#dueMs(cron, status, schedule, nowMs);
    if (dueMs === undefined) return { status, result };
    const active = status.active ?? [];
    if (cron.spec?.concurrencyPolicy === 'Forbid' && active.length > 0) {
      this.#ctx.events.event(
        cron,
        'Normal',
        'JobAlreadyActive',
        'Not starting job because prior execution is running and concurrency policy is Forbid',
      );
      return { status, result };
    }
    let running = active;
    if (cron.spec?.concurrencyPolicy === 'Replace') {
      for (const reference of active) {
        const found = this.#jobs.get(`${cron.metadata.namespace}/${reference.name}`);
        if (found) await this.#delete(cron, found);
      }
      running = [];
    }
    const made = await this.#create(cron, dueMs);
    const reference = made && {
      apiVersion: 'batch/v1',
      kind: 'Job',
      namespace: made.metadata.namespace!,
      name: made.metadata.name,
      uid: made.metadata.uid!,
      resourceVersion: made.metadata.resourceVersion!,
    };
    const known = reference && running.some(({ uid }) => uid === reference.uid);
    return {
      status: {
        ...status,
        active: reference && !known ? [...running, reference] : running,
        lastScheduleTime: formatTime(dueMs),
      },
      result,
    };
  }

  async #create(cron: CronJob, dueMs: number): Promise<Job | undefined> {
    const { metadata, spec } = cron.spec!.jobTemplate;
    const draft: Job = {
      apiVersion: 'batch/v1',
      kind: 'Job',
      metadata: {
        name: `${cron.metadata.name}-${Math.floor(dueMs / 60_000)}`,
        namespace: cron.metadata.namespace!,
        ...(metadata?.labels ? { labels: { ...metadata.labels } } : {}),
        annotations: { ...metadata?.annotations, [SCHEDULED]: formatTime(dueMs) },
        ownerReferences: [controllerReference(cron)],
      },
      spec: spec!,
    };
    const client = this.#ctx.client.of<Job>(JOBS);
    try {
      const made = await client.create(draft);
      creationSkew.observe((Date.parse(made.metadata.creationTimestamp!) - dueMs) / 1000);
      this.#ctx.events.event(cron, 'Normal', 'SuccessfulCreate', `Created job ${made.metadata.name}`);
      return made;
    } catch (error) {
      if (isReason(error, 'AlreadyExists')) {
        const present = await client.get(draft.metadata.namespace!, draft.metadata.name);
        return controllerOf(present)?.uid === cron.metadata.uid && !outcomeOf(present) ? present : undefined;
      }
      this.#ctx.events.event(cron, 'Warning', 'FailedCreate', `Error creating job: ${messageOf(error)}`);
      throw error;
    }
  }
}

function create(ctx: ReconcileContext): Controller {
  const crons = ctx.informers.get<CronJob>(CRON_JOBS);
  indexByController(ctx.informers.get<Job>(JOBS) as never);
  const cronJobs = new CronJobs(ctx);
  return {
    name: 'cronjob',
    watches: [
      watch<CronJob>(CRON_JOBS, change => [keyOf(latest(change))]),
      watch<Job>(JOBS, change => {
        const owner = controllerOf(latest(change));
        return owner?.kind === 'CronJob' ? [`${latest(change).metadata.namespace}/${owner.name}`] : [];
      }),
    ],
    async reconcile({ namespace, name }) {
      const cron = crons.get(`${namespace}/${name}`);
      if (cron) return cronJobs.reconcile(cron);
    },
  };
}

export const cronJob: ControllerDefinition = { folder: 'cronjob', component: 'cronjob-controller', create };
