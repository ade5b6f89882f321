/** glusterfs volumes of a real Gluster server (Debian's glusterd), in namespaces of their own. */

import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { GlusterfsPersistentVolumeSource } from '../../../src/api/core/v1.gen.ts';
import { glusterfsVolume } from '../../../src/kubelet/volumes/glusterfs.ts';
import type { VolumeNode } from '../../../src/kubelet/volumes/volume-node.ts';
import { mountTable, unmountBelow } from '../../../src/sys/mount.ts';
import { exampleSource, targetAt, volumeContext } from './context.ts';
import { ADDRESS, inOwnNamespaces, root } from './own-namespace.ts';

if (!root) test('glusterfs volumes', { skip: 'needs root' });
else if (inOwnNamespaces(import.meta.filename)) tests();

function tests(): void {
  const folder = mkdtempSync(join(tmpdir(), 'cox-gluster-'));
  const brick = join(folder, 'brick', 'b');
  let server: ChildProcess;
  let count = 0;

  const gluster = (...args: string[]) =>
    execFileSync('gluster', ['--mode=script', ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const endpoints = (...ips: string[]) => ({
    apiVersion: 'v1',
    kind: 'Endpoints',
    metadata: { name: 'gluster', namespace: 'default' },
    subsets: [{ addresses: ips.map(ip => ({ ip })), ports: [{ port: 1 }] }],
  });
  const mount = async (source: Partial<GlusterfsPersistentVolumeSource>, ips = [ADDRESS]) => {
    const path = join(folder, `v${count++}`);
    await glusterfsVolume.mount(
      { ...exampleSource<GlusterfsPersistentVolumeSource>('glusterfs.yaml', 'glusterfs'), ...source },
      targetAt(path),
      volumeContext({ objects: [endpoints(...ips)] }),
    );
    return path;
  };
  const unmount = (path: string) => glusterfsVolume.unmount(targetAt(path), {} as VolumeNode);
  const clients = () =>
    execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' })
      .split('\n')
      .filter(line => /glusterfs .*--volfile-id=/.test(line) && line.includes(folder)).length;

  before(async () => {
    for (const state of ['/var/lib/glusterd', '/run/gluster', '/var/log/glusterfs', join(folder, 'brick')]) {
      mkdirSync(state, { recursive: true });
      execFileSync('mount', ['-t', 'tmpfs', 'none', state]);
    }
    mkdirSync(brick);
    server = spawn('glusterd', ['--no-daemon', '--log-level', 'ERROR'], { stdio: 'ignore' });
    for (let tries = 0; ; tries++) {
      try {
        gluster('volume', 'info');
        break;
      } catch (error) {
        if (tries > 60) throw error;
        await sleep(100);
      }
    }
    gluster('volume', 'create', 'vol', `${ADDRESS}:${brick}`, 'force');
    gluster('volume', 'start', 'vol');
  });
  after(() => {
    server.kill('SIGKILL');
    unmountBelow(folder);
    rmSync(folder, { recursive: true, force: true });
  });

  test('what a pod writes is on the server, and another pod sees it', async () => {
    const [one, two] = [await mount({}), await mount({ path: '/vol' })];
    writeFileSync(join(one, 'file'), 'hello');
    assert.equal(readFileSync(join(brick, 'file'), 'utf8'), 'hello');
    assert.equal(readFileSync(join(two, 'file'), 'utf8'), 'hello');
    for (const path of [one, two]) {
      await unmount(path);
      assert.ok(!existsSync(path));
      await unmount(path);
    }
    for (let tries = 0; clients() > 0 && tries < 100; tries++) await sleep(50);
    assert.equal(clients(), 0, 'its client processes end');
  });

  test('read-only', async () => {
    const path = await mount({ readOnly: true });
    assert.throws(() => writeFileSync(join(path, 'no'), 'x'), { code: 'EROFS' });
    await unmount(path);
  });

  test('a server that is dead is left for the next one of the endpoints', async () => {
    execFileSync('ip', ['address', 'add', '10.99.0.2/32', 'dev', 'lo']);
    const path = await mount({}, [ADDRESS, '10.99.0.2']);
    assert.equal(readFileSync(join(path, 'file'), 'utf8'), 'hello');
    await unmount(path);
  });

  test('what is missing is said', async () => {
    await assert.rejects(mount({ endpoints: 'other' }), /endpoints "other" not found in namespace "default"/);
    await assert.rejects(mount({}, []), /lists no address/);
    await assert.rejects(mount({ path: 'none' }), /mount -t glusterfs 10\.99\.0\.1:\/none/);
    assert.ok(!existsSync(join(folder, `v${count - 1}`)), 'no folder is left');
  });

  test('a dead server neither keeps a pod from ending nor blocks the thread', async () => {
    const path = await mount({});
    // The brick's own process, too.
    for (const line of execFileSync('ps', ['-eo', 'pid,args'], { encoding: 'utf8' }).split('\n'))
      if (/glusterfsd/.test(line)) process.kill(Number(line.trim().split(' ')[0]), 'SIGSTOP');
    server.kill('SIGSTOP');
    let turns = 0;
    const ticking = setInterval(() => turns++, 5);
    const other = mount({}).then(
      () => 'mounted',
      error => String(error),
    );
    await sleep(200);
    await unmount(path);
    assert.ok(!mountTable().some(({ mountPoint }) => mountPoint === path));
    clearInterval(ticking);
    assert.ok(turns > 10, 'the thread went on');
    server.kill('SIGCONT');
    for (const line of execFileSync('ps', ['-eo', 'pid,args'], { encoding: 'utf8' }).split('\n'))
      if (/glusterfsd/.test(line)) process.kill(Number(line.trim().split(' ')[0]), 'SIGCONT');
    assert.equal(await other, 'mounted', 'a server that is only late is waited for');
  });
}
