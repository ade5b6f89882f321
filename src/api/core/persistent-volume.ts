/** Persistent volumes. */

import { formatTime } from '../../base/clock.ts';
import { fieldErrors } from '../../base/errors.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text, wideText } from '../machinery/columns.ts';
import { warnOfTerm } from '../machinery/deprecated-labels.ts';
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
  eachAt,
  requireText,
} from '../machinery/validation.ts';
import { checkAccessModes, checkPositiveQuantity, VOLUME_MODES } from './claim-validation.ts';
import { CLASS_ANNOTATION, classAnnotationWarnings, formatAccessModes } from './persistent-volume-claim.ts';
import { NOT_SOURCES } from './persistent-volume-sources.ts';
import { canonicalList } from './pod-defaults.ts';
import { describeDifference } from './pod-update-validation.ts';
import { deprecatedVolumeWarning } from './pod-warnings.ts';
import { checkNodeSelector } from './scheduling-validation.ts';
import type {
  AzureFilePersistentVolumeSource,
  CSIPersistentVolumeSource,
  GlusterfsPersistentVolumeSource,
  ISCSIPersistentVolumeSource,
  ISCSIVolumeSource,
  LocalVolumeSource,
  PersistentVolume,
  PersistentVolumeSpec,
  SecretReference,
} from './v1.gen.ts';
import { checkDriverName, checkIscsi, checkNoBackstep, checkOneSource, SOURCE_CHECKS } from './volume-validation.ts';

type SourceCheck = (errors: Errors, at: string, source: unknown) => void;

const POD_CHECKS = SOURCE_CHECKS as Readonly<Record<string, SourceCheck>>;

/** A source that pods have too, whose secret lies in a namespace that must be named here. */
function withSecretNamespace(kind: 'cinder' | 'storageos'): SourceCheck {
  return (errors, at, source) => {
    POD_CHECKS[kind]!(errors, at, source);
    const { secretRef } = source as { secretRef?: SecretReference };
    if (secretRef) requireText(errors, `${at}.secretRef.namespace`, secretRef.namespace);
  };
}

/** In the order in which upstream looks: of several sources the first is checked, the others are refused. */
const CHECKS: Readonly<Record<string, SourceCheck>> = {
  hostPath: POD_CHECKS['hostPath']!,
  gcePersistentDisk: POD_CHECKS['gcePersistentDisk']!,
  awsElasticBlockStore: POD_CHECKS['awsElasticBlockStore']!,
  glusterfs: (errors, at, source) => {
    POD_CHECKS['glusterfs']!(errors, at, source);
    const { endpointsNamespace } = source as GlusterfsPersistentVolumeSource;
    if (endpointsNamespace === '')
      addInvalid(
        errors,
        `${at}.endpointsNamespace`,
        '',
        'if the endpointnamespace is set, it must be a valid namespace name',
      );
    else if (endpointsNamespace !== undefined)
      addProblems(errors, `${at}.endpointsNamespace`, endpointsNamespace, dnsLabelProblems(endpointsNamespace));
  },
  flocker: POD_CHECKS['flocker']!,
  nfs: POD_CHECKS['nfs']!,
  rbd: POD_CHECKS['rbd']!,
  quobyte: POD_CHECKS['quobyte']!,
  cephfs: POD_CHECKS['cephfs']!,
  iscsi: (errors, at, source) => {
    const iscsi = source as ISCSIPersistentVolumeSource;
    checkIscsi(errors, at, iscsi as ISCSIVolumeSource, false);
    const { secretRef } = iscsi;
    if (secretRef) requireText(errors, `${at}.secretRef.name`, secretRef.name);
  },
  cinder: withSecretNamespace('cinder'),
  fc: POD_CHECKS['fc']!,
  flexVolume: POD_CHECKS['flexVolume']!,
  azureFile: (errors, at, source) => {
    POD_CHECKS['azureFile']!(errors, at, source);
    if ((source as AzureFilePersistentVolumeSource).secretNamespace === '')
      addRequired(errors, `${at}.secretNamespace`);
  },
  vsphereVolume: POD_CHECKS['vsphereVolume']!,
  photonPersistentDisk: POD_CHECKS['photonPersistentDisk']!,
  portworxVolume: POD_CHECKS['portworxVolume']!,
  azureDisk: POD_CHECKS['azureDisk']!,
  scaleIO: POD_CHECKS['scaleIO']!,
  local: (errors, at, source) => {
    const { path } = source as LocalVolumeSource;
    if (requireText(errors, `${at}.path`, path)) checkNoBackstep(errors, `${at}.path`, path);
  },
  storageos: withSecretNamespace('storageos'),
  csi: (errors, at, source) => {
    const csi = source as CSIPersistentVolumeSource;
    checkDriverName(errors, `${at}.driver`, csi.driver);
    requireText(errors, `${at}.volumeHandle`, csi.volumeHandle);
    // Upstream looks at every secret but that of NodeStageVolume.
    for (const field of [
      'controllerPublishSecretRef',
      'controllerExpandSecretRef',
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

const MOUNT_OPTIONS_ANNOTATION = 'volume.beta.kubernetes.io/mount-options';

function sourceOf(spec: PersistentVolumeSpec | undefined): Record<string, unknown> {
  return Object.fromEntries(Object.entries(spec ?? {}).filter(([field]) => !NOT_SOURCES.has(field)));
}

export const persistentVolume = defineKind<PersistentVolume>({
  group: '',
  version: 'v1',
  kind: 'PersistentVolume',
  warnings: ({ metadata, spec = {} }) => {
    const found = classAnnotationWarnings(metadata);
    if (metadata.annotations?.[MOUNT_OPTIONS_ANNOTATION] !== undefined)
      found.push(
        `metadata.annotations[${MOUNT_OPTIONS_ANNOTATION}]: deprecated since v1.31; use "mountOptions" attribute instead`,
      );
    if (spec.persistentVolumeReclaimPolicy === 'Recycle')
      found.push(
        'spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.',
      );
    eachAt(spec.nodeAffinity?.required?.nodeSelectorTerms, 'spec.nodeAffinity.required.nodeSelectorTerms', (term, at) =>
      warnOfTerm(found, at, term),
    );
    for (const source of ['cephfs', 'photonPersistentDisk', 'scaleIO', 'storageos', 'glusterfs', 'rbd'] as const)
      if (spec[source]) found.push(deprecatedVolumeWarning('spec', source));
    return found;
  },
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
    object.status = { phase: 'Pending', lastPhaseTransitionTime: object.metadata.creationTimestamp! };
  },
  prepareUpdate: (object, old) => {
    object.status = old.status as NonNullable<PersistentVolume['status']>;
  },
  // Whoever sets a phase need not say since when.
  settleStatus: (object, old, nowMs) => {
    const status = (object.status ??= {});
    const before = old.status ?? {};
    if (status.phase === before.phase) {
      if (before.lastPhaseTransitionTime) status.lastPhaseTransitionTime ??= before.lastPhaseTransitionTime;
    } else if (!status.lastPhaseTransitionTime || status.lastPhaseTransitionTime === before.lastPhaseTransitionTime)
      status.lastPhaseTransitionTime = formatTime(nowMs);
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec ?? {};
    checkVolumeSpec(errors, 'spec', spec);
    const iscsi = spec.iscsi;
    if (iscsi?.initiatorName !== undefined && `${object.metadata.name}:${iscsi.targetPortal}`.length > 64)
      addInvalid(
        errors,
        'spec.iscsi.targetportal',
        iscsi.targetPortal,
        'Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.',
      );
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
    if (old.spec?.nodeAffinity) checkAffinityChange(errors, object.spec?.nodeAffinity, old.spec.nodeAffinity);
    if (old.spec?.volumeAttributesClassName !== undefined && object.spec?.volumeAttributesClassName === undefined)
      addForbidden(errors, 'spec.volumeAttributesClassName', 'update from non-nil value to nil is forbidden');
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

const RENAMED_LABELS: Readonly<Record<string, string>> = {
  'beta.kubernetes.io/os': 'kubernetes.io/os',
  'beta.kubernetes.io/arch': 'kubernetes.io/arch',
  'failure-domain.beta.kubernetes.io/region': 'topology.kubernetes.io/region',
  'failure-domain.beta.kubernetes.io/zone': 'topology.kubernetes.io/zone',
  'beta.kubernetes.io/instance-type': 'node.kubernetes.io/instance-type',
};

/** Only labels may change, to what they are called now. */
function checkAffinityChange(
  errors: Errors,
  affinity: PersistentVolumeSpec['nodeAffinity'],
  old: NonNullable<PersistentVolumeSpec['nodeAffinity']>,
): void {
  if (!affinity) {
    addInvalid(errors, 'nodeAffinity', null, 'field is immutable');
    return;
  }
  const expected = structuredClone(old);
  expected.required?.nodeSelectorTerms?.forEach((term, index) => {
    const now = affinity.required?.nodeSelectorTerms?.[index]?.matchExpressions;
    term.matchExpressions?.forEach((expression, place) => {
      const renamed = RENAMED_LABELS[expression.key];
      if (renamed !== undefined && now?.[place]?.key === renamed) expression.key = renamed;
    });
  });
  if (!semanticEqual(affinity, expected))
    addInvalid(errors, 'nodeAffinity', affinity, 'field is immutable, except for updating from beta label to GA');
}

/** `inline`: in a VolumeAttachment, where there is nothing to bind, only what to attach. */
export function checkVolumeSpec(errors: Errors, path: string, spec: PersistentVolumeSpec, inline = false): void {
  const { capacity, nodeAffinity: affinity, persistentVolumeReclaimPolicy: policy } = spec;
  const resources = Object.keys(capacity ?? {});
  const refuse = (field: string, set: unknown): void => {
    if (inline && set)
      addForbidden(errors, `${path}.${field}`, 'may not be specified in the context of inline volumes');
  };
  refuse('claimRef', spec.claimRef);
  refuse('capacity', resources.length);
  if (inline && !spec.csi) addRequired(errors, `${path}.csi`, 'has to be specified in the context of inline volumes');
  if (!spec.accessModes?.length) addRequired(errors, `${path}.accessModes`);
  checkAccessModes(errors, `${path}.accessModes`, spec.accessModes);
  if (!inline) {
    if (resources.length === 0) addRequired(errors, `${path}.capacity`);
    if (resources.length !== 1 || resources[0] !== 'storage')
      errors.push(fieldErrors.notSupported(`${path}.capacity`, capacity ?? null, ['storage']));
    for (const name of resources) checkPositiveQuantity(errors, `${path}.capacity[${name}]`, capacity![name]!);
  }
  if (policy && inline && policy !== 'Retain')
    addForbidden(
      errors,
      `${path}.persistentVolumeReclaimPolicy`,
      'may only be Retain in the context of inline volumes',
    );
  else if (policy) allowOneOf(errors, `${path}.persistentVolumeReclaimPolicy`, policy, ['Delete', 'Recycle', 'Retain']);
  refuse('nodeAffinity', affinity);
  if (affinity && !inline) {
    if (affinity.required) checkNodeSelector(errors, `${path}.nodeAffinity.required`, affinity.required);
    else addRequired(errors, `${path}.nodeAffinity.required`, 'must specify required node constraints');
  }
  checkOneSource(errors, path, spec, CHECKS);
  if (spec.local && !affinity) addRequired(errors, `${path}.nodeAffinity`, 'Local volume requires node affinity');
  if (/^\/+$/.test(spec.hostPath?.path ?? '') && spec.persistentVolumeReclaimPolicy === 'Recycle')
    addForbidden(errors, `${path}.persistentVolumeReclaimPolicy`, "may not be 'recycle' for a hostPath mount of '/'");
  refuse('storageClassName', spec.storageClassName);
  if (spec.storageClassName && !inline)
    addProblems(errors, `${path}.storageClassName`, spec.storageClassName, dnsSubdomainProblems(spec.storageClassName));
  if (!inline) allowOneOf(errors, `${path}.volumeMode`, spec.volumeMode, VOLUME_MODES);
  else if (spec.volumeMode !== undefined && spec.volumeMode !== 'Filesystem')
    addForbidden(
      errors,
      `${path}.volumeMode`,
      'may not specify volumeMode other than Filesystem in the context of inline volumes',
    );
  const attributes = spec.volumeAttributesClassName;
  if (attributes === undefined) return;
  if (attributes === '') addRequired(errors, `${path}.volumeAttributesClassName`, 'an empty string is disallowed');
  else addProblems(errors, `${path}.volumeAttributesClassName`, attributes, dnsSubdomainProblems(attributes));
  if (!spec.csi) addRequired(errors, `${path}.csi`, 'has to be specified when using volumeAttributesClassName');
}
