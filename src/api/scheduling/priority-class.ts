/** Priority classes. */

import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { addForbidden, checkUnchanged, type Errors, requireOneOf } from '../machinery/validation.ts';
import type { PriorityClass } from './v1.gen.ts';

const USER_PRIORITY_MAX = 1_000_000_000;
/** Classes that every cluster has; nobody may make others with their prefix. */
export const SYSTEM_PRIORITIES: Readonly<Record<string, number>> = {
  'system-node-critical': 2_000_001_000,
  'system-cluster-critical': 2_000_000_000,
};

export const priorityClass = defineKind<PriorityClass>({
  group: 'scheduling.k8s.io',
  version: 'v1',
  kind: 'PriorityClass',
  defaults: object => {
    object.value ??= 0;
    object.preemptionPolicy ??= 'PreemptLowerPriority';
  },
  isNewGeneration: () => false,
  validate: object => {
    const errors: Errors = [];
    const { name } = object.metadata;
    if (name.startsWith('system-')) {
      const known = SYSTEM_PRIORITIES[name];
      const why =
        known === undefined
          ? `${name} is not a known system priority class`
          : object.value !== known
            ? `value of ${name} PriorityClass must be ${known}`
            : object.globalDefault
              ? `globalDefault of ${name} PriorityClass must be false`
              : '';
      if (why)
        addForbidden(
          errors,
          'metadata.name',
          `priority class names with 'system-' prefix are reserved for system use only. error: ${why}`,
        );
    } else if ((object.value ?? 0) > USER_PRIORITY_MAX)
      addForbidden(errors, 'value', `maximum allowed value of a user defined priority is ${USER_PRIORITY_MAX}`);
    if (object.preemptionPolicy !== undefined)
      requireOneOf(errors, 'preemptionPolicy', object.preemptionPolicy, ['Never', 'PreemptLowerPriority']);
    return errors;
  },
  // What may not change need not be right.
  ratchets: true,
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    if (object.value !== old.value) addForbidden(errors, 'value', 'may not be changed in an update.');
    checkUnchanged(errors, 'preemptionPolicy', object.preemptionPolicy, old.preemptionPolicy);
    return errors;
  },
  columns: [
    nameColumn,
    { name: 'Value', type: 'integer', cell: object => object.value ?? 0 },
    { name: 'Global-Default', type: 'boolean', cell: object => object.globalDefault ?? false },
    ageColumn,
    text('PreemptionPolicy', object => object.preemptionPolicy ?? ''),
  ],
});
