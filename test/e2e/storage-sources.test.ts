/** Where a volume's content and attributes come from beside its class: populators, snapshots made beforehand, classes of attributes, recycling. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { claim, IMAGE, user } from './claims.ts';
import { it, type Json, pod, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'storage-sources');
const lender = useNamespace(cluster, 'storage-lender');

const get = (...what: string[]): Promise<Json> => cluster.json('-n', ns, 'get', ...what);
const isThere = async (...what: string[]) => (await cluster.tryKubectl('-n', ns, 'get', ...what)).code === 0;
const gone = (...what: string[]) =>
  eventually(`${what.join(' ')} gone`, async () => !(await isThere(...what)), { timeoutMs: 60_000 });
const remove = (...what: string[]) => cluster.kubectl('-n', ns, 'delete', ...what, '--wait=false');
const patch = (what: string, name: string, change: object) =>
  cluster.kubectl('-n', ns, 'patch', what, name, '--type=merge', '-p', JSON.stringify(change));
const event = (reason: string, text: string) =>
  eventually(
    `event ${reason}: ${text}`,
    async () => (await get('events')).items.some((one: Json) => one.reason === reason && one.message.includes(text)),
    { timeoutMs: 60_000 },
  );
const says = (name: string, text: string) =>
  eventually(
    `pod ${name} says ${text}`,
    async () => (await cluster.tryKubectl('-n', ns, 'logs', name)).stdout.includes(text),
    { timeoutMs: 60_000 },
  );
const bound = (name: string): Promise<Json> =>
  eventually(
    `claim ${name} bound`,
    async () => {
      const found = await get('pvc', name);
      return found.status.phase === 'Bound' ? found : undefined;
    },
    { timeoutMs: 60_000 },
  );

it('a claim that a populator fills: nobody else does, and an unknown source is said', cluster, async () => {
  await cluster.apply(ns, [
    claim('filled', '16Mi', { dataSourceRef: { apiGroup: 'example.com', kind: 'Hello', name: 'world' } }),
    user('reader', 'filled', { script: 'cat /data/file' }),
  ]);
  await event('UnrecognizedDataSourceKind', 'does not match any registered VolumePopulator');
  await cluster.apply(ns, [
    {
      apiVersion: 'populator.storage.k8s.io/v1beta1',
      kind: 'VolumePopulator',
      metadata: { name: 'hello' },
      sourceKind: { group: 'example.com', kind: 'Hello' },
    },
  ]);
  await event('Provisioning', 'Assuming an external populator will provision the volume');
  // What populators do: another claim for the same node, filled by a pod, and its volume handed over.
  const SELECTED_NODE = 'volume.kubernetes.io/selected-node';
  const node = (await get('pvc', 'filled')).metadata.annotations[SELECTED_NODE];
  const prime = claim('prime', '16Mi') as Json;
  prime.metadata.annotations = { [SELECTED_NODE]: node };
  await cluster.apply(ns, [prime, user('populate', 'prime', { script: 'echo hello > /data/file; sync; echo filled' })]);
  await says('populate', 'filled');
  await remove('pod', 'populate', '--grace-period=0', '--force');
  const { volumeName } = (await bound('prime')).spec;
  const { metadata } = await get('pvc', 'filled');
  await patch('pv', volumeName, {
    spec: { claimRef: { namespace: ns, name: 'filled', uid: metadata.uid, resourceVersion: metadata.resourceVersion } },
  });
  assert.equal((await bound('filled')).spec.volumeName, volumeName);
  await remove('pvc', 'prime');
  await says('reader', 'hello');
  await remove('pod', 'reader', '--grace-period=0', '--force');
  await remove('pvc', 'filled');
  await gone('pv', volumeName);
  await cluster.kubectl('delete', 'volumepopulator', 'hello');
});

it('a claim of another namespace is no source without a grant', cluster, async () => {
  await cluster.apply(ns, [
    claim('stolen', '16Mi', {
      dataSourceRef: { kind: 'PersistentVolumeClaim', name: 'secret', namespace: 'kube-system' },
    }),
    user('thief', 'stolen'),
  ]);
  await event('ProvisioningFailed', 'accessing kube-system/secret of PersistentVolumeClaim dataSource from');
  await remove('pod', 'thief');
  await remove('pvc', 'stolen');
});

it('a claim of another namespace is the source once that namespace grants it', cluster, async () => {
  await cluster.apply(lender, [
    claim('original', '16Mi'),
    user('writer', 'original', { script: 'echo lent > /data/file; sync; echo written' }),
  ]);
  await eventually(
    'the original is written',
    async () => (await cluster.tryKubectl('-n', lender, 'logs', 'writer')).stdout.includes('written'),
    { timeoutMs: 60_000 },
  );
  await cluster.apply(ns, [
    claim('lent', '16Mi', { dataSourceRef: { kind: 'PersistentVolumeClaim', name: 'original', namespace: lender } }),
    user('borrower', 'lent', { script: 'cat /data/file' }),
  ]);
  await event('ProvisioningFailed', `accessing ${lender}/original of PersistentVolumeClaim dataSource from`);
  await cluster.apply(lender, [
    {
      apiVersion: 'gateway.networking.k8s.io/v1beta1',
      kind: 'ReferenceGrant',
      metadata: { name: 'lend' },
      spec: {
        from: [{ group: '', kind: 'PersistentVolumeClaim', namespace: ns }],
        to: [{ group: '', kind: 'PersistentVolumeClaim', name: 'original' }],
      },
    },
  ]);
  await says('borrower', 'lent');
  await remove('pod', 'borrower');
  await remove('pvc', 'lent');
});

it('a snapshot whose content somebody made by hand', cluster, async () => {
  await cluster.apply(ns, [
    claim('shot', '16Mi'),
    user('shot', 'shot', { script: 'echo then > /data/file; sync; echo written' }),
  ]);
  await says('shot', 'written');
  const snapshot = (name: string, source: object) => ({
    apiVersion: 'snapshot.storage.k8s.io/v1',
    kind: 'VolumeSnapshot',
    metadata: { name },
    spec: { source },
  });
  const ready = (name: string): Promise<Json> =>
    eventually(`snapshot ${name} ready`, async () => {
      const found = await get('volumesnapshot', name);
      return found.status?.readyToUse ? found : undefined;
    });
  await cluster.apply(ns, [snapshot('taken', { persistentVolumeClaimName: 'shot' })]);
  const { boundVolumeSnapshotContentName: taken } = (await ready('taken')).status;
  // As a backup does it: the snapshot outlives its objects, and is known again by its handle.
  await patch('volumesnapshotcontent', taken, { spec: { deletionPolicy: 'Retain' } });
  const { snapshotHandle } = (await get('volumesnapshotcontent', taken)).status;
  await remove('volumesnapshot', 'taken');
  await gone('volumesnapshot', 'taken');
  await remove('volumesnapshotcontent', taken);
  await gone('volumesnapshotcontent', taken);
  await cluster.apply(ns, [
    snapshot('known', { volumeSnapshotContentName: `known-${ns}` }),
    {
      apiVersion: 'snapshot.storage.k8s.io/v1',
      kind: 'VolumeSnapshotContent',
      metadata: { name: `known-${ns}` },
      spec: {
        driver: 'cox-local',
        deletionPolicy: 'Delete',
        source: { snapshotHandle },
        volumeSnapshotRef: { namespace: ns, name: 'known' },
      },
    },
  ]);
  assert.equal((await ready('known')).status.restoreSize, '16Mi');
  await cluster.apply(ns, [
    claim('restored', '16Mi', {
      dataSource: { apiGroup: 'snapshot.storage.k8s.io', kind: 'VolumeSnapshot', name: 'known' },
    }),
    user('restored', 'restored', { script: 'cat /data/file' }),
  ]);
  await says('restored', 'then');
  await remove('pod', 'shot', 'restored', '--grace-period=0', '--force');
  await remove('volumesnapshot', 'known');
  await gone('volumesnapshotcontent', `known-${ns}`);
  await remove('pvc', 'shot', 'restored');
});

it('a class of attributes: given, changed, and held while it is used', cluster, async () => {
  const attributes = (name: string, parameters: object) => ({
    apiVersion: 'storage.k8s.io/v1',
    kind: 'VolumeAttributesClass',
    metadata: { name: `${ns}-${name}` },
    driverName: 'cox-local',
    parameters,
  });
  const [gold, silver] = [`${ns}-gold`, `${ns}-silver`];
  await cluster.apply(ns, [
    attributes('gold', { iops: '100' }),
    attributes('silver', { iops: '50' }),
    claim('fast', '16Mi', { volumeAttributesClassName: gold }),
    user('fast', 'fast', { script: 'echo up' }),
  ]);
  await says('fast', 'up');
  const current = (name: string) =>
    eventually(`claim has ${name}`, async () => {
      const { status } = await get('pvc', 'fast');
      return status.currentVolumeAttributesClassName === name && !status.modifyVolumeStatus;
    });
  await current(gold);
  const { volumeName } = (await get('pvc', 'fast')).spec;
  const parameters = (): Json => {
    const node = ['node-1', 'node-2']
      .map(one => join(cluster.stateDir, one, 'local-volumes', 'volumes', volumeName, 'disk.json'))
      .find(file => existsSync(file));
    return JSON.parse(readFileSync(node!, 'utf8')).parameters;
  };
  assert.equal(parameters().iops, '100');
  await patch('pvc', 'fast', { spec: { volumeAttributesClassName: silver } });
  await current(silver);
  assert.equal(parameters().iops, '50');
  assert.equal((await get('pv', volumeName)).spec.volumeAttributesClassName, silver);
  await remove('volumeattributesclass', silver, gold);
  await gone('volumeattributesclass', gold);
  assert.ok((await get('volumeattributesclass', silver)).metadata.deletionTimestamp, 'held');
  // A class that is not there: the claim says what it waits for.
  await patch('pvc', 'fast', { spec: { volumeAttributesClassName: `${ns}-none` } });
  await eventually('pending', async () => (await get('pvc', 'fast')).status.modifyVolumeStatus?.status === 'Pending');
  await remove('pod', 'fast', '--grace-period=0', '--force');
  await remove('pvc', 'fast');
  await gone('volumeattributesclass', silver);
});

it('Recycle: emptied by a pod of the node’s own programs, and free again', cluster, async () => {
  const path = join(cluster.stateDir, 'recycled');
  mkdirSync(join(path, 'folder'), { recursive: true });
  writeFileSync(join(path, 'folder', 'file'), 'old');
  writeFileSync(join(path, '.hidden'), 'old');
  const name = `${ns}-recycled`;
  await cluster.apply(ns, [
    {
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name },
      spec: {
        capacity: { storage: '1Gi' },
        accessModes: ['ReadWriteOnce'],
        persistentVolumeReclaimPolicy: 'Recycle',
        storageClassName: name,
        hostPath: { path },
      },
    },
    claim('recycled', '1Gi', { storageClassName: name }),
  ]);
  await bound('recycled');
  await remove('pvc', 'recycled');
  await eventually('free again', async () => (await get('pv', name)).status.phase === 'Available', {
    timeoutMs: 60_000,
  });
  assert.ok(existsSync(path) && !existsSync(join(path, 'folder')) && !existsSync(join(path, '.hidden')));
  await cluster.kubectl('delete', 'pv', name);
  rmSync(path, { recursive: true });
});

it('recursive read-only: what is mounted below is read-only too, and the status says so', cluster, async () => {
  const mount = (mountPath: string, recursiveReadOnly: string) => ({
    name: 'pods',
    mountPath,
    readOnly: true,
    recursiveReadOnly,
  });
  await cluster.apply(ns, [
    pod('rro', IMAGE, {
      command: [
        'sh',
        '-c',
        'for d in /all /top; do touch $d/below/x 2>/dev/null && echo $d writable; done; echo done; sleep 3600',
      ],
      container: { volumeMounts: [mount('/all', 'Enabled'), mount('/top', 'Disabled')] },
      spec: {
        volumes: [{ name: 'pods', hostPath: { path: '/var/lib/kubelet/rro', type: 'DirectoryOrCreate' } }],
        initContainers: [
          {
            name: 'below',
            image: IMAGE,
            imagePullPolicy: 'IfNotPresent',
            securityContext: { privileged: true },
            command: ['sh', '-c', 'mkdir -p /pods/below && mount -t tmpfs none /pods/below'],
            volumeMounts: [{ name: 'pods', mountPath: '/pods', mountPropagation: 'Bidirectional' }],
          },
        ],
      },
    }),
  ]);
  if (process.env['COX_E2E_RUNTIME'] === 'containerd') {
    // Not a read-only mount that is none below: the interface has no word for it that containerd 1.6 knows.
    await eventually('the container is refused', async () => {
      const [status] = (await get('pod', 'rro')).status.containerStatuses ?? [];
      return /recursiveReadOnly: Enabled .* is not supported/.test(status?.state.waiting?.message ?? '') || undefined;
    });
    await remove('pod', 'rro', '--grace-period=0', '--force');
    return;
  }
  await says('rro', 'done');
  const log = await cluster.kubectl('-n', ns, 'logs', 'rro');
  assert.match(log, /^\/top writable$/m);
  assert.doesNotMatch(log, /\/all writable/);
  const mounts = (await get('pod', 'rro')).status.containerStatuses[0].volumeMounts as Json[];
  const told = (path: string) => mounts.find(({ mountPath }) => mountPath === path).recursiveReadOnly;
  assert.equal(told('/all'), 'Enabled');
  assert.equal(told('/top'), 'Disabled');
  await remove('pod', 'rro', '--grace-period=0', '--force');
});

it('kinds of volumes that no node has are refused with the way out', cluster, async () => {
  await cluster.apply(ns, [
    pod('flocker', IMAGE, {
      command: ['sleep', '3600'],
      spec: { volumes: [{ name: 'v', flocker: { datasetName: 'd' } }] },
    }),
  ]);
  await event(
    'FailedMount',
    'volume type flocker is not supported by this kubelet: Kubernetes itself has it no longer',
  );
  await remove('pod', 'flocker', '--grace-period=0', '--force');
});

it('kubectl cp of an archive that leads elsewhere writes nothing there', cluster, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cox-cp-'));
  try {
    writeFileSync(join(folder, 'file'), 'escaped');
    symlinkSync(folder, join(folder, 'link'));
    const archive = join(folder, 'archive.tar');
    // What the pod's own `tar` sends: paths upwards, absolute ones, and a file behind a link that leads out.
    // kubectl stops at the last.
    const renamed = ['data/fine', 'data/../../up', 'data/link/behind', `${folder}/absolute`];
    execFileSync('tar', ['-cf', archive, '-C', folder, '--transform', 's,^link,data/link,S', 'link']);
    for (const name of renamed)
      execFileSync('tar', ['-rPf', archive, '-C', folder, '--transform', `s,^file,${name},`, 'file']);
    await cluster.apply(ns, [
      {
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name: 'evil' },
        data: { tar: '#!/bin/sh\nexec cat /evil/archive\n' },
        binaryData: { archive: readFileSync(archive).toString('base64') },
      },
      pod('evil', IMAGE, {
        command: ['sleep', '3600'],
        container: {
          env: [{ name: 'PATH', value: '/evil:/bin' }],
          volumeMounts: [{ name: 'evil', mountPath: '/evil' }],
        },
        spec: { volumes: [{ name: 'evil', configMap: { name: 'evil', defaultMode: 0o755 } }] },
      }),
    ]);
    await cluster.readyPod(ns, 'evil');
    const target = join(folder, 'a', 'b');
    mkdirSync(target, { recursive: true });
    const { stdout, stderr } = await cluster.tryKubectl('-n', ns, 'cp', 'evil:data', join(target, 'data'));
    const written = execFileSync('find', [folder, '-type', 'f'], { encoding: 'utf8' }).trim().split('\n').sort();
    const mine = [join(folder, 'archive.tar'), join(folder, 'file')];
    const outside = written.filter(path => !path.startsWith(`${target}/data`) && !mine.includes(path));
    assert.deepEqual(outside, [], `${stdout}${stderr}`);
    assert.ok(written.includes(join(target, 'data', 'fine')), `what is fine is copied: ${written} ${stdout}${stderr}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
    await remove('pod', 'evil', '--grace-period=0', '--force');
  }
});
