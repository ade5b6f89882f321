/** Validation of the spec of a persistent volume claim, wherever it stands: claims, claim templates, ephemeral volumes. */

import { fieldErrors } from '../../base/errors.ts';
import { dnsLabelProblems, dnsSubdomainProblems } from '../machinery/names.ts';
import { parseNano } from '../machinery/quantity.ts';
import {
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkLabelSelector,
  type Errors,
  requireText,
} from '../machinery/validation.ts';
import type { PersistentVolumeClaimSpec, TypedObjectReference } from './v1.gen.ts';

export const ACCESS_MODES = ['ReadOnlyMany', 'ReadWriteMany', 'ReadWriteOnce', 'ReadWriteOncePod'];
export const VOLUME_MODES = ['Block', 'Filesystem'];

export function checkAccessModes(errors: Errors, path: string, modes: readonly string[] | undefined): void {
  for (const mode of modes ?? [])
    if (!ACCESS_MODES.includes(mode)) errors.push(fieldErrors.notSupported(path, mode, ACCESS_MODES));
  if (
    modes?.includes('ReadWriteOncePod') &&
    modes.some(mode => mode !== 'ReadWriteOncePod' && ACCESS_MODES.includes(mode))
  )
    addForbidden(errors, path, 'may not use ReadWriteOncePod with other access modes');
}

export function checkPositiveQuantity(errors: Errors, path: string, quantity: string): void {
  if ((parseNano(quantity) ?? 0n) <= 0n) addInvalid(errors, path, quantity, 'must be greater than zero');
}

export function checkClaimSpec(errors: Errors, path: string, spec: PersistentVolumeClaimSpec): void {
  if (!spec.accessModes?.length) addRequired(errors, `${path}.accessModes`, 'at least 1 access mode is required');
  checkLabelSelector(errors, `${path}.selector`, spec.selector);
  checkAccessModes(errors, `${path}.accessModes`, spec.accessModes);
  const storage = spec.resources?.requests?.['storage'];
  if (storage === undefined) addRequired(errors, `${path}.resources[storage]`);
  else checkPositiveQuantity(errors, `${path}.resources[storage]`, storage);
  if (spec.storageClassName)
    addProblems(errors, `${path}.storageClassName`, spec.storageClassName, dnsSubdomainProblems(spec.storageClassName));
  allowOneOf(errors, `${path}.volumeMode`, spec.volumeMode, VOLUME_MODES);
  const { dataSource: source, dataSourceRef: reference } = spec;
  if (source) checkDataSource(errors, `${path}.dataSource`, source);
  if (reference) {
    checkDataSource(errors, `${path}.dataSourceRef`, reference);
    if (reference.namespace)
      addProblems(
        errors,
        `${path}.dataSourceRef.namespace`,
        reference.namespace,
        dnsLabelProblems(reference.namespace),
      );
  }
  if (source && reference) {
    if (reference.namespace)
      addInvalid(errors, path, `${path}.dataSource`, 'may not be specified when dataSourceRef.namespace is specified');
    else if (source.apiGroup !== reference.apiGroup || source.kind !== reference.kind || source.name !== reference.name)
      addInvalid(errors, path, `${path}.dataSource`, 'must match dataSourceRef');
  }
  if (spec.volumeAttributesClassName)
    addProblems(
      errors,
      `${path}.volumeAttributesClassName`,
      spec.volumeAttributesClassName,
      dnsSubdomainProblems(spec.volumeAttributesClassName),
    );
}

function checkDataSource(
  errors: Errors,
  path: string,
  source: Pick<TypedObjectReference, 'apiGroup' | 'kind' | 'name'>,
): void {
  requireText(errors, `${path}.name`, source.name);
  requireText(errors, `${path}.kind`, source.kind);
  if (!source.apiGroup) {
    if (source.kind !== 'PersistentVolumeClaim')
      addInvalid(
        errors,
        path,
        source.kind ?? '',
        "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
      );
  } else addProblems(errors, `${path}.apiGroup`, source.apiGroup, dnsSubdomainProblems(source.apiGroup));
}
