/** Volume attachments, CSI drivers and what a node knows of them. */

import { checkDriverName } from '../core/volume-validation.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, integer, nameColumn, text } from '../machinery/columns.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import {
  addDuplicate,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkNotNegative,
  checkUnchanged,
  type Errors,
  eachAt,
  IMMUTABLE,
  requireText,
} from '../machinery/validation.ts';
import type { CSIDriver, CSINode, CSIStorageCapacity, TokenRequest, VolumeAttachment } from './v1.gen.ts';

const NODE_ID_BYTES_MAX = 192;
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
    requireText(errors, 'spec.nodeName', spec?.nodeName);
    const { persistentVolumeName, inlineVolumeSpec } = spec?.source ?? {};
    if (!persistentVolumeName && !inlineVolumeSpec)
      addRequired(errors, 'spec.source', 'must specify exactly one of inlineVolumeSpec and persistentVolumeName');
    else if (persistentVolumeName && inlineVolumeSpec)
      addInvalid(
        errors,
        'spec.source',
        spec?.source,
        'must specify exactly one of inlineVolumeSpec and persistentVolumeName',
      );
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec', object.spec, old.spec);
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
    checkDriverName(errors, 'metadata.name', object.metadata.name);
    const spec = object.spec ?? {};
    for (const field of ['attachRequired', 'podInfoOnMount', 'storageCapacity'] as const)
      if (spec[field] === undefined) addRequired(errors, `spec.${field}`);
    allowOneOf(errors, 'spec.fsGroupPolicy', spec.fsGroupPolicy, ['File', 'None', 'ReadWriteOnceWithFSType']);
    for (const mode of spec.volumeLifecycleModes ?? [])
      allowOneOf(errors, 'spec.volumeLifecycleModes', mode, ['Ephemeral', 'Persistent']);
    checkTokenRequests(errors, 'spec.tokenRequests', spec.tokenRequests ?? []);
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
      object => (object.spec?.tokenRequests ?? []).map(request => request.audience || '<unset>').join(',') || '<unset>',
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
        if (now.name === before.name && !semanticEqual(now, before))
          addInvalid(errors, 'CSINodeDriver', driver, IMMUTABLE);
      }
    return errors;
  },
  columns: [nameColumn, integer('Drivers', object => object.spec?.drivers?.length), ageColumn],
});

export const csiStorageCapacity = defineKind<CSIStorageCapacity>({
  group: 'storage.k8s.io',
  version: 'v1',
  kind: 'CSIStorageCapacity',
  unconditionalUpdate: false,
  validate: object => {
    const errors: Errors = [];
    requireText(errors, 'storageClassName', object.storageClassName);
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
    text('Capacity', object => object.capacity ?? ''),
  ],
});

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
