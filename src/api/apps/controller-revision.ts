/** Controller revisions: immutable snapshots of a template. */

import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { addRequired, checkNotNegative, checkUnchanged, type Errors } from '../machinery/validation.ts';
import { controllerOf } from '../meta.ts';
import type { ControllerRevision } from './v1.gen.ts';

export const controllerRevision = defineKind<ControllerRevision>({
  group: 'apps',
  version: 'v1',
  kind: 'ControllerRevision',
  validate: object => {
    const errors: Errors = [];
    if (object.data === undefined || object.data === null) addRequired(errors, 'data', 'data is mandatory');
    checkNotNegative(errors, 'revision', object.revision);
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'data', object.data, old.data);
    return errors;
  },
  columns: [
    nameColumn,
    text('Controller', object => {
      const owner = controllerOf(object);
      if (!owner) return '<none>';
      const group = owner.apiVersion.includes('/') ? `.${owner.apiVersion.split('/')[0]}` : '';
      return `${owner.kind.toLowerCase()}${group}/${owner.name}`;
    }),
    text('Revision', object => object.revision ?? 0),
    ageColumn,
  ],
});
