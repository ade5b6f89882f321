/** What must hold of a claim's status: who reserved it, which devices it got, and what drivers say of those. An allocation never changes. Pure. */

import { fieldErrors } from '../../base/errors.ts';
import { checkNodeSelector } from '../core/scheduling-validation.ts';
import { checkDriverName } from '../core/volume-validation.ts';
import { checkConditions } from '../machinery/conditions.ts';
import { dnsLabelProblems, ipProblems } from '../machinery/names.ts';
import {
  addForbidden,
  addInvalid,
  addProblems,
  checkUnchanged,
  type Errors,
  eachAt,
  requireOneOf,
  requireText,
} from '../machinery/validation.ts';
import {
  CONFIGURATIONS_MAX,
  checkBindingConditions,
  checkConfiguration,
  checkPoolName,
  checkRaw,
  checkShareId,
  checkSize,
  checkToleration,
  eachOnce,
  eachUpTo,
} from './device-fields.ts';
import { checkRequestName, checkRequestNames, requestNames } from './resource-claim-validation.ts';
import type { AllocatedDeviceStatus, AllocationResult, NetworkDeviceData, ResourceClaim } from './v1.gen.ts';

const CONSUMERS_MAX = 256;
const RESULTS_MAX = 32;
const DEVICE_CONDITIONS_MAX = 8;
const INTERFACE_BYTES_MAX = 256;
const HARDWARE_ADDRESS_BYTES_MAX = 128;
const ADDRESSES_MAX = 16;

const deviceKey = (device: { driver: string; pool: string; device: string; shareID?: string }): string =>
  [device.driver, device.pool, device.device, ...(device.shareID ? [device.shareID] : [])].join('/');

/** What drivers said of devices goes with these; upstream's rule, without which no client that does not know the field could give a claim back. */
export function dropStatusOfGivenBack(claim: ResourceClaim, old: ResourceClaim): void {
  const { status } = claim;
  if (!status?.devices) return;
  const kept = new Set((status.allocation?.devices?.results ?? []).map(deviceKey));
  const gone = new Set((old.status?.allocation?.devices?.results ?? []).map(deviceKey).filter(key => !kept.has(key)));
  const devices = status.devices.filter(device => !gone.has(deviceKey(device)));
  const { devices: _, ...rest } = status;
  claim.status = devices.length > 0 ? { ...rest, devices } : rest;
}

export function validateClaimStatus(claim: ResourceClaim, old: ResourceClaim): Errors {
  const errors: Errors = [];
  const { allocation, reservedFor, devices } = claim.status ?? {};
  const consumers = 'status.reservedFor';
  eachOnce(errors, consumers, reservedFor, {
    key: consumer => consumer.uid,
    max: CONSUMERS_MAX,
    check: (consumer, at) => {
      for (const field of ['resource', 'name', 'uid'] as const) requireText(errors, `${at}.${field}`, consumer[field]);
    },
  });
  const allocated = new Set((allocation?.devices?.results ?? []).map(deviceKey));
  eachOnce(errors, 'status.devices', devices, {
    key: deviceKey,
    check: (device, at) => checkDeviceStatus(errors, at, device, allocated),
  });
  if (reservedFor?.length) {
    const known = new Set((old.status?.reservedFor ?? []).map(({ uid }) => uid));
    if (!allocation) addForbidden(errors, consumers, 'may not be specified when `allocated` is not set');
    else if (claim.metadata.deletionTimestamp && reservedFor.some(({ uid }) => !known.has(uid)))
      addForbidden(
        errors,
        consumers,
        'new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set',
      );
  }
  if (!allocation) return errors;
  if (old.status?.allocation) checkUnchanged(errors, 'status.allocation', allocation, old.status.allocation);
  else checkAllocation(errors, 'status.allocation', allocation, requestNames(claim.spec?.devices));
  return errors;
}

function checkAllocation(
  errors: Errors,
  path: string,
  { devices, nodeSelector }: AllocationResult,
  names: ReadonlySet<string>,
): void {
  const results = `${path}.devices.results`;
  eachUpTo(errors, results, devices?.results, {
    max: RESULTS_MAX,
    check: (result, at) => {
      checkRequestName(errors, `${at}.request`, result.request ?? '', names);
      checkDriverName(errors, `${at}.driver`, result.driver);
      checkPoolName(errors, `${at}.pool`, result.pool);
      addProblems(errors, `${at}.device`, result.device ?? '', dnsLabelProblems(result.device ?? ''));
      checkBindingConditions(errors, at, result);
      eachAt(result.tolerations, `${at}.tolerations`, (toleration, tolerationAt) =>
        checkToleration(errors, tolerationAt, toleration),
      );
      checkShareId(errors, `${at}.shareID`, result.shareID);
    },
  });
  const configs = `${path}.devices.config`;
  eachUpTo(errors, configs, devices?.config, {
    max: 2 * CONFIGURATIONS_MAX,
    check: (config, at) => {
      requireOneOf(errors, `${at}.source`, config.source, ['FromClaim', 'FromClass']);
      checkRequestNames(errors, `${at}.requests`, config.requests, names);
      checkConfiguration(errors, at, config);
    },
  });
  if (nodeSelector) checkNodeSelector(errors, `${path}.nodeSelector`, nodeSelector);
}

function checkDeviceStatus(
  errors: Errors,
  path: string,
  device: AllocatedDeviceStatus,
  allocated: ReadonlySet<string>,
): void {
  checkDriverName(errors, `${path}.driver`, device.driver);
  checkPoolName(errors, `${path}.pool`, device.pool);
  addProblems(errors, `${path}.device`, device.device ?? '', dnsLabelProblems(device.device ?? ''));
  checkShareId(errors, `${path}.shareID`, device.shareID);
  const key = deviceKey(device);
  if (!allocated.has(key)) addInvalid(errors, path, key, 'must be an allocated device in the claim');
  checkSize(errors, `${path}.conditions`, device.conditions, DEVICE_CONDITIONS_MAX);
  checkConditions(errors, `${path}.conditions`, device.conditions);
  if (device.data !== undefined && device.data !== null) checkRaw(errors, `${path}.data`, device.data);
  checkNetworkData(errors, `${path}.networkData`, device.networkData);
}

/** An address with the length of its network: bits of the host are meant, other than in a range. */
function isInterfaceAddress(text: string): boolean {
  const [address = '', length = '', ...more] = text.split('/');
  const isNumber = /^(0|[1-9]\d{0,2})$/.test(length) && more.length === 0;
  return isNumber && ipProblems(address).length === 0 && Number(length) <= (address.includes(':') ? 128 : 32);
}

function checkNetworkData(errors: Errors, path: string, data: NetworkDeviceData | undefined): void {
  for (const [field, max] of [
    ['interfaceName', INTERFACE_BYTES_MAX],
    ['hardwareAddress', HARDWARE_ADDRESS_BYTES_MAX],
  ] as const)
    if (Buffer.byteLength(data?.[field] ?? '') > max) errors.push(fieldErrors.tooLong(`${path}.${field}`, max));
  eachOnce(errors, `${path}.ips`, data?.ips, {
    key: address => address,
    max: ADDRESSES_MAX,
    check: (address, at) => {
      if (!isInterfaceAddress(address))
        addInvalid(errors, at, address, 'must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)');
    },
  });
}
