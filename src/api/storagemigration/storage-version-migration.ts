/** Requests to write all objects of a resource anew. What is to be written cannot be changed once it is said. */

import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn } from '../machinery/columns.ts';
import { checkUnchanged, type Errors, requireText } from '../machinery/validation.ts';
import type { StorageVersionMigration } from './v1beta1.gen.ts';

export const storageVersionMigration = defineKind<StorageVersionMigration>({
  group: 'storagemigration.k8s.io',
  version: 'v1beta1',
  kind: 'StorageVersionMigration',
  validate: object => {
    const errors: Errors = [];
    requireText(errors, 'spec.resource.resource', object.spec?.resource?.resource, 'resource is required');
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec', object.spec, old.spec);
    return errors;
  },
  columns: [nameColumn, ageColumn],
});
