/** What controllers write on nodes, old token Secrets and migrations, through the real API server. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { ConfigMap, Node, Secret } from '../../src/api/core/v1.gen.ts';
import type { KubeObject } from '../../src/api/meta.ts';
import { optionalResources } from '../../src/api/resources.ts';
import type { StorageVersionMigration } from '../../src/api/storagemigration/v1beta1.gen.ts';
import {
  CONFIG_MAPS,
  NODES,
  SECRETS,
  SERVICE_ACCOUNTS,
  STORAGE_VERSION_MIGRATIONS,
} from '../../src/client/resources.ts';
import { openCluster, type TestCluster } from './cluster.ts';

const TRACKING = 'kube-apiserver-legacy-service-account-token-tracking';
const LONG_AGO = '2020-01-01';

let cluster: TestCluster;
before(async () => {
  cluster = await openCluster({ optional: optionalResources });
});
after(() => cluster.close());

const dayNow = (): string => new Date().toISOString().slice(0, 10);

test('every node is told how long it may keep what it read', async () => {
  await cluster.addNode('node-1');
  await cluster.until('the annotation', async () => {
    const { metadata } = await cluster.of<Node>(NODES).get('', 'node-1');
    return metadata.annotations?.['node.alpha.kubernetes.io/ttl'] === '0';
  });
});

test('tokens that nobody has used for a year are marked, and go another year later', async () => {
  const maps = cluster.of<ConfigMap>(CONFIG_MAPS);
  const since = await cluster.until(
    'the day since when use is known',
    async () => (await maps.get('kube-system', TRACKING).catch(() => undefined))?.data?.['since'],
  );
  assert.ok(since <= dayNow());
  // Secrets of two years ago: the server writes when an object was made, so that the day of its last use is what tells.
  const names = ['unused', 'gone', 'own', 'used'];
  await cluster.of(SERVICE_ACCOUNTS).create({
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name: 'old', namespace: 'default' },
    secrets: names.filter(name => name !== 'own').map(name => ({ name })),
  } as KubeObject);
  await maps.patch('kube-system', TRACKING, { data: { since: LONG_AGO } });
  const secrets = cluster.of<Secret>(SECRETS);
  for (const name of names)
    await secrets.create({
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: {
        name,
        namespace: 'default',
        annotations: { 'kubernetes.io/service-account.name': 'old' },
        labels: {
          'kubernetes.io/legacy-token-last-used': name === 'used' ? dayNow() : LONG_AGO,
          ...(name === 'gone' ? { 'kubernetes.io/legacy-token-invalid-since': LONG_AGO } : {}),
        },
      },
      type: 'kubernetes.io/service-account-token',
    } as Secret);
  // Every change of a Secret is a reason to look: what a controller knew too late is seen at the next.
  let turn = 0;
  const touch = (name: string) =>
    secrets.patch('default', name, { metadata: { annotations: { turn: String(turn++) } } });
  await cluster.until('marked', async () => {
    const { metadata } = await touch('unused');
    return metadata.labels?.['kubernetes.io/legacy-token-invalid-since'] === dayNow();
  });
  await cluster.until('deleted', async () => (await touch('gone').catch(() => undefined)) === undefined);
  for (const name of ['own', 'used'])
    assert.equal((await touch(name)).metadata.labels?.['kubernetes.io/legacy-token-invalid-since'], undefined, name);
});

test('a migration writes every object once, and says when it is done', async () => {
  const migrations = cluster.of<StorageVersionMigration>(STORAGE_VERSION_MIGRATIONS);
  const migrate = (name: string, resource: string) =>
    migrations.create({
      apiVersion: 'storagemigration.k8s.io/v1beta1',
      kind: 'StorageVersionMigration',
      metadata: { name },
      spec: { resource: { group: '', resource } },
    } as StorageVersionMigration);
  const until = (name: string, type: string) =>
    cluster.until(`${name} ${type}`, async () => {
      const { status } = await migrations.get('', name);
      return status?.conditions?.some(one => one.type === type && one.status === 'True') && status;
    });
  await migrate('maps', 'configmaps');
  const status = await until('maps', 'Succeeded');
  assert.ok(Number(status.resourceVersion) > 0);
  assert.equal(status.conditions?.find(({ type }) => type === 'Running')?.status, 'False');
  await migrate('nothing', 'nothings');
  await until('nothing', 'Failed');
  const changed = { spec: { resource: { group: '', resource: 'pods' } } };
  await assert.rejects(migrations.patch('', 'maps', changed), /spec: .*field is immutable/s);
});
