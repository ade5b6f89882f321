/** Storage classes and volume attributes classes. */

import { fieldErrors } from '../../base/errors.ts';
import { checkDriverName } from '../core/volume-validation.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import { byteLength } from '../machinery/names.ts';
import {
  addDuplicate,
  addForbidden,
  addProblems,
  addRequired,
  allowOneOf,
  checkLabelKey,
  checkUnchanged,
  type Errors,
  eachAt,
  requireOneOf,
  requireText,
} from '../machinery/validation.ts';
import type { StorageClass, VolumeAttributesClass } from './v1.gen.ts';

const PARAMETERS_MAX = 512;
const PARAMETER_BYTES_MAX = 256 * 1024;
const DEFAULT_ANNOTATIONS = {
  current: 'storageclass.kubernetes.io/is-default-class',
  old: 'storageclass.beta.kubernetes.io/is-default-class',
};

function defaultMark(annotations: Readonly<Record<string, string>> | undefined): string {
  return annotations?.[DEFAULT_ANNOTATIONS.current] === 'true' || annotations?.[DEFAULT_ANNOTATIONS.old] === 'true'
    ? ' (default)'
    : '';
}

function checkParameters(errors: Errors, parameters: Readonly<Record<string, string>> | undefined): void {
  const entries = Object.entries(parameters ?? {});
  if (entries.length > PARAMETERS_MAX) errors.push(fieldErrors.tooLong('parameters', PARAMETERS_MAX));
  let bytes = 0;
  for (const [key, value] of entries) {
    if (key === '') addRequired(errors, 'parameters', `field can not be empty.`);
    bytes += byteLength(key) + byteLength(value);
  }
  if (bytes > PARAMETER_BYTES_MAX) errors.push(fieldErrors.tooLong('parameters', PARAMETER_BYTES_MAX));
}

export const storageClass = defineKind<StorageClass>({
  group: 'storage.k8s.io',
  version: 'v1',
  kind: 'StorageClass',
  defaults: object => {
    object.reclaimPolicy ??= 'Delete';
    object.volumeBindingMode ??= 'Immediate';
  },
  validate: object => {
    const errors: Errors = [];
    if (requireText(errors, 'provisioner', object.provisioner)) {
      const lower = object.provisioner.toLowerCase();
      addProblems(errors, 'provisioner', object.provisioner, qualifiedNameProblems(lower));
    }
    checkParameters(errors, object.parameters);
    if (object.reclaimPolicy) requireOneOf(errors, 'reclaimPolicy', object.reclaimPolicy, ['Delete', 'Retain']);
    allowOneOf(errors, 'volumeBindingMode', object.volumeBindingMode, ['Immediate', 'WaitForFirstConsumer']);
    const terms: unknown[] = [{}];
    eachAt(object.allowedTopologies, 'allowedTopologies', (term, at) => {
      const keys = new Set<string>();
      const values = Object.fromEntries(
        (term.matchLabelExpressions ?? []).map(each => [each.key, [...(each.values ?? [])].sort()]),
      );
      if (terms.some(other => semanticEqual(values, other))) addDuplicate(errors, `${at}.matchLabelExpressions`, '');
      terms.push(values);
      eachAt(term.matchLabelExpressions, `${at}.matchLabelExpressions`, (requirement, requirementAt) => {
        if (!requirement.values?.length) addRequired(errors, `${requirementAt}.values`);
        checkLabelKey(errors, `${requirementAt}.key`, requirement.key);
        if (keys.has(requirement.key)) addDuplicate(errors, `${requirementAt}.key`, requirement.key);
        keys.add(requirement.key);
      });
    });
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    if (!semanticEqual(object.parameters ?? {}, old.parameters ?? {}))
      addForbidden(errors, 'parameters', 'updates to parameters are forbidden.');
    if (object.provisioner !== old.provisioner)
      addForbidden(errors, 'provisioner', 'updates to provisioner are forbidden.');
    if (object.reclaimPolicy !== old.reclaimPolicy)
      addForbidden(errors, 'reclaimPolicy', 'updates to reclaimPolicy are forbidden.');
    checkUnchanged(errors, 'volumeBindingMode', object.volumeBindingMode, old.volumeBindingMode);
    return errors;
  },
  columns: [
    { ...nameColumn, cell: object => `${object.metadata.name}${defaultMark(object.metadata.annotations)}` },
    text('Provisioner', object => object.provisioner ?? ''),
    text('ReclaimPolicy', object => object.reclaimPolicy ?? 'Delete'),
    text('VolumeBindingMode', object => object.volumeBindingMode ?? 'Immediate'),
    text('AllowVolumeExpansion', object => object.allowVolumeExpansion ?? false),
    ageColumn,
  ],
});

export const volumeAttributesClass = defineKind<VolumeAttributesClass>({
  group: 'storage.k8s.io',
  version: 'v1',
  kind: 'VolumeAttributesClass',
  validate: object => {
    const errors: Errors = [];
    checkDriverName(errors, 'driverName', object.driverName);
    if (Object.keys(object.parameters ?? {}).length === 0)
      addRequired(errors, 'parameters', 'must contain at least one key/value pair');
    checkParameters(errors, object.parameters);
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'driverName', object.driverName, old.driverName);
    checkUnchanged(errors, 'parameters', object.parameters, old.parameters);
    return errors;
  },
  columns: [nameColumn, text('DriverName', object => object.driverName ?? ''), ageColumn],
});
