/** Devices that pods claim: claims, their templates, device classes and what nodes offer. */

import { formatTime, systemClock } from '../../base/clock.ts';
import { isExtendedResource } from '../core/resource-validation.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { isNewSpec } from '../machinery/equality.ts';
import { validateTemplateMeta } from '../machinery/metadata.ts';
import { addInvalid, checkUnchanged, type Errors } from '../machinery/validation.ts';
import { CONFIGURATIONS_MAX, checkConfiguration, eachUpTo } from './device-fields.ts';
import { checkSelectors } from './device-selectors.ts';
import { dropStatusOfGivenBack, validateClaimStatus } from './resource-claim-status.ts';
import { checkDeviceClaim, defaultDeviceClaim } from './resource-claim-validation.ts';
import { validateResourceSlice } from './resource-slice-validation.ts';
import type { DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice } from './v1.gen.ts';

const GROUP = 'resource.k8s.io';

export const resourceClaim = defineKind<ResourceClaim>({
  group: GROUP,
  version: 'v1',
  kind: 'ResourceClaim',
  defaults: object => defaultDeviceClaim(object.spec?.devices),
  validate: object => checkDeviceClaim('spec.devices', object.spec?.devices),
  // What cannot change is not judged again.
  ratchets: true,
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec', object.spec, old.spec);
    return errors;
  },
  settleStatus: dropStatusOfGivenBack,
  validateStatusUpdate: validateClaimStatus,
  columns: [
    nameColumn,
    text('State', object => {
      const states = [
        object.metadata.deletionTimestamp ? 'deleted' : '',
        object.status?.allocation ? 'allocated' : '',
        object.status?.reservedFor?.length ? 'reserved' : '',
      ].filter(Boolean);
      return object.status?.allocation || object.metadata.deletionTimestamp ? states.join(',') : 'pending';
    }),
    ageColumn,
  ],
});

export const resourceClaimTemplate = defineKind<ResourceClaimTemplate>({
  group: GROUP,
  version: 'v1',
  kind: 'ResourceClaimTemplate',
  defaults: object => defaultDeviceClaim(object.spec?.spec?.devices),
  validate: ({ spec }) => [
    ...validateTemplateMeta(spec?.metadata, 'spec.metadata'),
    ...checkDeviceClaim('spec.spec.devices', spec?.spec?.devices),
  ],
  ratchets: true,
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec', object.spec, old.spec);
    return errors;
  },
  columns: [nameColumn, ageColumn],
});

export const deviceClass = defineKind<DeviceClass>({
  group: GROUP,
  version: 'v1',
  kind: 'DeviceClass',
  isNewGeneration: isNewSpec,
  validate: ({ spec }) => {
    const errors: Errors = [];
    checkSelectors(errors, 'spec.selectors', spec?.selectors);
    eachUpTo(errors, 'spec.config', spec?.config, {
      max: CONFIGURATIONS_MAX,
      check: (config, at) => checkConfiguration(errors, at, config),
    });
    const resource = spec?.extendedResourceName;
    if (resource !== undefined && !isExtendedResource(resource))
      addInvalid(errors, 'spec.extendedResourceName', resource, 'must be a valid extended resource name');
    return errors;
  },
  columns: [nameColumn, ageColumn],
});

export const resourceSlice = defineKind<ResourceSlice>({
  group: GROUP,
  version: 'v1',
  kind: 'ResourceSlice',
  isNewGeneration: isNewSpec,
  defaults: object => {
    for (const device of object.spec?.devices ?? []) {
      // Since when a taint is there: of those whose driver does not say, since now.
      for (const taint of device.taints ?? []) taint.timeAdded ??= formatTime(systemClock.now());
      // Of features that are off in 1.36 (lists of attributes, devices that stand for what nodes allocate): upstream drops them.
      delete device.nodeAllocatableResourceMappings;
      for (const attribute of Object.values(device.attributes ?? {}))
        for (const field of ['ints', 'bools', 'strings', 'versions'] as const) delete attribute[field];
    }
  },
  validate: object => validateResourceSlice(object),
  ratchets: true,
  validateUpdate: validateResourceSlice,
  columns: [
    nameColumn,
    text('Node', object => object.spec?.nodeName ?? ''),
    text('Driver', object => object.spec?.driver ?? ''),
    text('Pool', object => object.spec?.pool?.name ?? ''),
    ageColumn,
  ],
  selectableFields: {
    'spec.nodeName': object => object.spec?.nodeName ?? '',
    'spec.driver': object => object.spec?.driver ?? '',
  },
});
