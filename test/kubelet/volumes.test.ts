/** What the kubelet does with CSI drivers and claims when things go wrong: a driver of the test's own says and sees everything. */

import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FlexVolumeSource, Node, PersistentVolume, PersistentVolumeClaim } from '../../src/api/core/v1.gen.ts';
import type { KubeObject } from '../../src/api/meta.ts';
import type { CSINode } from '../../src/api/storage/v1.gen.ts';
import { systemClock } from '../../src/base/clock.ts';
import {
  CSI_DRIVERS,
  CSI_NODES,
  NODES,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  SECRETS,
  VOLUME_ATTACHMENTS,
} from '../../src/client/resources.ts';
import { GRPC, GrpcError, type GrpcServer, type Handlers, serveGrpc } from '../../src/csi/grpc.ts';
import { NODE_RPCS } from '../../src/csi/messages.ts';
import { attachmentName } from '../../src/csi/names.ts';
import { bindMount, isMountPoint, mountTable, unmount } from '../../src/sys/mount.ts';
import { isReady, TestNode } from './node.ts';
import { exampleSource } from './volumes/context.ts';

const DRIVER = 'fake.example.com';
const flexDir = mkdtempSync('/var/tmp/cox-flex-');

let node: TestNode;
let servers: GrpcServer[] = [];
/** Content of volumes by their handle. */
let contents: string;
const calls: string[] = [];
/** Runs inside the named call, before it has done anything. */
let during: { readonly call: string; readonly run: () => Promise<void> } | undefined;

const content = (id: string) => {
  const folder = join(contents, id);
  mkdirSync(folder, { recursive: true });
  return folder;
};
const note = async (call: string, id: string) => {
  calls.push(`${call} ${id}`);
  if (during?.call === call) await during.run();
};
const drop = (path: string) => {
  unmount(path);
  if (existsSync(path)) rmdirSync(path);
};
const driver: Handlers = {
  getPluginInfo: () => ({ name: DRIVER, vendorVersion: '1' }),
  nodeGetInfo: () => ({
    nodeId: 'fake-1',
    maxVolumesPerNode: 7,
    accessibleTopology: { segments: { 'fake/zone': 'z' } },
  }),
  nodeGetCapabilities: () => ({
    capabilities: [{ rpc: { type: NODE_RPCS.STAGE_UNSTAGE_VOLUME } }, { rpc: { type: NODE_RPCS.EXPAND_VOLUME } }],
  }),
  async nodeStageVolume({ volumeId, stagingTargetPath }) {
    await note('stage', volumeId);
    if (!isMountPoint(stagingTargetPath)) bindMount(content(volumeId), stagingTargetPath);
    return {};
  },
  async nodePublishVolume({ volumeId, stagingTargetPath, targetPath }) {
    await note('publish', volumeId);
    mkdirSync(targetPath, { recursive: true });
    if (!isMountPoint(targetPath)) bindMount(stagingTargetPath || content(volumeId), targetPath);
    return {};
  },
  async nodeUnpublishVolume({ volumeId, targetPath }) {
    await note('unpublish', volumeId);
    drop(targetPath);
    return {};
  },
  async nodeUnstageVolume({ volumeId, stagingTargetPath }) {
    await note('unstage', volumeId);
    unmount(stagingTargetPath);
    return {};
  },
  async nodeExpandVolume({ volumeId, capacityRange }) {
    await note('expand', volumeId);
    return { capacityBytes: capacityRange?.requiredBytes ?? 0 };
  },
};

async function startDriver(): Promise<void> {
  const plugins = join(node.root, 'lib', 'plugins', DRIVER);
  const registry = join(node.root, 'lib', 'plugins_registry');
  for (const folder of [plugins, registry]) mkdirSync(folder, { recursive: true });
  const endpoint = join(plugins, 's');
  servers = [
    await serveGrpc(endpoint, driver),
    await serveGrpc(join(registry, 'fake.sock'), {
      registrationInfo: () => ({ type: 'CSIPlugin', name: DRIVER, endpoint, supportedVersions: ['1.0.0'] }),
      registrationStatus: () => ({}),
    }),
  ];
}
async function until(what: string, check: () => unknown, timeoutMs = 10_000): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (!(await check())) {
    if (Date.now() > end) assert.fail(`not in time: ${what}; calls: ${calls.join(', ')}`);
    await sleep(5);
  }
}

before(async () => {
  node = new TestNode({ configuration: { volumePluginDir: flexDir } });
  await node.start();
  contents = mkdtempSync(join(node.root, 'contents-'));
  await node.api.create({ of: CSI_DRIVERS }, {
    apiVersion: 'storage.k8s.io/v1',
    kind: 'CSIDriver',
    metadata: { name: DRIVER },
    spec: { attachRequired: false, volumeLifecycleModes: ['Persistent', 'Ephemeral'], podInfoOnMount: true },
  } as KubeObject);
  await startDriver();
  await until('driver in CSINode', async () => {
    const found = (await node.api.get({ of: CSI_NODES, name: 'node-1' }).catch(() => undefined)) as CSINode | undefined;
    return found?.spec.drivers.some(
      ({ name, nodeID, allocatable }) => name === DRIVER && nodeID === 'fake-1' && allocatable?.count === 7,
    );
  });
});
after(async () => {
  for (const server of servers) await server.close();
  await node.close();
  rmSync(flexDir, { recursive: true });
});

/** A claim bound to a volume, as the binder leaves them. */
async function claim(name: string, options: { driver?: string; size?: string } = {}): Promise<void> {
  const made = (await node.api.create({ of: PERSISTENT_VOLUME_CLAIMS, namespace: 'default' }, {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name, namespace: 'default', annotations: { 'pv.kubernetes.io/bind-completed': 'yes' } },
    spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } }, volumeName: `pv-${name}` },
  } as KubeObject)) as PersistentVolumeClaim;
  await node.api.create({ of: PERSISTENT_VOLUMES }, {
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name: `pv-${name}` },
    spec: {
      capacity: { storage: options.size ?? '1Gi' },
      accessModes: ['ReadWriteOnce'],
      csi: { driver: options.driver ?? DRIVER, volumeHandle: name },
      claimRef: { kind: 'PersistentVolumeClaim', namespace: 'default', name, uid: made.metadata.uid },
    },
  } as PersistentVolume);
  await node.api.update({ of: PERSISTENT_VOLUME_CLAIMS, namespace: 'default', name, subresource: 'status' }, {
    ...made,
    status: { phase: 'Bound', capacity: { storage: '1Gi' }, accessModes: ['ReadWriteOnce'] },
  } as PersistentVolumeClaim);
}
const user = (name: string, claimName = name) =>
  node.create(name, {
    containers: [
      {
        name: 'main',
        image: 'busybox:1',
        command: ['sh', '-c', 'echo written >> /data/file; sleep 3600'],
        volumeMounts: [{ name: 'data', mountPath: '/data' }],
      },
    ],
    volumes: [{ name: 'data', persistentVolumeClaim: { claimName } }],
  });
const remove = (name: string) =>
  node.api.delete({ of: { group: '', version: 'v1', resource: 'pods' }, namespace: 'default', name });
const callsOf = (id: string) => calls.filter(call => call.endsWith(` ${id}`)).map(call => call.split(' ')[0]);
const mounts = (part: string) => mountTable().filter(({ mountPoint }) => mountPoint.includes(part));
const read = (id: string) => {
  const file = join(content(id), 'file');
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
};
/** What the kubelet keeps of a volume. */
const traces = () => readdirSync(join(node.root, 'lib', 'plugins', 'kubernetes.io', 'csi', DRIVER));

test('stage once for two pods, publish for each; unstage after the last; the data stays', async () => {
  await claim('shared');
  await user('a', 'shared');
  await user('b', 'shared');
  await node.until('a', isReady);
  await node.until('b', isReady);
  await until('both wrote', () => read('shared') === 'written\nwritten\n');
  assert.equal(callsOf('shared').filter(call => call === 'publish').length, 2);
  await remove('a');
  await node.untilGone('a');
  assert.ok(!callsOf('shared').includes('unstage'));
  await remove('b');
  await node.untilGone('b');
  assert.deepEqual(callsOf('shared').slice(-2), ['unpublish', 'unstage']);
  assert.equal(read('shared'), 'written\nwritten\n');
  assert.deepEqual(traces(), []);
});

test('a pod deleted while its volume is published: nothing is left of it', async () => {
  await claim('slow');
  let finish = () => {};
  during = {
    call: 'publish',
    run: () =>
      new Promise(resolve => {
        finish = resolve;
      }),
  };
  await user('slow');
  await until('publish begun', () => callsOf('slow').includes('publish'));
  during = undefined;
  await remove('slow');
  await node.untilGone('slow');
  assert.deepEqual(callsOf('slow').slice(-2), ['unpublish', 'unstage']);
  assert.deepEqual(traces(), []);
  finish();
});

for (const call of ['stage', 'publish'])
  test(`the agent stops in the middle of ${call}: the next one completes it, and the pod starts once`, async () => {
    const name = `stop-${call}`;
    await claim(name);
    during = { call, run: () => new Promise(() => {}) };
    await user(name);
    await until(`${call} begun`, () => callsOf(name).includes(call));
    during = undefined;
    await node.stopKubelet();
    node.startKubelet();
    const pod = await node.until(name, isReady, 20_000);
    assert.equal(pod.status?.containerStatuses?.[0]?.restartCount, 0);
    await until('written', () => read(name) === 'written\n');
    await remove(name);
    await node.untilGone(name);
    assert.equal(mounts(name).length, 0);
  });

test('a pod whose agent was away when it went: unmounted and unstaged at the next start, the data kept', async () => {
  await claim('orphan');
  await user('orphan');
  await node.until('orphan', isReady);
  await until('written', () => read('orphan') === 'written\n');
  await node.stopKubelet();
  await node.api.delete(
    { of: { group: '', version: 'v1', resource: 'pods' }, namespace: 'default', name: 'orphan' },
    { gracePeriodSeconds: 0 },
  );
  node.startKubelet();
  await until('unstaged', () => callsOf('orphan').includes('unstage'), 30_000);
  await until('no mount left', () => mounts('pv-orphan').length === 0);
  assert.equal(read('orphan'), 'written\n');
});

test('a driver that leaves its mount behind loses no data: the volume’s files are not deleted through it', async () => {
  await claim('stuck');
  await user('stuck');
  await node.until('stuck', isReady);
  await until('written', () => read('stuck') === 'written\n');
  const real = driver.nodeUnpublishVolume!;
  let isBroken = true;
  (driver as { nodeUnpublishVolume: unknown }).nodeUnpublishVolume = async (request: never) =>
    isBroken ? {} : real(request);
  for (const server of servers) await server.close();
  await startDriver();
  await remove('stuck');
  await sleep(1500);
  assert.ok(await node.pod('stuck'), 'the pod waits for its volume');
  assert.equal(read('stuck'), 'written\n');
  isBroken = false;
  await node.untilGone('stuck', 30_000);
  assert.equal(read('stuck'), 'written\n');
});

test('errors of the driver are events, and it is asked again', async () => {
  await claim('fails');
  let failures = 2;
  during = {
    call: 'stage',
    run: async () => {
      if (failures-- > 0) throw new GrpcError(GRPC.INTERNAL, 'disk is shy');
    },
  };
  await user('fails');
  await node.until('fails', isReady, 20_000);
  during = undefined;
  await node.untilEvents('fails', events =>
    events.some(one =>
      one.startsWith(
        'FailedMount: MountVolume.SetUp failed for volume "pv-fails" : rpc error: code = Internal desc = disk is shy',
      ),
    ),
  );
  await remove('fails');
  await node.untilGone('fails');
});

test('a claim that is not bound, or not to this volume, is refused with the reason', async () => {
  await claim('theirs');
  const volume = (await node.api.get({ of: PERSISTENT_VOLUMES, name: 'pv-theirs' })) as PersistentVolume;
  await node.api.update({ of: PERSISTENT_VOLUMES, name: 'pv-theirs' }, {
    ...volume,
    spec: { ...volume.spec, claimRef: { ...volume.spec!.claimRef, uid: 'another' } },
  } as PersistentVolume);
  await user('theirs');
  await node.untilEvents('theirs', events =>
    events.some(one => /FailedMount: .*PV pv-theirs is bound to another claim/.test(one)),
  );
  await user('nowhere', 'does-not-exist');
  await node.untilEvents('nowhere', events =>
    events.some(one => /persistentvolumeclaims "does-not-exist" not found/.test(one)),
  );
  assert.ok(!callsOf('theirs').length);
  for (const name of ['theirs', 'nowhere']) {
    await remove(name);
    await node.untilGone(name);
  }
});

test('an attachable volume is in use before it is staged, and waits for its attachment', async () => {
  await node.api
    .patch({ of: CSI_DRIVERS, name: DRIVER }, { spec: { attachRequired: true } }, 'application/merge-patch+json')
    .catch(() => undefined);
  const object = (await node.api.get({ of: CSI_DRIVERS, name: DRIVER })) as KubeObject & {
    spec: { attachRequired: boolean };
  };
  if (!object.spec.attachRequired) return;
  await claim('attached');
  await user('attached');
  const unique = `kubernetes.io/csi/${DRIVER}^attached`;
  const inUse = async () =>
    ((await node.api.get({ of: NODES, name: 'node-1' })) as Node).status?.volumesInUse?.includes(unique);
  await until('in use', inUse);
  assert.ok(!callsOf('attached').includes('stage'));
  const name = attachmentName({ driver: DRIVER, handle: 'attached' }, 'node-1');
  const attachment = await node.api.create({ of: VOLUME_ATTACHMENTS }, {
    apiVersion: 'storage.k8s.io/v1',
    kind: 'VolumeAttachment',
    metadata: { name },
    spec: { attacher: DRIVER, nodeName: 'node-1', source: { persistentVolumeName: 'pv-attached' } },
  } as KubeObject);
  await sleep(300);
  assert.ok(!callsOf('attached').includes('stage'));
  await node.api.update({ of: VOLUME_ATTACHMENTS, name, subresource: 'status' }, {
    ...attachment,
    status: { attached: true },
  } as KubeObject);
  await node.until('attached', isReady, 20_000);
  await remove('attached');
  await node.untilGone('attached');
  await until('no longer in use', async () => !(await inUse()));
  assert.deepEqual(callsOf('attached'), ['stage', 'publish', 'unpublish', 'unstage']);
});

test('fsGroup follows no link out of the volume', async () => {
  const { giveToGroup } = await import('../../src/kubelet/volumes/ownership.ts');
  const { lchownSync, lstatSync, symlinkSync } = await import('node:fs');
  const outside = join(node.root, 'outside');
  mkdirSync(join(outside, 'sub'), { recursive: true });
  writeFileSync(join(outside, 'sub', 'secret'), 'x', { mode: 0o600 });
  const volume = mkdtempSync(join(node.root, 'owned-'));
  const swapped = join(volume, 'swapped');
  // A folder that is swapped for a link while ownership is given, again and again.
  let isOver = false;
  const swapping = (async () => {
    while (!isOver) {
      rmSync(swapped, { recursive: true, force: true });
      symlinkSync(join(outside, 'sub'), swapped);
      await sleep(0);
      rmSync(swapped, { force: true });
      mkdirSync(swapped);
      writeFileSync(join(swapped, 'own'), '');
      await sleep(0);
    }
  })();
  const context = { clock: systemClock, event() {}, pod: { metadata: { name: 'p', uid: 'u' } } as never };
  for (let i = 0; i < 2000; i++) await giveToGroup(volume, { fsGroup: 4321, isReadOnly: false, context });
  isOver = true;
  await swapping;
  assert.equal(lstatSync(join(outside, 'sub', 'secret')).gid, 0);
  assert.equal(lstatSync(join(outside, 'sub', 'secret')).mode & 0o777, 0o600);
  assert.equal(lstatSync(volume).gid, 4321);
  lchownSync(volume, 0, 0);
});

/** Makes a program a FlexVolume driver of the node. */
function installFlex(name: string, text: string): void {
  const [vendor, driverName] = name.split('/') as [string, string];
  const folder = join(flexDir, `${vendor}~${driverName}`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, driverName), text);
  chmodSync(join(folder, driverName), 0o755);
}
const flexPod = (name: string, flexVolume: object, spec: object = {}) =>
  node.create(name, {
    ...spec,
    containers: [
      {
        name: 'main',
        image: 'busybox:1',
        command: ['sh', '-c', 'echo written >> /data/file; sleep 3600'],
        volumeMounts: [{ name: 'data', mountPath: '/data' }],
      },
    ],
    volumes: [{ name: 'data', flexVolume }],
  });

test('flexVolume: the example, and what a missing driver or a failing one says', async () => {
  const source = exampleSource<FlexVolumeSource>('flex-volume.yaml', 'flexVolume');
  const folder = join(node.root, 'flex');
  await flexPod('flex', { ...source, options: { folder } });
  await node.untilEvents('flex', events =>
    events.some(event =>
      event.includes(`no FlexVolume driver "example.com/folder" on this node: its program would be ${flexDir}`),
    ),
  );
  installFlex(
    'example.com/folder',
    readFileSync(join(import.meta.dirname, '../../examples/volumes/flex-driver.sh'), 'utf8'),
  );
  await node.until('flex', isReady);
  await until('written', () => existsSync(join(folder, 'file')));
  assert.equal(mounts('kubernetes.io~flexvolume').length, 1);
  await remove('flex');
  await node.untilGone('flex');
  assert.equal(mounts('kubernetes.io~flexvolume').length, 0);
  assert.equal(readFileSync(join(folder, 'file'), 'utf8'), 'written\n');

  await flexPod('flex-bad', { driver: source.driver });
  await node.untilEvents('flex-bad', events =>
    events.some(event => event.includes('mount command failed, status: Failure, reason: the option folder is missing')),
  );
  await remove('flex-bad');
  await node.untilGone('flex-bad');
});

test('flexVolume: attached once for two pods, with options, secret and group; detached after the last', async () => {
  const log = join(node.root, 'flex-calls');
  const device = join(node.root, 'flex-device');
  mkdirSync(device);
  // Leaves `mount` and `unmount` to the kubelet.
  installFlex(
    'vendor/disk',
    `#!/bin/sh
echo "$@" >>${log}
case $1 in
  init) echo '{"status":"Success","capabilities":{"attach":true}}' ;;
  attach) echo '{"status":"Success","device":"${device}"}' ;;
  waitforattach) echo '{"status":"Success","device":"'$2'"}' ;;
  mountdevice) mount --bind "$3" "$2" && echo '{"status":"Success"}' ;;
  detach) echo '{"status":"Success"}' ;;
  *) echo '{"status":"Not supported"}'; exit 1 ;;
esac
`,
  );
  await node.put(SECRETS, {
    apiVersion: 'v1',
    kind: 'Secret',
    type: 'vendor/disk',
    metadata: { name: 'flex', namespace: 'default' },
    data: { key: 'dmFsdWU=' },
  });
  const source = { driver: 'vendor/disk', fsType: 'ext4', options: { size: '1' }, secretRef: { name: 'flex' } };
  await flexPod('flex-a', source, { securityContext: { fsGroup: 4321 } });
  await flexPod('flex-b', source);
  await node.until('flex-a', isReady);
  await node.until('flex-b', isReady);
  const file = join(device, 'file');
  await until('both wrote', () => existsSync(file) && readFileSync(file, 'utf8') === 'written\nwritten\n');
  const calls = () =>
    readFileSync(log, 'utf8')
      .trimEnd()
      .split('\n')
      .map(line => line.split(' '));
  const named = () => calls().map(([name]) => name);
  assert.equal(named().filter(name => name === 'attach').length, 1);
  assert.equal(named().filter(name => name === 'mountdevice').length, 1);
  const mountCall = calls().find(([name, path]) => name === 'mount' && path?.includes('flexvolume'))!;
  const options = JSON.parse(mountCall[2]!) as Record<string, string>;
  assert.equal(options['kubernetes.io/secret/key'], 'dmFsdWU=');
  assert.equal(options['kubernetes.io/readwrite'], 'rw');
  assert.equal(options['kubernetes.io/fsType'], 'ext4');
  assert.equal(options['size'], '1');
  assert.equal(statSync(device).gid, 4321);

  await remove('flex-a');
  await node.untilGone('flex-a');
  assert.ok(!named().includes('detach'));
  await node.restartKubelet();
  await remove('flex-b');
  await node.untilGone('flex-b');
  assert.deepEqual(calls().at(-1), ['detach', 'data', 'node-1']);
  assert.equal(mounts('flexvolume').length, 0);
  assert.equal(readFileSync(file, 'utf8'), 'written\nwritten\n');
});
