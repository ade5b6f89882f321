/** Volume attachments, CSI drivers and what a node knows of them. */

import { fieldErrors } from '../../base/errors.ts';
import { checkVolumeSpec } from '../core/persistent-volume.ts';
import { checkDriverName } from '../core/volume-validation.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, integer, nameColumn, text } from '../machinery/columns.ts';
import { warnOfLabels, warnOfTerm } from '../machinery/deprecated-labels.ts';
import { isNewSpec, semanticEqual } from '../machinery/equality.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import { byteLength, dnsSubdomainProblems, rangeProblem } from '../machinery/names.ts';
import {
  addDuplicate,
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkLabelSelector,
  checkNotNegative,
  checkQuantityNotNegative,
  checkUnchanged,
  type Errors,
  eachAt,
  IMMUTABLE,
  requireText,
} from '../machinery/validation.ts';
import type {
  CSIDriver,
  CSINode,
  CSIStorageCapacity,
  TokenRequest,
  VolumeAttachment,
  VolumeAttachmentStatus,
} from './v1.gen.ts';

const NODE_ID_BYTES_MAX = 192;
const UPDATE_SECONDS_MIN = 10;
const STATUS_METADATA_BYTES_MAX = 256 * 1024;
const STATUS_MESSAGE_BYTES_MAX = 1024;
const TOKEN_SECONDS_MIN = 600;
const TOKEN_SECONDS_MAX = 2 ** 32;

export const volumeAttachment = defineKind<VolumeAttachment>({
  group: 'storage.k8s.io',
  version: 'v1',
  kind: 'VolumeAttachment',
  unconditionalUpdate: false,
  prepareCreate: object => {
    object.status = { attached: false };
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec;
    checkDriverName(errors, 'spec.attacher', spec?.attacher);
    const { persistentVolumeName: name, inlineVolumeSpec: inline } = spec?.source ?? {};
    const oneOf = 'must specify exactly one of inlineVolumeSpec and persistentVolumeName';
    if (name === undefined && !inline) addRequired(errors, 'spec.source', oneOf);
    else if (name !== undefined && inline) addForbidden(errors, 'spec.source', oneOf);
    else if (name === '')
      addRequired(errors, 'spec.source.persistentVolumeName', 'must specify non empty persistentVolumeName');
    else if (inline) checkVolumeSpec(errors, 'spec.source.inlineVolumeSpec', inline, true);
    addProblems(errors, 'spec.nodeName', spec?.nodeName ?? '', dnsSubdomainProblems(spec?.nodeName ?? ''));
    if (name !== undefined) addProblems(errors, 'spec.source.persistentVolumeName', name, dnsSubdomainProblems(name));
    checkAttachmentStatus(errors, 'status', object.status);
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec', object.spec, old.spec);
    return errors;
  },
  validateStatusUpdate: object => {
    const errors: Errors = [];
    checkAttachmentStatus(errors, 'status', object.status);
    return errors;
  },
  columns: [
    nameColumn,
    { ...text('Attacher', object => object.spec?.attacher ?? ''), format: 'name' },
    text('PV', object => object.spec?.source?.persistentVolumeName ?? ''),
    text('Node', object => object.spec?.nodeName ?? ''),
    { name: 'Attached', type: 'boolean', cell: object => object.status?.attached ?? false },
    ageColumn,
  ],
});

export const csiDriver = defineKind<CSIDriver>({
  group: 'storage.k8s.io',
  version: 'v1',
  kind: 'CSIDriver',
  isNewGeneration: isNewSpec,
  // Upstream counts its changes from 0.
  prepareCreate: object => {
    delete object.metadata.generation;
  },
  unconditionalUpdate: false,
  defaults: object => {
    const spec = (object.spec ??= {});
    spec.attachRequired ??= true;
    spec.podInfoOnMount ??= false;
    spec.storageCapacity ??= false;
    spec.fsGroupPolicy ??= 'ReadWriteOnceWithFSType';
    if (!spec.volumeLifecycleModes?.length) spec.volumeLifecycleModes = ['Persistent'];
    spec.requiresRepublish ??= false;
    spec.seLinuxMount ??= false;
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec ?? {};
    for (const field of ['attachRequired', 'podInfoOnMount', 'storageCapacity'] as const)
      if (spec[field] === undefined) addRequired(errors, `spec.${field}`);
    allowOneOf(errors, 'spec.fsGroupPolicy', spec.fsGroupPolicy, ['File', 'None', 'ReadWriteOnceWithFSType']);
    for (const mode of spec.volumeLifecycleModes ?? [])
      allowOneOf(errors, 'spec.volumeLifecycleModes', mode, ['Ephemeral', 'Persistent']);
    checkTokenRequests(errors, 'spec.tokenRequests', spec.tokenRequests ?? []);
    const period = spec.nodeAllocatableUpdatePeriodSeconds;
    if (period !== undefined && Number(period) < UPDATE_SECONDS_MIN)
      addInvalid(
        errors,
        'spec.nodeAllocatableUpdatePeriodSeconds',
        period,
        `must be greater than or equal to ${UPDATE_SECONDS_MIN} seconds`,
      );
    if (spec.serviceAccountTokenInSecrets !== undefined && !spec.tokenRequests?.length)
      addInvalid(
        errors,
        'spec.serviceAccountTokenInSecrets',
        spec.serviceAccountTokenInSecrets,
        'serviceAccountTokenInSecrets is set but no tokenRequests are specified',
      );
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    // Upstream's path has the field's name as its own type spells it.
    checkUnchanged(errors, 'spec.attachedRequired', object.spec?.attachRequired, old.spec?.attachRequired);
    checkUnchanged(
      errors,
      'spec.volumeLifecycleModes',
      object.spec?.volumeLifecycleModes,
      old.spec?.volumeLifecycleModes,
    );
    return errors;
  },
  columns: [
    nameColumn,
    { name: 'AttachRequired', type: 'boolean', cell: object => object.spec?.attachRequired ?? true },
    { name: 'PodInfoOnMount', type: 'boolean', cell: object => object.spec?.podInfoOnMount ?? false },
    { name: 'StorageCapacity', type: 'boolean', cell: object => object.spec?.storageCapacity ?? false },
    text(
      'TokenRequests',
      object => object.spec?.tokenRequests?.map(request => request.audience ?? '').join(',') ?? '<unset>',
    ),
    { name: 'RequiresRepublish', type: 'boolean', cell: object => object.spec?.requiresRepublish ?? false },
    text('Modes', object => (object.spec?.volumeLifecycleModes ?? []).join(',') || '<none>'),
    ageColumn,
  ],
});

export const csiNode = defineKind<CSINode>({
  group: 'storage.k8s.io',
  version: 'v1',
  kind: 'CSINode',
  unconditionalUpdate: false,
  validate: object => {
    const errors: Errors = [];
    const names = new Set<string>();
    eachAt(object.spec?.drivers, 'spec.drivers', (driver, at) => {
      checkDriverName(errors, `${at}.name`, driver.name);
      if (names.has(driver.name)) addDuplicate(errors, `${at}.name`, driver.name);
      names.add(driver.name);
      if (requireText(errors, `${at}.nodeID`, driver.nodeID) && driver.nodeID.length > NODE_ID_BYTES_MAX)
        addInvalid(errors, `${at}.nodeID`, driver.nodeID, `must be ${NODE_ID_BYTES_MAX} characters or less`);
      checkNotNegative(errors, `${at}.allocatable.count`, driver.allocatable?.count);
      checkTopologyKeys(errors, at, driver.topologyKeys ?? []);
    });
    return errors;
  },
  // How many volumes fit may change; what a driver said of the node may not.
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    for (const { allocatable: _, ...before } of old.spec?.drivers ?? [])
      for (const driver of object.spec?.drivers ?? []) {
        const { allocatable: __, ...now } = driver;
        if (now.name === before.name && !semanticEqual(now, before)) addInvalid(errors, 'spec.drivers', now, IMMUTABLE);
      }
    return errors;
  },
  columns: [nameColumn, integer('Drivers', object => object.spec?.drivers?.length), ageColumn],
});

export const csiStorageCapacity = defineKind<CSIStorageCapacity>({
  group: 'storage.k8s.io',
  version: 'v1',
  kind: 'CSIStorageCapacity',
  warnings: ({ nodeTopology }) => {
    const found: string[] = [];
    const { matchExpressions, matchLabels } = nodeTopology ?? {};
    warnOfTerm(found, 'nodeTopology', matchExpressions ? { matchExpressions } : {});
    warnOfLabels(found, matchLabels, label => `nodeTopology.matchLabels.${label}`);
    return found;
  },
  unconditionalUpdate: false,
  validate: object => {
    const errors: Errors = [];
    const { storageClassName = '' } = object;
    checkLabelSelector(errors, 'nodeTopology', object.nodeTopology);
    addProblems(errors, 'storageClassName', storageClassName, dnsSubdomainProblems(storageClassName));
    checkQuantityNotNegative(errors, 'capacity', object.capacity);
    checkQuantityNotNegative(errors, 'maximumVolumeSize', object.maximumVolumeSize);
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'nodeTopology', object.nodeTopology, old.nodeTopology);
    checkUnchanged(errors, 'storageClassName', object.storageClassName, old.storageClassName);
    return errors;
  },
  columns: [
    nameColumn,
    text('StorageClassName', object => object.storageClassName ?? ''),
    text('Capacity', object => object.capacity ?? '<unset>'),
  ],
});

function checkAttachmentStatus(errors: Errors, path: string, status: VolumeAttachmentStatus | undefined): void {
  let bytes = 0;
  for (const key in status?.attachmentMetadata)
    bytes += byteLength(key) + byteLength(status.attachmentMetadata[key] ?? '');
  if (bytes > STATUS_METADATA_BYTES_MAX)
    errors.push(fieldErrors.tooLong(`${path}.attachmentMetadata`, STATUS_METADATA_BYTES_MAX));
  for (const field of ['attachError', 'detachError'] as const) {
    const { message = '', errorCode = 0 } = status?.[field] ?? {};
    // Upstream names the limit of the metadata here.
    if (byteLength(message) > STATUS_MESSAGE_BYTES_MAX)
      errors.push(fieldErrors.tooLong(`${path}.${field}.message`, STATUS_METADATA_BYTES_MAX));
    if (errorCode < 0) addInvalid(errors, `${path}.${field}.errorCode`, errorCode, rangeProblem(0, 2 ** 31 - 1));
  }
}

function checkTopologyKeys(errors: Errors, path: string, keys: readonly string[]): void {
  keys.forEach((key, index) => {
    if (key === '') addRequired(errors, path);
    if (keys.indexOf(key) < index) addDuplicate(errors, path, key);
    addProblems(errors, path, keys, qualifiedNameProblems(key));
  });
}

function checkTokenRequests(errors: Errors, path: string, requests: readonly TokenRequest[]): void {
  const audiences = new Set<string>();
  eachAt(requests, path, ({ audience = '', expirationSeconds }, at) => {
    if (audiences.has(audience)) {
      addDuplicate(errors, `${at}.audience`, audience);
      return;
    }
    audiences.add(audience);
    if (expirationSeconds === undefined) return;
    if (expirationSeconds < TOKEN_SECONDS_MIN)
      addInvalid(
        errors,
        `${at}.expirationSeconds`,
        expirationSeconds,
        'may not specify a duration less than 10 minutes',
      );
    if (expirationSeconds > TOKEN_SECONDS_MAX)
      addInvalid(
        errors,
        `${at}.expirationSeconds`,
        expirationSeconds,
        'may not specify a duration larger than 2^32 seconds',
      );
  });
}
