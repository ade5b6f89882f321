/** Persistent volumes. */

import { fieldErrors } from '../../base/errors.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text, wideText } from '../machinery/columns.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { dnsLabelProblems, dnsSubdomainProblems } from '../machinery/names.ts';
import {
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkUnchanged,
  type Errors,
  requireText,
} from '../machinery/validation.ts';
import { checkAccessModes, checkPositiveQuantity, VOLUME_MODES } from './claim-validation.ts';
import { CLASS_ANNOTATION, formatAccessModes } from './persistent-volume-claim.ts';
import { NOT_SOURCES } from './persistent-volume-sources.ts';
import { canonicalList } from './pod-defaults.ts';
import { describeDifference } from './pod-update-validation.ts';
import { checkNodeSelector } from './scheduling-validation.ts';
import type { CSIPersistentVolumeSource, LocalVolumeSource, PersistentVolume, PersistentVolumeSpec } from './v1.gen.ts';
import { checkDriverName, checkNoBackstep, checkOneSource, SOURCE_CHECKS } from './volume-validation.ts';

type SourceCheck = (errors: Errors, at: string, source: unknown) => void;

const CHECKS = {
  ...(SOURCE_CHECKS as Readonly<Record<string, SourceCheck>>),
  local: (errors: Errors, at: string, source: unknown) => {
    const { path } = source as LocalVolumeSource;
    if (requireText(errors, `${at}.path`, path)) checkNoBackstep(errors, `${at}.path`, path);
  },
  csi: (errors: Errors, at: string, source: unknown) => {
    const csi = source as CSIPersistentVolumeSource;
    checkDriverName(errors, `${at}.driver`, csi.driver);
    requireText(errors, `${at}.volumeHandle`, csi.volumeHandle);
    for (const field of [
      'controllerPublishSecretRef',
      'controllerExpandSecretRef',
      'nodeStageSecretRef',
      'nodePublishSecretRef',
      'nodeExpandSecretRef',
    ] as const) {
      const secret = csi[field];
      if (!secret) continue;
      if (requireText(errors, `${at}.${field}.name`, secret.name))
        addProblems(errors, `${at}.${field}.name`, secret.name, dnsSubdomainProblems(secret.name));
      if (requireText(errors, `${at}.${field}.namespace`, secret.namespace))
        addProblems(errors, `${at}.${field}.namespace`, secret.namespace, dnsLabelProblems(secret.namespace));
    }
  },
};

function sourceOf(spec: PersistentVolumeSpec | undefined): Record<string, unknown> {
  return Object.fromEntries(Object.entries(spec ?? {}).filter(([field]) => !NOT_SOURCES.has(field)));
}

export const persistentVolume = defineKind<PersistentVolume>({
  group: '',
  version: 'v1',
  kind: 'PersistentVolume',
  defaults: object => {
    const spec = (object.spec ??= {});
    spec.persistentVolumeReclaimPolicy ||= 'Retain';
    spec.volumeMode ??= 'Filesystem';
    if (spec.capacity) canonicalList(spec.capacity);
    if (spec.hostPath) spec.hostPath.type ??= '';
    if (spec.iscsi) spec.iscsi.iscsiInterface ||= 'default';
    if (spec.rbd) {
      spec.rbd.pool ||= 'rbd';
      spec.rbd.user ||= 'admin';
      spec.rbd.keyring ||= '/etc/ceph/keyring';
    }
    if (spec.azureDisk) {
      spec.azureDisk.cachingMode ??= 'ReadWrite';
      spec.azureDisk.kind ??= 'Shared';
      spec.azureDisk.fsType ??= 'ext4';
      spec.azureDisk.readOnly ??= false;
    }
    if (spec.scaleIO) {
      spec.scaleIO.storageMode ||= 'ThinProvisioned';
      spec.scaleIO.fsType ||= 'xfs';
    }
    const status = (object.status ??= {});
    status.phase ||= 'Pending';
  },
  prepareCreate: object => {
    object.status = { phase: 'Pending' };
  },
  prepareUpdate: (object, old) => {
    object.status = old.status as NonNullable<PersistentVolume['status']>;
  },
  validate: object => {
    const errors: Errors = [];
    checkSpec(errors, 'spec', object.spec ?? {});
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    const source = sourceOf(object.spec);
    const before = sourceOf(old.spec);
    const csi = source['csi'] as CSIPersistentVolumeSource | undefined;
    const oldCsi = before['csi'] as CSIPersistentVolumeSource | undefined;
    if (csi?.controllerExpandSecretRef && oldCsi && !oldCsi.controllerExpandSecretRef)
      source['csi'] = { ...csi, controllerExpandSecretRef: undefined };
    if (!semanticEqual(source, before))
      addForbidden(
        errors,
        'spec.persistentvolumesource',
        `spec.persistentvolumesource is immutable after creation\n${describeDifference(before, source)}`,
      );
    checkUnchanged(errors, 'volumeMode', object.spec?.volumeMode, old.spec?.volumeMode);
    if (old.spec?.nodeAffinity && !semanticEqual(object.spec?.nodeAffinity, old.spec.nodeAffinity))
      addInvalid(
        errors,
        'nodeAffinity',
        object.spec?.nodeAffinity,
        'field is immutable, except for updating from beta label to GA',
      );
    return errors;
  },
  selectableFields: { name: object => object.metadata.name },
  columns: [
    nameColumn,
    text('Capacity', object => object.spec?.capacity?.['storage'] ?? '0'),
    text('Access Modes', object => formatAccessModes(object.spec?.accessModes)),
    text('Reclaim Policy', object => object.spec?.persistentVolumeReclaimPolicy ?? ''),
    text('Status', object => (object.metadata.deletionTimestamp ? 'Terminating' : (object.status?.phase ?? ''))),
    text('Claim', object =>
      object.spec?.claimRef ? `${object.spec.claimRef.namespace ?? ''}/${object.spec.claimRef.name ?? ''}` : '',
    ),
    text(
      'StorageClass',
      object => object.metadata.annotations?.[CLASS_ANNOTATION] ?? object.spec?.storageClassName ?? '',
    ),
    text('VolumeAttributesClass', object => object.spec?.volumeAttributesClassName ?? '<unset>'),
    text('Reason', object => object.status?.reason ?? ''),
    ageColumn,
    wideText('VolumeMode', object => object.spec?.volumeMode ?? '<unset>'),
  ],
});

function checkSpec(errors: Errors, path: string, spec: PersistentVolumeSpec): void {
  if (!spec.accessModes?.length) addRequired(errors, `${path}.accessModes`);
  checkAccessModes(errors, `${path}.accessModes`, spec.accessModes);
  const resources = Object.keys(spec.capacity ?? {});
  if (resources.length === 0) addRequired(errors, `${path}.capacity`);
  if (resources.length !== 1 || resources[0] !== 'storage')
    errors.push(fieldErrors.notSupported(`${path}.capacity`, spec.capacity ?? null, ['storage']));
  for (const name of resources) checkPositiveQuantity(errors, `${path}.capacity[${name}]`, spec.capacity![name]!);
  if (spec.persistentVolumeReclaimPolicy)
    allowOneOf(errors, `${path}.persistentVolumeReclaimPolicy`, spec.persistentVolumeReclaimPolicy, [
      'Delete',
      'Recycle',
      'Retain',
    ]);
  const affinity = spec.nodeAffinity;
  if (affinity) {
    if (affinity.required) checkNodeSelector(errors, `${path}.nodeAffinity.required`, affinity.required);
    else addRequired(errors, `${path}.nodeAffinity.required`, 'must specify required node constraints');
  }
  checkOneSource(errors, path, sourceOf(spec), CHECKS);
  if (spec.local && !affinity) addRequired(errors, `${path}.nodeAffinity`, 'Local volume requires node affinity');
  if (/^\/+$/.test(spec.hostPath?.path ?? '') && spec.persistentVolumeReclaimPolicy === 'Recycle')
    addForbidden(errors, `${path}.persistentVolumeReclaimPolicy`, "may not be 'recycle' for a hostPath mount of '/'");
  if (spec.storageClassName)
    addProblems(errors, `${path}.storageClassName`, spec.storageClassName, dnsSubdomainProblems(spec.storageClassName));
  allowOneOf(errors, `${path}.volumeMode`, spec.volumeMode, VOLUME_MODES);
  const attributes = spec.volumeAttributesClassName;
  if (attributes === undefined) return;
  if (attributes === '') addRequired(errors, `${path}.volumeAttributesClassName`, 'an empty string is disallowed');
  else addProblems(errors, `${path}.volumeAttributesClassName`, attributes, dnsSubdomainProblems(attributes));
  if (!spec.csi) addRequired(errors, `${path}.csi`, 'has to be specified when using volumeAttributesClassName');
}
