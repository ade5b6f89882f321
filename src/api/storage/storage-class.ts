/** Storage classes and volume attributes classes. */

import { fieldErrors } from '../../base/errors.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { warnOfLabels } from '../machinery/deprecated-labels.ts';
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

function checkProvisioner(errors: Errors, path: string, provisioner: string | undefined): void {
  if (requireText(errors, path, provisioner))
    addProblems(errors, path, provisioner, qualifiedNameProblems(provisioner.toLowerCase()));
}

export const storageClass = defineKind<StorageClass>({
  group: 'storage.k8s.io',
  version: 'v1',
  kind: 'StorageClass',
  warnings: object => {
    const found: string[] = [];
    eachAt(object.allowedTopologies, 'allowedTopologies', ({ matchLabelExpressions }, at) =>
      eachAt(matchLabelExpressions, `${at}.matchLabelExpressions`, ({ key }, keyAt) =>
        warnOfLabels(found, { [key]: '' }, () => `${keyAt}.key`),
      ),
    );
    return found;
  },
  defaults: object => {
    object.reclaimPolicy ??= 'Delete';
    object.volumeBindingMode ??= 'Immediate';
  },
  validate: object => {
    const errors: Errors = [];
    checkProvisioner(errors, 'provisioner', object.provisioner);
    checkParameters(errors, object.parameters);
    if (object.reclaimPolicy) requireOneOf(errors, 'reclaimPolicy', object.reclaimPolicy, ['Delete', 'Retain']);
    allowOneOf(errors, 'volumeBindingMode', object.volumeBindingMode, ['Immediate', 'WaitForFirstConsumer']);
    const terms = new Set(['[]']);
    eachAt(object.allowedTopologies, 'allowedTopologies', (term, at) => {
      const keys = new Set<string>();
      const values = (term.matchLabelExpressions ?? []).map(each => [each.key, ...[...(each.values ?? [])].sort()]);
      const shown = JSON.stringify(values.sort());
      if (terms.has(shown)) addDuplicate(errors, `${at}.matchLabelExpressions`, '');
      terms.add(shown);
      eachAt(term.matchLabelExpressions, `${at}.matchLabelExpressions`, (requirement, requirementAt) => {
        if (!requirement.values?.length) addRequired(errors, `${requirementAt}.values`);
        const seen = new Set<string>();
        eachAt(requirement.values, `${requirementAt}.values`, (value, valueAt) => {
          if (seen.has(value)) addDuplicate(errors, valueAt, value);
          seen.add(value);
        });
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
    checkProvisioner(errors, 'driverName', object.driverName);
    if (Object.keys(object.parameters ?? {}).length === 0)
      addRequired(errors, 'parameters', 'must contain at least one key/value pair');
    checkParameters(errors, object.parameters);
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    if (object.driverName !== old.driverName)
      addForbidden(errors, 'driverName', 'updates to driverName are forbidden.');
    if (!semanticEqual(object.parameters, old.parameters))
      addForbidden(errors, 'parameters', 'updates to parameters are forbidden.');
    return errors;
  },
  columns: [nameColumn, text('DriverName', object => object.driverName ?? ''), ageColumn],
});
