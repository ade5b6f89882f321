/** Leases. */

import { fieldErrors } from '../../base/errors.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import { addInvalid, addProblems, checkNotNegative, type Errors } from '../machinery/validation.ts';
import type { Lease } from './v1.gen.ts';

export const lease = defineKind<Lease>({
  group: 'coordination.k8s.io',
  version: 'v1',
  kind: 'Lease',
  createOnUpdate: true,
  unconditionalUpdate: false,
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec ?? {};
    const seconds = spec.leaseDurationSeconds;
    if (seconds !== undefined && seconds <= 0)
      addInvalid(errors, 'spec.leaseDurationSeconds', seconds, 'must be greater than 0');
    checkNotNegative(errors, 'spec.leaseTransitions', spec.leaseTransitions);
    if (spec.strategy !== undefined)
      addProblems(errors, 'spec.strategy', spec.strategy, qualifiedNameProblems(spec.strategy));
    if (spec.preferredHolder && !spec.strategy)
      errors.push(fieldErrors.forbidden('spec.preferredHolder', 'may only be specified when `strategy` is defined'));
    return errors;
  },
  columns: [nameColumn, text('Holder', object => object.spec?.holderIdentity ?? ''), ageColumn],
});
