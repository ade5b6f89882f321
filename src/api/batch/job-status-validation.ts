/**
 * What may be written to the status of a Job: since `managedBy` other controllers than ours write it, so a finished Job stays finished and its
 * counts agree with its conditions. A rule holds for what the update changes: a status that broke it before can still be worked on.
 */

import type { FieldError } from '../../base/errors.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { addDuplicate, addInvalid, addRequired, checkNotNegative, type Errors } from '../machinery/validation.ts';
import { readIndexList, sharedIndex } from './index-list.ts';
import type { Job, JobStatus } from './v1.gen.ts';

const CONDITIONS = ['Complete', 'Failed', 'FailureTarget', 'SuccessCriteriaMet', 'Suspended'] as const;
type ConditionFlags = Readonly<Record<(typeof CONDITIONS)[number], boolean>> & { readonly isFinished: boolean };

export function validateJobStatusUpdate(job: Job, old: Job): Errors {
  const errors: Errors = [];
  const status = job.status ?? {};
  const before = old.status ?? {};
  for (const field of ['active', 'succeeded', 'failed', 'ready', 'terminating'] as const)
    checkNotNegative(errors, `status.${field}`, status[field]);
  checkUncounted(errors, status);
  checkConditions(errors, job, flagsOf(status), flagsOf(before));
  checkTimes(errors, job, old);
  checkCounts(errors, job, old);
  checkIndexes(errors, job, before);
  return errors;
}

function flagsOf(status: JobStatus): ConditionFlags {
  const flags = Object.fromEntries(
    CONDITIONS.map(type => [
      type,
      status.conditions?.some(condition => condition.type === type && condition.status === 'True') ?? false,
    ]),
  ) as Record<(typeof CONDITIONS)[number], boolean>;
  return { ...flags, isFinished: flags.Complete || flags.Failed };
}

/** As upstream's `Invalid` whose value is left out: a list of conditions would drown the reason. */
export function invalidWithoutValue(field: string, detail: string): FieldError {
  return { type: 'FieldValueInvalid', field, message: `Invalid value: ${detail}` };
}

function checkUncounted(errors: Errors, { uncountedTerminatedPods: pods }: JobStatus): void {
  const seen = new Set<string>();
  for (const outcome of ['succeeded', 'failed'] as const)
    pods?.[outcome]?.forEach((uid, index) => {
      const at = `status.uncountedTerminatedPods.${outcome}[${index}]`;
      if (uid === '') addInvalid(errors, at, uid, 'must not be empty');
      else if (seen.has(uid)) addDuplicate(errors, at, uid);
      seen.add(uid);
    });
}

function checkConditions(errors: Errors, job: Job, now: ConditionFlags, was: ConditionFlags): void {
  const refuse = (detail: string): void => {
    errors.push(invalidWithoutValue('status.conditions', detail));
  };
  const changed = (type: (typeof CONDITIONS)[number]): boolean => now[type] !== was[type];
  if ((changed('Complete') || changed('Failed')) && now.Complete && now.Failed)
    refuse('cannot set Complete=True and Failed=true conditions');
  if ((changed('Complete') || changed('FailureTarget')) && now.Complete && now.FailureTarget)
    refuse('cannot set Complete=True and FailureTarget=true conditions');
  if (changed('Failed') && now.Failed && !now.FailureTarget)
    refuse('cannot set Failed=True condition without the FailureTarget=true condition');
  if ((changed('Complete') || changed('SuccessCriteriaMet')) && now.Complete && !now.SuccessCriteriaMet)
    refuse('cannot set Complete=True condition without the SuccessCriteriaMet=true condition');
  if (now.SuccessCriteriaMet && now.Failed) refuse('cannot set SuccessCriteriaMet=True and Failed=true conditions');
  if (now.SuccessCriteriaMet && now.FailureTarget)
    refuse('cannot set SuccessCriteriaMet=True and FailureTarget=true conditions');
  if (job.spec?.successPolicy && now.Complete && !now.SuccessCriteriaMet)
    refuse('cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True');
  for (const type of ['Failed', 'Complete', 'FailureTarget'] as const)
    if (was[type] && !now[type]) refuse(`cannot disable the terminal ${type}=True condition`);
  if (was.SuccessCriteriaMet && !now.SuccessCriteriaMet) refuse('cannot disable the SuccessCriteriaMet=True condition');
  if (was.Complete && !was.SuccessCriteriaMet && now.SuccessCriteriaMet)
    refuse('cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions');
}

function checkTimes(errors: Errors, job: Job, old: Job): void {
  const status = job.status ?? {};
  const before = old.status ?? {};
  const now = flagsOf(status);
  const was = flagsOf(before);
  const { startTime: start, completionTime: end } = status;
  const startChanged = !sameTime(start, before.startTime);
  const endChanged = !sameTime(end, before.completionTime);
  if (now.Complete !== was.Complete || endChanged) {
    if (end && !now.Complete)
      addInvalid(
        errors,
        'status.completionTime',
        end,
        'cannot set completionTime when there is no Complete=True condition',
      );
    if (!end && now.Complete)
      addRequired(errors, 'status.completionTime', 'completionTime is required for Complete jobs');
  }
  if ((startChanged || endChanged) && start && end && Date.parse(end) < Date.parse(start))
    addInvalid(errors, 'status.completionTime', end, 'completionTime cannot be set before startTime');
  const endedUnstarted = job.spec?.suspend === true && job.spec.completions === 0;
  if ((now.isFinished !== was.isFinished || startChanged) && !start && now.isFinished && !endedUnstarted)
    addRequired(errors, 'status.startTime', 'startTime is required for finished job');
  if (end && before.completionTime && endChanged)
    addInvalid(errors, 'status.completionTime', end, 'completionTime cannot be mutated');
  const isResuming =
    was.Suspended && status.conditions?.some(({ type, status }) => type === 'Suspended' && status === 'False');
  if (before.startTime && startChanged && !job.spec?.suspend && !isResuming)
    addRequired(errors, 'status.startTime', 'startTime cannot be removed for unsuspended job');
}

/** Times are kept by the second. */
function sameTime(one: string | undefined, other: string | undefined): boolean {
  return (
    one === other || (!!one && !!other && Math.floor(Date.parse(one) / 1000) === Math.floor(Date.parse(other) / 1000))
  );
}

function checkCounts(errors: Errors, { spec, status = {} }: Job, { status: before = {} }: Job): void {
  const isFinished = flagsOf(status).isFinished;
  const finishes = isFinished !== flagsOf(before).isFinished;
  const { active = 0, ready, terminating = 0, failed = 0, succeeded = 0, uncountedTerminatedPods: pods } = status;
  const activeChanged = active !== (before.active ?? 0);
  if (isFinished) {
    if ((finishes || activeChanged) && active > 0)
      addInvalid(errors, 'status.active', active, 'active>0 is invalid for finished job');
    if (
      (finishes || !semanticEqual(pods, before.uncountedTerminatedPods)) &&
      (pods?.succeeded?.length ?? 0) + (pods?.failed?.length ?? 0) > 0
    )
      addInvalid(
        errors,
        'status.uncountedTerminatedPods',
        pods,
        'uncountedTerminatedPods needs to be empty for finished job',
      );
    if ((finishes || status.terminating !== before.terminating) && terminating > 0)
      addInvalid(errors, 'status.terminating', terminating, 'terminating>0 is invalid for finished job');
  }
  if ((ready !== before.ready || activeChanged) && ready !== undefined && ready > active)
    addInvalid(errors, 'status.ready', ready, 'cannot set more ready pods than active');
  if (failed < (before.failed ?? 0)) addInvalid(errors, 'status.failed', failed, 'cannot decrease the failed counter');
  // An indexed Job with as many pods as completions can be scaled down.
  const mayShrink = spec?.completionMode === 'Indexed' && spec.completions === spec.parallelism;
  if (!mayShrink && succeeded < (before.succeeded ?? 0))
    addInvalid(errors, 'status.succeeded', succeeded, 'cannot decrease the succeeded counter');
}

function checkIndexes(errors: Errors, { spec, status = {} }: Job, before: JobStatus): void {
  const { completedIndexes: completed = '', failedIndexes: failed } = status;
  const completedChanged = completed !== (before.completedIndexes ?? '');
  const failedChanged = failed !== before.failedIndexes;
  if (!completedChanged && !failedChanged) return;
  const completions = spec?.completions;
  if (completions !== undefined) {
    const completedList = readIndexList(completed, completions);
    const failedList = readIndexList(failed ?? '', completions);
    if (completedChanged && completedList.problem)
      addInvalid(
        errors,
        'status.completedIndexes',
        completed,
        `error parsing completedIndexes: ${completedList.problem}`,
      );
    if (failedChanged && spec?.backoffLimitPerIndex !== undefined && failedList.problem)
      addInvalid(errors, 'status.failedIndexes', failed, `error parsing failedIndexes: ${failedList.problem}`);
    const shared = sharedIndex(completedList, failedList);
    if (shared !== undefined)
      addInvalid(
        errors,
        'status.failedIndexes',
        failed,
        `failedIndexes and completedIndexes overlap at index: ${shared}`,
      );
  }
  if (completedChanged && completed !== '' && spec?.completionMode !== 'Indexed')
    addInvalid(
      errors,
      'status.completedIndexes',
      completed,
      'cannot set non-empty completedIndexes when non-indexed completion mode',
    );
  if (failedChanged && failed !== undefined && spec?.backoffLimitPerIndex === undefined)
    addInvalid(
      errors,
      'status.failedIndexes',
      failed,
      'cannot set non-null failedIndexes when backoffLimitPerIndex is null',
    );
}
