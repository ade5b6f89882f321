import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { VirtualClock } from '../../base/clock.ts';
import type { ApiError } from '../../base/errors.ts';
import { seededRandom } from '../../base/random.ts';
import { CONFIG_MAPS } from '../../client/resources.ts';
import type { Target, WriteOptions } from '../../client/transport.ts';
import { openMemoryStore } from '../../store/memory.ts';
import { LOOPBACK_USER, type RequestAttributes } from '../request.ts';
import { ApiServer } from '../server.ts';
import { fieldManagerProblem, managerOf } from './managers.ts';

// biome-ignore lint/suspicious/noExplicitAny: tests look into objects of every kind.
type Any = any;

const DEPLOYMENTS = { group: 'apps', version: 'v1', resource: 'deployments' };
const mapNamed = (name: string): Target => ({ of: CONFIG_MAPS, namespace: 'default', name });
const map = (name: string, data: Record<string, string>, metadata: object = {}): Any => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, ...metadata },
  data,
});
const web = (spec: object = {}): Any => ({
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'web' },
  spec: {
    replicas: 1,
    selector: { matchLabels: { app: 'web' } },
    template: { metadata: { labels: { app: 'web' } }, spec: { containers: [{ name: 'web', image: 'i' }] } },
    ...spec,
  },
});
const webTarget: Target = { of: DEPLOYMENTS, namespace: 'default', name: 'web' };

async function open(authorize?: (attributes: RequestAttributes) => boolean) {
  const clock = new VirtualClock();
  const server = await ApiServer.open({
    store: openMemoryStore(),
    clock,
    random: seededRandom(1),
    ...(authorize ? { authorizer: { authorize: attributes => ({ allowed: authorize(attributes), reason: '' }) } } : {}),
  });
  const api = server.transport(authorize ? { name: 'someone', groups: [] } : LOOPBACK_USER, 'tester');
  const apply = (target: Target, object: object, fieldManager: string, options: WriteOptions = {}): Promise<Any> =>
    api.patch(target, object, 'application/apply-patch+yaml', { fieldManager, ...options });
  return { api, apply, clock };
}

const status = (code: number, message: string | RegExp) => (error: unknown) => {
  assert.equal((error as ApiError).code, code, String(error));
  if (typeof message === 'string') assert.equal((error as ApiError).message, message);
  else assert.match((error as ApiError).message, message);
  return true;
};
const who = (object: Any): string[] =>
  (object.metadata.managedFields ?? []).map((entry: Any) =>
    [entry.manager, entry.operation, entry.apiVersion, entry.subresource].filter(Boolean).join(' '),
  );

test('an apply creates, changes, and writes nothing when nothing changes', async () => {
  const { api, apply, clock } = await open();
  const made = await apply(mapNamed('a'), map('a', { x: '1' }), 'helm');
  assert.deepEqual(made.metadata.managedFields, [
    {
      manager: 'helm',
      operation: 'Apply',
      apiVersion: 'v1',
      time: '2026-01-01T00:00:00Z',
      fieldsType: 'FieldsV1',
      fieldsV1: { 'f:data': { 'f:x': {} } },
    },
  ]);
  await clock.advance(5000);
  const again = await apply(mapNamed('a'), map('a', { x: '1' }), 'helm');
  assert.equal(again, made);
  const next = await apply(mapNamed('a'), map('a', { x: '2' }), 'helm');
  assert.equal(next.metadata.managedFields[0].time, '2026-01-01T00:00:05Z');
  assert.equal(next.metadata.uid, made.metadata.uid);
  // A write of the same by another way does not touch the entries either.
  const same = await api.patch(mapNamed('a'), { data: { x: '2' } }, 'application/merge-patch+json');
  assert.equal(same, next);
});

test('defaults belong to nobody who only applied', async () => {
  const { apply } = await open();
  const made = await apply(webTarget, web({ paused: false, minReadySeconds: null }), 'helm');
  assert.equal(made.spec.strategy.type, 'RollingUpdate');
  const fields = made.metadata.managedFields[0].fieldsV1['f:spec'];
  assert.deepEqual(Object.keys(fields), ['f:minReadySeconds', 'f:paused', 'f:replicas', 'f:selector', 'f:template']);
  assert.equal(await apply(webTarget, web({ paused: false, minReadySeconds: null }), 'helm'), made);
});

test('every write is recorded by manager, operation and subresource', async () => {
  const { api, apply } = await open();
  const made: Any = await api.create({ of: DEPLOYMENTS, namespace: 'default' }, web());
  assert.deepEqual(who(made), ['tester Update apps/v1']);
  assert.ok(made.metadata.managedFields[0].fieldsV1['f:spec']['f:strategy']['f:type']);
  assert.equal(made.metadata.managedFields[0].fieldsV1['f:status'], undefined);
  await assert.rejects(
    apply(webTarget, web({ replicas: 3 }), 'helm'),
    status(409, 'Apply failed with 1 conflict: conflict with "tester" using apps/v1: .spec.replicas'),
  );
  await api.patch({ ...webTarget, subresource: 'scale' }, { spec: { replicas: 4 } }, 'application/merge-patch+json', {
    fieldManager: 'scaler',
  });
  await api.patch({ ...webTarget, subresource: 'status' }, { status: { replicas: 4 } }, 'application/merge-patch+json');
  await assert.rejects(
    apply(webTarget, web({ replicas: 3 }), 'helm'),
    status(409, /conflict with "scaler" with subresource "scale" using apps\/v1: \.spec\.replicas$/),
  );
  const forced = await apply(webTarget, web({ replicas: 3 }), 'helm', { force: true });
  assert.deepEqual(who(forced), ['helm Apply apps/v1', 'tester Update apps/v1', 'tester Update apps/v1 status']);
  assert.equal(forced.spec.replicas, 3);
});

test('status and scale are applied through their subresources only', async () => {
  const { apply } = await open();
  await apply(webTarget, { ...web(), status: { replicas: 9 } }, 'helm');
  const ready = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web' }, status: { collisionCount: 2 } };
  const changed = await apply({ ...webTarget, subresource: 'status' }, { ...ready, spec: { replicas: 7 } }, 'ctl');
  assert.equal(changed.status.collisionCount, 2);
  assert.equal(changed.spec.replicas, 1);
  assert.deepEqual(who(changed), ['ctl Apply apps/v1 status', 'helm Apply apps/v1']);
  const scale = { apiVersion: 'autoscaling/v1', kind: 'Scale', metadata: { name: 'web' }, spec: { replicas: 5 } };
  await assert.rejects(
    apply({ ...webTarget, subresource: 'scale' }, scale, 'hpa'),
    status(409, /"helm": .spec.replicas/),
  );
  const scaled = await apply({ ...webTarget, subresource: 'scale' }, scale, 'hpa', { force: true });
  assert.equal(scaled.kind, 'Scale');
  assert.equal(scaled.spec.replicas, 5);
  await assert.rejects(
    apply({ ...webTarget, name: 'none', subresource: 'status' }, { ...ready, metadata: {} }, 'ctl'),
    status(404, /not found/),
  );
});

test('clients may empty the list, replace it, and not break it', async () => {
  const { api, apply } = await open();
  await apply(mapNamed('a'), map('a', { x: '1' }), 'helm');
  const patch = (managedFields: unknown, data: object = {}): Promise<Any> =>
    api.patch(mapNamed('a'), { metadata: { managedFields }, ...data }, 'application/merge-patch+json');
  assert.deepEqual(who(await patch([])), ['helm Apply v1']);
  assert.deepEqual(who(await patch(null)), ['helm Apply v1']);
  assert.deepEqual(who(await patch([{ manager: 'x', operation: 'Wish', fieldsType: 'FieldsV1' }])), ['helm Apply v1']);
  const entry = { manager: 'x', operation: 'Update', apiVersion: 'v1', fieldsType: 'FieldsV1' };
  const moved = await patch([{ ...entry, fieldsV1: { 'f:data': { 'f:x': {} } } }], { data: { y: '2' } });
  assert.deepEqual(who(moved), ['x Update v1', 'tester Update v1']);
  assert.deepEqual(who(await patch([{}])), []);
  // From then on nobody is recorded until somebody applies.
  assert.deepEqual(who(await patch(undefined, { data: { y: '3' } })), []);
  const applied = await apply(mapNamed('a'), map('a', { y: '3' }), 'helm');
  assert.deepEqual(who(applied), ['helm Apply v1', 'before-first-apply Update v1']);
});

test('versions of a kind share owners', async () => {
  const { api, apply } = await open();
  const target = (version: string): Target => ({
    of: { group: 'autoscaling', version, resource: 'horizontalpodautoscalers' },
    namespace: 'default',
    name: 'h',
  });
  const scaler = (version: string, spec: object) => ({
    apiVersion: `autoscaling/${version}`,
    kind: 'HorizontalPodAutoscaler',
    metadata: { name: 'h' },
    spec: { scaleTargetRef: { kind: 'Deployment', name: 'web', apiVersion: 'apps/v1' }, maxReplicas: 5, ...spec },
  });
  await apply(target('v1'), scaler('v1', { minReplicas: 2, targetCPUUtilizationPercentage: 50 }), 'a');
  await assert.rejects(
    apply(target('v2'), scaler('v2', { maxReplicas: 6 }), 'b'),
    status(409, 'Apply failed with 1 conflict: conflict with "a": .spec.maxReplicas'),
  );
  // The same applier in the other version: what it gave up goes.
  const next = await apply(target('v2'), scaler('v2', { minReplicas: 3 }), 'a');
  assert.deepEqual(who(next), ['a Apply autoscaling/v2']);
  assert.equal(next.spec.minReplicas, 3);
  // 50 went, and the default came.
  assert.equal(next.spec.metrics[0].resource.target.averageUtilization, 80);
  await api.patch(target('v1'), { spec: { minReplicas: 4 } }, 'application/merge-patch+json');
  const shown: Any = await api.get(target('v2'));
  assert.deepEqual(who(shown), ['a Apply autoscaling/v2', 'tester Update autoscaling/v1']);
});

test('preconditions, dry runs and refusals', async () => {
  const { api, apply } = await open();
  await assert.rejects(
    apply(mapNamed('a'), map('a', {}, { uid: 'u' }), 'm'),
    status(409, /uid mismatch: the provided object specified uid u, and no existing object was found$/),
  );
  assert.equal((await apply(mapNamed('a'), map('a', { x: '1' }), 'm', { dryRun: true })).data.x, '1');
  await assert.rejects(api.get(mapNamed('a')), status(404, /not found/));
  const made = await apply(mapNamed('a'), map('a', { x: '1' }), 'm');
  const { uid, resourceVersion } = made.metadata;
  await apply(mapNamed('a'), map('a', { x: '2' }, { uid, resourceVersion }), 'm');
  await assert.rejects(apply(mapNamed('a'), map('a', { x: '3' }, { resourceVersion }), 'm'), status(409, /modified/));
  await assert.rejects(
    apply(mapNamed('a'), map('a', {}, { uid: 'u' }), 'm'),
    status(422, /metadata.uid: Invalid value: "u": field is immutable$/),
  );
  assert.equal((await apply(mapNamed('a'), map('a', { x: '4' }), 'm', { dryRun: true })).data.x, '4');
  assert.equal(((await api.get(mapNamed('a'))) as Any).data.x, '2');
  const refused: [unknown, number, string | RegExp][] = [
    [
      { ...map('a', {}), apiVersion: 'v2' },
      400,
      'Incorrect version specified in apply patch. Specified patch version: v2, expected: v1',
    ],
    [{ ...map('a', {}), kind: 'Secret' }, 400, /cannot be handled as a ConfigMap/],
    [map('b', {}), 400, 'the name of the object (b) does not match the name on the URL (a)'],
    [map('a', {}, { managedFields: [] }), 400, 'metadata.managedFields must be nil'],
    [
      { ...map('a', {}), foo: 1 },
      500,
      'failed to create typed patch object (default/a; v1, Kind=ConfigMap): .foo: field not declared in schema',
    ],
    ['x', 400, /error decoding YAML/],
  ];
  for (const [object, code, message] of refused)
    await assert.rejects(apply(mapNamed('a'), object as object, 'm'), status(code, message));
  await assert.rejects(
    apply(mapNamed('a'), map('a', {}), ''),
    status(422, /fieldManager: Required value: is required for apply patch/),
  );
});

test('who may patch but not create applies only to what exists', async () => {
  const { api, apply } = await open(({ verb, name }) => verb !== 'create' || name === '');
  await assert.rejects(
    apply(mapNamed('a'), map('a', {}), 'm'),
    status(403, /User "someone" cannot create resource "configmaps"/),
  );
  await api.create({ of: CONFIG_MAPS, namespace: 'default' }, map('a', { x: '1' }));
  assert.deepEqual((await apply(mapNamed('a'), map('a', { y: '1' }), 'm')).data, { x: '1', y: '1' });
});

test('the manager is the one named, or the first part of the User-Agent', () => {
  assert.equal(managerOf('me', 'kubectl/v1.32.4 (linux/amd64)'), 'me');
  assert.equal(managerOf('', 'kubectl/v1.32.4 (linux/amd64)'), 'kubectl');
  assert.equal(managerOf(null, `a\u0000b${'x'.repeat(200)}`), `ab${'x'.repeat(126)}`);
  assert.equal(managerOf(null, undefined), '');
  assert.equal(fieldManagerProblem('helm'), undefined);
  assert.match(fieldManagerProblem('x'.repeat(129))!.message, /may not be more than 128 bytes/);
  assert.match(fieldManagerProblem('a\u0001')!.message, /invalid character/);
});
