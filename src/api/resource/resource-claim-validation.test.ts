import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resourceClaim } from './resource-claim.ts';
import { checkDeviceClaim, defaultDeviceClaim } from './resource-claim-validation.ts';
import type { DeviceClaim, ResourceClaim } from './v1.gen.ts';

const fields = (claim: object) =>
  checkDeviceClaim('d', claim as DeviceClaim).map(({ field, type }) => `${field} ${type}`);

test('requests for devices: names, one kind, rules that compile, constraints of requests there are', () => {
  const good = {
    name: 'a',
    exactly: { deviceClassName: 'c', selectors: [{ cel: { expression: 'device.driver == "x"' } }] },
  };
  assert.deepEqual(fields({ requests: [good], constraints: [{ requests: ['a'], matchAttribute: 'x/y' }] }), []);
  assert.deepEqual(fields({ requests: [good, good] }), ['d.requests[1] FieldValueDuplicate']);
  assert.deepEqual(fields({ requests: [{ name: 'a' }] }), ['d.requests[0] FieldValueRequired']);
  assert.deepEqual(fields({ requests: [{ name: 'A_', exactly: { deviceClassName: '' } }] }), [
    'd.requests[0].name FieldValueInvalid',
    'd.requests[0].exactly.deviceClassName FieldValueRequired',
  ]);
  const broken = {
    name: 's',
    deviceClassName: 'c',
    allocationMode: 'Some',
    selectors: [{ cel: { expression: 'device.' } }],
  };
  assert.deepEqual(fields({ requests: [{ name: 'a', firstAvailable: [broken] }] }), [
    'd.requests[0].firstAvailable[0].selectors[0].cel.expression FieldValueInvalid',
    'd.requests[0].firstAvailable[0].allocationMode FieldValueNotSupported',
  ]);
  assert.deepEqual(fields({ requests: [good], constraints: [{ requests: ['b'] }] }), [
    'd.constraints[0].requests[0] FieldValueInvalid',
    'd.constraints[0] FieldValueRequired',
  ]);
});

test('one device where nothing else is said', () => {
  const claim = { requests: [{ name: 'a', exactly: { deviceClassName: 'c' } }] } as DeviceClaim;
  defaultDeviceClaim(claim);
  assert.deepEqual(claim.requests![0]!.exactly, { deviceClassName: 'c', allocationMode: 'ExactCount', count: 1 });
});

test('what drivers said of devices goes with these', () => {
  const of = (device: string) => ({ driver: 'd', pool: 'p', device });
  const claim = (allocated: string[], said: string[]) =>
    ({
      metadata: { name: 'c' },
      spec: {},
      status: {
        ...(allocated.length
          ? { allocation: { devices: { results: allocated.map(one => ({ request: 'r', ...of(one) })) } } }
          : {}),
        ...(said.length ? { devices: said.map(of) } : {}),
      },
    }) as ResourceClaim;
  const left = (next: ResourceClaim, old: ResourceClaim) => {
    resourceClaim.settleStatus!(next, old, 0);
    return next.status?.devices?.map(({ device }) => device);
  };
  assert.equal(left(claim([], ['a']), claim(['a'], ['a'])), undefined);
  assert.deepEqual(left(claim(['b'], ['a', 'b']), claim(['a', 'b'], [])), ['b']);
  // Of what never was allocated, validation speaks.
  assert.deepEqual(left(claim(['a'], ['a', 'x']), claim(['a'], ['a'])), ['a', 'x']);
});
