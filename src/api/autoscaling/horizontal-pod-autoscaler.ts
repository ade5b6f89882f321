/** Horizontal pod autoscalers, stored as autoscaling/v2. */

import { fieldErrors } from '../../base/errors.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { dnsLabelProblems, pathSegmentProblems } from '../machinery/names.ts';
import { canonicalQuantity, parseNano } from '../machinery/quantity.ts';
import {
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkNotNegative,
  checkQuantityNotNegative,
  type Errors,
  eachAt,
  requireText,
} from '../machinery/validation.ts';
import type {
  CrossVersionObjectReference,
  HorizontalPodAutoscaler,
  HPAScalingRules,
  MetricSpec,
  MetricStatus,
  MetricTarget,
  MetricValueStatus,
} from './v2.gen.ts';

const SHOWN_MAX = 2;
const WINDOW_SECONDS_MAX = 3600;
const PERIOD_SECONDS_MAX = 1800;
/** In the order in which upstream looks at them. */
const SOURCES = {
  Object: 'object',
  External: 'external',
  Pods: 'pods',
  Resource: 'resource',
  ContainerResource: 'containerResource',
} as const;
type Source = (typeof SOURCES)[keyof typeof SOURCES];

export const horizontalPodAutoscaler = defineKind<HorizontalPodAutoscaler>({
  group: 'autoscaling',
  version: 'v2',
  kind: 'HorizontalPodAutoscaler',
  defaults: object => {
    const spec = object.spec;
    if (!spec) return;
    spec.minReplicas ??= 1;
    if (!spec.metrics?.length)
      spec.metrics = [
        { type: 'Resource', resource: { name: 'cpu', target: { type: 'Utilization', averageUtilization: 80 } } },
      ];
    for (const metric of spec.metrics) {
      const target = sourceOf(metric)?.target;
      if (target?.value !== undefined) target.value = canonicalQuantity(target.value);
      if (target?.averageValue !== undefined) target.averageValue = canonicalQuantity(target.averageValue);
    }
    if (!spec.behavior) return;
    const pods = { type: 'Pods', value: 4, periodSeconds: 15 };
    const percent = { type: 'Percent', value: 100, periodSeconds: 15 };
    rulesDefaults((spec.behavior.scaleUp ??= {}), [pods, percent], 0);
    rulesDefaults((spec.behavior.scaleDown ??= {}), [percent], undefined);
  },
  prepareCreate: object => {
    object.status = { desiredReplicas: 0, currentMetrics: null } as unknown as NonNullable<
      HorizontalPodAutoscaler['status']
    >;
  },
  prepareUpdate: (object, old) => {
    object.status = old.status as NonNullable<HorizontalPodAutoscaler['status']>;
  },
  validate: object => checkSpec(object, undefined),
  // What an older version let in stays while it is not changed: references without a group, no replicas at least.
  ratchets: true,
  validateUpdate: checkSpec,
  validateStatusUpdate: object => {
    const errors: Errors = [];
    checkNotNegative(errors, 'status.currentReplicas', object.status?.currentReplicas);
    checkNotNegative(errors, 'status.desiredReplicas', object.status?.desiredReplicas);
    return errors;
  },
  columns: [
    nameColumn,
    text(
      'Reference',
      object => `${object.spec?.scaleTargetRef?.kind ?? ''}/${object.spec?.scaleTargetRef?.name ?? ''}`,
    ),
    text('Targets', object => formatMetrics(object.spec?.metrics ?? [], object.status?.currentMetrics ?? [])),
    text('MinPods', object => String(object.spec?.minReplicas ?? '<unset>')),
    text('MaxPods', object => object.spec?.maxReplicas ?? 0),
    text('Replicas', object => object.status?.currentReplicas ?? 0),
    ageColumn,
  ],
});

function checkSpec(object: HorizontalPodAutoscaler, old: HorizontalPodAutoscaler | undefined): Errors {
  const errors: Errors = [];
  const spec = object.spec;
  const before = old?.spec;
  const { minReplicas: min, maxReplicas: max = 0 } = spec ?? {};
  const lowest = before?.minReplicas === 0 ? 0 : 1;
  if (min !== undefined && min < lowest)
    addInvalid(errors, 'spec.minReplicas', min, `must be greater than or equal to ${lowest}`);
  if (max < 1) addInvalid(errors, 'spec.maxReplicas', max, 'must be greater than 0');
  if (min !== undefined && max < min)
    addInvalid(errors, 'spec.maxReplicas', max, 'must be greater than or equal to `minReplicas`');
  const target = spec?.scaleTargetRef;
  checkReference(errors, 'spec.scaleTargetRef', target);
  const sameTarget =
    before?.scaleTargetRef?.apiVersion === target?.apiVersion && before?.scaleTargetRef?.kind === target?.kind;
  if (!before || !sameTarget)
    checkApiVersion(errors, 'spec.scaleTargetRef', target, target?.kind !== 'ReplicationController');
  const hadBadReference = before?.metrics?.some(
    ({ type, object: source }) => type === 'Object' && source && apiVersionProblem(source.describedObject, false),
  );
  eachAt(spec?.metrics, 'spec.metrics', (metric, at) => {
    checkMetric(errors, at, metric);
    if (metric.object && !hadBadReference)
      checkApiVersion(errors, `${at}.object.describedObject`, metric.object.describedObject, false);
  });
  if (min === 0 && !spec?.metrics?.some(metric => metric.type === 'Object' || metric.type === 'External'))
    addForbidden(
      errors,
      'spec.metrics',
      'must specify at least one Object or External metric to support scaling to zero replicas',
    );
  checkRules(errors, 'spec.behavior.scaleUp', spec?.behavior?.scaleUp);
  checkRules(errors, 'spec.behavior.scaleDown', spec?.behavior?.scaleDown);
  return errors;
}

function apiVersionProblem(
  reference: CrossVersionObjectReference | undefined,
  needsGroup: boolean,
): string | undefined {
  const parts = (reference?.apiVersion ?? '').split('/');
  if (parts.length > 2) return `unexpected GroupVersion string: ${reference!.apiVersion}`;
  return needsGroup && (parts.length === 1 || parts[0] === '') ? 'apiVersion must specify API group' : undefined;
}

function checkApiVersion(
  errors: Errors,
  path: string,
  reference: CrossVersionObjectReference | undefined,
  needsGroup: boolean,
): void {
  const problem = apiVersionProblem(reference, needsGroup);
  if (problem) addInvalid(errors, `${path}.apiVersion`, reference?.apiVersion ?? '', problem);
}

function sourceOf(metric: MetricSpec): { target: MetricTarget } | undefined {
  return metric[SOURCES[metric.type as keyof typeof SOURCES]];
}

function rulesDefaults(
  rules: HPAScalingRules,
  policies: NonNullable<HPAScalingRules['policies']>,
  windowSeconds: number | undefined,
): void {
  rules.selectPolicy ??= 'Max';
  if (windowSeconds !== undefined) rules.stabilizationWindowSeconds ??= windowSeconds;
  rules.policies ??= policies.map(policy => ({ ...policy }));
}

function checkReference(errors: Errors, path: string, reference: CrossVersionObjectReference | undefined): void {
  for (const field of ['kind', 'name'] as const) {
    const value = reference?.[field];
    if (requireText(errors, `${path}.${field}`, value))
      addProblems(errors, `${path}.${field}`, value, pathSegmentProblems(value));
  }
}

function checkMetric(errors: Errors, path: string, metric: MetricSpec): void {
  if (!metric.type) addRequired(errors, `${path}.type`, 'must specify a metric source type');
  if (!Object.hasOwn(SOURCES, metric.type ?? ''))
    errors.push(fieldErrors.notSupported(`${path}.type`, metric.type ?? '', Object.keys(SOURCES).sort()));
  const present = Object.values(SOURCES).filter(field => metric[field]);
  const expected = SOURCES[metric.type as keyof typeof SOURCES];
  if (expected && !present.includes(expected))
    addRequired(errors, `${path}.${expected}`, 'must populate information for the given metric source');
  // Of several sources only the first is looked into; that there are several is the error.
  if (present[0]) checkSource(errors, `${path}.${present[0]}`, metric, present[0]);
  if (present.length > 1)
    for (const field of present)
      if (field !== expected) addForbidden(errors, `${path}.${field}`, 'must populate the given metric source only');
}

function checkSource(errors: Errors, path: string, metric: MetricSpec, field: Source): void {
  if (field === 'resource' || field === 'containerResource')
    requireText(errors, `${path}.name`, metric[field]?.name, 'must specify a resource name');
  else {
    const { name } = metric[field]?.metric ?? {};
    if (requireText(errors, `${path}.metric.name`, name, 'must specify a metric name'))
      addProblems(errors, `${path}.metric.name`, name, pathSegmentProblems(name));
  }
  if (field === 'containerResource') {
    const container = metric[field]?.container;
    if (requireText(errors, `${path}.container`, container, 'must specify a container'))
      addProblems(errors, `${path}.container`, container, dnsLabelProblems(container));
  }
  if (field === 'object') checkReference(errors, `${path}.describedObject`, metric[field]?.describedObject);
  checkTarget(errors, `${path}.target`, metric[field]?.target ?? { type: '' }, field);
}

function checkTarget(errors: Errors, path: string, target: MetricTarget, field: Source): void {
  if (!target.type) addRequired(errors, `${path}.type`, 'must specify a metric target type');
  if (!['Utilization', 'Value', 'AverageValue'].includes(target.type))
    addInvalid(errors, `${path}.type`, target.type ?? '', 'must be either Utilization, Value, or AverageValue');
  if (target.averageUtilization === undefined && target.averageValue === undefined && target.value === undefined)
    // The path is upstream's, blank included.
    addInvalid(errors, `${path}. utilization, value and averageValue`, target.type ?? '', 'at least one not nil');
  for (const field of ['value', 'averageValue'] as const)
    if (target[field] !== undefined && (parseNano(target[field]) ?? 0n) <= 0n)
      addInvalid(errors, `${path}.${field}`, target[field], 'must be positive');
  if (target.averageUtilization !== undefined && target.averageUtilization < 1)
    addInvalid(errors, `${path}.averageUtilization`, target.averageUtilization, 'must be greater than 0');
  if (field === 'resource' || field === 'containerResource') {
    if (target.averageUtilization !== undefined && target.averageValue !== undefined)
      addForbidden(errors, `${path}.averageValue`, 'may not set both a target raw value and a target utilization');
    if (target.averageUtilization === undefined && target.averageValue === undefined)
      addRequired(errors, `${path}.averageUtilization`, 'must set either a target raw value or a target utilization');
  } else if (field === 'pods') {
    if (target.averageValue === undefined)
      addRequired(errors, `${path}.averageValue`, 'must specify a positive target averageValue');
  } else if (field === 'external' && target.value !== undefined && target.averageValue !== undefined)
    addForbidden(errors, `${path}.value`, 'may not set both a target value for metric and a per-pod target');
  else if (target.value === undefined && target.averageValue === undefined)
    addRequired(
      errors,
      `${path}.averageValue`,
      field === 'object'
        ? 'must set either a target value or averageValue'
        : 'must set either a target value for metric or a per-pod target',
    );
}

function checkRules(errors: Errors, path: string, rules: HPAScalingRules | undefined): void {
  if (!rules) return;
  const seconds = rules.stabilizationWindowSeconds;
  if (seconds !== undefined && seconds < 0)
    addInvalid(errors, `${path}.stabilizationWindowSeconds`, seconds, 'must be greater than or equal to zero');
  if (seconds !== undefined && seconds > WINDOW_SECONDS_MAX)
    addInvalid(
      errors,
      `${path}.stabilizationWindowSeconds`,
      seconds,
      `must be less than or equal to ${WINDOW_SECONDS_MAX}`,
    );
  allowOneOf(errors, `${path}.selectPolicy`, rules.selectPolicy, ['Disabled', 'Max', 'Min']);
  if (!rules.policies?.length) addRequired(errors, `${path}.policies`, 'must specify at least one Policy');
  eachAt(rules.policies, `${path}.policies`, (policy, at) => {
    allowOneOf(errors, `${at}.type`, policy.type ?? '', ['Percent', 'Pods']);
    if (!(policy.value > 0)) addInvalid(errors, `${at}.value`, policy.value ?? 0, 'must be greater than zero');
    if (!(policy.periodSeconds > 0))
      addInvalid(errors, `${at}.periodSeconds`, policy.periodSeconds ?? 0, 'must be greater than zero');
    else if (policy.periodSeconds > PERIOD_SECONDS_MAX)
      addInvalid(
        errors,
        `${at}.periodSeconds`,
        policy.periodSeconds,
        `must be less than or equal to ${PERIOD_SECONDS_MAX}`,
      );
  });
  checkQuantityNotNegative(errors, `${path}.tolerance`, rules.tolerance);
}

/** `cpu: 3%/80%, 5/10 (avg) + 1 more...`; metrics and their states stand in the same order. */
function formatMetrics(specs: readonly MetricSpec[], statuses: readonly MetricStatus[]): string {
  if (specs.length === 0) return '<none>';
  const shown = specs.slice(0, SHOWN_MAX).map((spec, index) => {
    const field = SOURCES[spec.type as keyof typeof SOURCES];
    const target = field && spec[field]?.target;
    if (!target) return '<unknown type>';
    const current: MetricValueStatus | undefined = statuses[index]?.[field]?.current;
    const prefix =
      spec.type === 'Resource' || spec.type === 'ContainerResource'
        ? `${(spec[field] as { name: string }).name}: `
        : '';
    if (target.averageUtilization !== undefined && prefix) {
      const value = current?.averageUtilization === undefined ? '<unknown>' : `${current.averageUtilization}%`;
      return `${prefix}${value}/${target.averageUtilization}%`;
    }
    if (target.averageValue !== undefined) {
      const average = spec.type === 'Object' || spec.type === 'External' ? ' (avg)' : '';
      return `${prefix}${current?.averageValue ?? '<unknown>'}/${target.averageValue}${average}`;
    }
    if (prefix) return `${prefix}<unknown>/<auto>`;
    return `${current?.value ?? '<unknown>'}/${target.value ?? ''}`;
  });
  const list = shown.join(', ');
  return specs.length > SHOWN_MAX ? `${list} + ${specs.length - SHOWN_MAX} more...` : list;
}
