/** Claims and persistent volumes: binding, waiting, losing, reclaiming, protection, through the real API server. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PersistentVolume, PersistentVolumeClaim, Pod } from '../../src/api/core/v1.gen.ts';
import type { VolumeAttachment } from '../../src/api/storage/v1.gen.ts';
import { isReason } from '../../src/base/errors.ts';
import { metrics } from '../../src/base/metrics.ts';
import {
  CSI_DRIVERS,
  CSI_NODES,
  CSI_STORAGE_CAPACITIES,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  PODS,
  STORAGE_CLASSES,
  VOLUME_ATTACHMENTS,
} from '../../src/client/resources.ts';
import { openCluster, type TestCluster } from './cluster.ts';

let cluster: TestCluster;
before(async () => {
  cluster = await openCluster();
  await cluster.addNode('node-1', { labels: { disk: 'a' } });
  await cluster.addNode('node-2', { labels: { disk: 'b' } });
});
after(() => cluster.close());

const claims = () => cluster.of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS);
const volumes = () => cluster.of<PersistentVolume>(PERSISTENT_VOLUMES);
const makeVolume = (name: string, storage: string, spec: object = {}, metadata: object = {}) =>
  volumes().create({
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name, ...metadata },
    spec: {
      capacity: { storage },
      accessModes: ['ReadWriteOnce'],
      hostPath: { path: `/data/${name}` },
      storageClassName: '',
      ...spec,
    },
  });
const makeClaim = (name: string, storage: string, spec: object = {}, metadata: object = {}) =>
  claims().create({
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name, namespace: 'default', ...metadata },
    spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage } }, storageClassName: '', ...spec },
  });
const claim = (name: string) => claims().get('default', name);
const bound = (name: string) =>
  cluster.until(`claim ${name} bound`, async () => {
    const found = await claim(name);
    return found.status?.phase === 'Bound' ? found : undefined;
  });
const event = (reason: string, text: string | RegExp) =>
  cluster.until(`event ${reason} ${text}`, async () =>
    (await cluster.events()).find(
      one => one.reason === reason && (typeof text === 'string' ? one.message.includes(text) : text.test(one.message)),
    ),
  );
/** For what takes long on a busy machine. */
const eventually = async <T>(check: () => T | undefined): Promise<T> => {
  for (let tries = 0; tries < 1200; tries++) {
    const found = check();
    if (found) return found;
    await sleep(50);
  }
  throw new Error('not within a minute');
};
const phase = (name: string, wanted: string) =>
  cluster.until(`volume ${name} ${wanted}`, async () => {
    const found = await volumes().get('', name);
    return found.status?.phase === wanted ? found : undefined;
  });
const makeClass = (name: string, extra: object = {}) =>
  cluster.of(STORAGE_CLASSES).create({
    apiVersion: 'storage.k8s.io/v1',
    kind: 'StorageClass',
    metadata: { name },
    provisioner: 'example.com/disk',
    ...extra,
  } as never);

test('the smallest volume that fits', async () => {
  await makeVolume('big', '10Gi');
  await makeVolume('small', '2Gi');
  await makeVolume('tiny', '512Mi');
  await makeClaim('fits', '1Gi');
  const found = await bound('fits');
  assert.equal(found.spec.volumeName, 'small');
  assert.deepEqual(found.status?.capacity, { storage: '2Gi' });
  assert.deepEqual(found.status?.accessModes, ['ReadWriteOnce']);
  assert.equal(found.metadata.annotations?.['pv.kubernetes.io/bind-completed'], 'yes');
  assert.equal(found.metadata.annotations?.['pv.kubernetes.io/bound-by-controller'], 'yes');
  const volume = await phase('small', 'Bound');
  assert.equal(volume.spec?.claimRef?.uid, found.metadata.uid);
});

test('modes, class and selector must match; a later volume is found at once', async () => {
  await makeClaim('picky', '1Gi', {
    accessModes: ['ReadWriteMany'],
    storageClassName: 'manual',
    selector: { matchLabels: { tier: 'gold' } },
  });
  await event('ProvisioningFailed', 'storageclass.storage.k8s.io "manual" not found');
  await makeVolume('m1', '1Gi', { storageClassName: 'manual' }, { labels: { tier: 'gold' } });
  await makeVolume('m2', '1Gi', { storageClassName: 'manual', accessModes: ['ReadWriteMany'] });
  await makeVolume('m3', '1Gi', { accessModes: ['ReadWriteMany'] }, { labels: { tier: 'gold' } });
  await makeVolume(
    'm4',
    '1Gi',
    { storageClassName: 'manual', accessModes: ['ReadWriteMany'], volumeMode: 'Block' },
    { labels: { tier: 'gold' } },
  );
  assert.equal((await claim('picky')).status?.phase, 'Pending');
  await makeVolume(
    'm5',
    '1Gi',
    { storageClassName: 'manual', accessModes: ['ReadWriteMany', 'ReadWriteOnce'] },
    { labels: { tier: 'gold' } },
  );
  assert.equal((await bound('picky')).spec.volumeName, 'm5');
});

test('pre-binding both ways, and its refusals', async () => {
  await makeVolume('for-me', '1Gi', { claimRef: { namespace: 'default', name: 'me' } });
  await makeVolume('also-fits', '1Gi');
  await makeClaim('me', '1Gi');
  const me = await bound('me');
  assert.equal(me.spec.volumeName, 'for-me');
  assert.equal(
    (await volumes().get('', 'for-me')).metadata.annotations?.['pv.kubernetes.io/bound-by-controller'],
    undefined,
  );
  await makeClaim('names-it', '500Mi', { volumeName: 'also-fits' });
  assert.equal((await bound('names-it')).metadata.annotations?.['pv.kubernetes.io/bound-by-controller'], undefined);
  await makeClaim('names-taken', '500Mi', { volumeName: 'also-fits' });
  await event('FailedBinding', 'volume "also-fits" already bound to a different claim.');
  await makeVolume('too-small', '1Mi');
  await makeClaim('names-small', '500Mi', { volumeName: 'too-small' });
  await event('VolumeMismatch', 'Cannot bind to requested volume "too-small": requested PV is too small');
});

test('a claim that waits says for what', async () => {
  await makeClaim('nothing', '100Ti');
  await event('FailedBinding', 'no persistent volumes available for this claim and no storage class is set');
  await makeClass('late', { volumeBindingMode: 'WaitForFirstConsumer' });
  await makeClaim('lazy', '1Gi', { storageClassName: 'late' });
  await event('WaitForFirstConsumer', 'waiting for first consumer to be created before binding');
  await makeClass('quick');
  await makeClaim('wants-disk', '1Gi', { storageClassName: 'quick' });
  await event('ExternalProvisioning', "external provisioner 'example.com/disk'");
  const asked = await claim('wants-disk');
  assert.equal(asked.metadata.annotations?.['volume.kubernetes.io/storage-provisioner'], 'example.com/disk');
});

test('the default class is given to claims without one, also later', async () => {
  await claims().create({
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name: 'classless', namespace: 'default' },
    spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '50Ti' } } },
  });
  const standard = await makeClass('standard');
  await cluster
    .of(STORAGE_CLASSES)
    .patch('', 'standard', { metadata: { annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' } } });
  await cluster.until('class assigned', async () => (await claim('classless')).spec.storageClassName === 'standard');
  await cluster.of(STORAGE_CLASSES).delete('', standard.metadata.name);
});

test('a volume whose claim went is Released and keeps its data; a claim whose volume went is Lost', async () => {
  await makeVolume('kept', '3Gi', { storageClassName: 'keep' });
  await makeClaim('leaves', '3Gi', { storageClassName: 'keep' });
  await bound('leaves');
  await claims().delete('default', 'leaves');
  const kept = await phase('kept', 'Released');
  assert.equal(kept.spec?.claimRef?.name, 'leaves');
  // A namesake is not the claim it belonged to.
  await makeClaim('leaves', '3Gi', { storageClassName: 'keep' });
  await event('ProvisioningFailed', 'storageclass.storage.k8s.io "keep" not found');
  assert.equal((await volumes().get('', 'kept')).status?.phase, 'Released');
  await volumes().patch('', 'kept', { spec: { claimRef: null } });
  assert.equal((await bound('leaves')).spec.volumeName, 'kept');
  await volumes().delete('', 'kept');
  await event('ClaimLost', 'Bound claim has lost its PersistentVolume. Data on the volume is lost!');
  await cluster.until('lost', async () => (await claim('leaves')).status?.phase === 'Lost');
});

test('Delete of a volume that nobody can delete fails and says so', async () => {
  await makeVolume('stuck', '1Gi', { storageClassName: 'stuck', persistentVolumeReclaimPolicy: 'Delete' });
  await makeClaim('of-stuck', '1Gi', { storageClassName: 'stuck' });
  await bound('of-stuck');
  await claims().delete('default', 'of-stuck');
  const failed = await phase('stuck', 'Failed');
  assert.match(failed.status?.message ?? '', /no deletable volume plugin matched/);
});

test('Recycle empties the volume with a pod and frees it', async () => {
  await makeVolume('again', '1Gi', { storageClassName: 'again', persistentVolumeReclaimPolicy: 'Recycle' });
  await makeClaim('of-again', '1Gi', { storageClassName: 'again' });
  await bound('of-again');
  await claims().delete('default', 'of-again');
  const pod = await cluster.until('recycler', async () =>
    cluster
      .of<Pod>(PODS)
      .get('default', 'recycler-for-again')
      .catch(() => undefined),
  );
  assert.deepEqual(pod.spec.volumes?.[0]?.hostPath?.path, '/data/again');
  assert.equal((await volumes().get('', 'again')).status?.phase, 'Released');
  cluster.frozen.add('recycler-for-again');
  await cluster.of<Pod>(PODS).patchStatus('default', 'recycler-for-again', { status: { phase: 'Succeeded' } });
  const free = await phase('again', 'Available');
  assert.equal(free.spec?.claimRef, undefined);
});

test('claims in use and bound volumes are not removed', async () => {
  await makeVolume('guarded', '1Gi', { storageClassName: 'guard' }, { finalizers: ['kubernetes.io/pv-protection'] });
  await makeClaim('guarded', '1Gi', { storageClassName: 'guard' }, { finalizers: ['kubernetes.io/pvc-protection'] });
  await bound('guarded');
  const user: Pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'user', namespace: 'default' },
    spec: {
      nodeName: 'node-1',
      containers: [{ name: 'main', image: 'a:1' }],
      volumes: [{ name: 'data', persistentVolumeClaim: { claimName: 'guarded' } }],
    },
  };
  await cluster.of<Pod>(PODS).create(user);
  await claims().delete('default', 'guarded');
  await volumes().delete('', 'guarded');
  // Something else passes through the same controllers meanwhile.
  await makeVolume('after', '1Gi', { storageClassName: 'after' });
  await makeClaim('after', '1Gi', { storageClassName: 'after' });
  await bound('after');
  assert.ok((await claim('guarded')).metadata.deletionTimestamp);
  assert.equal((await volumes().get('', 'guarded')).status?.phase, 'Bound');
  await cluster.of<Pod>(PODS).delete('default', 'user', { gracePeriodSeconds: 0 });
  const gone = (read: () => Promise<unknown>) => async () => {
    try {
      await read();
      return false;
    } catch (error) {
      return isReason(error, 'NotFound');
    }
  };
  await cluster.until(
    'claim gone',
    gone(() => claim('guarded')),
  );
  await cluster.until(
    'volume gone',
    gone(() => volumes().get('', 'guarded')),
  );
});

test('ephemeral volumes: the claim is made and belongs to the pod', async () => {
  const withScratch = (name: string): Pod => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default' },
    spec: {
      containers: [{ name: 'main', image: 'a:1' }],
      volumes: [
        {
          name: 'scratch',
          ephemeral: {
            volumeClaimTemplate: {
              metadata: { labels: { of: name } },
              spec: {
                accessModes: ['ReadWriteOnce'],
                storageClassName: 'scratch',
                resources: { requests: { storage: '1Gi' } },
              },
            },
          },
        },
      ],
    },
  });
  const pod = await cluster.of<Pod>(PODS).create(withScratch('eph'));
  const made = await cluster.until('claim', async () => claim('eph-scratch').catch(() => undefined));
  assert.equal(made.metadata.ownerReferences?.[0]?.uid, pod.metadata.uid);
  assert.equal(made.metadata.labels?.['of'], 'eph');
  await makeClaim('taken-scratch', '1Gi');
  await cluster.of<Pod>(PODS).create(withScratch('taken'));
  await event(
    'FailedToCreateEphemeralVolumeClaim',
    'PVC default/taken-scratch was not created for pod default/taken (pod is not owner)',
  );
});

const user = (name: string, claimName: string, spec: object = {}): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'default' },
  spec: {
    containers: [{ name: 'main', image: 'a:1' }],
    volumes: [{ name: 'data', persistentVolumeClaim: { claimName } }],
    ...spec,
  },
});
const unschedulable = (name: string, text: string) =>
  cluster.until(`${name}: ${text}`, async () => {
    const pod = await cluster.of<Pod>(PODS).get('default', name);
    const message = pod.status?.conditions?.find(one => one.type === 'PodScheduled')?.message;
    return message?.includes(text) ? message : undefined;
  });
const placed = (name: string) =>
  cluster.until(`${name} placed`, async () => (await cluster.of<Pod>(PODS).get('default', name)).spec.nodeName);
const onNode = (disk: string) => ({
  nodeAffinity: {
    required: { nodeSelectorTerms: [{ matchExpressions: [{ key: 'disk', operator: 'In', values: [disk] }] }] },
  },
});

test('local volumes wait for the pod, and lead it to their node', async () => {
  await makeClass('local', { provisioner: 'kubernetes.io/no-provisioner', volumeBindingMode: 'WaitForFirstConsumer' });
  await makeVolume('on-b', '5Gi', {
    storageClassName: 'local',
    hostPath: undefined,
    local: { path: '/b' },
    ...onNode('b'),
  });
  await makeClaim('local-1', '1Gi', { storageClassName: 'local' });
  await makeClaim('local-2', '1Gi', { storageClassName: 'local' });
  await event('WaitForFirstConsumer', 'waiting for first consumer');
  assert.equal((await claim('local-1')).spec.volumeName, undefined);
  await cluster.of<Pod>(PODS).create(user('wants-local', 'local-1'));
  assert.equal(await placed('wants-local'), 'node-2');
  assert.equal((await bound('local-1')).spec.volumeName, 'on-b');
  // One volume, one claim: the other waits, and says for what.
  await cluster.of<Pod>(PODS).create(user('comes-late', 'local-2'));
  await unschedulable('comes-late', "2 node(s) didn't find available persistent volumes to bind");
  await makeVolume('on-a', '5Gi', {
    storageClassName: 'local',
    hostPath: undefined,
    local: { path: '/a' },
    ...onNode('a'),
  });
  assert.equal(await placed('comes-late'), 'node-1');
});

test('a pod whose volume is being made is nominated for its node meanwhile', async () => {
  await makeClass('made-late', { volumeBindingMode: 'WaitForFirstConsumer' });
  await makeClaim('made', '1Gi', { storageClassName: 'made-late' });
  await cluster.of<Pod>(PODS).create(user('expects', 'made'));
  const expects = async () => cluster.of<Pod>(PODS).get('default', 'expects');
  const node = await cluster.until('nominated', async () => (await expects()).status?.nominatedNodeName);
  assert.equal((await expects()).spec.nodeName, undefined);
  await makeVolume('made-at-last', '1Gi', {
    storageClassName: 'made-late',
    claimRef: { namespace: 'default', name: 'made' },
  });
  assert.equal(await placed('expects'), node);
  assert.equal((await expects()).status?.nominatedNodeName, undefined);
});

test('a burst of pods gets a volume each', async () => {
  for (let i = 0; i < 6; i++) {
    await makeVolume(`burst-${i}`, '1Gi', {
      storageClassName: 'burst',
      hostPath: undefined,
      local: { path: `/d${i}` },
      ...onNode(i % 2 ? 'a' : 'b'),
    });
    await makeClaim(`burst-${i}`, '1Gi', { storageClassName: 'burst' });
  }
  await makeClass('burst', { provisioner: 'kubernetes.io/no-provisioner', volumeBindingMode: 'WaitForFirstConsumer' });
  await Promise.all([0, 1, 2, 3, 4, 5].map(i => cluster.of<Pod>(PODS).create(user(`burst-${i}`, `burst-${i}`))));
  const names = await Promise.all([0, 1, 2, 3, 4, 5].map(async i => (await bound(`burst-${i}`)).spec.volumeName));
  assert.equal(new Set(names).size, 6);
  for (let i = 0; i < 6; i++) {
    const node = await placed(`burst-${i}`);
    const volume = await volumes().get('', names[i]!);
    const disk = volume.spec!.nodeAffinity!.required!.nodeSelectorTerms[0]!.matchExpressions![0]!.values![0];
    assert.equal(node, disk === 'a' ? 'node-1' : 'node-2');
  }
});

test('ReadWriteOncePod: one pod in the cluster', async () => {
  await makeVolume('single', '1Gi', { storageClassName: 'single', accessModes: ['ReadWriteOncePod'] });
  await makeClaim('single', '1Gi', { storageClassName: 'single', accessModes: ['ReadWriteOncePod'] });
  await bound('single');
  await cluster.of<Pod>(PODS).create(user('first', 'single'));
  await placed('first');
  await cluster.of<Pod>(PODS).create(user('second', 'single'));
  await unschedulable(
    'second',
    'node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode',
  );
  await cluster.of<Pod>(PODS).delete('default', 'first', { gracePeriodSeconds: 0 });
  await placed('second');
});

test('a node takes no more volumes of a driver than it said', async () => {
  await cluster.of(CSI_NODES).create({
    apiVersion: 'storage.k8s.io/v1',
    kind: 'CSINode',
    metadata: { name: 'node-1' },
    spec: { drivers: [{ name: 'limited', nodeID: 'n1', allocatable: { count: 1 } }] },
  } as never);
  for (const name of ['lim-1', 'lim-2']) {
    await makeVolume(name, '1Gi', {
      storageClassName: 'lim',
      hostPath: undefined,
      csi: { driver: 'limited', volumeHandle: name },
      ...onNode('a'),
    });
    await makeClaim(name, '1Gi', { storageClassName: 'lim', volumeName: name });
    await bound(name);
  }
  await cluster.of<Pod>(PODS).create(user('lim-1', 'lim-1'));
  assert.equal(await placed('lim-1'), 'node-1');
  await cluster.of<Pod>(PODS).create(user('lim-2', 'lim-2'));
  await unschedulable('lim-2', '1 node(s) exceed max volume count');
});

test('a driver that tells its capacity: the pod goes where there is room, and waits while there is none', async () => {
  await cluster.of(CSI_DRIVERS).create({
    apiVersion: 'storage.k8s.io/v1',
    kind: 'CSIDriver',
    metadata: { name: 'roomy.example.com' },
    spec: { storageCapacity: true },
  } as never);
  await makeClass('roomy', { provisioner: 'roomy.example.com', volumeBindingMode: 'WaitForFirstConsumer' });
  const tell = (name: string, disk: string, sizes: object) =>
    cluster.of(CSI_STORAGE_CAPACITIES).create({
      apiVersion: 'storage.k8s.io/v1',
      kind: 'CSIStorageCapacity',
      metadata: { name, namespace: 'default' },
      storageClassName: 'roomy',
      nodeTopology: { matchLabels: { disk } },
      ...sizes,
    } as never);
  await makeClaim('roomy-1', '5Gi', { storageClassName: 'roomy' });
  await cluster.of<Pod>(PODS).create(user('roomy-1', 'roomy-1'));
  await unschedulable('roomy-1', '2 node(s) did not have enough free storage');
  // Room enough in all, but not for a volume of that size.
  await tell('of-a', 'a', { capacity: '100Gi', maximumVolumeSize: '4Gi' });
  await tell('of-b', 'b', { capacity: '6Gi' });
  const chosen = await cluster.until('node chosen', async () => {
    const { annotations } = (await claim('roomy-1')).metadata;
    return annotations?.['volume.kubernetes.io/selected-node'];
  });
  assert.equal(chosen, 'node-2');
  await event('ExternalProvisioning', "by the external provisioner 'roomy.example.com'");
});

test('attachments are timed, those that fail and those that go too', async () => {
  await makeVolume('disk', '1Gi', {
    hostPath: undefined,
    csi: { driver: 'timed.example.com', volumeHandle: 'h' },
    storageClassName: 'timed',
  });
  await makeClaim('disk', '1Gi', { storageClassName: 'timed', volumeName: 'disk' });
  await bound('disk');
  cluster.frozen.add('attached');
  await cluster.of<Pod>(PODS).create({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'attached', namespace: 'default' },
    spec: {
      nodeName: 'node-1',
      containers: [{ name: 'c', image: 'i' }],
      volumes: [{ name: 'v', persistentVolumeClaim: { claimName: 'disk' } }],
    },
  } as unknown as Pod);
  const attachments = cluster.of<VolumeAttachment>(VOLUME_ATTACHMENTS);
  const found = await cluster.until('the attachment', async () =>
    (await attachments.list('')).items.find(({ spec }) => spec.attacher === 'timed.example.com'),
  );
  const told = (operation: string, status: string) =>
    metrics
      .render({ prefixes: ['storage_operation_duration_seconds'] })
      .includes(
        `_count{volume_plugin="kubernetes.io/csi:timed.example.com",operation_name="${operation}",status="${status}",migrated="false"} 1\n`,
      );
  const { name } = found.metadata;
  await attachments.patchStatus('', name, {
    status: { attached: false, attachError: { message: 'no', time: '2026-01-01T00:00:00Z' } },
  });
  await cluster.until('the failure is told', () => told('volume_attach', 'fail-unknown'));
  await attachments.patchStatus('', name, { status: { attached: true, attachError: null } });
  await cluster.until('the success is told', () => told('volume_attach', 'success'));
  await cluster.of<Pod>(PODS).delete('default', 'attached', { gracePeriodSeconds: 0 });
  await cluster.until('the end is told', () => told('volume_detach', 'success'));
});

test('1 000 claims each get a volume of their own', async () => {
  await Promise.all(
    Array.from({ length: 1000 }, (_, i) => makeVolume(`bulk-${i}`, '1Gi', { storageClassName: 'bulk' })),
  );
  const startMs = performance.now();
  await Promise.all(
    Array.from({ length: 1000 }, (_, i) => makeClaim(`bulk-${i}`, '1Gi', { storageClassName: 'bulk' })),
  );
  const informer = cluster.informers.get<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS);
  const isBound = (one: PersistentVolumeClaim) => one.spec.storageClassName === 'bulk' && one.status?.phase === 'Bound';
  const all = await eventually(() => {
    const mine = [...informer.values()].filter(isBound);
    return mine.length === 1000 ? mine : undefined;
  });
  console.log(`1000 claims created and bound in ${(performance.now() - startMs).toFixed(0)} ms`);
  assert.equal(new Set(all.map(one => one.spec.volumeName)).size, 1000);
});
