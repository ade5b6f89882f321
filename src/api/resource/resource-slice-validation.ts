/** What must hold of a slice that a driver publishes: where its devices are, what they have, and what they use of counters that they share. Pure. */

import { fieldErrors } from '../../base/errors.ts';
import { checkNodeSelector } from '../core/scheduling-validation.ts';
import { checkDriverName } from '../core/volume-validation.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { dnsLabelProblems, dnsSubdomainProblems } from '../machinery/names.ts';
import { compareQuantity, formatNano, parseNano, quantityValue } from '../machinery/quantity.ts';
import {
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  checkUnchanged,
  type Errors,
} from '../machinery/validation.ts';
import {
  checkBindingConditions,
  checkPoolName,
  checkQualifiedName,
  checkSize,
  checkTaint,
  eachOnce,
  eachUpTo,
} from './device-fields.ts';
import type {
  CapacityRequestPolicy,
  Counter,
  Device,
  DeviceAttribute,
  ResourceSlice,
  ResourceSliceSpec,
} from './v1.gen.ts';

const DEVICES_MAX = 128;
/** Where taints or counters make each device larger. */
const LARGE_DEVICES_MAX = 64;
const VALUES_MAX = 32;
const VALUE_BYTES_MAX = 64;
const TAINTS_MAX = 16;
const COUNTER_SETS_MAX = 8;
const COUNTERS_MAX = 32;
const CONSUMPTIONS_MAX = 2;
const VALID_VALUES_MAX = 10;
const ONE_NODE_WAY = 'exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required';
const ONE_DEVICE_WAY =
  'exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec';
const NUMBER = '(0|[1-9]\\d*)';
const PRERELEASE = '(0|[1-9]\\d*|\\d*[a-zA-Z-][0-9a-zA-Z-]*)';
const SEMANTIC_VERSION = new RegExp(
  `^${NUMBER}\\.${NUMBER}\\.${NUMBER}(-${PRERELEASE}(\\.${PRERELEASE})*)?(\\+[0-9a-zA-Z-]+(\\.[0-9a-zA-Z-]+)*)?$`,
);

/** `old` for an update, which may not move the slice to another driver, pool or node. */
export function validateResourceSlice({ spec }: ResourceSlice, old?: ResourceSlice): Errors {
  const errors: Errors = [];
  if (!spec) {
    addRequired(errors, 'spec');
    return errors;
  }
  checkDriverName(errors, 'spec.driver', spec.driver);
  checkPoolName(errors, 'spec.pool.name', spec.pool?.name);
  const { resourceSliceCount = 0, generation = 0 } = spec.pool ?? {};
  if (resourceSliceCount <= 0)
    addInvalid(errors, 'spec.pool.resourceSliceCount', resourceSliceCount, 'must be greater than zero');
  if (generation < 0) addInvalid(errors, 'spec.pool.generation', generation, 'must be greater than or equal to zero');
  if (old) {
    checkUnchanged(errors, 'spec.pool.name', spec.pool?.name, old.spec?.pool?.name);
    checkUnchanged(errors, 'spec.driver', spec.driver, old.spec?.driver);
    checkUnchanged(errors, 'spec.nodeName', spec.nodeName, old.spec?.nodeName);
  }
  checkNodes(errors, spec);
  if (spec.sharedCounters && spec.devices)
    addInvalid(errors, 'spec', '', 'only one of `sharedCounters` or `devices` is allowed');
  const isLarge = spec.devices?.some(device => device.taints?.length || device.consumesCounters?.length);
  eachOnce(errors, 'spec.devices', spec.devices, {
    key: device => device.name,
    max: isLarge ? LARGE_DEVICES_MAX : DEVICES_MAX,
    check: (device, at) => {
      const before = old?.spec?.devices?.find(({ name }) => name === device.name);
      checkDevice(errors, at, device, { before, ownNodes: spec.perDeviceNodeSelection === true });
    },
  });
  eachOnce(errors, 'spec.sharedCounters', spec.sharedCounters, {
    key: set => set.name,
    max: COUNTER_SETS_MAX,
    check: (set, at) => checkCounters(errors, at, { field: 'name', name: set.name }, set.counters),
  });
  return errors;
}

function checkNodes(errors: Errors, spec: ResourceSliceSpec): void {
  const ways: string[] = [];
  if (spec.nodeName !== undefined) {
    if (spec.nodeName) {
      ways.push('`nodeName`');
      addProblems(errors, 'spec.nodeName', spec.nodeName, dnsSubdomainProblems(spec.nodeName));
    } else addInvalid(errors, 'spec.nodeName', '', 'must be either unset or set to a non-empty string');
  }
  if (spec.nodeSelector) {
    ways.push('`nodeSelector`');
    checkNodeSelector(errors, 'spec.nodeSelector', spec.nodeSelector);
    const terms = spec.nodeSelector.nodeSelectorTerms ?? [];
    if (terms.length !== 1)
      addInvalid(errors, 'spec.nodeSelector.nodeSelectorTerms', terms, 'must have exactly one node selector term');
  }
  for (const field of ['allNodes', 'perDeviceNodeSelection'] as const)
    if (spec[field]) ways.push(`\`${field}\``);
    else if (spec[field] === false) addInvalid(errors, `spec.${field}`, false, 'must be either unset or set to true');
  if (ways.length === 0) addRequired(errors, 'spec', ONE_NODE_WAY);
  if (ways.length > 1)
    addInvalid(errors, 'spec', `{${ways.join(', ')}}`, `${ONE_NODE_WAY}, but multiple fields are set`);
}

function checkDevice(
  errors: Errors,
  path: string,
  device: Device,
  { before, ownNodes }: { readonly before: Device | undefined; readonly ownNodes: boolean },
): void {
  addProblems(errors, `${path}.name`, device.name ?? '', dnsLabelProblems(device.name ?? ''));
  const { attributes = {}, capacity = {} } = device;
  const count = Object.keys(attributes).length + Object.keys(capacity).length;
  if (count > VALUES_MAX)
    addInvalid(errors, path, count, `the total number of attributes and capacities must not exceed ${VALUES_MAX}`);
  for (const [name, attribute] of Object.entries(attributes)) {
    checkQualifiedName(errors, `${path}.attributes`, name);
    checkAttribute(errors, `${path}.attributes[${name}]`, attribute);
  }
  for (const [name, { value, requestPolicy }] of Object.entries(capacity)) {
    const at = `${path}.capacity[${name}]`;
    checkQualifiedName(errors, `${path}.capacity`, name);
    if (!requestPolicy) continue;
    if (device.allowMultipleAllocations) checkRequestPolicy(errors, `${at}.requestPolicy`, requestPolicy, value);
    else addForbidden(errors, `${at}.requestPolicy`, 'allowMultipleAllocations must be true');
  }
  if (!semanticEqual(before?.taints, device.taints))
    eachUpTo(errors, `${path}.taints`, device.taints, {
      max: TAINTS_MAX,
      check: (taint, at) => checkTaint(errors, at, taint),
    });
  eachOnce(errors, `${path}.consumesCounters`, device.consumesCounters, {
    key: consumption => consumption.counterSet,
    max: CONSUMPTIONS_MAX,
    check: ({ counterSet, counters }, at) =>
      checkCounters(errors, at, { field: 'counterSet', name: counterSet }, counters),
  });
  checkDeviceNodes(errors, path, device, ownNodes);
  checkBindingConditions(errors, path, device);
}

function checkDeviceNodes(errors: Errors, path: string, device: Device, ownNodes: boolean): void {
  const { nodeName, nodeSelector, allNodes } = device;
  if (!ownNodes) {
    if (nodeName !== undefined || nodeSelector || allNodes !== undefined)
      addInvalid(
        errors,
        path,
        null,
        '`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec',
      );
    return;
  }
  const ways: string[] = [];
  if (nodeName) {
    ways.push('`nodeName`');
    addProblems(errors, `${path}.nodeName`, nodeName, dnsSubdomainProblems(nodeName));
  } else if (nodeName === '') addInvalid(errors, `${path}.nodeName`, '', 'must not be empty');
  if (nodeSelector) {
    ways.push('`nodeSelector`');
    checkNodeSelector(errors, `${path}.nodeSelector`, nodeSelector);
  }
  if (allNodes) ways.push('`allNodes`');
  else if (allNodes === false) addInvalid(errors, `${path}.allNodes`, false, 'must be either unset or set to true');
  if (ways.length === 0) addRequired(errors, path, ONE_DEVICE_WAY);
  if (ways.length > 1) addInvalid(errors, path, `{${ways.join(', ')}}`, ONE_DEVICE_WAY);
}

function checkAttribute(errors: Errors, path: string, attribute: DeviceAttribute): void {
  const { string, version } = attribute;
  if (string !== undefined && Buffer.byteLength(string) > VALUE_BYTES_MAX)
    errors.push(fieldErrors.tooLong(`${path}.string`, VALUE_BYTES_MAX));
  if (version !== undefined) {
    if (!SEMANTIC_VERSION.test(version))
      addInvalid(errors, `${path}.version`, version, 'must be a string compatible with semver.org spec 2.0.0');
    if (Buffer.byteLength(version) > VALUE_BYTES_MAX)
      errors.push(fieldErrors.tooLong(`${path}.version`, VALUE_BYTES_MAX));
  }
  const count = Object.keys(attribute).length;
  if (count !== 1) addInvalid(errors, path, count ? attribute : '', 'exactly one value must be specified');
}

function checkCounters(
  errors: Errors,
  path: string,
  { field, name }: { readonly field: string; readonly name: string | undefined },
  counters: Readonly<Record<string, Counter>> | undefined,
): void {
  if (name) addProblems(errors, `${path}.${field}`, name, dnsLabelProblems(name));
  else addRequired(errors, `${path}.${field}`);
  const names = Object.keys(counters ?? {});
  if (names.length === 0) addRequired(errors, `${path}.counters`);
  if (!checkSize(errors, `${path}.counters`, names, COUNTERS_MAX)) return;
  for (const counter of names) addProblems(errors, `${path}.counters`, counter, dnsLabelProblems(counter));
}

/** Which parts of a capacity may be asked for: some values, or steps of a range. */
function checkRequestPolicy(errors: Errors, path: string, policy: CapacityRequestPolicy, capacity: string): void {
  const { validValues = [], validRange: range, default: standard } = policy;
  const isMore = (a: string, b: string) => compareQuantity(a, b) > 0;
  if (validValues.length > 0 && range)
    return addForbidden(
      errors,
      path,
      'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time',
    );
  const which = validValues.length > 0 ? 'validValues' : 'validRange';
  if (validValues.length === 0 && !range) return;
  if (standard === undefined) return addRequired(errors, `${path}.default`, `required when ${which} is defined`);
  const at = `${path}.${which}`;
  if (!range) {
    validValues.forEach((value, index) => {
      if (index > 0 && isMore(validValues[index - 1]!, value))
        addInvalid(errors, `${at}[${index}]`, value, 'values must be sorted in ascending order');
    });
    eachOnce(errors, at, validValues, {
      key: value => String(quantityValue(value)),
      max: VALID_VALUES_MAX,
      check: (value, valueAt) => {
        if (isMore(value, capacity))
          addInvalid(errors, valueAt, value, `option is larger than capacity value: ${capacity}`);
      },
    });
    if (!validValues.some(value => compareQuantity(value, standard) === 0))
      addInvalid(errors, at, standard, 'default value is not valid according to the requestPolicy');
    return;
  }
  const { min, max, step } = range;
  if (min === undefined) return addRequired(errors, `${at}.min`, 'required when validRange is defined');
  if (isMore(min, capacity)) addInvalid(errors, `${at}.min`, min, `min is larger than capacity value: ${capacity}`);
  if (isMore(min, standard)) addInvalid(errors, `${at}.min`, standard, `default is less than min: ${min}`);
  if (max !== undefined) {
    if (isMore(min, max)) addInvalid(errors, `${at}.max`, min, `min is larger than max: ${max}`);
    if (isMore(max, capacity)) addInvalid(errors, `${at}.max`, max, `max is larger than capacity value: ${capacity}`);
    if (isMore(standard, max)) addInvalid(errors, `${at}.max`, standard, `default is more than max: ${max}`);
  }
  if (step !== undefined)
    checkStep(errors, `${at}.step`, step, { min, capacity, values: max === undefined ? [standard] : [standard, max] });
}

/** There is room for a step, and `values` are whole steps from `min`. */
function checkStep(
  errors: Errors,
  path: string,
  step: string,
  { min, capacity, values }: { readonly min: string; readonly capacity: string; readonly values: readonly string[] },
): void {
  const size = parseNano(step) ?? 0n;
  if (size <= 0n) return addInvalid(errors, path, step, 'must be greater than zero');
  const first = formatNano((parseNano(min) ?? 0n) + size, min.endsWith('i') ? 'binary' : 'decimal');
  if (compareQuantity(first, capacity) > 0)
    addInvalid(errors, path, step, `one step ${first} is larger than capacity value: ${capacity}`);
  for (const value of values)
    if ((quantityValue(value) - quantityValue(min)) % quantityValue(step) !== 0)
      addInvalid(errors, path, value, `value is not a multiple of a given step (${step}) from (${min})`);
}
