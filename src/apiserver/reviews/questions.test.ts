/** Bodies of requests that are answered and not stored: they are decoded and checked as those of objects. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type Bed, openBed, type Reply } from '../who-bed.ts';

let bed: Bed;
before(async () => {
  bed = await openBed(() => []);
  await bed.root.create(
    { of: { group: '', version: 'v1', resource: 'serviceaccounts' }, namespace: 'default' },
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default' } },
  );
});
after(() => bed.close());

const REVIEWS = '/apis/authorization.k8s.io/v1';
const AUTHENTICATION = '/apis/authentication.k8s.io/v1';
const DEFAULT = '/api/v1/namespaces/default';
const ask = (path: string, body: object): Promise<Reply> => bed.ask({ path, as: bed.admin, body });
const resourceAttributes = { verb: 'get', resource: 'pods' };

test('an answer has its kind, also where the question did not say it', async () => {
  assert.deepEqual((await ask(`${REVIEWS}/selfsubjectaccessreviews`, { spec: { resourceAttributes } })).json, {
    kind: 'SelfSubjectAccessReview',
    apiVersion: 'authorization.k8s.io/v1',
    metadata: {},
    spec: { resourceAttributes },
    status: { allowed: true },
  });
  const local = await ask(`${REVIEWS}/namespaces/default/localsubjectaccessreviews`, {
    spec: { user: 'bob', resourceAttributes: { ...resourceAttributes, namespace: 'default' } },
  });
  assert.deepEqual([local.json.kind, local.json.metadata], ['LocalSubjectAccessReview', { namespace: 'default' }]);
  const token = await ask(`${AUTHENTICATION}/tokenreviews`, { spec: { token: 'abc' } });
  assert.equal(token.json.kind, 'TokenReview');
  assert.deepEqual(token.json.status, { user: {}, error: 'invalid bearer token' });
  const { kind, metadata, status } = (await ask(`${AUTHENTICATION}/selfsubjectreviews`, {})).json;
  assert.deepEqual([kind, status.userInfo.username], ['SelfSubjectReview', 'admin']);
  assert.match(metadata.creationTimestamp, /^\d{4}-/);
  const issued = await ask(`${DEFAULT}/serviceaccounts/default/token`, {});
  assert.deepEqual([issued.status, issued.json.kind], [201, 'TokenRequest']);
});

test('fields: of a wrong type they are refused, unknown ones warned of and not sent back', async () => {
  const path = `${REVIEWS}/selfsubjectaccessreviews`;
  const wrong = await ask(path, { spec: { resourceAttributes: { verb: 5 } } });
  assert.equal(wrong.status, 400);
  assert.match(
    wrong.json.message,
    /^SelfSubjectAccessReview in version "v1" cannot be handled as a SelfSubjectAccessReview: json: cannot unmarshal number /,
  );
  const unknown = await ask(path, { foo: 1, spec: { resourceAttributes: { ...resourceAttributes, bar: 2 } } });
  assert.deepEqual(unknown.json.spec, { resourceAttributes });
  assert.match(String(unknown.headers['warning']), /unknown field \\"foo\\"/);
  assert.match(
    (await ask(`${DEFAULT}/serviceaccounts/default/token`, { spec: 5 })).json.message,
    /^TokenRequest in version/,
  );
  assert.match((await ask(`${DEFAULT}/pods/x/binding`, { target: 5 })).json.message, /^Binding in version "v1"/);
});

test('a body of another kind is refused', async () => {
  const scheme = 'in scheme "pkg/api/legacyscheme/scheme.go:30"';
  const refusals = [
    [
      `${REVIEWS}/selfsubjectaccessreviews`,
      { apiVersion: 'authorization.k8s.io/v1', kind: 'SubjectAccessReview' },
      'SubjectAccessReview in version "v1" cannot be handled as a SelfSubjectAccessReview: converting (v1.SubjectAccessReview) to (authorization.SelfSubjectAccessReview): unknown conversion',
    ],
    [
      `${DEFAULT}/pods/x/eviction`,
      { apiVersion: 'v1', kind: 'Foo' },
      `Foo in version "v1" cannot be handled as a Eviction: no kind "Foo" is registered for version "v1" ${scheme}`,
    ],
    [
      `${DEFAULT}/configmaps`,
      { apiVersion: 'v2', kind: 'ConfigMap' },
      `ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "v2" ${scheme}`,
    ],
    [
      `${DEFAULT}/configmaps`,
      { apiVersion: 'v1', kind: 'Secret' },
      'Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion',
    ],
    [
      '/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers',
      { apiVersion: 'autoscaling/v1', kind: 'HorizontalPodAutoscaler' },
      'the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)',
    ],
    [
      `${DEFAULT}/events`,
      { apiVersion: 'events.k8s.io/v1', kind: 'Event' },
      'the API version in the data (events.k8s.io/v1) does not match the expected API version (v1)',
    ],
  ] as const;
  for (const [path, body, message] of refusals) {
    const { json } = await ask(path, { ...body, metadata: { name: 'x' } });
    assert.deepEqual([json.code, json.message], [400, message], path);
  }
  // The older version of an eviction is taken for the newer one.
  const evicted = await ask(`${DEFAULT}/pods/x/eviction`, {
    apiVersion: 'policy/v1beta1',
    kind: 'Eviction',
    metadata: { name: 'x' },
  });
  assert.equal(evicted.json.message, 'pods "x" not found');
});

test('metadata of a question: none, and no other namespace', async () => {
  const named = await ask(`${REVIEWS}/selfsubjectaccessreviews`, {
    metadata: { name: 'a', namespace: 'b' },
    spec: { resourceAttributes },
  });
  assert.equal(
    named.json.message,
    '.authorization.k8s.io "" is invalid: metadata: Invalid value: {"name":"a"}: must be empty',
  );
  assert.deepEqual(Object.keys(named.json.details), ['group', 'causes']);
  const elsewhere = await ask(`${REVIEWS}/namespaces/default/localsubjectaccessreviews`, {
    metadata: { namespace: 'b' },
    spec: { user: 'bob', resourceAttributes },
  });
  assert.equal(
    elsewhere.json.message,
    'the namespace of the provided object does not match the namespace sent on the request',
  );
  const short = await ask(`${DEFAULT}/serviceaccounts/default/token`, { spec: { expirationSeconds: 1 } });
  assert.match(short.json.message, /^TokenRequest.authentication.k8s.io "" is invalid: /);
});
