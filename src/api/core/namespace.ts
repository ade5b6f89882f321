/** Namespaces. */

import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import { finalizerNameErrors } from '../machinery/metadata.ts';
import { labelName } from '../machinery/names.ts';
import { addInvalid, addProblems, type Errors } from '../machinery/validation.ts';
import type { Namespace } from './v1.gen.ts';

const NAME_LABEL = 'kubernetes.io/metadata.name';

export const namespace = defineKind<Namespace>({
  group: '',
  version: 'v1',
  kind: 'Namespace',
  validateName: labelName,
  defaults: object => {
    // A name that is still to be generated is labelled when it is known.
    if (object.metadata.name) (object.metadata.labels ??= {})[NAME_LABEL] = object.metadata.name;
    (object.status ??= {}).phase ||= 'Active';
  },
  prepareCreate: object => {
    object.status = { phase: 'Active' };
    const spec = (object.spec ??= {});
    if (!spec.finalizers?.includes('kubernetes')) spec.finalizers = [...(spec.finalizers ?? []), 'kubernetes'];
    (object.metadata.labels ??= {})[NAME_LABEL] = object.metadata.name;
  },
  // Finalizers of the spec change through /finalize only.
  prepareUpdate: (object, old) => {
    object.spec = { ...object.spec, finalizers: [...(old.spec?.finalizers ?? [])] };
    object.status = old.status!;
  },
  prepareStatusUpdate: (object, old) => {
    object.spec = old.spec!;
  },
  validate: object => {
    const errors: Errors = [];
    for (const finalizer of object.spec?.finalizers ?? []) {
      addProblems(errors, 'spec.finalizers', finalizer, qualifiedNameProblems(finalizer));
      errors.push(...finalizerNameErrors(finalizer, 'spec.finalizers'));
    }
    return errors;
  },
  validateStatusUpdate: object => {
    const errors: Errors = [];
    const phase = object.status?.phase ?? '';
    if (object.metadata.deletionTimestamp) {
      if (phase !== 'Terminating')
        addInvalid(errors, 'status.Phase', phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
    } else if (phase !== 'Active')
      addInvalid(errors, 'status.Phase', phase, "may only be 'Active' if `deletionTimestamp` is empty");
    return errors;
  },
  selectableFields: { name: object => object.metadata.name, 'status.phase': object => object.status?.phase ?? '' },
  columns: [nameColumn, text('Status', object => object.status?.phase ?? ''), ageColumn],
});
