/** Pod disruption budgets. */

import { defineKind } from '../kind.ts';
import { ageColumn, integer, nameColumn, text } from '../machinery/columns.ts';
import { checkConditions } from '../machinery/conditions.ts';
import { isNewSpec } from '../machinery/equality.ts';
import {
  addInvalid,
  allowOneOf,
  checkAtMostHundredPercent,
  checkCountOrPercent,
  checkLabelSelector,
  checkNotNegative,
  type Errors,
} from '../machinery/validation.ts';
import type { PodDisruptionBudget } from './v1.gen.ts';

export const podDisruptionBudget = defineKind<PodDisruptionBudget>({
  group: 'policy',
  version: 'v1',
  kind: 'PodDisruptionBudget',
  isNewGeneration: isNewSpec,
  unconditionalUpdate: false,
  prepareCreate: object => {
    object.status = { disruptionsAllowed: 0, currentHealthy: 0, desiredHealthy: 0, expectedPods: 0 };
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec ?? {};
    if (spec.minAvailable !== undefined && spec.maxUnavailable !== undefined)
      addInvalid(errors, 'spec', spec, 'minAvailable and maxUnavailable cannot be both set');
    for (const field of ['minAvailable', 'maxUnavailable'] as const) {
      checkCountOrPercent(errors, `spec.${field}`, spec[field]);
      checkAtMostHundredPercent(errors, `spec.${field}`, spec[field]);
    }
    checkLabelSelector(errors, 'spec.selector', spec.selector);
    allowOneOf(errors, 'spec.unhealthyPodEvictionPolicy', spec.unhealthyPodEvictionPolicy, [
      'AlwaysAllow',
      'IfHealthyBudget',
    ]);
    return errors;
  },
  validateStatusUpdate: object => {
    const errors: Errors = [];
    checkConditions(errors, 'status.conditions', object.status?.conditions);
    for (const field of ['disruptionsAllowed', 'currentHealthy', 'desiredHealthy', 'expectedPods'] as const)
      checkNotNegative(errors, `status.${field}`, object.status?.[field]);
    return errors;
  },
  columns: [
    nameColumn,
    text('Min Available', object => String(object.spec?.minAvailable ?? 'N/A')),
    text('Max Unavailable', object => String(object.spec?.maxUnavailable ?? 'N/A')),
    integer('Allowed Disruptions', object => object.status?.disruptionsAllowed),
    ageColumn,
  ],
});
