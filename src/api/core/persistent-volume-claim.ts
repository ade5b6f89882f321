/** Persistent volume claims. */

import { fieldErrors } from '../../base/errors.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text, wideText } from '../machinery/columns.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import { compareQuantity, quantityValue } from '../machinery/quantity.ts';
import {
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  checkUnchanged,
  type Errors,
} from '../machinery/validation.ts';
import type { ObjectMeta } from '../meta.ts';
import { checkClaimSpec } from './claim-validation.ts';
import { canonicalList } from './pod-defaults.ts';
import { describeDifference } from './pod-update-validation.ts';
import { claimSpecWarnings } from './pod-warnings.ts';
import { isNativeResource } from './resource-validation.ts';
import type { PersistentVolumeClaim, PersistentVolumeClaimSpec } from './v1.gen.ts';

export const CLASS_ANNOTATION = 'volume.beta.kubernetes.io/storage-class';
/** Of claims and volumes that name their class the old way. */
export function classAnnotationWarnings({ annotations }: ObjectMeta): string[] {
  if (annotations?.[CLASS_ANNOTATION] === undefined) return [];
  return [`metadata.annotations[${CLASS_ANNOTATION}]: deprecated since v1.8; use "storageClassName" attribute instead`];
}

const MODE_LETTERS: readonly (readonly [mode: string, letters: string])[] = [
  ['ReadWriteOnce', 'RWO'],
  ['ReadOnlyMany', 'ROX'],
  ['ReadWriteMany', 'RWX'],
  ['ReadWriteOncePod', 'RWOP'],
];

/** `RWO,ROX`, in upstream's order. */
export function formatAccessModes(modes: readonly string[] | undefined): string {
  return MODE_LETTERS.filter(([mode]) => modes?.includes(mode))
    .map(([, letters]) => letters)
    .join(',');
}

/** Also for the claim templates of stateful sets. */
export function claimDefaults(claim: PersistentVolumeClaim): void {
  const spec = (claim.spec ??= {});
  spec.volumeMode ??= 'Filesystem';
  if (spec.resources?.requests) canonicalList(spec.resources.requests);
  const status = (claim.status ??= {});
  status.phase ||= 'Pending';
}

/** What a claim is filled from: what the older of the two fields never could name is dropped, then both say the same. */
function settleSources(spec: PersistentVolumeClaimSpec, old: PersistentVolumeClaimSpec = {}): void {
  const { kind, apiGroup = '' } = spec.dataSource ?? {};
  const isKnown =
    (kind === 'PersistentVolumeClaim' && apiGroup === '') ||
    (kind === 'VolumeSnapshot' && apiGroup === 'snapshot.storage.k8s.io');
  if (spec.dataSource && !spec.dataSourceRef && !isKnown && !old.dataSource && !old.dataSourceRef)
    delete spec.dataSource;
  mirrorSources(spec);
}

function mirrorSources(spec: PersistentVolumeClaimSpec): void {
  if (spec.dataSource && !spec.dataSourceRef) spec.dataSourceRef = { ...spec.dataSource };
  else if (spec.dataSourceRef && !spec.dataSource && !spec.dataSourceRef.namespace) {
    const { namespace: _, ...source } = spec.dataSourceRef;
    spec.dataSource = source;
  }
}

function className(claim: PersistentVolumeClaim): string {
  return claim.metadata.annotations?.[CLASS_ANNOTATION] ?? claim.spec?.storageClassName ?? '';
}

export const persistentVolumeClaim = defineKind<PersistentVolumeClaim>({
  group: '',
  version: 'v1',
  kind: 'PersistentVolumeClaim',
  warnings: ({ metadata, spec }) => [...classAnnotationWarnings(metadata), ...claimSpecWarnings('spec', spec)],
  defaults: claimDefaults,
  prepareCreate: object => {
    object.status = { phase: 'Pending' };
    if (object.spec) settleSources(object.spec);
  },
  prepareUpdate: (object, old) => {
    object.status = old.status as NonNullable<PersistentVolumeClaim['status']>;
    if (object.spec) settleSources(object.spec, old.spec);
  },
  validate: object => {
    const errors: Errors = [];
    checkClaimSpec(errors, 'spec', object.spec ?? {});
    return errors;
  },
  validateUpdate,
  validateStatusUpdate,
  selectableFields: { name: object => object.metadata.name },
  columns: [
    nameColumn,
    text('Status', object => (object.metadata.deletionTimestamp ? 'Terminating' : (object.status?.phase ?? ''))),
    text('Volume', object => object.spec?.volumeName ?? ''),
    text('Capacity', object => (object.spec?.volumeName ? (object.status?.capacity?.['storage'] ?? '0') : '')),
    text('Access Modes', object => (object.spec?.volumeName ? formatAccessModes(object.status?.accessModes) : '')),
    text('StorageClass', className),
    text('VolumeAttributesClass', object => object.spec?.volumeAttributesClassName ?? '<unset>'),
    ageColumn,
    wideText('VolumeMode', object => object.spec?.volumeMode ?? '<unset>'),
  ],
});

const RESIZE_STATUSES = [
  'ControllerResizeInProgress',
  'ControllerResizeInfeasible',
  'NodeResizeInProgress',
  'NodeResizeInfeasible',
  'NodeResizePending',
];

function validateStatusUpdate(object: PersistentVolumeClaim): Errors {
  const errors: Errors = [];
  if (!object.spec?.accessModes?.length) addRequired(errors, 'Spec.accessModes');
  const { capacity, allocatedResourceStatuses, allocatedResources } = object.status ?? {};
  for (const name in capacity) checkBasicQuantity(errors, `status.capacity[${name}]`, capacity[name]!);
  for (const name in allocatedResourceStatuses) {
    checkResizedName(errors, 'status.allocatedResourceStatuses', name);
    if (!RESIZE_STATUSES.includes(allocatedResourceStatuses[name]!))
      errors.push(fieldErrors.notSupported('status.allocatedResourceStatuses', name, RESIZE_STATUSES));
  }
  for (const name in allocatedResources)
    if (checkResizedName(errors, 'status.allocatedResources', name))
      checkBasicQuantity(errors, `status.allocatedResources[${name}]`, allocatedResources[name]!);
  return errors;
}

function checkBasicQuantity(errors: Errors, path: string, quantity: string): void {
  const value = quantityValue(quantity);
  if (value < 0) addInvalid(errors, path, value, 'must be a valid resource quantity');
}

/** Of Kubernetes' own resources only storage grows. */
function checkResizedName(errors: Errors, path: string, name: string): boolean {
  const before = errors.length;
  addProblems(errors, path, name, qualifiedNameProblems(name));
  if (errors.length === before && isNativeResource(name) && name !== 'storage')
    errors.push(fieldErrors.notSupported(path, name, ['storage']));
  return errors.length === before;
}

/** Immutable but for the volume's name, once, and the size and attributes class of a bound claim. */
function validateUpdate(object: PersistentVolumeClaim, old: PersistentVolumeClaim): Errors {
  const errors: Errors = [];
  const before = old.spec ?? {};
  const masked: PersistentVolumeClaimSpec = { ...object.spec };
  const compared: PersistentVolumeClaimSpec = { ...before };
  mirrorSources(compared);
  if (!before.volumeName && masked.volumeName) compared.volumeName = masked.volumeName;
  const annotation = old.metadata.annotations?.[CLASS_ANNOTATION];
  const newAnnotation = object.metadata.annotations?.[CLASS_ANNOTATION];
  const isNamed =
    before.storageClassName === undefined &&
    masked.storageClassName !== undefined &&
    (annotation === undefined || annotation === masked.storageClassName);
  if (isNamed) delete masked.storageClassName;
  // The annotation goes when the field takes its place.
  const isReplaced = isNamed && annotation !== undefined && newAnnotation === undefined;
  if (!isReplaced && (newAnnotation ?? '') !== (annotation ?? ''))
    addInvalid(errors, `metadata.annotations.${CLASS_ANNOTATION}`, newAnnotation ?? '', 'field is immutable');
  const oldSize = before.resources?.requests?.['storage'] ?? '0';
  const newSize = masked.resources?.requests?.['storage'] ?? '0';
  if (old.status?.phase === 'Bound') {
    if (masked.resources?.requests)
      masked.resources = { ...masked.resources, requests: { ...masked.resources.requests, storage: oldSize } };
    // May go again, too (since 1.34): so a change that its driver does not manage is taken back.
    if (before.volumeAttributesClassName === undefined) delete masked.volumeAttributesClassName;
    else masked.volumeAttributesClassName = before.volumeAttributesClassName;
  }
  if (!semanticEqual(masked, compared))
    addForbidden(
      errors,
      'spec',
      `spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n${describeDifference(compared, masked)}`,
    );
  if (compareQuantity(newSize, oldSize) < 0 && compareQuantity(newSize, old.status?.capacity?.['storage'] ?? '0') <= 0)
    addForbidden(errors, 'spec.resources.requests.storage', 'field can not be less than status.capacity');
  checkUnchanged(errors, 'volumeMode', object.spec?.volumeMode, before.volumeMode);
  const attributes = object.spec?.volumeAttributesClassName;
  if (
    !attributes &&
    attributes !== before.volumeAttributesClassName &&
    old.status?.currentVolumeAttributesClassName !== undefined
  )
    addForbidden(
      errors,
      'spec.volumeAttributesClassName',
      `update to ${attributes === undefined ? 'nil' : 'empty string'} is forbidden when status.currentVolumeAttributesClassName is not nil`,
    );
  return errors;
}
