/** Claims, volumes and disks as users have them: cox-local, local and host paths, and the clouds' disks through their CSI drivers. */

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { claim, IMAGE, localDisks, user } from './claims.ts';
import { Cloud } from './cloud.ts';
import { it, type Json, pod, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'storage');

const get = (...what: string[]): Promise<Json> => cluster.json('-n', ns, 'get', ...what);
const gone = (...what: string[]) =>
  eventually(`${what.join(' ')} gone`, async () => (await cluster.tryKubectl('-n', ns, 'get', ...what)).code !== 0, {
    timeoutMs: 60_000,
  });
const remove = (...what: string[]) => cluster.kubectl('-n', ns, 'delete', ...what, '--wait=false');
const volumeOf = async (claimName: string): Promise<string> => (await get('pvc', claimName)).spec.volumeName;
const disks = () => localDisks(cluster);
const event = (reason: string, text: string) =>
  eventually(
    `event ${reason}: ${text}`,
    async () =>
      (await get('events')).items.find((one: Json) => one.reason === reason && one.message.includes(text)) as Json,
    { timeoutMs: 60_000 },
  );

it(
  'a claim of the default class: made for its pod, of its size, kept while used, gone when deleted',
  cluster,
  async () => {
    await cluster.apply(ns, [
      claim('data', '64Mi'),
      user('writer', 'data', { script: 'echo kept > /data/file', spec: { securityContext: { fsGroup: 2000 } } }),
    ]);
    await cluster.readyPod(ns, 'writer');
    const bound = await get('pvc', 'data');
    assert.equal(bound.spec.storageClassName, 'cox-local');
    assert.equal(bound.status.phase, 'Bound');
    assert.match(await cluster.exec(ns, 'writer', 'stat', '-c', '%g %a', '/data'), /^2000 277[05]/);
    const full = await cluster.tryKubectl(
      '-n',
      ns,
      'exec',
      'writer',
      '--',
      'dd',
      'if=/dev/zero',
      'of=/data/big',
      'bs=1M',
      'count=100',
    );
    assert.match(full.stderr, /No space left on device/);
    await cluster.exec(ns, 'writer', 'rm', '/data/big');
    // Deleted in use: it waits, and the data is there.
    await remove('pvc', 'data');
    await eventually('claim terminating', async () => (await get('pvc', 'data')).metadata.deletionTimestamp);
    assert.equal(await cluster.exec(ns, 'writer', 'cat', '/data/file'), 'kept\n');
    const volume = await volumeOf('data');
    assert.ok(disks().includes(volume));
    await remove('pod', 'writer');
    await gone('pvc', 'data');
    await gone('pv', volume);
    assert.ok(!disks().includes(volume));
  },
);

it('data survives its pod, in block mode too, and grows', cluster, async () => {
  await cluster.apply(ns, [
    claim('stay', '32Mi'),
    claim('raw', '16Mi', { volumeMode: 'Block' }),
    user('first', 'stay', {
      script: 'echo one > /data/file; echo raw | dd of=/dev/raw conv=sync bs=512 count=1 2>/dev/null; sync',
      container: { volumeDevices: [{ name: 'raw', devicePath: '/dev/raw' }] },
      spec: {
        volumes: [
          { name: 'data', persistentVolumeClaim: { claimName: 'stay' } },
          { name: 'raw', persistentVolumeClaim: { claimName: 'raw' } },
        ],
      },
    }),
  ]);
  const first = await cluster.readyPod(ns, 'first');
  await eventually(
    'written',
    async () => (await cluster.tryKubectl('-n', ns, 'exec', 'first', '--', 'cat', '/data/file')).stdout === 'one\n',
  );
  await cluster.kubectl(
    '-n',
    ns,
    'patch',
    'pvc',
    'stay',
    '-p',
    '{"spec":{"resources":{"requests":{"storage":"80Mi"}}}}',
  );
  // Where the kernel lets us, while mounted; else when the next pod starts.
  await eventually(
    'volume grown',
    async () => (await get('pv', await volumeOf('stay'))).spec.capacity.storage === '80Mi',
  );
  await remove('pod', 'first');
  await gone('pod', 'first');
  await cluster.apply(ns, [
    user('second', 'stay', {
      container: { volumeDevices: [{ name: 'raw', devicePath: '/dev/raw' }] },
      spec: {
        volumes: [
          { name: 'data', persistentVolumeClaim: { claimName: 'stay' } },
          { name: 'raw', persistentVolumeClaim: { claimName: 'raw' } },
        ],
      },
    }),
  ]);
  const second = await cluster.readyPod(ns, 'second');
  assert.equal(second.spec.nodeName, first.spec.nodeName);
  assert.equal(await cluster.exec(ns, 'second', 'cat', '/data/file'), 'one\n');
  assert.match(await cluster.exec(ns, 'second', 'dd', 'if=/dev/raw', 'bs=512', 'count=1'), /^raw\n/);
  await eventually('claim says so', async () => (await get('pvc', 'stay')).status.capacity.storage === '80Mi');
  const kilobytes = Number((await cluster.exec(ns, 'second', 'df', '-k', '/data')).split('\n')[1]!.split(/\s+/)[1]);
  assert.ok(kilobytes > 60_000, `${kilobytes} KB`);
  await remove('pod', 'second');
  await remove('pvc', 'stay', 'raw');
});

it('a clone has its source’s content, and goes its own way', cluster, async () => {
  await cluster.apply(ns, [
    claim('origin', '32Mi'),
    user('origin', 'origin', { script: 'echo origin > /data/file; sync' }),
  ]);
  await cluster.readyPod(ns, 'origin');
  await eventually(
    'written',
    async () => (await cluster.tryKubectl('-n', ns, 'exec', 'origin', '--', 'cat', '/data/file')).stdout === 'origin\n',
  );
  await cluster.apply(ns, [
    claim('copy', '32Mi', { dataSource: { kind: 'PersistentVolumeClaim', name: 'origin' } }),
    user('copy', 'copy', {
      spec: {
        nodeName: undefined,
        affinity: undefined,
        volumes: [{ name: 'data', persistentVolumeClaim: { claimName: 'copy' } }],
      },
    }),
  ]);
  await cluster.readyPod(ns, 'copy');
  assert.equal(await cluster.exec(ns, 'copy', 'cat', '/data/file'), 'origin\n');
  await cluster.exec(ns, 'copy', 'sh', '-c', 'echo copy > /data/file');
  assert.equal(await cluster.exec(ns, 'origin', 'cat', '/data/file'), 'origin\n');
  await remove('pod', 'origin', 'copy');
  await remove('pvc', 'origin', 'copy');
});

it('a snapshot keeps what was, and a new claim begins with it', cluster, async () => {
  await cluster.apply(ns, [claim('shot', '32Mi'), user('shot', 'shot', { script: 'echo then > /data/file; sync' })]);
  await cluster.readyPod(ns, 'shot');
  await eventually(
    'written',
    async () => (await cluster.tryKubectl('-n', ns, 'exec', 'shot', '--', 'cat', '/data/file')).stdout === 'then\n',
  );
  await cluster.apply(ns, [
    {
      apiVersion: 'snapshot.storage.k8s.io/v1',
      kind: 'VolumeSnapshot',
      metadata: { name: 'shot' },
      spec: { source: { persistentVolumeClaimName: 'shot' } },
    },
  ]);
  const snapshot = await eventually('snapshot ready', async () => {
    const found = await get('volumesnapshot', 'shot');
    return found.status?.readyToUse ? found : undefined;
  });
  assert.equal(snapshot.status.restoreSize, '32Mi');
  await cluster.exec(ns, 'shot', 'sh', '-c', 'echo now > /data/file; sync');
  await cluster.apply(ns, [
    claim('restored', '48Mi', {
      dataSource: { apiGroup: 'snapshot.storage.k8s.io', kind: 'VolumeSnapshot', name: 'shot' },
    }),
    user('restored', 'restored'),
  ]);
  await cluster.readyPod(ns, 'restored');
  assert.equal(await cluster.exec(ns, 'restored', 'cat', '/data/file'), 'then\n');
  const kilobytes = Number((await cluster.exec(ns, 'restored', 'df', '-k', '/data')).split('\n')[1]!.split(/\s+/)[1]);
  assert.ok(kilobytes > 36_000, `${kilobytes} KB`);
  await remove('pod', 'shot', 'restored');
  await remove('pvc', 'shot', 'restored');
  await remove('volumesnapshot', 'shot');
  await gone('volumesnapshot', 'shot');
  await gone('volumesnapshotcontent', snapshot.status.boundVolumeSnapshotContentName);
});

it('volumes that live as long as their pod: generic ephemeral and inline CSI', cluster, async () => {
  await cluster.apply(ns, [
    pod('scratch', IMAGE, {
      command: ['sleep', '3600'],
      container: {
        volumeMounts: [
          { name: 'generic', mountPath: '/generic' },
          { name: 'inline', mountPath: '/inline' },
        ],
      },
      spec: {
        volumes: [
          {
            name: 'generic',
            ephemeral: {
              volumeClaimTemplate: {
                spec: { accessModes: ['ReadWriteOncePod'], resources: { requests: { storage: '16Mi' } } },
              },
            },
          },
          { name: 'inline', csi: { driver: 'cox-local', volumeAttributes: { sizeBytes: '16777216' } } },
        ],
      },
    }),
  ]);
  await cluster.readyPod(ns, 'scratch');
  const mounts = await cluster.exec(ns, 'scratch', 'df', '/generic', '/inline');
  assert.equal(mounts.match(/\/dev\/loop/g)?.length, 2, mounts);
  await remove('pod', 'scratch');
  await gone('pvc', 'scratch-generic');
  await eventually('no disk left of it', async () => !disks().some(name => name.startsWith('csi-')));
});

it('a stateful set has a claim a pod; whenScaled: Delete takes it away', cluster, async () => {
  await cluster.apply(ns, [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'db' },
      spec: { clusterIP: 'None', selector: { app: 'db' } },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'StatefulSet',
      metadata: { name: 'db' },
      spec: {
        serviceName: 'db',
        replicas: 2,
        podManagementPolicy: 'Parallel',
        persistentVolumeClaimRetentionPolicy: { whenScaled: 'Delete', whenDeleted: 'Retain' },
        selector: { matchLabels: { app: 'db' } },
        template: {
          metadata: { labels: { app: 'db' } },
          spec: {
            terminationGracePeriodSeconds: 1,
            containers: [
              {
                name: 'main',
                image: IMAGE,
                command: ['sh', '-c', 'hostname > /data/me; sleep 3600'],
                volumeMounts: [{ name: 'data', mountPath: '/data' }],
              },
            ],
          },
        },
        volumeClaimTemplates: [claim('data', '16Mi')],
      },
    },
  ]);
  await cluster.readyPods(ns, 'app=db', 2);
  assert.equal(await cluster.exec(ns, 'db-1', 'cat', '/data/me'), 'db-1\n');
  await cluster.kubectl('-n', ns, 'scale', 'statefulset', 'db', '--replicas=1');
  await gone('pvc', 'data-db-1');
  await remove('statefulset', 'db');
  await gone('pod', 'db-0');
  assert.equal((await get('pvc', 'data-db-0')).status.phase, 'Bound');
  await remove('pvc', 'data-db-0');
});

it('local and host path volumes by hand: the pod follows the volume, and waiting says for what', cluster, async t => {
  const folder = mkdtempSync(join(tmpdir(), 'cox-local-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, 'file'), 'by hand\n');
  mkdirSync(join(folder, 'sub'));
  const volume = (name: string, spec: object) => ({
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name },
    spec: { capacity: { storage: '1Gi' }, accessModes: ['ReadWriteOnce'], storageClassName: 'by-hand', ...spec },
  });
  await cluster.apply(ns, [
    {
      apiVersion: 'storage.k8s.io/v1',
      kind: 'StorageClass',
      metadata: { name: 'by-hand' },
      provisioner: 'kubernetes.io/no-provisioner',
      volumeBindingMode: 'WaitForFirstConsumer',
    },
    claim('hand', '1Gi', { storageClassName: 'by-hand' }),
    user('hand', 'hand', {
      container: {
        volumeMounts: [
          { name: 'data', mountPath: '/data' },
          { name: 'data', mountPath: '/sub', subPath: 'sub' },
        ],
      },
    }),
  ]);
  await event('FailedScheduling', "node(s) didn't find available persistent volumes to bind");
  await cluster.apply(ns, [
    volume('by-hand', {
      local: { path: folder },
      nodeAffinity: {
        required: {
          nodeSelectorTerms: [
            { matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: ['node-2'] }] },
          ],
        },
      },
    }),
  ]);
  const ready = await cluster.readyPod(ns, 'hand');
  assert.equal(ready.spec.nodeName, 'node-2');
  assert.equal(await cluster.exec(ns, 'hand', 'cat', '/data/file'), 'by hand\n');
  await cluster.exec(ns, 'hand', 'sh', '-c', 'echo x > /sub/y');
  assert.equal(readFileSync(join(folder, 'sub', 'y'), 'utf8'), 'x\n');
  await remove('pod', 'hand');
  await remove('pvc', 'hand');
  await eventually('released', async () => (await get('pv', 'by-hand')).status.phase === 'Released');
  assert.equal(readFileSync(join(folder, 'file'), 'utf8'), 'by hand\n');
  await cluster.kubectl('delete', 'pv', 'by-hand', '--wait=false');
  await cluster.kubectl('delete', 'storageclass', 'by-hand');
});

it('a driver in a pod mounts where the node sees it: /var/lib/kubelet, both ways', cluster, async () => {
  const path = '/var/lib/kubelet/plugins/propagation-test';
  const mounts = (name: string, propagation: string, script: string) =>
    pod(name, IMAGE, {
      command: ['sh', '-c', `${script}; sleep 3600`],
      container: {
        securityContext: { privileged: true },
        volumeMounts: [{ name: 'plugins', mountPath: path, mountPropagation: propagation }],
      },
      spec: { nodeName: 'node-1', volumes: [{ name: 'plugins', hostPath: { path, type: 'DirectoryOrCreate' } }] },
    });
  await cluster.apply(ns, [
    mounts(
      'mounter',
      'Bidirectional',
      `mkdir -p ${path}/there && mount -t tmpfs none ${path}/there && echo seen > ${path}/there/file`,
    ),
  ]);
  await cluster.readyPod(ns, 'mounter');
  await cluster.apply(ns, [mounts('viewer', 'HostToContainer', 'true')]);
  await cluster.readyPod(ns, 'viewer');
  await eventually(
    'the other pod sees it',
    async () =>
      (await cluster.tryKubectl('-n', ns, 'exec', 'viewer', '--', 'cat', `${path}/there/file`)).stdout === 'seen\n',
  );
  await cluster.exec(ns, 'mounter', 'umount', `${path}/there`);
  await remove('pod', 'mounter', 'viewer');
});

it('xfs grows while it is mounted', cluster, async t => {
  if (!existsSync('/usr/sbin/mkfs.xfs')) return t.skip('xfsprogs is not installed');
  await cluster.apply(ns, [
    {
      apiVersion: 'storage.k8s.io/v1',
      kind: 'StorageClass',
      metadata: { name: 'local-xfs' },
      provisioner: 'cox-local',
      parameters: { 'csi.storage.k8s.io/fstype': 'xfs' },
      volumeBindingMode: 'WaitForFirstConsumer',
      allowVolumeExpansion: true,
    },
    claim('xfs', '300Mi', { storageClassName: 'local-xfs' }),
    user('xfs', 'xfs'),
  ]);
  await cluster.readyPod(ns, 'xfs');
  const kilobytes = async () =>
    Number((await cluster.exec(ns, 'xfs', 'df', '-k', '/data')).split('\n')[1]!.split(/\s+/)[1]);
  const before = await kilobytes();
  await cluster.kubectl(
    '-n',
    ns,
    'patch',
    'pvc',
    'xfs',
    '-p',
    '{"spec":{"resources":{"requests":{"storage":"400Mi"}}}}',
  );
  await eventually('grown under the pod', async () => (await kilobytes()) > before + 80_000, { timeoutMs: 60_000 });
  await eventually('claim says so', async () => (await get('pvc', 'xfs')).status.capacity.storage === '400Mi');
  await remove('pod', 'xfs');
  await remove('pvc', 'xfs');
  await cluster.kubectl('delete', 'storageclass', 'local-xfs');
});

const cloud = new Cloud(cluster, { driver: 'ebs.csi.aws.com', topologyKey: 'topology.ebs.csi.aws.com/zone' });
after(() => cloud.end());

it(
  'a cloud’s disk by its in-tree names: provisioned, attached, staged, moved, grown, detached',
  cluster,
  async () => {
    await cloud.start('node-1', true);
    await cloud.start('node-2', false);
    await cluster.apply(ns, [
      {
        apiVersion: 'storage.k8s.io/v1',
        kind: 'StorageClass',
        metadata: { name: 'gp2' },
        provisioner: 'kubernetes.io/aws-ebs',
        parameters: { type: 'gp2', fsType: 'ext4' },
        allowVolumeExpansion: true,
      },
      claim('ebs', '32Mi', { storageClassName: 'gp2' }),
      user('ebs', 'ebs', { script: 'echo cloud > /data/file; sync' }),
    ]);
    const ready = await cluster.readyPod(ns, 'ebs');
    const volume = await get('pv', await volumeOf('ebs'));
    // As in-tree, with the zone where it was made; and the node attached what its status says.
    assert.match(volume.spec.awsElasticBlockStore.volumeID, /^pvc-/);
    const zone = cloud.zoneOf(ready.spec.nodeName);
    assert.equal(volume.metadata.labels['topology.kubernetes.io/zone'], zone);
    assert.equal(volume.metadata.labels['topology.kubernetes.io/region'], 'us-test-1');
    assert.equal(volume.metadata.annotations['pv.kubernetes.io/migrated-to'], 'ebs.csi.aws.com');
    await event('SuccessfulAttachVolume', `AttachVolume.Attach succeeded for volume "${volume.metadata.name}"`);
    const unique = `kubernetes.io/csi/ebs.csi.aws.com^${volume.spec.awsElasticBlockStore.volumeID}`;
    const status = (await get('node', ready.spec.nodeName)).status;
    assert.ok(status.volumesInUse.includes(unique));
    assert.ok(status.volumesAttached.some((one: Json) => one.name === unique));
    const attachments = (await get('volumeattachment')).items.filter((one: Json) => one.spec.attacher === cloud.driver);
    assert.equal(attachments.length, 1);
    assert.equal(attachments[0].spec.source.persistentVolumeName, volume.metadata.name);
    await cluster.kubectl(
      '-n',
      ns,
      'patch',
      'pvc',
      'ebs',
      '-p',
      '{"spec":{"resources":{"requests":{"storage":"64Mi"}}}}',
    );
    await eventually('grown', async () => (await get('pv', volume.metadata.name)).spec.capacity.storage === '64Mi');
    await remove('pod', 'ebs');
    await eventually(
      'detached',
      async () => {
        const left = (await get('volumeattachment')).items.filter((one: Json) => one.spec.attacher === cloud.driver);
        const node = (await get('node', ready.spec.nodeName)).status;
        return left.length === 0 && !node.volumesInUse?.includes(unique) && !node.volumesAttached?.length;
      },
      { timeoutMs: 60_000 },
    );
    await cluster.apply(ns, [user('ebs-2', 'ebs')]);
    await cluster.readyPod(ns, 'ebs-2');
    assert.equal(await cluster.exec(ns, 'ebs-2', 'cat', '/data/file'), 'cloud\n');
    await eventually('file system grown', async () => (await get('pvc', 'ebs')).status.capacity.storage === '64Mi');
    await remove('pod', 'ebs-2');
    await remove('pvc', 'ebs');
    await gone('pv', volume.metadata.name);
    assert.equal(readdirSync(join(cloud.folder, 'volumes')).length, 0);
    await cluster.kubectl('delete', 'storageclass', 'gp2');
  },
  { timeoutMs: 180_000 },
);

it(
  'a driver killed in the middle of calls: everything is done once it is back',
  cluster,
  async () => {
    await cluster.apply(ns, [
      {
        apiVersion: 'storage.k8s.io/v1',
        kind: 'StorageClass',
        metadata: { name: 'ebs' },
        provisioner: 'ebs.csi.aws.com',
        volumeBindingMode: 'WaitForFirstConsumer',
      },
      ...[1, 2].flatMap(i => [
        claim(`kill-${i}`, '16Mi', { storageClassName: 'ebs' }),
        user(`kill-${i}`, `kill-${i}`, { script: 'echo alive > /data/file' }),
      ]),
    ]);
    // Somewhere between provisioning, attaching, staging and publishing.
    for (let round = 0; round < 2; round++) {
      await new Promise(resolve => setTimeout(resolve, 150 + 200 * round));
      await cloud.kill('node-1');
      await cloud.kill('node-2');
      await cloud.start('node-1', true);
      await cloud.start('node-2', false);
    }
    for (const i of [1, 2]) {
      await cluster.readyPod(ns, `kill-${i}`, 90_000);
      assert.equal(await cluster.exec(ns, `kill-${i}`, 'cat', '/data/file'), 'alive\n');
    }
    assert.equal(readdirSync(join(cloud.folder, 'volumes')).length, 2);
    await remove('pod', 'kill-1', 'kill-2');
    await cloud.kill('node-1');
    await cloud.start('node-1', true);
    await remove('pvc', 'kill-1', 'kill-2');
    await eventually('no disk left', async () => readdirSync(join(cloud.folder, 'volumes')).length === 0, {
      timeoutMs: 90_000,
    });
    await cluster.kubectl('delete', 'storageclass', 'ebs');
  },
  { timeoutMs: 240_000 },
);
