import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import fc from 'fast-check';
import { checkFields, duplicateFields, normalize, prune, settle } from './structural.ts';

const deployment = 'apps.v1.Deployment';
const mismatch = (type: string, object: unknown) => checkFields(type, object, 'Ignore').mismatch;

test('unknown fields are named by their path', () => {
  const object = {
    kind: 'Deployment',
    foo: 1,
    metadata: { name: 'a', labels: { anything: 'goes' } },
    spec: { template: { spec: { containers: [{ name: 'c' }, { name: 'd', imagePolicy: 'x' }] } }, bar: {} },
  };
  assert.deepEqual(checkFields(deployment, object, 'Strict').strict, [
    'unknown field "foo"',
    'unknown field "spec.template.spec.containers[1].imagePolicy"',
    'unknown field "spec.bar"',
  ]);
  assert.deepEqual(checkFields(deployment, object, 'Ignore').strict, []);
});

test('inlined fields are known, raw fields take anything, map keys are in the path', () => {
  const probe = { livenessProbe: { httpGet: { port: 80 }, periodSeconds: 1 } };
  assert.deepEqual(checkFields('core.v1.Container', probe, 'Strict').strict, []);
  const revision = { data: { any: { thing: [1] } }, revision: 1 };
  assert.deepEqual(checkFields('apps.v1.ControllerRevision', revision, 'Strict'), { strict: [] });
  const schema = { properties: { a: { type: 'string', typo: 1 } } };
  const { strict } = checkFields('apiextensions.v1.JSONSchemaProps', schema, 'Strict');
  assert.deepEqual(strict, ['unknown field "properties.a.typo"']);
});

test('values of the wrong type are refused in the words of Go', () => {
  const cases: [string, unknown, string][] = [
    [
      deployment,
      { spec: { replicas: 'two' } },
      'json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32',
    ],
    [
      deployment,
      { spec: { template: { spec: { containers: [{ name: 5 }] } } } },
      'json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.name of type string',
    ],
    [
      'core.v1.ConfigMap',
      { metadata: { labels: { a: true } } },
      'json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string',
    ],
    [
      'core.v1.Pod',
      { spec: { containers: {} } },
      'json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container',
    ],
    ['core.v1.Pod', { spec: [] }, 'json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec'],
    ['core.v1.Pod', 'text', 'json: cannot unmarshal string into Go value of type v1.Pod'],
    [
      deployment,
      { spec: { replicas: 1.5 } },
      'json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32',
    ],
    [
      deployment,
      { spec: { replicas: 2 ** 31 } },
      'json: cannot unmarshal number 2147483648 into Go struct field DeploymentSpec.spec.replicas of type int32',
    ],
    [
      'apiextensions.v1.JSONSchemaProps',
      { properties: { a: { type: 1 } } },
      'json: cannot unmarshal number into Go struct field JSONSchemaProps.properties.type of type string',
    ],
    ['core.v1.ServicePort', { targetPort: true }, 'json: cannot unmarshal bool into Go value of type int32'],
    ['core.v1.Secret', { data: { a: 'not base64!' } }, 'illegal base64 data at input byte 3'],
    [
      'core.v1.ResourceRequirements',
      { limits: { cpu: 'lots' } },
      "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    ],
    [
      'core.v1.Pod',
      { metadata: { deletionTimestamp: 'yesterday' } },
      'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"',
    ],
    [
      'core.v1.Pod',
      { metadata: { deletionTimestamp: '2026-02-30T00:00:00Z' } },
      'parsing time "2026-02-30T00:00:00Z": day out of range',
    ],
    [
      'coordination.v1.LeaseSpec',
      { renewTime: '2026-01-01T00:00:00Z' },
      'parsing time "2026-01-01T00:00:00Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000"',
    ],
  ];
  for (const [type, object, message] of cases) assert.equal(mismatch(type, object), message);
});

test('values that decode pass', () => {
  assert.equal(mismatch('core.v1.Secret', { data: { a: 'aGVsbG8=', b: '' } }), undefined);
  assert.equal(mismatch('core.v1.ResourceRequirements', { limits: { cpu: 1, memory: '1Gi' } }), undefined);
  assert.equal(mismatch('core.v1.ServicePort', { targetPort: 'http', name: null }), undefined);
  assert.equal(mismatch('core.v1.Pod', { metadata: { creationTimestamp: null } }), undefined);
  assert.equal(mismatch('coordination.v1.LeaseSpec', { renewTime: '2026-01-01T00:00:00.123456Z' }), undefined);
});

test('duplicate fields are found in the text', () => {
  const text = '{"a":1,"b":[{"c":"\\"x","c":2},{"c":3}],"a":{"d":"}","d":"a\\\\"},"e\\u0066":1,"ef":2}';
  assert.deepEqual(duplicateFields(text), ['b[0].c', 'a', 'a.d', 'ef']);
  const body = '{"metadata":{"name":"a","name":"b"}}';
  assert.deepEqual(checkFields('core.v1.Pod', JSON.parse(body), 'Warn', body).strict, [
    'duplicate field "metadata.name"',
  ]);
});

test('any JSON without duplicates has none', () => {
  const run = (value: unknown, spaces: number) =>
    assert.deepEqual(duplicateFields(JSON.stringify(value, null, spaces)), []);
  fc.assert(fc.property(fc.jsonValue({ maxDepth: 4 }), fc.integer({ min: 0, max: 2 }), run), { numRuns: 200 });
});

test('prune drops unknown fields and nulls, and nothing else', () => {
  const sent = {
    kind: 'Pod',
    x: 1,
    metadata: { creationTimestamp: null, labels: {} },
    spec: { containers: [{ y: 2 }] },
  };
  assert.deepEqual(prune('core.v1.Pod', sent), { kind: 'Pod', metadata: { labels: {} }, spec: { containers: [{}] } });
});

test('normalize writes the object as Go would', () => {
  const sent = Object.freeze({
    metadata: {
      labels: {},
      annotations: { b: '1', a: null },
      name: 'web',
      creationTimestamp: '2026-01-01T02:00:00+02:00',
    },
    apiVersion: 'v1',
    kind: 'Pod',
    spec: {
      hostNetwork: false,
      terminationGracePeriodSeconds: 0,
      volumes: [{ emptyDir: {}, name: 'tmp' }],
      containers: [
        { image: 'nginx', name: 'c', resources: { requests: { memory: '1024Mi', cpu: 0.5 } } },
        { name: 'd' },
      ],
    },
  });
  const normal = normalize('core.v1.Pod', sent);
  assert.equal(
    JSON.stringify(normal),
    JSON.stringify({
      kind: 'Pod',
      apiVersion: 'v1',
      metadata: { name: 'web', creationTimestamp: '2026-01-01T00:00:00Z', annotations: { a: '', b: '1' } },
      spec: {
        volumes: [{ name: 'tmp', emptyDir: {} }],
        containers: [
          { name: 'c', image: 'nginx', resources: { requests: { cpu: '500m', memory: '1Gi' } } },
          { name: 'd', resources: {} },
        ],
        terminationGracePeriodSeconds: 0,
      },
      status: {},
    }),
  );
  assert.deepEqual(normalize('core.v1.Pod', normal), normal);
  assert.deepEqual(normalize('core.v1.Service', { kind: 'Service' }), {
    kind: 'Service',
    metadata: {},
    spec: {},
    status: { loadBalancer: {} },
  });
});

test('settle is normalize that copies nothing but what it changes', () => {
  const whole = normalize('core.v1.Pod', {
    kind: 'Pod',
    apiVersion: 'v1',
    metadata: { name: 'web', labels: { b: '2', a: '1' }, creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: {
      containers: [
        { name: 'c', image: 'i', resources: { requests: { memory: '1Gi', cpu: '2' } }, ports: [{ containerPort: 80 }] },
        { name: 'd', env: [{ name: 'A', value: 'b' }], securityContext: { runAsUser: 0 } },
      ],
      nodeSelector: { zone: 'a' },
      hostNetwork: true,
    },
    status: { phase: 'Running', podIPs: [{ ip: '10.0.0.1' }] },
  });
  assert.equal(settle('core.v1.Pod', whole), whole);
  const labelled = settle('core.v1.Pod', { ...whole, metadata: { ...whole.metadata, labels: { b: '2', a: '1' } } });
  assert.equal(labelled.spec, whole.spec);
  assert.deepEqual(Object.keys(labelled.metadata.labels), ['a', 'b']);
  // Anything may be out of order, empty, unknown or written otherwise, anywhere.
  const spoiled = (value: unknown, next: () => number): unknown => {
    if (Array.isArray(value)) return Object.freeze(value.map(item => spoiled(item, next)));
    if (typeof value !== 'object' || value === null) return value === '2' && next() < 0.5 ? 2000 / 1000 : value;
    const entries = Object.entries(value).map(([key, item]) => [key, spoiled(item, next)] as [string, unknown]);
    if (next() < 0.2) entries.reverse();
    if (next() < 0.1) entries.push(['10', 'x'], ['9', 'y']);
    if (next() < 0.2) entries.push(['hostIPC', false], ['subdomain', ''], ['volumes', []]);
    if (next() < 0.2) entries.splice(Math.floor(next() * entries.length), 0, ['nodeName', null]);
    if (next() < 0.1) entries.pop();
    return Object.freeze(Object.fromEntries(entries));
  };
  fc.assert(
    fc.property(fc.infiniteStream(fc.nat(999)), numbers => {
      const given = spoiled(whole, () => numbers.next().value! / 1000) as typeof whole;
      const settled = settle('core.v1.Pod', given);
      assert.equal(JSON.stringify(settled), JSON.stringify(normalize('core.v1.Pod', given)));
      assert.equal(JSON.stringify(settle('core.v1.Pod', settled)), JSON.stringify(settled));
    }),
    { numRuns: 500 },
  );
});

test('schemas in the place of something else are decoded as schemas are, wherever they stand', () => {
  const type = 'apiextensions.v1.JSONSchemaProps';
  const sent = Object.freeze({
    nullable: false,
    items: { typo: 1, nullable: false, type: 'object', properties: { b: { minimum: null }, a: {} } },
    additionalProperties: { uniqueItems: false, items: [{ typo: 1, type: 'string' }, {}] },
    additionalItems: false,
    dependencies: { b: ['x', 'y'], a: { title: '', id: 'i' } },
    default: { typo: 1, nullable: false },
  });
  const normal = {
    default: { typo: 1, nullable: false },
    items: { type: 'object', properties: { a: {}, b: {} } },
    additionalProperties: { items: [{ type: 'string' }, {}] },
    dependencies: { a: { id: 'i' }, b: ['x', 'y'] },
    additionalItems: false,
  };
  assert.equal(JSON.stringify(normalize(type, sent)), JSON.stringify(normal));
  assert.deepEqual(settle(type, sent), normal);
  assert.equal(settle(type, normal), normal);
  assert.deepEqual(prune(type, { items: { typo: 1, nullable: false } }), { items: { nullable: false } });
  assert.deepEqual(checkFields(type, sent, 'Strict'), { strict: [] });
  assert.equal(mismatch(type, { additionalProperties: 'x' }), 'boolean or JSON schema expected');
  assert.equal(
    mismatch(type, { dependencies: { a: [1] } }),
    'json: cannot unmarshal number into Go value of type string',
  );
  for (const schemas of [{ items: { type: 5 } }, { items: [{ type: 5 }] }, { dependencies: { a: { type: 5 } } }])
    assert.equal(
      mismatch(type, { properties: { a: schemas } }),
      'json: cannot unmarshal number into Go struct field JSONSchemaProps.type of type string',
    );
});

test('a map key cannot reach the prototype', () => {
  const sent = JSON.parse('{"data":{"__proto__":"x"}}');
  const normal = normalize('core.v1.ConfigMap', sent);
  assert.equal(JSON.stringify(normal), '{"metadata":{},"data":{"__proto__":"x"}}');
});
