/** Deployments. */

import { fieldErrors } from '../../base/errors.ts';
import { podTemplateDefaults } from '../core/pod-defaults.ts';
import { workloadWarnings } from '../core/pod-warnings.ts';
import { replicaScale } from '../core/replicas.ts';
import { checkReplicaStatus, checkRestartingTemplate, checkWorkloadSelector } from '../core/template-validation.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, containerColumns, nameColumn, text, wideText } from '../machinery/columns.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { percentOf } from '../machinery/int-or-string.ts';
import { formatLabelSelector } from '../machinery/labels.ts';
import {
  addForbidden,
  addInvalid,
  checkAtMostHundredPercent,
  checkCountOrPercent,
  checkNotNegative,
  checkUnchanged,
  type Errors,
  requireOneOf,
} from '../machinery/validation.ts';
import type { Deployment, DeploymentSpec } from './v1.gen.ts';

const INT32_MAX = 2 ** 31 - 1;

export const deployment = defineKind<Deployment>({
  group: 'apps',
  version: 'v1',
  kind: 'Deployment',
  forgivesStored: true,
  warnings: (object, old) => workloadWarnings(object, old),
  defaults: object => {
    const spec = object.spec;
    if (!spec) return;
    spec.replicas ??= 1;
    const strategy = (spec.strategy ??= {});
    strategy.type ||= 'RollingUpdate';
    if (strategy.type === 'RollingUpdate') {
      const rolling = (strategy.rollingUpdate ??= {});
      rolling.maxUnavailable ??= '25%';
      rolling.maxSurge ??= '25%';
    }
    spec.revisionHistoryLimit ??= 10;
    spec.progressDeadlineSeconds ??= 600;
    podTemplateDefaults(spec.template);
  },
  prepareCreate: object => {
    object.status = {};
  },
  // Annotations count as well: they are copied to the replica sets.
  isNewGeneration: (object, old) =>
    !semanticEqual(object.spec, old.spec) ||
    !semanticEqual(object.metadata.annotations ?? {}, old.metadata.annotations ?? {}),
  prepareStatusUpdate: (object, old) => {
    object.spec = old.spec as DeploymentSpec;
    object.metadata.labels = old.metadata.labels as Record<string, string>;
  },
  validate: object => {
    const errors: Errors = [];
    if (object.spec) checkSpec(errors, object.spec);
    else checkSpec(errors, {} as DeploymentSpec);
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec.selector', object.spec?.selector, old.spec?.selector);
    return errors;
  },
  validateStatusUpdate: (object, old) => {
    const errors: Errors = [];
    checkReplicaStatus(errors, object.status, ['updatedReplicas', 'readyReplicas', 'availableReplicas']);
    const collisions = object.status?.collisionCount;
    const before = old.status?.collisionCount;
    if (before !== undefined && (collisions ?? -1) < before)
      addInvalid(errors, 'status.collisionCount', collisions, 'cannot be decremented');
    return errors;
  },
  columns: [
    nameColumn,
    text('Ready', object => `${object.status?.readyReplicas ?? 0}/${object.spec?.replicas ?? 0}`),
    text('Up-to-date', object => object.status?.updatedReplicas ?? 0),
    text('Available', object => object.status?.availableReplicas ?? 0),
    ageColumn,
    ...containerColumns<Deployment>(object => object.spec?.template?.spec?.containers),
    wideText('Selector', object => formatLabelSelector(object.spec?.selector)),
  ],
  scale: replicaScale(object => formatLabelSelector(object.spec?.selector)),
});

function checkSpec(errors: Errors, spec: DeploymentSpec): void {
  checkNotNegative(errors, 'spec.replicas', spec.replicas);
  if (checkWorkloadSelector(errors, 'spec.selector', spec.selector, 'deployment'))
    checkRestartingTemplate(errors, 'spec.template', {
      template: spec.template ?? {},
      selector: spec.selector,
      kind: 'ReplicaSet',
    });
  checkStrategy(errors, spec);
  checkNotNegative(errors, 'spec.minReadySeconds', spec.minReadySeconds);
  checkNotNegative(errors, 'spec.revisionHistoryLimit', spec.revisionHistoryLimit);
  const deadline = spec.progressDeadlineSeconds;
  if (deadline === undefined) return;
  checkNotNegative(errors, 'spec.progressDeadlineSeconds', deadline);
  // The largest value means that there is no deadline.
  if (deadline !== INT32_MAX && deadline <= (spec.minReadySeconds ?? 0))
    addInvalid(errors, 'spec.progressDeadlineSeconds', deadline, 'must be greater than minReadySeconds');
}

function checkStrategy(errors: Errors, spec: DeploymentSpec): void {
  const strategy = spec.strategy ?? {};
  if (strategy.type === 'Recreate') {
    if (strategy.rollingUpdate)
      addForbidden(errors, 'spec.strategy.rollingUpdate', "may not be specified when strategy `type` is 'Recreate'");
    return;
  }
  if (strategy.type !== 'RollingUpdate') {
    if (strategy.type) errors.push(fieldErrors.notSupported('spec.strategy', strategy, ['Recreate', 'RollingUpdate']));
    else requireOneOf(errors, 'spec.strategy.type', strategy.type, []);
    return;
  }
  const rolling = strategy.rollingUpdate;
  if (!rolling) {
    errors.push(fieldErrors.required('spec.strategy.rollingUpdate', 'this should be defaulted and never be nil'));
    return;
  }
  const path = 'spec.strategy.rollingUpdate';
  checkCountOrPercent(errors, `${path}.maxUnavailable`, rolling.maxUnavailable);
  checkCountOrPercent(errors, `${path}.maxSurge`, rolling.maxSurge);
  const isZero = (value: number | string | undefined): boolean => value === 0 || percentOf(value) === 0;
  if (isZero(rolling.maxUnavailable) && isZero(rolling.maxSurge))
    addInvalid(errors, `${path}.maxUnavailable`, rolling.maxUnavailable, 'may not be 0 when `maxSurge` is 0');
  checkAtMostHundredPercent(errors, `${path}.maxUnavailable`, rolling.maxUnavailable);
}
