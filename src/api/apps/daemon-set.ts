/** Daemon sets. */

import { fieldErrors } from '../../base/errors.ts';
import { podTemplateDefaults } from '../core/pod-defaults.ts';
import { checkPodTemplate } from '../core/pod-validation.ts';
import { workloadWarnings } from '../core/pod-warnings.ts';
import { defineKind } from '../kind.ts';
import {
  ageColumn,
  containerColumns,
  formatLabels,
  integer,
  nameColumn,
  text,
  wideText,
} from '../machinery/columns.ts';
import { isNewSpec, semanticEqual } from '../machinery/equality.ts';
import { percentOf } from '../machinery/int-or-string.ts';
import { formatLabelSelector, labelSelectorMatch } from '../machinery/labels.ts';
import {
  addForbidden,
  addInvalid,
  addRequired,
  checkAtMostHundredPercent,
  checkCountOrPercent,
  checkLabelSelector,
  checkNotNegative,
  checkUnchanged,
  type Errors,
  isEmptySelector,
} from '../machinery/validation.ts';
import type { DaemonSet, DaemonSetSpec } from './v1.gen.ts';

/** Counts the templates that a set had, for pods' labels; a field in upstream's first versions. Nobody but the server sets it. */
const TEMPLATE_GENERATION = 'deprecated.daemonset.template.generation';
const templateGeneration = ({ metadata }: DaemonSet): number =>
  Math.max(1, Number(metadata.annotations?.[TEMPLATE_GENERATION]) || 0);
function countTemplate(object: DaemonSet, count: number): void {
  object.metadata.annotations = { ...object.metadata.annotations, [TEMPLATE_GENERATION]: String(count) };
}

export const daemonSet = defineKind<DaemonSet>({
  group: 'apps',
  version: 'v1',
  kind: 'DaemonSet',
  forgivesStored: true,
  warnings: (object, old) => workloadWarnings(object, old, 'any name'),
  isNewGeneration: isNewSpec,
  defaults: object => {
    (object.metadata.annotations ??= {})[TEMPLATE_GENERATION] ??= '0';
    const spec = object.spec;
    if (!spec) return;
    const strategy = (spec.updateStrategy ??= {});
    strategy.type ||= 'RollingUpdate';
    if (strategy.type === 'RollingUpdate') {
      const rolling = (strategy.rollingUpdate ??= {});
      rolling.maxUnavailable ??= 1;
      rolling.maxSurge ??= 0;
    }
    spec.revisionHistoryLimit ??= 10;
    podTemplateDefaults(spec.template);
  },
  prepareCreate: object => {
    countTemplate(object, templateGeneration(object));
    object.status = { currentNumberScheduled: 0, desiredNumberScheduled: 0, numberMisscheduled: 0, numberReady: 0 };
  },
  prepareUpdate: (object, old) => {
    object.status = old.status as NonNullable<DaemonSet['status']>;
    const isNew = !semanticEqual(object.spec?.template, old.spec?.template);
    countTemplate(object, templateGeneration(old) + (isNew ? 1 : 0));
  },
  prepareStatusUpdate: (object, old) => {
    object.spec = old.spec as DaemonSetSpec;
    countTemplate(object, templateGeneration(old));
  },
  validate: object => {
    const errors: Errors = [];
    checkSpec(errors, object.spec ?? ({} as DaemonSetSpec));
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec.selector', object.spec?.selector, old.spec?.selector);
    return errors;
  },
  validateStatusUpdate: (object, old) => {
    const errors: Errors = [];
    const status = object.status as Readonly<Record<string, unknown>> | undefined;
    for (const field of [
      'currentNumberScheduled',
      'numberMisscheduled',
      'desiredNumberScheduled',
      'numberReady',
      'observedGeneration',
      'updatedNumberScheduled',
      'numberAvailable',
      'numberUnavailable',
    ])
      checkNotNegative(errors, `status.${field}`, status?.[field] as number | undefined);
    const before = old.status?.collisionCount;
    const collisions = object.status?.collisionCount;
    if (before !== undefined && (collisions ?? -1) < before)
      addInvalid(errors, 'status.collisionCount', collisions, 'cannot be decremented');
    return errors;
  },
  columns: [
    nameColumn,
    integer('Desired', object => object.status?.desiredNumberScheduled),
    integer('Current', object => object.status?.currentNumberScheduled),
    integer('Ready', object => object.status?.numberReady),
    integer('Up-to-date', object => object.status?.updatedNumberScheduled),
    integer('Available', object => object.status?.numberAvailable),
    text('Node Selector', object => formatLabels(object.spec?.template?.spec?.nodeSelector)),
    ageColumn,
    ...containerColumns<DaemonSet>(object => object.spec?.template?.spec?.containers),
    wideText('Selector', object => formatLabelSelector(object.spec?.selector)),
  ],
});

function checkSpec(errors: Errors, spec: DaemonSetSpec): void {
  const usable = checkLabelSelector(errors, 'spec.selector', spec.selector);
  const { selector, template = {} } = spec;
  const labels = template.metadata?.labels;
  if (usable && !labelSelectorMatch(selector)(labels))
    addInvalid(errors, 'spec.template.metadata.labels', labels, '`selector` does not match template `labels`');
  if (selector && isEmptySelector(selector))
    addInvalid(errors, 'spec.selector', selector, 'empty selector is invalid for daemonset');
  checkPodTemplate(errors, 'spec.template', template);
  const policy = template.spec?.restartPolicy;
  if (policy !== 'Always')
    errors.push(fieldErrors.notSupported('spec.template.spec.restartPolicy', policy ?? '', ['Always']));
  if (template.spec?.activeDeadlineSeconds !== undefined)
    addForbidden(
      errors,
      'spec.template.spec.activeDeadlineSeconds',
      'activeDeadlineSeconds in DaemonSet is not Supported',
    );
  checkNotNegative(errors, 'spec.minReadySeconds', spec.minReadySeconds);
  checkUpdateStrategy(errors, spec);
  checkNotNegative(errors, 'spec.revisionHistoryLimit', spec.revisionHistoryLimit);
}

function checkUpdateStrategy(errors: Errors, spec: DaemonSetSpec): void {
  const strategy = spec.updateStrategy ?? {};
  if (strategy.type === 'OnDelete') return;
  if (strategy.type !== 'RollingUpdate') {
    errors.push(fieldErrors.notSupported('spec.updateStrategy', strategy, ['RollingUpdate', 'OnDelete']));
    return;
  }
  const path = 'spec.updateStrategy.rollingUpdate';
  const rolling = strategy.rollingUpdate;
  if (!rolling) {
    addRequired(errors, path);
    return;
  }
  checkCountOrPercent(errors, `${path}.maxUnavailable`, rolling.maxUnavailable);
  checkAtMostHundredPercent(errors, `${path}.maxUnavailable`, rolling.maxUnavailable);
  checkCountOrPercent(errors, `${path}.maxSurge`, rolling.maxSurge);
  checkAtMostHundredPercent(errors, `${path}.maxSurge`, rolling.maxSurge);
  const some = (value: number | string | undefined): boolean => (percentOf(value) ?? value ?? 0) !== 0;
  if (some(rolling.maxUnavailable) && some(rolling.maxSurge))
    addInvalid(errors, `${path}.maxSurge`, rolling.maxSurge, 'may not be set when maxUnavailable is non-zero');
  if (!some(rolling.maxUnavailable) && !some(rolling.maxSurge))
    addRequired(errors, `${path}.maxUnavailable`, 'cannot be 0 when maxSurge is 0');
}
