import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import type { KubeObject, WatchEvent } from '../api/meta.ts';
import { VirtualClock } from '../base/clock.ts';
import { ApiError } from '../base/errors.ts';
import { seededRandom } from '../base/random.ts';
import { CONFIG_MAPS, EVENTS, NAMESPACES, PODS, REPLICATION_CONTROLLERS } from '../client/resources.ts';
import type { Target, Transport, WatchOptions } from '../client/transport.ts';
import { openMemoryStore } from '../store/memory.ts';
import { LOOPBACK_USER } from './request.ts';
import { ApiServer } from './server.ts';

type Any = any;

async function open(): Promise<{ server: ApiServer; api: Transport; clock: VirtualClock }> {
  const clock = new VirtualClock();
  const server = await ApiServer.open({ store: openMemoryStore(), clock, random: seededRandom(1) });
  return { server, api: server.transport(LOOPBACK_USER), clock };
}
const configMap = (name: string, data: Record<string, string> = {}, labels?: Record<string, string>): KubeObject =>
  ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, ...(labels ? { labels } : {}) }, data }) as KubeObject;
const inDefault = (name?: string): Target => ({ of: CONFIG_MAPS, namespace: 'default', ...(name ? { name } : {}) });
const status = (code: number, message?: RegExp) => (error: unknown) => {
  assert.ok(error instanceof ApiError, String(error));
  assert.equal(error.code, code, error.message);
  if (message) assert.match(error.message, message);
  return true;
};

/** Takes events until there are `count`. */
async function take(api: Transport, target: Target, options: WatchOptions, count: number): Promise<WatchEvent[]> {
  const stop = new AbortController();
  const events: WatchEvent[] = [];
  for await (const batch of api.watch(target, options, stop.signal)) {
    events.push(...batch);
    if (events.length >= count) break;
  }
  stop.abort();
  return events;
}

test('create, get, list', async () => {
  const { api, server } = await open();
  const made: Any = await api.create(inDefault(), configMap('a', { x: '1' }, { app: 'web' }));
  assert.equal(made.metadata.namespace, 'default');
  assert.match(made.metadata.uid, /^[0-9a-f-]{36}$/);
  assert.equal(made.metadata.creationTimestamp, '2026-01-01T00:00:00Z');
  assert.equal(made.metadata.resourceVersion, '1');
  assert.ok(Object.isFrozen(made) && Object.isFrozen(made.data));
  assert.equal(await api.get(inDefault('a')), made);
  assert.equal(server.reader.get(CONFIG_MAPS, 'default', 'a'), made);
  await assert.rejects(api.create(inDefault(), configMap('a')), status(409, /^configmaps "a" already exists$/));
  await assert.rejects(api.get(inDefault('b')), status(404, /^configmaps "b" not found$/));
  await api.create({ of: CONFIG_MAPS, namespace: 'other' }, configMap('b'));
  const all = await api.list({ of: CONFIG_MAPS });
  assert.deepEqual(
    all.items.map(item => item.metadata.name),
    ['a', 'b'],
  );
  assert.equal(all.kind, 'ConfigMapList');
  assert.equal(all.metadata.resourceVersion, '2');
  assert.equal((await api.list({ of: CONFIG_MAPS }, { labelSelector: 'app=web' })).items.length, 1);
  assert.equal((await api.list({ of: CONFIG_MAPS }, { fieldSelector: 'metadata.name!=a' })).items.length, 1);
  await assert.rejects(
    api.list({ of: CONFIG_MAPS }, { fieldSelector: 'data=x' }),
    status(400, /is not a known field selector: only "metadata.name", "metadata.namespace"/),
  );
});

test('generated names and name checks', async () => {
  const { api } = await open();
  const object = configMap('');
  object.metadata = { generateName: 'web-' } as never;
  const made = await api.create(inDefault(), object);
  assert.match(made.metadata.name, /^web-[a-z0-9]{5}$/);
  await assert.rejects(
    api.create(inDefault(), configMap('Not_Valid')),
    status(422, /ConfigMap "Not_Valid" is invalid: metadata.name: Invalid value/),
  );
  const elsewhere = configMap('x');
  elsewhere.metadata.namespace = 'other';
  await assert.rejects(
    api.create(inDefault(), elsewhere),
    status(400, /namespace of the provided object does not match/),
  );
});

test('optimistic concurrency and updates that change nothing', async () => {
  const { api } = await open();
  const first: Any = await api.create(inDefault(), configMap('a', { x: '1' }));
  const same = await api.update(inDefault('a'), first);
  assert.equal(same.metadata.resourceVersion, first.metadata.resourceVersion);
  const second: Any = await api.update(inDefault('a'), { ...first, data: { x: '2' } });
  assert.equal(second.metadata.resourceVersion, '2');
  assert.equal(second.metadata.uid, first.metadata.uid);
  await assert.rejects(
    api.update(inDefault('a'), { ...first, data: { x: '3' } }),
    status(
      409,
      /^Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again$/,
    ),
  );
  await api.update(inDefault('a'), configMap('a', { x: '4' }));
  await assert.rejects(
    api.update(inDefault('a'), configMap('b')),
    status(400, /the name of the object \(b\) does not match the name on the URL \(a\)/),
  );
  await Promise.all(
    Array.from({ length: 4 }, (_, i) =>
      api.patch(inDefault('a'), { data: { [`k${i}`]: 'v' } }, 'application/merge-patch+json'),
    ),
  );
  const end: Any = await api.get(inDefault('a'));
  assert.deepEqual(Object.keys(end.data).sort(), ['k0', 'k1', 'k2', 'k3', 'x']);
});

test('dry runs leave nothing behind', async () => {
  const { api } = await open();
  await api.create(inDefault(), configMap('a'), { dryRun: true });
  await assert.rejects(api.get(inDefault('a')), status(404));
});

test('watch from now, from a revision, and through a selector', async () => {
  const { api } = await open();
  const first: Any = await api.create(inDefault(), configMap('a', {}, { app: 'web' }));
  await api.create(inDefault(), configMap('b'));
  const live = take(api, { of: CONFIG_MAPS }, { resourceVersion: '2' }, 3);
  const selected = take(api, { of: CONFIG_MAPS }, { resourceVersion: '0', labelSelector: 'app=web' }, 4);
  await new Promise(resolve => setTimeout(resolve, 100));
  await api.patch(inDefault('a'), { metadata: { labels: { app: 'db' } } }, 'application/merge-patch+json');
  await api.patch(inDefault('b'), { metadata: { labels: { app: 'web' } } }, 'application/merge-patch+json');
  await api.delete(inDefault('b'));
  assert.deepEqual(
    (await live).map(event => [event.type, (event.object as KubeObject).metadata.resourceVersion]),
    [
      ['MODIFIED', '3'],
      ['MODIFIED', '4'],
      ['DELETED', '5'],
    ],
  );
  const seen = (await selected).map((event: Any) => [
    event.type,
    event.object.metadata.name,
    event.object.metadata.resourceVersion,
  ]);
  assert.deepEqual(seen, [
    ['ADDED', 'a', first.metadata.resourceVersion],
    ['DELETED', 'a', '3'],
    ['ADDED', 'b', '4'],
    ['DELETED', 'b', '5'],
  ]);
  const history = await take(api, { of: CONFIG_MAPS, namespace: 'default' }, { resourceVersion: '1' }, 4);
  assert.deepEqual(
    history.map(event => event.type),
    ['ADDED', 'MODIFIED', 'MODIFIED', 'DELETED'],
  );
});

test('a watch list begins with the state and says when it is complete', async () => {
  const { api } = await open();
  await api.create(inDefault(), configMap('a'));
  const events = await take(api, { of: CONFIG_MAPS }, { sendInitialEvents: true, allowWatchBookmarks: true }, 2);
  assert.deepEqual(
    events.map(event => event.type),
    ['ADDED', 'BOOKMARK'],
  );
  const { resourceVersion: _, ...told } = (events[1]!.object as Any).metadata;
  assert.deepEqual(
    told,
    { annotations: { 'k8s.io/initial-events-end': 'true' } },
    'no empty time of creation, since 1.34',
  );
});

test('a watch survives more changes than memory keeps, and a compacted one ends with 410', async () => {
  const { api, server } = await open();
  const count = 4500;
  await Promise.all(Array.from({ length: count }, (_, i) => api.create(inDefault(), configMap(`c${i}`))));
  const events = await take(api, { of: CONFIG_MAPS }, { resourceVersion: '1' }, count - 1);
  assert.deepEqual(
    events.map(event => (event.object as KubeObject).metadata.resourceVersion),
    Array.from({ length: count - 1 }, (_, i) => String(i + 2)),
  );
  await server.caches.store.compact(500);
  const gone = await take(api, { of: CONFIG_MAPS }, { resourceVersion: '1' }, 1);
  assert.equal(gone[0]!.type, 'ERROR');
  assert.equal((gone[0]!.object as Any).code, 410);
});

test('pages show one revision', async () => {
  const { api, server } = await open();
  for (const name of ['a', 'b', 'c', 'd', 'e']) await api.create(inDefault(), configMap(name));
  const first = await api.list({ of: CONFIG_MAPS, namespace: 'default' }, { limit: 2 });
  assert.equal(first.metadata.remainingItemCount, 3);
  await api.delete(inDefault('c'));
  const second = await api.list(
    { of: CONFIG_MAPS, namespace: 'default' },
    { limit: 2, continue: first.metadata.continue! },
  );
  assert.deepEqual(
    second.items.map(item => item.metadata.name),
    ['c', 'd'],
  );
  assert.equal(second.metadata.resourceVersion, first.metadata.resourceVersion);
  await server.caches.store.compact(server.caches.revision);
  await assert.rejects(
    api.list({ of: CONFIG_MAPS, namespace: 'default' }, { limit: 2, continue: second.metadata.continue! }),
    status(410, /continue parameter is too old/),
  );
});

test('a grace period that is shortened does not end in the past', async () => {
  const { api, clock } = await open();
  const at = { of: PODS, namespace: 'default', name: 'p' };
  await api.create({ of: PODS, namespace: 'default' }, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p' },
    spec: { nodeName: 'n', containers: [{ name: 'c', image: 'a:1' }] },
  } as never);
  const ends = async (gracePeriodSeconds: number) => {
    await api.delete(at, { gracePeriodSeconds });
    return (Date.parse((await api.get(at)).metadata.deletionTimestamp!) - clock.now()) / 1000;
  };
  assert.equal(Math.round(await ends(60)), 60);
  await clock.advance(20_000);
  assert.equal(Math.round(await ends(30)), 10);
  await clock.advance(5000);
  assert.equal(Math.round(await ends(10)), 0);
});

test('finalizers hold an object until they are gone', async () => {
  const { api } = await open();
  const object = configMap('a');
  object.metadata.finalizers = ['example.com/hold'];
  await api.create(inDefault(), object);
  const terminating: Any = await api.delete(inDefault('a'));
  assert.equal(terminating.metadata.deletionGracePeriodSeconds, 0);
  await api.delete(inDefault('a'));
  await assert.rejects(
    api.patch(
      inDefault('a'),
      { metadata: { finalizers: ['example.com/hold', 'example.com/more'] } },
      'application/merge-patch+json',
    ),
    status(422, /no new finalizers can be added if the object is being deleted/),
  );
  await api.patch(inDefault('a'), { metadata: { finalizers: null } }, 'application/merge-patch+json');
  await assert.rejects(api.get(inDefault('a')), status(404));
});

test('deletion: preconditions, propagation and the reply', async () => {
  const { api } = await open();
  const made = await api.create(inDefault(), configMap('a'));
  await assert.rejects(
    api.delete(inDefault('a'), { preconditions: { uid: 'other' } }),
    status(409, /the UID in the precondition \(other\) does not match the UID in record/),
  );
  const reply: Any = await api.delete(inDefault('a'), {
    preconditions: { uid: made.metadata.uid!, resourceVersion: '1' },
  });
  assert.deepEqual(reply.details, { name: 'a', kind: 'configmaps', uid: made.metadata.uid });
  await api.create(inDefault(), configMap('b'));
  const held: Any = await api.delete(inDefault('b'), { propagationPolicy: 'Foreground' });
  assert.deepEqual(held.metadata.finalizers, ['foregroundDeletion']);
  const rc = {
    apiVersion: 'v1',
    kind: 'ReplicationController',
    metadata: { name: 'r' },
    spec: {
      selector: { a: 'b' },
      replicas: 0,
      template: { metadata: { labels: { a: 'b' } }, spec: { containers: [{ name: 'c', image: 'i' }] } },
    },
  };
  await api.create({ of: REPLICATION_CONTROLLERS, namespace: 'default' }, rc as never);
  const orphaning: Any = await api.delete({ of: REPLICATION_CONTROLLERS, namespace: 'default', name: 'r' });
  assert.deepEqual(orphaning.metadata.finalizers, ['orphan']);
});

test('delete collection by selector', async () => {
  const { api } = await open();
  for (const name of ['a', 'b', 'c'])
    await api.create(inDefault(), configMap(name, {}, { keep: name === 'b' ? 'yes' : 'no' }));
  await api.deleteCollection(inDefault(), { labelSelector: 'keep!=yes' });
  assert.deepEqual(
    (await api.list(inDefault())).items.map(item => item.metadata.name),
    ['b'],
  );
});

test('status updates leave the rest alone', async () => {
  const { api } = await open();
  const pod: Any = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p' },
    spec: { containers: [{ name: 'c', image: 'i' }] },
  };
  const made: Any = await api.create({ of: PODS, namespace: 'default' }, pod);
  const target = { of: PODS, namespace: 'default', name: 'p', subresource: 'status' };
  const next: Any = await api.patch(
    target,
    { spec: { hostname: 'changed' }, status: { phase: 'Running' } },
    'application/merge-patch+json',
  );
  assert.equal(next.status.phase, 'Running');
  assert.equal(next.spec.hostname, made.spec.hostname);
});

test('events are one kind in two versions', async () => {
  const { api } = await open();
  const event: Any = {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name: 'e' },
    involvedObject: { kind: 'Pod', name: 'p', namespace: 'default' },
    reason: 'Started',
    message: 'hello',
    type: 'Normal',
  };
  await api.create({ of: EVENTS, namespace: 'default' }, event);
  const other = { of: { group: 'events.k8s.io', version: 'v1', resource: 'events' }, namespace: 'default', name: 'e' };
  const shown: Any = await api.get(other);
  assert.equal(shown.apiVersion, 'events.k8s.io/v1');
  assert.equal(shown.note, 'hello');
  assert.equal(shown.regarding.name, 'p');
  // The newer API lets only the series grow.
  const change = (fields: object): Promise<unknown> => api.patch(other, fields, 'application/merge-patch+json');
  await assert.rejects(
    change({ note: 'changed' }),
    status(422, /message: Invalid value: "changed": field is immutable/),
  );
  const lastObservedTime = '2026-01-01T00:00:00.000000Z';
  await assert.rejects(change({ series: { count: 1, lastObservedTime } }), status(422, /should be at least 2/));
  await change({ series: { count: 2, lastObservedTime } });
  const core: Any = await api.get({ of: EVENTS, namespace: 'default', name: 'e' });
  assert.equal(core.series.count, 2);
  assert.equal(core.apiVersion, 'v1');
});

test('a namespace goes when its finalizer does', async () => {
  const { api } = await open();
  const made: Any = await api.create({ of: NAMESPACES }, {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'n' },
    spec: { finalizers: ['kubernetes'] },
  } as never);
  assert.deepEqual(made.spec.finalizers, ['kubernetes']);
  const terminating: Any = await api.delete({ of: NAMESPACES, name: 'n' });
  assert.equal(terminating.status.phase, 'Terminating');
  await api.update({ of: NAMESPACES, name: 'n', subresource: 'finalize' }, { ...terminating, spec: {} });
  await assert.rejects(api.get({ of: NAMESPACES, name: 'n' }), status(404));
});

test('a subresource has rules of its own', async () => {
  const { api } = await open();
  const at: Target = { of: PODS, namespace: 'default', name: 'p' };
  await api.create({ of: PODS, namespace: 'default' }, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p' },
    spec: { containers: [{ name: 'c', image: 'i' }] },
  } as KubeObject);
  const debug = (image: string) =>
    api.patch(
      { ...at, subresource: 'ephemeralcontainers' },
      { spec: { ephemeralContainers: [{ name: 'd', image }] } },
      'application/strategic-merge-patch+json',
    );
  await debug('i');
  await assert.rejects(debug('other'), status(422, /existing ephemeral containers "d" may not be changed/));
  const resize = (spec: object) =>
    api.patch({ ...at, subresource: 'resize' }, { spec }, 'application/strategic-merge-patch+json');
  const cases: [spec: object, refusal: RegExp][] = [
    [
      { containers: [{ name: 'c', resources: { requests: { cpu: '1' } } }] },
      /Pod QOS Class may not change as a result of resizing/,
    ],
    [
      { containers: [{ name: 'd', image: 'i' }] },
      /spec\.containers: Forbidden: containers may not be added or removed on resize/,
    ],
    [
      {
        containers: [
          { name: 'd', image: 'i' },
          { name: 'c', $patch: 'delete' },
        ],
      },
      /spec\.containers\[0\]\.name: Forbidden: containers may not be renamed or reordered on resize/,
    ],
    [
      { containers: [{ name: 'c', resizePolicy: [{ resourceName: 'cpu', restartPolicy: 'NotRequired' }] }] },
      /spec: Forbidden: only cpu and memory resources are mutable/,
    ],
  ];
  for (const [spec, refusal] of cases) await assert.rejects(resize(spec), status(422, refusal));
  await resize({ containers: [{ name: 'c', image: 'other' }], hostname: 'other' });
  const { spec } = (await api.get(at)) as Any;
  assert.deepEqual([spec.containers[0].image, spec.hostname], ['i', undefined]);
});

test('component statuses are found out when somebody asks, and kept nowhere', async () => {
  const { server, api } = await open();
  let problem: string | undefined = 'down';
  server.addComponent({ name: 'scheduler', check: () => problem });
  const of = { group: '', version: 'v1', resource: 'componentstatuses' };
  const shown = async () => {
    const { items } = await api.list({ of });
    return items.map((item: Any) => [item.metadata.name, item.conditions[0].status, item.conditions[0].message]);
  };
  assert.deepEqual(await shown(), [
    ['etcd-0', 'True', 'ok'],
    ['scheduler', 'False', 'down'],
  ]);
  problem = undefined;
  assert.deepEqual((await shown())[1], ['scheduler', 'True', 'ok']);
  assert.equal((await api.get({ of, name: 'scheduler' })).metadata.name, 'scheduler');
  await assert.rejects(api.get({ of, name: 'absent' }), { code: 404 });
});
