/** Requests to write all objects of a resource anew. What is to be written cannot be changed once it is said, nor the end once it has come. */

import { defineKind } from '../kind.ts';
import { nameColumn, text } from '../machinery/columns.ts';
import { checkConditions, isTrue } from '../machinery/conditions.ts';
import { dns1035LabelProblems, dnsSubdomainProblems } from '../machinery/names.ts';
import { addInvalid, checkUnchanged, type Errors, IMMUTABLE, requireText } from '../machinery/validation.ts';
import type { StorageVersionMigration } from './v1beta1.gen.ts';

export const storageVersionMigration = defineKind<StorageVersionMigration>({
  group: 'storagemigration.k8s.io',
  version: 'v1beta1',
  kind: 'StorageVersionMigration',
  validate: object => {
    const errors: Errors = [];
    const { group, resource } = object.spec?.resource ?? {};
    const check = (field: string, value: string, problems: readonly string[]) => {
      if (problems.length) addInvalid(errors, `spec.resource.${field}`, value, problems.join());
    };
    if (requireText(errors, 'spec.resource.resource', resource, 'resource is required to be set'))
      check('resource', resource, dns1035LabelProblems(resource));
    if (group) check('group', group, dnsSubdomainProblems(group));
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec', object.spec, old.spec);
    return errors;
  },
  validateStatusUpdate,
  columns: [
    { ...nameColumn, format: '' },
    text('Resource', ({ spec }) => `${spec?.resource?.resource ?? ''}.${spec?.resource?.group ?? ''}`),
  ],
});

function validateStatusUpdate(
  { status }: StorageVersionMigration,
  { status: before }: StorageVersionMigration,
): Errors {
  const errors: Errors = [];
  const { conditions, resourceVersion = '' } = status ?? {};
  if (!/^[1-9]\d*$/.test(resourceVersion) && resourceVersion)
    addInvalid(
      errors,
      'status.resourceVersion',
      resourceVersion,
      `resource version is not well formed: ${resourceVersion}`,
    );
  checkConditions(errors, 'status.conditions', conditions);
  if (before?.resourceVersion && before.resourceVersion !== resourceVersion)
    addInvalid(errors, 'status.resourceVersion', resourceVersion, IMMUTABLE);
  const [succeeded, failed, running] = ['Succeeded', 'Failed', 'Running'].map(type => isTrue(conditions, type));
  const refuse = (detail: string) => addInvalid(errors, 'status.conditions', conditions, detail);
  if (succeeded && failed) refuse('Both success and failed conditions cannot be true at the same time');
  if (succeeded && running) refuse('Running condition cannot be true when success condition is true');
  if (failed && running) refuse('Running condition cannot be true when failed condition is true');
  if (isTrue(before?.conditions, 'Succeeded') && !succeeded)
    refuse('Success condition cannot be set to false once it is true');
  if (isTrue(before?.conditions, 'Failed') && !failed)
    refuse('Failed condition cannot be set to false once it is true');
  return errors;
}
