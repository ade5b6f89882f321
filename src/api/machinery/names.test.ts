import assert from 'node:assert/strict';
import test from 'node:test';
import { ageSince, humanDuration } from './duration.ts';
import { semanticEqual } from './equality.ts';
import { rollingUpdateBounds, scaledValue } from './int-or-string.ts';
import { validateObjectMeta, validateObjectMetaUpdate } from './metadata.ts';
import {
  cidrProblems,
  configKeyProblems,
  dns1035LabelProblems,
  dnsLabelProblems,
  dnsSubdomainProblems,
  ipProblems,
  labelName,
  pathSegmentProblems,
  portNameProblems,
  portNumberProblems,
  wildcardSubdomainProblems,
} from './names.ts';

test('names', () => {
  assert.deepEqual(dnsLabelProblems('my-name'), []);
  assert.deepEqual(dnsLabelProblems('My'), [
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
  ]);
  assert.deepEqual(dnsLabelProblems('a.b'), ['must not contain dots']);
  assert.deepEqual(dnsLabelProblems('a'.repeat(64)), ['must be no more than 63 bytes']);
  assert.deepEqual(dnsSubdomainProblems('a.b-c.d'), []);
  assert.match(dnsSubdomainProblems('a..b')[0]!, /^a lowercase RFC 1123 subdomain must consist/);
  assert.match(
    dns1035LabelProblems('1a')[0]!,
    /^a DNS-1035 label must consist of .* \(e\.g\. 'my-name', {2}or 'abc-123', regex used for validation is '\[a-z\]/,
  );
  assert.deepEqual(wildcardSubdomainProblems('*.example.com'), []);
  assert.deepEqual(pathSegmentProblems('a/b%'), ["may not contain '/'", "may not contain '%'"]);
  assert.deepEqual(pathSegmentProblems('..'), ["may not be '..'"]);
  assert.deepEqual(labelName('web-', true), []);
  assert.equal(labelName('web-', false).length, 1);
  assert.deepEqual(portNameProblems('http'), []);
  assert.deepEqual(portNameProblems('80'), ['must contain at least one letter (a-z)']);
  assert.deepEqual(portNameProblems('a--b'), ['must not contain consecutive hyphens']);
  assert.deepEqual(portNumberProblems(0), ['must be between 1 and 65535, inclusive']);
  assert.deepEqual(configKeyProblems('..data'), ["must not start with '..'"]);
  assert.deepEqual(ipProblems('10.0.0.1'), []);
  assert.equal(ipProblems('10.0.0.01').length, 1);
  assert.deepEqual(cidrProblems('10.0.0.0/8'), []);
  assert.equal(cidrProblems('10.0.0.0/33').length, 1);
});

test('ages', () => {
  const cases: [number, string][] = [
    [-3, '<invalid>'],
    [0, '0s'],
    [119, '119s'],
    [120, '2m'],
    [310, '5m10s'],
    [600, '10m'],
    [3 * 3600, '3h'],
    [3 * 3600 + 300, '3h5m'],
    [10 * 3600, '10h'],
    [51 * 3600, '2d3h'],
    [48 * 3600, '2d'],
    [9 * 86400, '9d'],
    [800 * 86400, '2y70d'],
    [9 * 365 * 86400, '9y'],
  ];
  for (const [seconds, text] of cases) assert.equal(humanDuration(seconds * 1000), text);
  assert.equal(ageSince(undefined, 0), '<unknown>');
});

test('scaled values', () => {
  assert.equal(scaledValue('25%', 4, 'up'), 1);
  assert.equal(scaledValue('25%', 3, 'down'), 0);
  assert.equal(scaledValue('25%', 3, 'up'), 1);
  assert.equal(scaledValue('100%', 7, 'up'), 7);
  assert.equal(scaledValue('x', 7, 'up'), undefined);
  assert.deepEqual(rollingUpdateBounds({ maxSurge: '25%', maxUnavailable: '25%', replicas: 3 }), {
    maxSurge: 1,
    maxUnavailable: 0,
  });
  assert.deepEqual(rollingUpdateBounds({ maxSurge: 0, maxUnavailable: '25%', replicas: 1 }), {
    maxSurge: 0,
    maxUnavailable: 1,
  });
});

test('equality', () => {
  assert.ok(semanticEqual({ a: [], b: { c: 1 } }, { b: { c: 1 } }));
  assert.ok(semanticEqual({ a: null }, {}));
  assert.ok(!semanticEqual({ emptyDir: {} }, {}));
  assert.ok(!semanticEqual({ a: '' }, {}));
  assert.ok(!semanticEqual([1, 2], [2, 1]));
});

test('metadata', () => {
  const texts = (errors: { field: string; message: string }[]): string[] =>
    errors.map(error => `${error.field}: ${error.message}`);
  assert.deepEqual(texts(validateObjectMeta({ name: '' }, { namespaced: true })), [
    'metadata.name: Required value: name or generateName is required',
    'metadata.namespace: Required value',
  ]);
  assert.deepEqual(texts(validateObjectMeta({ name: 'a', namespace: 'x' }, { namespaced: false })), [
    'metadata.namespace: Forbidden: not allowed on this type',
  ]);
  assert.deepEqual(texts(validateObjectMeta({ name: 'a', finalizers: ['mine'] }, { namespaced: false })), [
    'metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified',
  ]);
  assert.equal(
    validateObjectMeta({ name: 'a', annotations: { big: 'x'.repeat(262_144) } }, { namespaced: false })[0]!.message,
    'Too long: may not be more than 262144 bytes',
  );
  const old = { name: 'a', uid: '1', resourceVersion: '5', deletionTimestamp: 't', finalizers: ['a.io/b'] };
  assert.deepEqual(texts(validateObjectMetaUpdate({ ...old, uid: '2', finalizers: ['a.io/b', 'a.io/c'] }, old)), [
    'metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"a.io/c"}',
    'metadata.uid: Invalid value: "2": field is immutable',
  ]);
});
