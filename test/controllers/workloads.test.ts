/** Deployments, ReplicaSets, Services and namespaces, through the real API server, controllers and scheduler. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Deployment, ReplicaSet } from '../../src/api/apps/v1.gen.ts';
import type { ConfigMap, Endpoints, Namespace, Pod, Service } from '../../src/api/core/v1.gen.ts';
import type { EndpointSlice } from '../../src/api/discovery/v1.gen.ts';
import { isPodReady } from '../../src/api/machinery/pod.ts';
import {
  CONFIG_MAPS,
  DEPLOYMENTS,
  ENDPOINT_SLICES,
  ENDPOINTS,
  NAMESPACES,
  PODS,
  REPLICA_SETS,
  SERVICE_ACCOUNTS,
  SERVICES,
} from '../../src/client/resources.ts';
import { openCluster, type TestCluster } from './cluster.ts';

let cluster: TestCluster;
before(async () => {
  cluster = await openCluster();
  await cluster.addNode('node-1');
  await cluster.addNode('node-2');
});
after(() => cluster.close());

const deployment = (
  name: string,
  replicas: number,
  facts: { image?: string; strategy?: object; extra?: object } = {},
): Deployment =>
  ({
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace: 'default' },
    spec: {
      replicas,
      revisionHistoryLimit: 10,
      progressDeadlineSeconds: 600,
      selector: { matchLabels: { app: name } },
      strategy: facts.strategy ?? { type: 'RollingUpdate', rollingUpdate: { maxSurge: '25%', maxUnavailable: '25%' } },
      template: {
        metadata: { labels: { app: name } },
        spec: { containers: [{ name: 'main', image: facts.image ?? 'a:1' }] },
      },
      ...facts.extra,
    },
  }) as unknown as Deployment;

const podsOf = async (app: string): Promise<Pod[]> =>
  (await cluster.of<Pod>(PODS).list('default', { labelSelector: `app=${app}` })).items;
const setsOf = async (app: string): Promise<ReplicaSet[]> =>
  (await cluster.of<ReplicaSet>(REPLICA_SETS).list('default', { labelSelector: `app=${app}` })).items;
const get = (name: string) => cluster.of<Deployment>(DEPLOYMENTS).get('default', name);
const rolledOut = (name: string, replicas: number) =>
  cluster.until(`${name} is rolled out`, async () => {
    const { status, metadata } = await get(name);
    const done =
      status?.observedGeneration === metadata.generation &&
      (status?.availableReplicas ?? 0) === replicas &&
      (status?.updatedReplicas ?? 0) === replicas &&
      (status?.replicas ?? 0) === replicas;
    return done && status?.conditions?.find(({ type }) => type === 'Progressing')?.reason === 'NewReplicaSetAvailable';
  });

test('a deployment becomes pods on both nodes, with events and conditions as upstream', async () => {
  await cluster.of<Deployment>(DEPLOYMENTS).create(deployment('web', 4));
  await rolledOut('web', 4);
  const pods = await podsOf('web');
  assert.equal(pods.length, 4);
  assert.deepEqual(pods.map(pod => pod.spec?.nodeName).sort(), ['node-1', 'node-1', 'node-2', 'node-2']);
  const [set] = await setsOf('web');
  const found = await get('web');
  assert.equal(found.metadata.annotations?.['deployment.kubernetes.io/revision'], '1');
  assert.equal(set!.metadata.annotations?.['deployment.kubernetes.io/max-replicas'], '5');
  assert.equal(
    found.status?.conditions?.find(({ type }) => type === 'Available')?.message,
    'Deployment has minimum availability.',
  );
  assert.equal(
    found.status?.conditions?.find(({ type }) => type === 'Progressing')?.message,
    `ReplicaSet "${set!.metadata.name}" has successfully progressed.`,
  );
  const messages = await cluster.until('events are there', async () => {
    const all = (await cluster.events()).map(event => event.message);
    return (
      all.filter(message => message.startsWith('Created pod: web-')).length === 4 &&
      all.filter(message => message.startsWith('Successfully assigned default/web-')).length === 4 &&
      all
    );
  });
  assert.ok(messages.includes(`Scaled up replica set ${set!.metadata.name} from 0 to 4`));
});

test('a rolling update keeps within its bounds and rolls back', async () => {
  await cluster.of<Deployment>(DEPLOYMENTS).create(
    deployment('roll', 10, {
      strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 2, maxUnavailable: 1 } },
    }),
  );
  await rolledOut('roll', 10);
  let most = 0;
  let leastReady = 10;
  const observe = () => {
    const pods = [...cluster.informers.get<Pod>(PODS).values()].filter(
      pod => pod.metadata.labels?.['app'] === 'roll' && !pod.metadata.deletionTimestamp,
    );
    most = Math.max(most, pods.length);
    leastReady = Math.min(leastReady, pods.filter(isPodReady).length);
  };
  cluster.informers.get<Pod>(PODS).onChange(() => observe());
  observe();
  await cluster
    .of(DEPLOYMENTS)
    .patch('default', 'roll', { spec: { template: { spec: { containers: [{ name: 'main', image: 'a:2' }] } } } });
  await rolledOut('roll', 10);
  assert.ok(most <= 12, `at most 12 pods, saw ${most}`);
  assert.ok(leastReady >= 9, `at least 9 ready, saw ${leastReady}`);
  assert.ok(
    (await podsOf('roll'))
      .filter(pod => !pod.metadata.deletionTimestamp)
      .every(pod => pod.spec?.containers[0]?.image === 'a:2'),
  );
  assert.equal((await get('roll')).metadata.annotations?.['deployment.kubernetes.io/revision'], '2');
  await cluster
    .of(DEPLOYMENTS)
    .patch('default', 'roll', { spec: { template: { spec: { containers: [{ name: 'main', image: 'a:1' }] } } } });
  await rolledOut('roll', 10);
  const sets = await setsOf('roll');
  assert.equal(sets.length, 2);
  const current = sets.find(set => set.spec.replicas === 10)!;
  assert.equal(current.metadata.annotations?.['deployment.kubernetes.io/revision'], '3');
  assert.equal(current.metadata.annotations?.['deployment.kubernetes.io/revision-history'], '1');
});

test('a broken update stops at its bounds; pause, resume, scale in the middle', async () => {
  cluster.brokenImages.add('broken:1');
  await cluster.of<Deployment>(DEPLOYMENTS).create(
    deployment('stuck', 4, {
      strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 1, maxUnavailable: 1 } },
    }),
  );
  await rolledOut('stuck', 4);
  await cluster
    .of(DEPLOYMENTS)
    .patch('default', 'stuck', { spec: { template: { spec: { containers: [{ name: 'main', image: 'broken:1' }] } } } });
  await cluster.until('it stands at 3 old and 2 new', async () => {
    const sizes = (await setsOf('stuck')).map(set => `${set.spec.replicas}/${set.status?.readyReplicas ?? 0}`).sort();
    return sizes.join() === '2/0,3/3';
  });
  await cluster.of(DEPLOYMENTS).patch('default', 'stuck', { spec: { paused: true, replicas: 8 } });
  await cluster.until('the scale is shared in proportion', async () => {
    const sets = await setsOf('stuck');
    return sets.reduce((sum, set) => sum + set.spec.replicas!, 0) === 9 && sets.every(set => set.spec.replicas! >= 3);
  });
  const paused = await cluster.until('the pause shows', async () => {
    const found = await get('stuck');
    return found.status?.conditions?.find(({ type }) => type === 'Progressing')?.reason === 'DeploymentPaused' && found;
  });
  assert.equal(paused.status?.conditions?.find(({ type }) => type === 'Progressing')?.status, 'Unknown');
  await cluster.of(DEPLOYMENTS).patch('default', 'stuck', {
    spec: { paused: false, template: { spec: { containers: [{ name: 'main', image: 'a:1' }] } } },
  });
  await rolledOut('stuck', 8);
});

test('Recreate removes all old pods first', async () => {
  await cluster.of<Deployment>(DEPLOYMENTS).create(deployment('again', 3, { strategy: { type: 'Recreate' } }));
  await rolledOut('again', 3);
  cluster.stopMs = 20;
  let mixed = false;
  cluster.informers.get<Pod>(PODS).onChange(() => {
    const images = new Set(
      [...cluster.informers.get<Pod>(PODS).values()]
        .filter(pod => pod.metadata.labels?.['app'] === 'again')
        .map(pod => pod.spec?.containers[0]?.image),
    );
    if (images.size > 1) mixed = true;
  });
  await cluster
    .of(DEPLOYMENTS)
    .patch('default', 'again', { spec: { template: { spec: { containers: [{ name: 'main', image: 'a:2' }] } } } });
  await rolledOut('again', 3);
  cluster.stopMs = 0;
  assert.equal(mixed, false);
});

test('no replica is created twice in a burst, and scaling down leaves exactly the rest', async () => {
  await cluster.of<Deployment>(DEPLOYMENTS).create(deployment('burst', 100));
  await rolledOut('burst', 100);
  const created = (await podsOf('burst')).length;
  assert.equal(created, 100);
  await cluster.of(DEPLOYMENTS).patch('default', 'burst', { spec: { replicas: 3 } });
  await rolledOut('burst', 3);
  await cluster.until('3 pods are left', async () => (await podsOf('burst')).length === 3);
});

test('a released pod is replaced, an orphan that matches is adopted', async () => {
  const [pod] = await podsOf('burst');
  await cluster.of(PODS).patch('default', pod!.metadata.name, { metadata: { labels: { app: 'elsewhere' } } });
  await cluster.until('a third pod is there again', async () => (await podsOf('burst')).length === 3);
  const released = await cluster.until('it is released', async () => {
    const found = await cluster.of<Pod>(PODS).get('default', pod!.metadata.name);
    return !found.metadata.ownerReferences?.length && found;
  });
  assert.equal(released.metadata.labels?.['app'], 'elsewhere');
  await cluster.of(PODS).patch('default', pod!.metadata.name, { metadata: { labels: { app: 'burst' } } });
  await cluster.until(
    'one of four is gone again',
    async () => (await podsOf('burst')).filter(({ metadata }) => !metadata.deletionTimestamp).length === 3,
  );
});

test('slices and Endpoints follow the pods', async () => {
  await cluster.of<Service>(SERVICES).create({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'default' },
    spec: {
      selector: { app: 'web' },
      clusterIP: '10.96.0.50',
      clusterIPs: ['10.96.0.50'],
      ipFamilies: ['IPv4'],
      ports: [{ name: 'http', port: 80, protocol: 'TCP', targetPort: 8080 }],
    },
  });
  const slicesOf = async () =>
    (
      await cluster
        .of<EndpointSlice>(ENDPOINT_SLICES)
        .list('default', { labelSelector: 'kubernetes.io/service-name=web' })
    ).items;
  const slice = await cluster.until('the slice has 4 endpoints', async () => {
    const slices = await slicesOf();
    return slices.length === 1 && slices[0]!.endpoints?.length === 4 && slices[0]!;
  });
  assert.deepEqual(slice.endpoints![0]!.conditions, { ready: true, serving: true, terminating: false });
  assert.deepEqual(slice.ports, [{ name: 'http', port: 8080, protocol: 'TCP' }]);
  assert.match(slice.metadata.name, /^web-[a-z0-9]{5}$/);
  const legacy = await cluster.until('Endpoints', async () => {
    const found = await cluster
      .of<Endpoints>(ENDPOINTS)
      .get('default', 'web')
      .catch(() => undefined);
    return found?.subsets?.[0]?.addresses?.length === 4 && found;
  });
  assert.deepEqual(legacy.subsets![0]!.ports, [{ name: 'http', port: 8080, protocol: 'TCP' }]);
  await cluster.of(DEPLOYMENTS).patch('default', 'web', { spec: { replicas: 0 } });
  await cluster.until('the slice is empty', async () => {
    const slices = await slicesOf();
    return slices.length === 1 && !slices[0]!.endpoints?.length;
  });
  await cluster.of(SERVICES).delete('default', 'web');
  await cluster.until('the slice is collected', async () => (await slicesOf()).length === 0);
});

test('deleting: background, foreground, orphan', async () => {
  await cluster.of(DEPLOYMENTS).delete('default', 'roll', { propagationPolicy: 'Background' });
  await cluster.until(
    'everything below it is gone',
    async () => (await setsOf('roll')).length === 0 && (await podsOf('roll')).length === 0,
  );
  await cluster.of(DEPLOYMENTS).delete('default', 'stuck', { propagationPolicy: 'Foreground' });
  await cluster.until('dependents first', async () => {
    const gone = await get('stuck').then(
      () => false,
      () => true,
    );
    if (gone) assert.equal((await podsOf('stuck')).length, 0);
    return gone;
  });
  await cluster.of(DEPLOYMENTS).delete('default', 'burst', { propagationPolicy: 'Orphan' });
  await cluster.until('only the deployment is gone', () =>
    get('burst').then(
      () => false,
      () => true,
    ),
  );
  const sets = await setsOf('burst');
  assert.equal(sets.length, 1);
  assert.equal(sets[0]!.metadata.ownerReferences?.length ?? 0, 0);
  assert.equal((await podsOf('burst')).filter(pod => !pod.metadata.deletionTimestamp).length, 3);
});

test('a namespace gets its account and CA, and is emptied when deleted', async () => {
  await cluster.of<Namespace>(NAMESPACES).create({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'temporary' },
    spec: { finalizers: ['kubernetes'] },
  });
  await cluster.until('account and CA', async () => {
    const account = await cluster
      .of(SERVICE_ACCOUNTS)
      .get('temporary', 'default')
      .catch(() => undefined);
    const ca = await cluster
      .of<ConfigMap>(CONFIG_MAPS)
      .get('temporary', 'kube-root-ca.crt')
      .catch(() => undefined);
    return account && ca?.data?.['ca.crt'] === 'CA';
  });
  await cluster
    .of<Deployment>(DEPLOYMENTS)
    .create({ ...deployment('inside', 2), metadata: { name: 'inside', namespace: 'temporary' } });
  await cluster.until('2 pods', async () => (await cluster.of(PODS).list('temporary')).items.length === 2);
  await cluster.of(NAMESPACES).delete('', 'temporary');
  await cluster.until('it is gone', () =>
    cluster
      .of(NAMESPACES)
      .get('', 'temporary')
      .then(
        () => false,
        () => true,
      ),
  );
  assert.equal((await cluster.of(PODS).list('temporary')).items.length, 0);
});

test('nodes have ranges of their own', async () => {
  const { items } = await cluster.of(NODES_ID).list();
  const ranges = items.map(node => (node as unknown as { spec: { podCIDR: string } }).spec.podCIDR).sort();
  assert.deepEqual(ranges, ['10.244.0.0/24', '10.244.1.0/24']);
});

const NODES_ID = { group: '', version: 'v1', resource: 'nodes' };
