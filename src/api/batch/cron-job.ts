/** Cron jobs, and the syntax of their schedules. */

import { fieldErrors } from '../../base/errors.ts';
import { isSameGeneration, workloadNameWarnings } from '../core/pod-warnings.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, containerColumns, nameColumn, text, wideText } from '../machinery/columns.ts';
import { ageSince } from '../machinery/duration.ts';
import { isNewSpec } from '../machinery/equality.ts';
import { formatLabelSelector } from '../machinery/labels.ts';
import { addInvalid, checkNotNegative, type Errors, requireOneOf, requireText } from '../machinery/validation.ts';
import { checkJobTemplateSpec, jobSpecDefaults, jobSpecWarnings } from './job.ts';
import type { CronJob, CronJobSpec, JobSpec } from './v1.gen.ts';

const NAME_BYTES_MAX = 52;

export const cronJob = defineKind<CronJob>({
  group: 'batch',
  version: 'v1',
  kind: 'CronJob',
  forgivesStored: true,
  warnings: (object, old) => [
    ...(old ? [] : workloadNameWarnings(object.metadata.name)),
    ...(isSameGeneration(object, old) ? [] : jobSpecWarnings('spec.jobTemplate.spec', object.spec?.jobTemplate?.spec)),
    ...(object.spec?.schedule?.includes('TZ')
      ? [
          'cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details',
        ]
      : []),
  ],
  isNewGeneration: isNewSpec,
  defaults: object => {
    const spec = object.spec;
    if (!spec) return;
    spec.concurrencyPolicy ||= 'Allow';
    spec.suspend ??= false;
    spec.successfulJobsHistoryLimit ??= 3;
    spec.failedJobsHistoryLimit ??= 1;
    if (spec.jobTemplate?.spec) templateDefaults(spec.jobTemplate.spec);
  },
  prepareCreate: object => {
    object.status = {};
  },
  validate: object => {
    const errors: Errors = [];
    // The controller appends 11 characters for the time.
    if (object.metadata.name.length > NAME_BYTES_MAX)
      addInvalid(errors, 'metadata.name', object.metadata.name, `must be no more than ${NAME_BYTES_MAX} characters`);
    checkSpec(errors, object.spec ?? ({} as CronJobSpec), undefined);
    return errors;
  },
  // What older versions let in stays: a name too long, a zone in the schedule, a zone unknown here.
  ratchets: true,
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkSpec(errors, object.spec ?? ({} as CronJobSpec), old.spec);
    return errors;
  },
  columns: [
    nameColumn,
    text('Schedule', object => object.spec?.schedule ?? ''),
    text('Timezone', object => object.spec?.timeZone ?? '<none>'),
    {
      name: 'Suspend',
      type: 'boolean',
      cell: object => (object.spec?.suspend === undefined ? '<unset>' : object.spec.suspend ? 'True' : 'False'),
    },
    { name: 'Active', type: 'integer', cell: object => object.status?.active?.length ?? 0 },
    text('Last Schedule', (object, nowMs) =>
      object.status?.lastScheduleTime ? ageSince(object.status.lastScheduleTime, nowMs) : '<none>',
    ),
    ageColumn,
    ...containerColumns<CronJob>(object => object.spec?.jobTemplate?.spec?.template?.spec?.containers),
    wideText('Selector', object => formatLabelSelector(object.spec?.jobTemplate?.spec?.selector)),
  ],
});

// Counts, modes and selectors are filled in when the job is made; only the pod template and the conditions are completed here.
function templateDefaults({ template, podFailurePolicy }: JobSpec): void {
  jobSpecDefaults({ template, ...(podFailurePolicy ? { podFailurePolicy } : {}) } as JobSpec);
}

function checkSpec(errors: Errors, spec: CronJobSpec, old: CronJobSpec | undefined): void {
  if (requireText(errors, 'spec.schedule', spec.schedule)) checkSchedule(errors, spec, old);
  if (!old || old.timeZone !== spec.timeZone) checkTimeZone(errors, spec.timeZone);
  checkNotNegative(errors, 'spec.startingDeadlineSeconds', spec.startingDeadlineSeconds);
  requireOneOf(errors, 'spec.concurrencyPolicy', spec.concurrencyPolicy, ['Allow', 'Forbid', 'Replace']);
  const template = spec.jobTemplate?.spec ?? ({} as JobSpec);
  if (template.manualSelector)
    errors.push(
      fieldErrors.notSupported('spec.jobTemplate.spec.manualSelector', template.manualSelector, ['nil', 'false']),
    );
  if (template.selector)
    addInvalid(errors, 'spec.jobTemplate.spec.selector', template.selector, '`selector` will be auto-generated');
  checkJobTemplateSpec(errors, 'spec.jobTemplate.spec', template);
  checkNotNegative(errors, 'spec.successfulJobsHistoryLimit', spec.successfulJobsHistoryLimit);
  checkNotNegative(errors, 'spec.failedJobsHistoryLimit', spec.failedJobsHistoryLimit);
}

function checkSchedule(errors: Errors, spec: CronJobSpec, old: CronJobSpec | undefined): void {
  const problem = scheduleProblem(spec.schedule);
  if (problem) addInvalid(errors, 'spec.schedule', spec.schedule, problem);
  if (!spec.schedule.includes('TZ')) return;
  if (!old?.schedule?.includes('TZ'))
    addInvalid(
      errors,
      'spec.schedule',
      spec.schedule,
      'cannot use TZ or CRON_TZ in schedule, use timeZone field instead',
    );
  else if (spec.timeZone !== undefined)
    addInvalid(errors, 'spec.schedule', spec.schedule, 'cannot use both timeZone field and TZ or CRON_TZ in schedule');
}

function checkTimeZone(errors: Errors, zone: string | undefined): void {
  if (zone === undefined) return;
  if (zone === '') addInvalid(errors, 'spec.timeZone', zone, 'timeZone must be nil or non-empty string');
  else if (zone.toLowerCase() === 'local')
    addInvalid(
      errors,
      'spec.timeZone',
      zone,
      'timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones',
    );
  else if (!zone.split('/').every(part => ZONE_PART.test(part)) || !isTimeZone(zone))
    addInvalid(errors, 'spec.timeZone', zone, `unknown time zone ${zone}`);
}

// Intl also takes offsets such as +02:00, which are no names of zones.
const ZONE_PART = /^(?!\.{1,2}$)(?!-)[A-Za-z._0-9+-]{1,14}$/;

function isTimeZone(zone: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: zone });
    return true;
  } catch {
    return false;
  }
}

const MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'];
const DAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'];

interface FieldRange {
  readonly low: number;
  readonly high: number;
  readonly names?: readonly string[];
}

const FIELDS: readonly FieldRange[] = [
  { low: 0, high: 59 },
  { low: 0, high: 23 },
  { low: 1, high: 31 },
  { low: 1, high: 12, names: MONTHS },
  { low: 0, high: 6, names: DAYS },
];
const SHORTHANDS = ['@yearly', '@annually', '@monthly', '@weekly', '@daily', '@midnight', '@hourly'];

/** What is wrong with a cron schedule of five fields, or undefined. Messages are those of upstream's parser. */
export function scheduleProblem(schedule: string): string | undefined {
  const text = schedule.replace(/^(CRON_)?TZ=\S+\s+/, '').trim();
  if (text === '') return 'empty spec string';
  if (text.startsWith('@')) {
    if (SHORTHANDS.includes(text)) return undefined;
    if (text.startsWith('@every '))
      return /^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/.test(text.slice(7))
        ? undefined
        : `failed to parse duration ${text}: time: invalid duration ${JSON.stringify(text.slice(7))}`;
    return `unrecognized descriptor: ${text}`;
  }
  const fields = text.split(/\s+/);
  if (fields.length !== 5) return `expected exactly 5 fields, found ${fields.length}: [${fields.join(' ')}]`;
  for (let index = 0; index < 5; index++) {
    for (const expression of fields[index]!.split(',')) {
      const problem = rangeProblemOf(expression, FIELDS[index]!);
      if (problem) return problem;
    }
  }
  return undefined;
}

function rangeProblemOf(expression: string, field: FieldRange): string | undefined {
  const steps = expression.split('/');
  const bounds = steps[0]!.split('-');
  if (steps.length > 2) return `too many slashes: ${expression}`;
  if (bounds.length > 2) return `too many hyphens: ${expression}`;
  let start = field.low;
  let end = field.high;
  if (bounds[0] !== '*' && bounds[0] !== '?') {
    for (const bound of bounds)
      if (Number.isNaN(fieldNumber(bound, field)))
        return `failed to parse int from ${bound}: strconv.Atoi: parsing ${JSON.stringify(bound)}: invalid syntax`;
    start = fieldNumber(bounds[0]!, field);
    end = bounds.length === 2 ? fieldNumber(bounds[1]!, field) : steps.length === 2 ? field.high : start;
  }
  if (steps.length === 2) {
    if (!/^\d+$/.test(steps[1]!))
      return `failed to parse int from ${steps[1]}: strconv.Atoi: parsing ${JSON.stringify(steps[1])}: invalid syntax`;
    if (Number(steps[1]) === 0) return `step of range should be a positive number: ${expression}`;
  }
  if (start < field.low) return `beginning of range (${start}) below minimum (${field.low}): ${expression}`;
  if (end > field.high) return `end of range (${end}) above maximum (${field.high}): ${expression}`;
  return start > end ? `beginning of range (${start}) beyond end of range (${end}): ${expression}` : undefined;
}

function fieldNumber(text: string, field: FieldRange): number {
  const named = field.names?.indexOf(text.toLowerCase()) ?? -1;
  if (named >= 0) return named + field.low;
  return /^\d+$/.test(text) ? Number(text) : Number.NaN;
}
