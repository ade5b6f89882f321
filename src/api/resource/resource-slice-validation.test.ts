/** Slices of drivers, statuses of claims and what both share; one change at a time to a valid object. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Kind } from '../kind.ts';
import type { KubeObject } from '../meta.ts';
import { deviceClass, resourceClaim, resourceSlice } from './resource-claim.ts';

const object = (fields: object): KubeObject => ({ metadata: { name: 'x' }, ...fields }) as unknown as KubeObject;
const told = (errors: readonly { readonly field: string; readonly message: string }[]): string[] =>
  errors.map(({ field, message }) => `${field}: ${message.split(' (e.g. ')[0]}`);
const check = (kind: Kind, spec: object): string[] => told(kind.validate!(object({ spec })));

const NO_NAME =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const place = { driver: 'd.example', pool: { name: 'node-1/a', generation: 1, resourceSliceCount: 1 } };
const slice = (fields: object) => check(resourceSlice, { ...place, nodeName: 'n', ...fields });
const device = (fields: object) => slice({ devices: [{ name: 'gpu', ...fields }] });

test('a slice: driver, pool, one way to say where, devices once each', () => {
  assert.deepEqual(slice({ devices: [{ name: 'a' }, { name: 'b' }] }), []);
  assert.deepEqual(check(resourceSlice, { driver: '', pool: { name: '', generation: -1 } }), [
    'spec.driver: Required value',
    `spec.driver: Invalid value: "": ${NO_NAME}`,
    'spec.pool.name: Required value',
    'spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero',
    'spec.pool.generation: Invalid value: -1: must be greater than or equal to zero',
    'spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required',
  ]);
  assert.deepEqual(slice({ allNodes: true, perDeviceNodeSelection: false }), [
    'spec.perDeviceNodeSelection: Invalid value: false: must be either unset or set to true',
    'spec: Invalid value: "{`nodeName`, `allNodes`}": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set',
  ]);
  assert.deepEqual(slice({ devices: [{ name: 'a' }, { name: 'a' }] }), ['spec.devices[1]: Duplicate value: "a"']);
  const many = (count: number, fields: object) =>
    slice({ devices: Array.from({ length: count }, (_, i) => ({ name: `d${i}`, ...fields })) });
  assert.deepEqual(many(129, {}), ['spec.devices: Too many: 129: must have at most 128 items']);
  const taints = [{ key: 'k', effect: 'NoSchedule' }];
  assert.deepEqual(many(65, { taints }), ['spec.devices: Too many: 65: must have at most 64 items']);
});

test('a slice stays with its driver, pool and node', () => {
  const at = (fields: object) => object({ spec: { ...place, nodeName: 'n', ...fields } });
  const change = (fields: object) => told(resourceSlice.validateUpdate!(at(fields), at({})));
  assert.deepEqual(change({ devices: [{ name: 'a' }] }), []);
  assert.deepEqual(change({ driver: 'e.example', nodeName: 'm' }), [
    'spec.driver: Invalid value: "e.example": field is immutable',
    'spec.nodeName: Invalid value: "m": field is immutable',
  ]);
});

test('a device: names and values of attributes, capacity in parts, taints, counters', () => {
  assert.deepEqual(
    device({
      attributes: { a: { int: 1 }, 'x.example/v': { version: '1.2.3-rc.1+b' } },
      capacity: { mem: { value: '1Gi' } },
      taints: [{ key: 'k', value: 'v', effect: 'NoExecute' }],
      consumesCounters: [{ counterSet: 's', counters: { c: { value: '1' } } }],
    }),
    [],
  );
  const at = 'spec.devices[0]';
  assert.deepEqual(device({ attributes: { 'a-b': {}, '/c': { bool: true, string: 'x' }, v: { version: '1.2' } } }), [
    `${at}.attributes[a-b]: Invalid value: "a-b": a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'`,
    `${at}.attributes[a-b]: Invalid value: "": exactly one value must be specified`,
    `${at}.attributes[/c]: Required value: the domain must not be empty`,
    `${at}.attributes[/c]: Invalid value: {"bool":true,"string":"x"}: exactly one value must be specified`,
    `${at}.attributes[v].version: Invalid value: "1.2": must be a string compatible with semver.org spec 2.0.0`,
  ]);
  assert.deepEqual(device({ nodeName: 'n' }), [
    `${at}: Invalid value: null: \`nodeName\`, \`nodeSelector\` and \`allNodes\` can only be set if \`perDeviceNodeSelection\` is set to true in the ResourceSlice spec`,
  ]);
  assert.deepEqual(
    device({ taints: [{ key: '', effect: 'Never' }], consumesCounters: [{ counterSet: 's' }] }).slice(-2),
    [
      `${at}.taints[0].effect: Unsupported value: "Never": supported values: "NoExecute", "NoSchedule", "None"`,
      `${at}.consumesCounters[0].counters: Required value`,
    ],
  );
  const capacity = (requestPolicy: object, allowMultipleAllocations = true) =>
    device({ allowMultipleAllocations, capacity: { m: { value: '10', requestPolicy } } }).map(error =>
      error.replace(`${at}.capacity[m].requestPolicy`, '…'),
    );
  assert.deepEqual(capacity({ default: '1' }, false), ['…: Forbidden: allowMultipleAllocations must be true']);
  assert.deepEqual(capacity({ default: '2', validValues: ['2', '1', '11'] }), [
    '….validValues[2]: Invalid value: "11": option is larger than capacity value: 10',
    '….validValues[1]: Invalid value: "1": values must be sorted in ascending order',
  ]);
  assert.deepEqual(capacity({ default: '1', validRange: { min: '2', max: '12' } }), [
    '….validRange.min: Invalid value: "1": default is less than min: 2',
    '….validRange.max: Invalid value: "12": max is larger than capacity value: 10',
  ]);
});

test('a class, and a claim beside its requests', () => {
  const opaque = { driver: 'd.example', parameters: { a: 1 } };
  assert.deepEqual(check(deviceClass, { config: [{ opaque }] }), []);
  assert.deepEqual(check(deviceClass, { config: [{}, { opaque: { driver: 'd.example', parameters: [] } }] }), [
    'spec.config[0].opaque: Required value',
    'spec.config[1].opaque.parameters: Invalid value: "<value omitted>": parameters must be a valid JSON object',
  ]);
  const claim = (wish: object, fields: object = {}) =>
    check(resourceClaim, {
      devices: { requests: [{ name: 'r', exactly: { deviceClassName: 'c', ...wish } }], ...fields },
    });
  assert.deepEqual(
    claim({ tolerations: [{ key: 'k', operator: 'Exists' }] }, { config: [{ requests: ['r'], opaque }] }),
    [],
  );
  assert.deepEqual(claim({ allocationMode: 'All', count: 2, tolerations: [{ operator: 'Exists', value: 'v' }] }), [
    "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
    'spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: "v": must be empty for operator `Exists`',
  ]);
  assert.deepEqual(claim({}, { constraints: [{ requests: ['r/x'], matchAttribute: 'plain' }] }), [
    'spec.devices.constraints[0].requests[0]: Invalid value: "r/x": must be the name of a request in the claim or the name of a request and a subrequest separated by \'/\'',
    'spec.devices.constraints[0].matchAttribute: Invalid value: "plain": must include a domain',
  ]);
});

test('the status of a claim: an allocation stays, consumers need one, drivers speak of its devices', () => {
  const spec = { devices: { requests: [{ name: 'r', exactly: { deviceClassName: 'c' } }] } };
  const result = { request: 'r', driver: 'd.example', pool: 'p', device: 'gpu' };
  const allocation = { devices: { results: [result] } };
  const user = (uid: string) => ({ resource: 'pods', name: 'p', uid });
  const change = (status: object, old: object = {}, metadata: object = {}) =>
    told(
      resourceClaim.validateStatusUpdate!(
        object({ metadata: { name: 'x', ...metadata }, spec, status }),
        object({ spec, status: old }),
      ),
    );
  const { request: _, ...named } = result;
  assert.deepEqual(
    change({ allocation, reservedFor: [user('1')], devices: [{ ...named, networkData: { ips: ['10.0.0.1/24'] } }] }),
    [],
  );
  assert.deepEqual(change({ reservedFor: [user('1'), user('1'), {}] }), [
    'status.reservedFor[2].resource: Required value',
    'status.reservedFor[2].name: Required value',
    'status.reservedFor[2].uid: Required value',
    'status.reservedFor[1]: Duplicate value: "1"',
    'status.reservedFor: Forbidden: may not be specified when `allocated` is not set',
  ]);
  assert.match(
    change({ allocation: { devices: { results: [] } } }, { allocation })[0]!,
    /^status\.allocation: .*field is immutable$/,
  );
  const going = { deletionTimestamp: '2026-01-01T00:00:00Z' };
  assert.deepEqual(
    change({ allocation, reservedFor: [user('1')] }, { allocation, reservedFor: [user('1')] }, going),
    [],
  );
  assert.deepEqual(
    change({ allocation, reservedFor: [user('1'), user('2')] }, { allocation, reservedFor: [user('1')] }, going),
    [
      'status.reservedFor: Forbidden: new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set',
    ],
  );
  assert.deepEqual(change({ allocation, devices: [{ ...named, device: 'other', networkData: { ips: ['x'] } }] }), [
    'status.devices[0]: Invalid value: "d.example/p/other": must be an allocated device in the claim',
    'status.devices[0].networkData.ips[0]: Invalid value: "x": must be a valid address in CIDR form,',
  ]);
  assert.deepEqual(change({ allocation: { devices: { results: [{ ...result, request: 'other', driver: '' }] } } }), [
    'status.allocation.devices.results[0].request: Invalid value: "other": must be the name of a request in the claim or the name of a request and a subrequest separated by \'/\'',
    'status.allocation.devices.results[0].driver: Required value',
    `status.allocation.devices.results[0].driver: Invalid value: "": ${NO_NAME}`,
  ]);
});
