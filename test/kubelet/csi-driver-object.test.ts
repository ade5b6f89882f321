/** What a CSIDriver object asks of the kubelet: tokens, calls again, groups of files; and what a driver says of a volume's health. */

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PersistentVolume, PersistentVolumeClaim } from '../../src/api/core/v1.gen.ts';
import type { KubeObject } from '../../src/api/meta.ts';
import type { CSINode } from '../../src/api/storage/v1.gen.ts';
import {
  CSI_DRIVERS,
  CSI_NODES,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  PODS,
  SERVICE_ACCOUNTS,
} from '../../src/client/resources.ts';
import { type GrpcServer, type Handlers, serveGrpc } from '../../src/csi/grpc.ts';
import { NODE_RPCS, USAGE_UNITS } from '../../src/csi/messages.ts';
import { bindMount, isMountPoint, unmount } from '../../src/sys/mount.ts';
import { isReady, TestNode } from './node.ts';
import { sh } from './pods.ts';

const TOKENS = 'csi.storage.k8s.io/serviceAccount.tokens';
interface Published {
  readonly volumeId: string;
  readonly volumeContext: Record<string, string>;
  readonly secrets: Record<string, string>;
}

let node: TestNode;
let contents: string;
let abnormal = '';
const servers: GrpcServer[] = [];
const published: Published[] = [];
const of = (volumeId: string) => published.filter(one => one.volumeId === volumeId);

const content = (id: string) => {
  const folder = join(contents, id);
  mkdirSync(folder, { recursive: true });
  return folder;
};
const handlers = (name: string): Handlers => ({
  getPluginInfo: () => ({ name, vendorVersion: '1' }),
  nodeGetInfo: () => ({ nodeId: 'n', maxVolumesPerNode: 0 }),
  nodeGetCapabilities: () => ({
    capabilities: [{ rpc: { type: NODE_RPCS.GET_VOLUME_STATS } }, { rpc: { type: NODE_RPCS.VOLUME_CONDITION } }],
  }),
  async nodePublishVolume({ volumeId, targetPath, volumeContext, secrets }) {
    published.push({ volumeId, volumeContext, secrets });
    mkdirSync(targetPath, { recursive: true });
    if (!isMountPoint(targetPath)) bindMount(content(volumeId), targetPath);
    return {};
  },
  async nodeUnpublishVolume({ targetPath }) {
    unmount(targetPath);
    if (existsSync(targetPath)) rmdirSync(targetPath);
    return {};
  },
  nodeGetVolumeStats: () => ({
    usage: [{ unit: USAGE_UNITS.BYTES, total: 100, used: 1, available: 99 }],
    volumeCondition: { abnormal: abnormal !== '', message: abnormal },
  }),
});

/** A driver of the node under this name, with what its object says. */
async function install(name: string, spec: object): Promise<void> {
  await node.api.create({ of: CSI_DRIVERS }, {
    apiVersion: 'storage.k8s.io/v1',
    kind: 'CSIDriver',
    metadata: { name },
    spec: { attachRequired: false, ...spec },
  } as KubeObject);
  const plugins = join(node.root, 'lib', 'plugins', name);
  const registry = join(node.root, 'lib', 'plugins_registry');
  for (const folder of [plugins, registry]) mkdirSync(folder, { recursive: true });
  const endpoint = join(plugins, 's');
  servers.push(
    await serveGrpc(endpoint, handlers(name)),
    await serveGrpc(join(registry, `${name}.sock`), {
      registrationInfo: () => ({ type: 'CSIPlugin', name, endpoint, supportedVersions: ['1.0.0'] }),
      registrationStatus: () => ({}),
    }),
  );
  await until(`${name} in CSINode`, async () => {
    const found = (await node.api.get({ of: CSI_NODES, name: 'node-1' }).catch(() => undefined)) as CSINode | undefined;
    return found?.spec.drivers.some(one => one.name === name);
  });
}
async function until(what: string, check: () => unknown, timeoutMs = 60_000): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (!(await check())) {
    if (Date.now() > end) assert.fail(`not in time: ${what}`);
    await sleep(20);
  }
}

/** A pod with a volume of the driver, bound as the binder leaves it. */
async function use(
  name: string,
  driver: string,
  options: { readonly csi?: object; readonly accessMode?: string; readonly spec?: object } = {},
): Promise<void> {
  const accessModes = [options.accessMode ?? 'ReadWriteOnce'];
  const claim = (await node.api.create({ of: PERSISTENT_VOLUME_CLAIMS, namespace: 'default' }, {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name, namespace: 'default', annotations: { 'pv.kubernetes.io/bind-completed': 'yes' } },
    spec: { accessModes, resources: { requests: { storage: '1Gi' } }, volumeName: name },
  } as KubeObject)) as PersistentVolumeClaim;
  await node.api.create({ of: PERSISTENT_VOLUMES }, {
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name },
    spec: {
      capacity: { storage: '1Gi' },
      accessModes,
      csi: { driver, volumeHandle: name, ...options.csi },
      claimRef: { kind: 'PersistentVolumeClaim', namespace: 'default', name, uid: claim.metadata.uid },
    },
  } as PersistentVolume);
  await node.api.update({ of: PERSISTENT_VOLUME_CLAIMS, namespace: 'default', name, subresource: 'status' }, {
    ...claim,
    status: { phase: 'Bound', capacity: { storage: '1Gi' }, accessModes },
  } as PersistentVolumeClaim);
  writeFileSync(join(content(name), 'file'), '');
  await node.create(name, {
    serviceAccountName: 'default',
    ...options.spec,
    containers: [sh('sleep 1000', { volumeMounts: [{ name: 'v', mountPath: '/v' }] })],
    volumes: [{ name: 'v', persistentVolumeClaim: { claimName: name } }],
  });
  await node.until(name, isReady);
}
const remove = async (name: string) => {
  await node.api.delete({ of: PODS, namespace: 'default', name });
  await node.untilGone(name);
};

before(async () => {
  node = new TestNode({ isolated: true });
  await node.start();
  contents = mkdtempSync(join(node.root, 'contents-'));
  await node.put(SERVICE_ACCOUNTS, {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name: 'default', namespace: 'default' },
  });
});
after(async () => {
  for (const server of servers) await server.close();
  await node.close();
  rmSync(contents, { recursive: true, force: true });
});

test('tokens: one for each audience, of this pod, in the context or in the secrets; told again', async () => {
  const tokenRequests = [{ audience: 'vault', expirationSeconds: 900 }, { audience: '' }];
  await install('tokens.example.com', { tokenRequests, requiresRepublish: true });
  await use('tokens', 'tokens.example.com');
  const [{ volumeContext, secrets }] = of('tokens') as [Published];
  assert.deepEqual(Object.keys(secrets), []);
  const tokens = JSON.parse(volumeContext[TOKENS]!) as Record<string, { token: string; expirationTimestamp: string }>;
  assert.deepEqual(Object.keys(tokens).sort(), ['', 'vault']);
  const { token, expirationTimestamp } = tokens['vault']!;
  const claims = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()) as {
    aud: string[];
    exp: number;
    iat: number;
    'kubernetes.io': { pod: { name: string }; serviceaccount: { name: string } };
  };
  assert.deepEqual(claims.aud, ['vault']);
  assert.equal(claims.exp - claims.iat, 900);
  assert.equal(Date.parse(expirationTimestamp), claims.exp * 1000);
  assert.equal(claims['kubernetes.io'].pod.name, 'tokens');
  assert.equal(claims['kubernetes.io'].serviceaccount.name, 'default');
  await until('published again', () => of('tokens').length > 1);
  await remove('tokens');

  await install('secrets.example.com', { tokenRequests, serviceAccountTokenInSecrets: true });
  await use('in-secrets', 'secrets.example.com');
  const [inSecrets] = of('in-secrets') as [Published];
  assert.equal(inSecrets.volumeContext[TOKENS], undefined);
  assert.deepEqual(Object.keys(JSON.parse(inSecrets.secrets[TOKENS]!) as object).sort(), ['', 'vault']);
  await remove('in-secrets');
});

test('fsGroupPolicy: File always, None never, else where one node writes a file system of a type', async () => {
  const spec = { securityContext: { fsGroup: 4321 } };
  const group = (name: string) => statSync(join(content(name), 'file')).gid;
  const cases = [
    { policy: 'File', accessMode: 'ReadWriteMany', gid: 4321 },
    { policy: 'None', accessMode: 'ReadWriteOnce', csi: { fsType: 'ext4' }, gid: 0 },
    { policy: 'ReadWriteOnceWithFSType', accessMode: 'ReadWriteOnce', csi: { fsType: 'ext4' }, gid: 4321 },
    { policy: 'ReadWriteOnceWithFSType', accessMode: 'ReadWriteOnce', gid: 0 },
    { policy: 'ReadWriteOnceWithFSType', accessMode: 'ReadWriteMany', csi: { fsType: 'ext4' }, gid: 0 },
  ];
  for (const fsGroupPolicy of new Set(cases.map(one => one.policy)))
    await install(`${fsGroupPolicy.toLowerCase()}.example.com`, { fsGroupPolicy });
  await Promise.all(
    cases.map(async ({ policy, accessMode, csi, gid }, i) => {
      const name = `group-${i}`;
      await use(name, `${policy.toLowerCase()}.example.com`, { accessMode, spec, ...(csi ? { csi } : {}) });
      assert.equal(group(name), gid, `${policy} ${accessMode}`);
      await remove(name);
    }),
  );
});

test('health: a volume that its driver calls abnormal is an event of its pods', async () => {
  await install('health.example.com', {});
  await use('health', 'health.example.com');
  abnormal = 'a disk of the mirror is gone';
  await node.untilEvents(
    'health',
    events => events.includes('VolumeConditionAbnormal: Volume v: a disk of the mirror is gone'),
    60_000,
  );
  abnormal = '';
  await remove('health');
});
