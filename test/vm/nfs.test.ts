/** nfs volumes of a real NFS server. The kernel here has no NFS, so client and server run on a machine that has. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { NFSVolumeSource } from '../../src/api/core/v1.gen.ts';
import { nfsVolume } from '../../src/kubelet/volumes/nfs.ts';
import type { VolumeNode } from '../../src/kubelet/volumes/volume-node.ts';
import { mountTable } from '../../src/sys/mount.ts';
import { exampleSource, targetAt, volumeContext } from '../kubelet/volumes/context.ts';
import { isInside, runTestsInVirtualMachine } from './virtual-machine.ts';

if (process.getuid?.() !== 0) test('nfs volumes', { skip: 'needs root' });
else if (isInside) tests();
else
  test('nfs volumes, on a machine with Debian’s kernel', { timeout: 400_000 }, async () => {
    const { code, output } = await runTestsInVirtualMachine(import.meta.filename, { timeoutMs: 380_000 });
    process.stdout.write(output);
    assert.equal(code, 0, output || 'the machine printed nothing');
  });

function tests(): void {
  const EXPORT = '/run/export';
  let count = 0;
  const mount = async (source: Partial<NFSVolumeSource> = {}, mountOptions: string[] = []) => {
    const path = `/run/volume-${count++}`;
    await nfsVolume.mount(
      { ...exampleSource<NFSVolumeSource>('nfs.yaml', 'nfs'), server: '127.0.0.1', path: EXPORT, ...source },
      targetAt(path),
      volumeContext({ mountOptions }),
    );
    return path;
  };
  const unmount = (path: string) => nfsVolume.unmount(targetAt(path), {} as VolumeNode);
  const sh = (script: string) => execFileSync('sh', ['-ec', script], { encoding: 'utf8' });

  before(() => {
    mkdirSync(EXPORT);
    sh(`modprobe nfsd; mount -t nfsd nfsd /proc/fs/nfsd; rpcbind
echo '${EXPORT} *(rw,no_root_squash,insecure,no_subtree_check,fsid=0)' >/etc/exports; exportfs -ra
rpc.nfsd 2; rpc.mountd`);
  });

  for (const version of ['4.2', '3'])
    test(`version ${version}: what a pod writes is on the server, and another pod sees it`, async () => {
      // Locks of version 3 need a daemon more.
      const options = [`nfsvers=${version}`, ...(version === '3' ? ['nolock'] : [])];
      // Version 4 counts paths from the export that is its root.
      const source = { path: version === '3' ? EXPORT : '/' };
      const [one, two] = [await mount(source, options), await mount(source, options)];
      writeFileSync(`${one}/file`, version);
      assert.equal(readFileSync(`${EXPORT}/file`, 'utf8'), version);
      assert.equal(readFileSync(`${two}/file`, 'utf8'), version);
      const entry = mountTable().find(({ mountPoint }) => mountPoint === one);
      assert.match(entry!.superOptions, new RegExp(`vers=${version}`));
      for (const path of [one, two]) {
        await unmount(path);
        await unmount(path);
        assert.ok(!existsSync(path));
      }
    });

  test('read-only, and a folder of the share', async () => {
    mkdirSync(`${EXPORT}/sub`);
    writeFileSync(`${EXPORT}/sub/file`, 'below');
    const path = await mount({ path: `${EXPORT}/sub`, readOnly: true });
    assert.equal(readFileSync(`${path}/file`, 'utf8'), 'below');
    assert.throws(() => writeFileSync(`${path}/no`, ''), { code: 'EROFS' });
    await unmount(path);
  });

  test('what the server refuses is said, and nothing is left', async () => {
    await assert.rejects(mount({ path: '/nowhere' }), /mount -t nfs 127\.0\.0\.1:\/nowhere: .*(denied|No such file)/);
    await assert.rejects(mount({}, ['rw,exec']), /mountOptions: Invalid value: "rw,exec"/);
    assert.deepEqual(
      readdirSync('/run').filter(name => name.startsWith('volume-')),
      [],
    );
  });

  test('a dead server neither keeps a pod from ending nor blocks the thread', async () => {
    const path = await mount();
    writeFileSync(`${path}/file`, 'x');
    sh('rpc.nfsd 0');
    let longestMs = 0;
    let last = performance.now();
    const ticking = setInterval(() => {
      longestMs = Math.max(longestMs, performance.now() - last);
      last = performance.now();
    }, 20);
    // A container that is stuck in the dead share.
    const stuck = sh(`(ls ${path}/other >/dev/null 2>&1 &) ; echo`);
    assert.equal(stuck.trim(), '');
    const refused = mount().then(
      () => 'mounted',
      error => String(error),
    );
    await sleep(200);
    await unmount(path);
    assert.ok(!mountTable().some(({ mountPoint }) => mountPoint === path));
    clearInterval(ticking);
    assert.ok(longestMs < 5000, `the thread stood still for ${longestMs.toFixed(0)} ms`);
    assert.match(await refused, /mount -t nfs/);
  });
}
