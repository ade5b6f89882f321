/** cephfs volumes of a real Ceph cluster, in namespaces of their own. */

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { CephFSPersistentVolumeSource } from '../../../src/api/core/v1.gen.ts';
import { cephfsVolume } from '../../../src/kubelet/volumes/cephfs.ts';
import type { VolumeNode } from '../../../src/kubelet/volumes/volume-node.ts';
import { unmountBelow } from '../../../src/sys/mount.ts';
import { CephCluster } from './ceph-cluster.ts';
import { exampleSource, targetAt, volumeContext } from './context.ts';
import { ADDRESS, inOwnNamespaces, root } from './own-namespace.ts';

if (!root) test('cephfs volumes', { skip: 'needs root' });
else if (inOwnNamespaces(import.meta.filename)) tests();

function tests(): void {
  const folder = mkdtempSync(join(tmpdir(), 'cox-ceph-'));
  const cluster = new CephCluster({ folder: join(folder, 'cluster'), address: ADDRESS });
  let count = 0;

  const secret = (key: string) => ({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'ceph', namespace: 'default' },
    data: { key: Buffer.from(`${key}\n`).toString('base64') },
  });
  const mount = async (source: Partial<CephFSPersistentVolumeSource> & { key?: string }) => {
    const { key = cluster.keyOf('admin'), ...rest } = source;
    const path = join(folder, `v${count++}`);
    await cephfsVolume.mount(
      { ...exampleSource<CephFSPersistentVolumeSource>('cephfs.yaml', 'cephfs'), monitors: [cluster.monitor], ...rest },
      targetAt(path),
      volumeContext({ objects: [secret(key)] }),
    );
    return path;
  };
  const unmount = (path: string) => cephfsVolume.unmount(targetAt(path), {} as VolumeNode);

  before(() => cluster.start(), { timeout: 120_000 });
  after(() => {
    unmountBelow(folder);
    rmSync(folder, { recursive: true, force: true });
  });

  test('what a pod writes another one reads, and a folder can be the root', async () => {
    const one = await mount({});
    mkdirSync(join(one, 'shared'));
    writeFileSync(join(one, 'shared', 'file'), 'hello');
    const two = await mount({ path: 'shared' });
    assert.equal(readFileSync(join(two, 'file'), 'utf8'), 'hello');
    for (const path of [one, two]) {
      await unmount(path);
      await unmount(path);
      assert.ok(!existsSync(path));
    }
    assert.deepEqual(
      readdirSync(folder).filter(name => name.includes('key')),
      [],
      'no key is left on the node',
    );
  });

  test('another user, read-only', async () => {
    const key = cluster.keyOf('guest');
    const path = await mount({ user: 'guest', key, readOnly: true });
    assert.equal(readFileSync(join(path, 'shared', 'file'), 'utf8'), 'hello');
    assert.throws(() => writeFileSync(join(path, 'no'), 'x'), { code: 'EROFS' });
    await unmount(path);
  });

  test('what is wrong is said, and nothing is left', async () => {
    await assert.rejects(
      mount({ secretRef: { name: 'other' } }),
      /secret "default\/other" with the Ceph key not found/,
    );
    await assert.rejects(mount({ key: 'no key!' }), /its first value is no Ceph key/);
    await assert.rejects(mount({ user: 'a b' }), /cephfs\.user: Invalid value/);
    await assert.rejects(mount({ monitors: ['-x y'] }), /cephfs\.monitors: Invalid value/);
    await assert.rejects(mount({ key: cluster.keyOf('guest') }), /ceph-fuse 10\.99\.0\.1:6789:\//);
    for (const left of readdirSync(folder)) assert.ok(left === 'cluster', `${left} is left`);
  });
}
