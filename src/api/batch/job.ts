/** Jobs. The spec's rules are shared with cron jobs. */

import { fieldErrors } from '../../base/errors.ts';
import { podTemplateDefaults } from '../core/pod-defaults.ts';
import { checkPodTemplate } from '../core/pod-validation.ts';
import { isSameGeneration, templateWarnings, workloadNameWarnings } from '../core/pod-warnings.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, containerColumns, nameColumn, text, wideText } from '../machinery/columns.ts';
import { humanDuration } from '../machinery/duration.ts';
import { isNewSpec, semanticEqual } from '../machinery/equality.ts';
import { formatLabelSelector, labelSelectorMatch, qualifiedNameProblems } from '../machinery/labels.ts';
import { dnsLabelProblems, dnsSubdomainProblems } from '../machinery/names.ts';
import {
  addDuplicate,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkLabelSelector,
  checkNotNegative,
  checkUnchanged,
  type Errors,
  eachAt,
  requireText,
} from '../machinery/validation.ts';
import { readIndexList } from './index-list.ts';
import { invalidWithoutValue, validateJobStatusUpdate } from './job-status-validation.ts';
import type { Job, JobSpec, PodFailurePolicyRule } from './v1.gen.ts';

const INT32_MAX = 2 ** 31 - 1;
const PARALLEL_INDEXED_MAX = 100_000;
const FAILED_INDEXES_MAX = 100_000;
const FAILED_INDEXES_LARGE_MAX = 10_000;
const POLICY_RULES_MAX = 20;
const POLICY_VALUES_MAX = 255;
const SUCCEEDED_INDEXES_MAX = 64 * 1024;
const LABELS = {
  uid: 'batch.kubernetes.io/controller-uid',
  name: 'batch.kubernetes.io/job-name',
  oldUid: 'controller-uid',
  oldName: 'job-name',
};

/** Also for the template in a cron job. */
export function jobSpecDefaults(spec: JobSpec): void {
  if (spec.completions === undefined && spec.parallelism === undefined) spec.completions = spec.parallelism = 1;
  spec.parallelism ??= 1;
  spec.backoffLimit ??= spec.backoffLimitPerIndex === undefined ? 6 : INT32_MAX;
  spec.completionMode ??= 'NonIndexed';
  spec.suspend ??= false;
  spec.podReplacementPolicy ??= spec.podFailurePolicy ? 'Failed' : 'TerminatingOrFailed';
  spec.manualSelector ??= false;
  for (const rule of spec.podFailurePolicy?.rules ?? [])
    for (const pattern of rule.onPodConditions ?? []) pattern.status ||= 'True';
  podTemplateDefaults(spec.template);
}

const SAFE_COMPLETIONS_MAX = 100_000;
const SAFE_PARALLELISM_MAX = 10_000;

/** Of a job, or of those that a cron job makes. */
export function jobSpecWarnings(path: string, spec: JobSpec | undefined): string[] {
  const { completionMode, completions = 0, parallelism = 0 } = spec ?? {};
  const isTooMuch = completions > SAFE_COMPLETIONS_MAX && parallelism > SAFE_PARALLELISM_MAX;
  return [
    ...(completionMode === 'Indexed' && isTooMuch
      ? [
          `${path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail`,
        ]
      : []),
    ...templateWarnings(`${path}.template`, spec?.template),
  ];
}

export const job = defineKind<Job>({
  group: 'batch',
  version: 'v1',
  kind: 'Job',
  forgivesStored: true,
  warnings: (object, old) => [
    ...(old ? [] : workloadNameWarnings(object.metadata.name)),
    ...(isSameGeneration(object, old) ? [] : jobSpecWarnings('spec', object.spec)),
  ],
  isNewGeneration: isNewSpec,
  defaults: object => {
    if (!object.spec) return;
    jobSpecDefaults(object.spec);
    const labels = object.spec.template?.metadata?.labels;
    // The same, not equal ones: what the template gets at the creation, the job gets too.
    if (labels && Object.keys(object.metadata.labels ?? {}).length === 0) object.metadata.labels = labels;
  },
  prepareCreate: object => {
    object.status = {};
    if (object.spec && object.spec.manualSelector !== true) ownSelector(object);
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec ?? ({} as JobSpec);
    if (spec.completionMode === 'Indexed' && (spec.completions ?? 0) > 0) {
      // Host names of the pods are <job>-<index>.
      const longest = `${object.metadata.name}-${spec.completions! - 1}`;
      if (dnsLabelProblems(longest).length > 0)
        addInvalid(
          errors,
          'metadata.name',
          object.metadata.name,
          `will not able to create pod with invalid DNS label: ${longest}`,
        );
    }
    checkGeneratedSelector(errors, object);
    checkJobSpec(errors, 'spec', spec);
    return errors;
  },
  validateUpdate,
  validateStatusUpdate: validateJobStatusUpdate,
  selectableFields: { 'status.successful': object => String(object.status?.succeeded ?? 0) },
  columns: [
    nameColumn,
    text('Status', statusCell),
    text('Completions', completionsCell),
    text('Duration', (object, nowMs) => {
      const start = object.status?.startTime;
      if (!start) return '';
      const end = object.status?.completionTime;
      return humanDuration((end ? Date.parse(end) : nowMs) - Date.parse(start));
    }),
    ageColumn,
    ...containerColumns<Job>(object => object.spec?.template?.spec?.containers),
    wideText('Selector', object => formatLabelSelector(object.spec?.selector)),
  ],
});

function statusCell(object: Job): string {
  const is = (type: string): boolean =>
    object.status?.conditions?.some(condition => condition.type === type && condition.status === 'True') ?? false;
  if (is('Complete')) return 'Complete';
  if (is('Failed')) return 'Failed';
  if (object.metadata.deletionTimestamp) return 'Terminating';
  for (const type of ['Suspended', 'FailureTarget', 'SuccessCriteriaMet']) if (is(type)) return type;
  return 'Running';
}

function completionsCell(object: Job): string {
  const done = object.status?.succeeded ?? 0;
  if (object.spec?.completions !== undefined) return `${done}/${object.spec.completions}`;
  const parallelism = object.spec?.parallelism ?? 0;
  return parallelism > 1 ? `${done}/1 of ${parallelism}` : `${done}/1`;
}

/** Pods of the job are told apart by its uid, unless the user manages the selector. */
function ownSelector(object: Job): void {
  const spec = object.spec!;
  const { uid, name } = object.metadata;
  if (!uid) return;
  const metadata = ((spec.template ??= {} as JobSpec['template']).metadata ??= {} as NonNullable<
    JobSpec['template']['metadata']
  >);
  const own = object.metadata.labels;
  const hasOwnLabels = own !== metadata.labels && Object.keys(own ?? {}).length > 0;
  const labels = (metadata.labels ??= {});
  labels[LABELS.name] = labels[LABELS.oldName] = name;
  labels[LABELS.uid] = labels[LABELS.oldUid] = uid;
  const selector = (spec.selector ??= {});
  (selector.matchLabels ??= {})[LABELS.uid] ??= uid;
  if (!hasOwnLabels) object.metadata.labels = { ...labels };
}

function checkGeneratedSelector(errors: Errors, object: Job): void {
  const { spec, metadata } = object;
  if (!spec || spec.manualSelector === true || !spec.selector || !metadata.uid) return;
  const labels = spec.template?.metadata?.labels ?? {};
  for (const [key, value] of [
    [LABELS.oldUid, metadata.uid],
    [LABELS.oldName, metadata.name],
    [LABELS.uid, metadata.uid],
    [LABELS.name, metadata.name],
  ] as const) {
    if (labels[key] === undefined) addRequired(errors, `spec.template.metadata.labels[${key}]`, `must be '${value}'`);
    else if (labels[key] !== value)
      addInvalid(errors, `spec.template.metadata.labels[${key}]`, labels, `must be '${value}'`);
  }
  if (
    !labelSelectorMatch(spec.selector)({
      [LABELS.uid]: metadata.uid,
      [LABELS.oldUid]: metadata.uid,
      [LABELS.name]: metadata.name,
      [LABELS.oldName]: metadata.name,
    })
  )
    addInvalid(errors, 'spec.selector', spec.selector, '`selector` not auto-generated');
}

/** A job's spec with its selector; the spec in a cron job has none. */
function checkJobSpec(errors: Errors, path: string, spec: JobSpec): void {
  checkJobTemplateSpec(errors, path, spec);
  if (!spec.selector) addRequired(errors, `${path}.selector`);
  const labels = spec.template?.metadata?.labels;
  if (checkLabelSelector(errors, `${path}.selector`, spec.selector) && !labelSelectorMatch(spec.selector)(labels))
    addInvalid(errors, `${path}.template.metadata.labels`, labels, '`selector` does not match template `labels`');
}

export function checkJobTemplateSpec(errors: Errors, path: string, spec: JobSpec): void {
  for (const field of [
    'parallelism',
    'completions',
    'activeDeadlineSeconds',
    'backoffLimit',
    'ttlSecondsAfterFinished',
    'backoffLimitPerIndex',
    'maxFailedIndexes',
  ] as const)
    checkNotNegative(errors, `${path}.${field}`, spec[field]);
  if (spec.managedBy !== undefined) {
    checkDomainPrefixedPath(errors, `${path}.managedBy`, spec.managedBy);
    if (spec.managedBy.length > 63) errors.push(fieldErrors.tooLong(`${path}.managedBy`, 63));
  }
  const mode = spec.completionMode;
  if (mode !== undefined) {
    if (mode !== 'NonIndexed' && mode !== 'Indexed')
      errors.push(fieldErrors.notSupported(`${path}.completionMode`, mode, ['Indexed', 'NonIndexed']));
    if (mode === 'Indexed') {
      if (spec.completions === undefined) addRequired(errors, `${path}.completions`, `when completion mode is ${mode}`);
      if ((spec.parallelism ?? 0) > PARALLEL_INDEXED_MAX)
        addInvalid(
          errors,
          `${path}.parallelism`,
          spec.parallelism,
          `must be less than or equal to ${PARALLEL_INDEXED_MAX} when completion mode is ${mode}`,
        );
    }
  }
  checkIndexLimits(errors, path, spec);
  if (spec.podFailurePolicy) checkFailurePolicy(errors, `${path}.podFailurePolicy`, spec);
  if (spec.successPolicy) checkSuccessPolicy(errors, `${path}.successPolicy`, spec);
  if (spec.podReplacementPolicy !== undefined) {
    const allowed = spec.podFailurePolicy ? ['Failed'] : ['Failed', 'TerminatingOrFailed'];
    allowOneOf(errors, `${path}.podReplacementPolicy`, spec.podReplacementPolicy, allowed);
  }
  checkPodTemplate(errors, `${path}.template`, spec.template ?? {});
  const policy = spec.template?.spec?.restartPolicy;
  if (policy === 'Always')
    errors.push(fieldErrors.required(`${path}.template.spec.restartPolicy`, 'valid values: "OnFailure", "Never"'));
  else if (policy !== 'OnFailure' && policy !== 'Never')
    errors.push(fieldErrors.notSupported(`${path}.template.spec.restartPolicy`, policy ?? '', ['OnFailure', 'Never']));
  else if (spec.podFailurePolicy && policy !== 'Never')
    addInvalid(
      errors,
      `${path}.template.spec.restartPolicy`,
      policy,
      'only "Never" is supported when podFailurePolicy is specified',
    );
}

const HTTP_PATH = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";

/** Such as `acme.io/foo`. */
function checkDomainPrefixedPath(errors: Errors, path: string, value: string): void {
  if (!requireText(errors, path, value)) return;
  const slash = value.indexOf('/');
  if (slash < 1 || slash === value.length - 1) {
    addInvalid(errors, path, value, 'must be a domain-prefixed path (such as "acme.io/foo")');
    return;
  }
  const host = value.slice(0, slash);
  const rest = value.slice(slash + 1);
  addProblems(errors, path, host, dnsSubdomainProblems(host));
  if (!new RegExp(`^${HTTP_PATH}$`).test(rest))
    addInvalid(errors, path, rest, `Invalid path (regex used for validation is '${HTTP_PATH}')`);
}

function checkIndexLimits(errors: Errors, path: string, spec: JobSpec): void {
  const failed = spec.maxFailedIndexes;
  if (failed !== undefined && spec.backoffLimitPerIndex === undefined)
    addRequired(errors, `${path}.backoffLimitPerIndex`, 'when maxFailedIndexes is specified');
  if (spec.completionMode !== 'Indexed') {
    for (const field of ['backoffLimitPerIndex', 'maxFailedIndexes'] as const)
      if (spec[field] !== undefined)
        addInvalid(errors, `${path}.${field}`, spec[field], 'requires indexed completion mode');
    return;
  }
  if (failed !== undefined) {
    if (spec.completions !== undefined && failed > spec.completions)
      addInvalid(errors, `${path}.maxFailedIndexes`, failed, 'must be less than or equal to completions');
    if (failed > FAILED_INDEXES_MAX)
      addInvalid(errors, `${path}.maxFailedIndexes`, failed, `must be less than or equal to ${FAILED_INDEXES_MAX}`);
  }
  if ((spec.completions ?? 0) > FAILED_INDEXES_MAX && spec.backoffLimitPerIndex !== undefined) {
    if (failed === undefined)
      addRequired(
        errors,
        `${path}.maxFailedIndexes`,
        `must be specified when completions is above ${FAILED_INDEXES_MAX}`,
      );
    else if (failed > FAILED_INDEXES_LARGE_MAX)
      addInvalid(
        errors,
        `${path}.maxFailedIndexes`,
        failed,
        `must be less than or equal to ${FAILED_INDEXES_LARGE_MAX} when completions are above ${FAILED_INDEXES_MAX} and used with backoff limit per index`,
      );
    if ((spec.parallelism ?? 0) > FAILED_INDEXES_LARGE_MAX)
      addInvalid(
        errors,
        `${path}.parallelism`,
        spec.parallelism,
        `must be less than or equal to ${FAILED_INDEXES_LARGE_MAX} when completions are above ${FAILED_INDEXES_MAX} and used with backoff limit per index`,
      );
  }
}

function checkFailurePolicy(errors: Errors, path: string, spec: JobSpec): void {
  const rules = spec.podFailurePolicy!.rules ?? [];
  if (rules.length > POLICY_RULES_MAX)
    errors.push(fieldErrors.tooMany(`${path}.rules`, rules.length, POLICY_RULES_MAX));
  const containers = [...(spec.template?.spec?.containers ?? []), ...(spec.template?.spec?.initContainers ?? [])].map(
    container => container.name,
  );
  eachAt(rules, `${path}.rules`, (rule, at) => {
    if (rule.action === 'FailIndex' && spec.backoffLimitPerIndex === undefined)
      addInvalid(errors, `${at}.action`, rule.action, 'requires the backoffLimitPerIndex to be set');
    else requireListed(errors, `${at}.action`, rule.action, ['Count', 'FailIndex', 'FailJob', 'Ignore']);
    checkFailureRule(errors, at, rule, containers);
  });
}

function checkFailureRule(errors: Errors, at: string, rule: PodFailurePolicyRule, containers: readonly string[]): void {
  const codes = rule.onExitCodes;
  const conditions = rule.onPodConditions ?? [];
  if (codes && conditions.length)
    errors.push(invalidWithoutValue(at, 'specifying both OnExitCodes and OnPodConditions is not supported'));
  if (!codes && conditions.length === 0)
    errors.push(invalidWithoutValue(at, 'specifying one of OnExitCodes and OnPodConditions is required'));
  if (codes) {
    const path = `${at}.onExitCodes`;
    requireListed(errors, `${path}.operator`, codes.operator, ['In', 'NotIn']);
    if (codes.containerName !== undefined && !containers.includes(codes.containerName))
      addInvalid(
        errors,
        `${path}.containerName`,
        codes.containerName,
        'must be one of the container or initContainer names in the pod template',
      );
    const values = codes.values ?? [];
    if (values.length < 1) addInvalid(errors, `${path}.values`, values, 'at least one value is required');
    else if (values.length > POLICY_VALUES_MAX)
      errors.push(fieldErrors.tooMany(`${path}.values`, values.length, POLICY_VALUES_MAX));
    const seen = new Set<number>();
    let ordered = true;
    values.forEach((value, index) => {
      if (codes.operator === 'In' && value === 0)
        addInvalid(errors, `${path}.values[${index}]`, value, 'must not be 0 for the In operator');
      if (seen.has(value)) addDuplicate(errors, `${path}.values[${index}]`, value);
      seen.add(value);
      if (index > 0 && values[index - 1]! > value) ordered = false;
    });
    if (!ordered) addInvalid(errors, `${path}.values`, values, 'must be ordered');
  }
  if (conditions.length > POLICY_RULES_MAX)
    errors.push(fieldErrors.tooMany(`${at}.onPodConditions`, conditions.length, POLICY_RULES_MAX));
  eachAt(conditions, `${at}.onPodConditions`, (pattern, patternAt) => {
    addProblems(errors, `${patternAt}.type`, pattern.type ?? '', qualifiedNameProblems(pattern.type ?? ''));
    requireListed(errors, `${patternAt}.status`, pattern.status, ['False', 'True', 'Unknown']);
  });
}

/** As `requireOneOf`; what is missing is told with the choice. */
function requireListed(errors: Errors, path: string, value: string | undefined, choice: readonly string[]): void {
  if (value) allowOneOf(errors, path, value, choice);
  else addRequired(errors, path, `valid values: [${choice.map(item => JSON.stringify(item)).join(' ')}]`);
}

function checkSuccessPolicy(errors: Errors, path: string, spec: JobSpec): void {
  if (spec.completionMode !== 'Indexed') {
    addInvalid(errors, path, spec.successPolicy, 'requires indexed completion mode');
    return;
  }
  const rules = spec.successPolicy!.rules ?? [];
  if (rules.length === 0)
    addRequired(errors, `${path}.rules`, 'at least one rules must be specified when the successPolicy is specified');
  if (rules.length > POLICY_RULES_MAX)
    errors.push(fieldErrors.tooMany(`${path}.rules`, rules.length, POLICY_RULES_MAX));
  eachAt(rules, `${path}.rules`, (rule, at) => {
    if (rule.succeededIndexes === undefined && rule.succeededCount === undefined)
      addRequired(errors, at, 'at least one of succeededCount or succeededIndexes must be specified');
    const { succeededIndexes, succeededCount } = rule;
    let total: number | undefined;
    if (succeededIndexes !== undefined) {
      if (succeededIndexes.length > SUCCEEDED_INDEXES_MAX)
        errors.push(fieldErrors.tooLong(`${at}.succeededIndexes`, SUCCEEDED_INDEXES_MAX));
      const list = readIndexList(succeededIndexes, spec.completions ?? 0);
      total = list.total;
      if (list.problem)
        addInvalid(
          errors,
          `${at}.succeededIndexes`,
          succeededIndexes,
          `error parsing succeededIndexes: ${list.problem}`,
        );
    }
    checkNotNegative(errors, `${at}.succeededCount`, succeededCount);
    if (rule.succeededCount !== undefined && spec.completions !== undefined && rule.succeededCount > spec.completions)
      addInvalid(
        errors,
        `${at}.succeededCount`,
        rule.succeededCount,
        `must be less than or equal to ${spec.completions} (the number of specified completions)`,
      );
    if (total !== undefined && succeededCount !== undefined && succeededCount > total)
      addInvalid(
        errors,
        `${at}.succeededCount`,
        succeededCount,
        `must be less than or equal to ${total} (the number of indexes in the specified succeededIndexes field)`,
      );
  });
}

function validateUpdate(object: Job, old: Job): Errors {
  const errors: Errors = [];
  const spec = object.spec ?? ({} as JobSpec);
  const before = old.spec ?? ({} as JobSpec);
  // Elastic indexed jobs may change completions together with parallelism.
  if (spec.completionMode !== 'Indexed')
    checkUnchanged(errors, 'spec.completions', spec.completions, before.completions);
  else if (
    spec.completions !== undefined &&
    spec.completions !== before.completions &&
    spec.completions !== spec.parallelism
  )
    addInvalid(errors, 'spec.completions', spec.completions, 'can only be modified in tandem with spec.parallelism');
  checkUnchanged(errors, 'spec.selector', spec.selector, before.selector);
  checkTemplateUpdate(errors, object, old);
  for (const field of [
    'completionMode',
    'podFailurePolicy',
    'backoffLimitPerIndex',
    'managedBy',
    'successPolicy',
  ] as const)
    checkUnchanged(errors, `spec.${field}`, spec[field], before[field]);
  return errors;
}

/** A suspended job none of whose pods runs may change how its pods are scheduled and what they ask for. */
function checkTemplateUpdate(errors: Errors, object: Job, old: Job): void {
  const template = object.spec?.template;
  const before = old.spec?.template;
  if (semanticEqual(template, before)) return;
  const { active = 0, startTime, conditions = [] } = old.status ?? {};
  const isSuspended = conditions.some(one => one.type === 'Suspended' && one.status === 'True');
  const isIdle = old.spec?.suspend === true && active === 0 && (startTime === undefined || isSuspended);
  const mutable = isIdle && template && before;
  if (!mutable) {
    addInvalid(errors, 'spec.template', template, 'field is immutable');
    return;
  }
  const masked = structuredClone(template);
  const restore = (into: object | undefined, from: object | undefined, fields: readonly string[]): void => {
    if (!into) return;
    const target = into as Record<string, unknown>;
    const source = (from ?? {}) as Record<string, unknown>;
    for (const field of fields) {
      if (source[field] === undefined) delete target[field];
      else target[field] = source[field];
    }
  };
  restore(masked.metadata, before.metadata, ['annotations', 'labels']);
  restore(masked.spec, before.spec, ['nodeSelector', 'tolerations', 'schedulingGates']);
  if (masked.spec) {
    const nodeAffinity = before.spec?.affinity?.nodeAffinity;
    if (masked.spec.affinity || before.spec?.affinity) {
      masked.spec.affinity = { ...masked.spec.affinity };
      restore(masked.spec.affinity, before.spec?.affinity, ['nodeAffinity']);
      if (!before.spec?.affinity && nodeAffinity === undefined && Object.keys(masked.spec.affinity).length === 0)
        delete masked.spec.affinity;
    }
    for (const field of ['containers', 'initContainers'] as const) {
      masked.spec[field]?.forEach((container, index) => {
        restore(container, before.spec?.[field]?.[index], ['resources']);
      });
    }
  }
  if (!semanticEqual(masked, before)) addInvalid(errors, 'spec.template', template, 'field is immutable');
}
