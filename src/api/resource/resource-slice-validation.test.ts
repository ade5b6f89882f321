/** Slices of drivers, statuses of claims and what both share; one change at a time to a valid object. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Kind } from '../kind.ts';
import type { KubeObject } from '../meta.ts';
import { deviceClass, resourceClaim, resourceClaimTemplate, resourceSlice } from './resource-claim.ts';
import type { ResourceSlice } from './v1.gen.ts';

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
    `${at}.attributes: Invalid value: "a-b": a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'`,
    `${at}.attributes[a-b]: Invalid value: "": exactly one value must be specified`,
    `${at}.attributes: Invalid value: "": the domain must not be empty`,
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
    '….validValues[1]: Invalid value: "1": values must be sorted in ascending order',
    '….validValues[2]: Invalid value: "11": option is larger than capacity value: 10',
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
    'spec.config[1].opaque.parameters: Invalid value: "<value omitted>": must be a valid JSON object',
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
    'spec.devices.constraints[0].matchAttribute: Invalid value: "plain": a fully qualified name must be a domain and a name separated by a slash',
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

test('steps of a range of capacity', () => {
  const range = (validRange: object, standard = '2') =>
    device({
      allowMultipleAllocations: true,
      capacity: { m: { value: '10', requestPolicy: { default: standard, validRange } } },
    }).map(error => error.replace('spec.devices[0].capacity[m].requestPolicy.validRange.', ''));
  assert.deepEqual(range({ min: '2', step: '2', max: '8' }), []);
  assert.deepEqual(range({ min: '2', step: '0' }), ['step: Invalid value: "0": must be greater than zero']);
  assert.deepEqual(range({ min: '2', step: '9' }), [
    'step: Invalid value: "9": one step 11 is larger than capacity value: 10',
  ]);
  assert.deepEqual(range({ min: '2', step: '2', max: '7' }, '5'), [
    'step: Invalid value: "5": value is not a multiple of a given step (2) from (2)',
    'step: Invalid value: "7": value is not a multiple of a given step (2) from (2)',
  ]);
});

test('conditions that a device waits for', () => {
  const of = (bindingConditions: string[], bindingFailureConditions: string[]) =>
    device({ bindingConditions, bindingFailureConditions }).map(error => error.replace('spec.devices[0].', ''));
  const cases: [good: string[], bad: string[], ...expected: string[]][] = [
    [['a', 'b'], ['c']],
    [[], []],
    [['a', 'a'], ['c'], 'bindingConditions[1]: Duplicate value: "a"'],
    [
      ['a'],
      ['a'],
      'bindingFailureConditions[0]: Invalid value: "a": bindingFailureConditions must not overlap with bindingConditions',
    ],
    [
      ['a'],
      [],
      'bindingFailureConditions: Invalid value: []: bindingFailureConditions are required to use bindingConditions',
    ],
    [[], ['a'], 'bindingConditions: Invalid value: []: bindingConditions are required to use bindingFailureConditions'],
    [['a', 'b', 'c', 'd', 'e'], ['f'], 'bindingConditions: Too many: 5: must have at most 4 items'],
  ];
  for (const [good, bad, ...expected] of cases) assert.deepEqual(of(good, bad), expected);
});

test('classes for extended resources, metadata of templates, requests that are concerned', () => {
  assert.deepEqual(check(deviceClass, { extendedResourceName: 'example.com/gpu' }), []);
  assert.deepEqual(check(deviceClass, { extendedResourceName: 'cpu' }), [
    'spec.extendedResourceName: Invalid value: "cpu": must be a valid extended resource name',
  ]);
  const devices = { requests: [{ name: 'r', exactly: { deviceClassName: 'c' } }] };
  assert.deepEqual(check(resourceClaimTemplate, { metadata: { labels: { a: 'b' } }, spec: { devices } }), []);
  assert.deepEqual(
    check(resourceClaimTemplate, { metadata: { name: 'n', labels: { a: '-' } }, spec: { devices } }).map(
      text => text.split(': a valid label')[0],
    ),
    ['spec.metadata.labels: Invalid value: "-"', 'spec.metadata.name: Forbidden: cannot be set'],
  );
  const constraint = (requests: string[]) =>
    check(resourceClaim, { devices: { ...devices, constraints: [{ requests, matchAttribute: 'a.b/c' }] } });
  assert.deepEqual(constraint(['r', 'r']), ['spec.devices.constraints[0].requests[1]: Duplicate value: "r"']);
  assert.deepEqual(constraint(Array.from({ length: 33 }, () => 'r')), [
    'spec.devices.constraints[0].requests: Too many: 33: must have at most 32 items',
  ]);
});

test('shares and tolerations of an allocation', () => {
  const spec = { devices: { requests: [{ name: 'r', exactly: { deviceClassName: 'c' } }] } };
  const allocate = (more: object) =>
    told(
      resourceClaim.validateStatusUpdate!(
        object({
          spec,
          status: {
            allocation: {
              devices: { results: [{ request: 'r', driver: 'd.example', pool: 'p', device: 'gpu', ...more }] },
            },
          },
        }),
        object({ spec, status: {} }),
      ),
    ).map(error => error.replace('status.allocation.devices.results[0].', ''));
  const id = '0f8fad5b-d9cb-469f-a165-70867728950e';
  assert.deepEqual(allocate({ shareID: id, tolerations: [{ key: 'k', operator: 'Exists' }] }), []);
  const form =
    'uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters';
  for (const [shareID, problem] of [
    [id.toUpperCase(), form],
    [id.replaceAll('-', ''), form],
    [`{${id}}`, form],
    [`urn:uuid:${id}`, form],
    ['x', 'error validating uid: invalid UUID length: 1'],
    [id.replace('0f', 'zz'), 'error validating uid: invalid UUID format'],
  ] as const)
    assert.deepEqual(allocate({ shareID }), [`shareID: Invalid value: "${shareID}": ${problem}`]);
  assert.deepEqual(allocate({ tolerations: [{ operator: 'Exists', value: 'v' }] }), [
    'tolerations[0].value: Invalid value: "v": must be empty for operator `Exists`',
  ]);
});

test('a taint without a time has been there since now', () => {
  const taints = [
    { key: 'a', effect: 'NoExecute' },
    { key: 'b', effect: 'NoExecute', timeAdded: '2026-01-01T00:00:00Z' },
  ];
  const slice = { metadata: { name: 's' }, spec: { devices: [{ name: 'd', taints }] } } as unknown as ResourceSlice;
  const beforeMs = Date.now();
  resourceSlice.defaults!(slice);
  const [first, second] = slice.spec.devices![0]!.taints!;
  assert.ok(Math.abs(Date.parse(first!.timeAdded!) - beforeMs) < 5000);
  assert.equal(second!.timeAdded, '2026-01-01T00:00:00Z');
});
