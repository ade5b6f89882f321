/** iscsi volumes of a real target (Debian's tgt), with Debian's initiator, on a machine whose kernel has one. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { before, test } from 'node:test';
import type { ISCSIPersistentVolumeSource } from '../../src/api/core/v1.gen.ts';
import { iscsiVolume } from '../../src/kubelet/volumes/iscsi/iscsi-volume.ts';
import type { VolumeNode } from '../../src/kubelet/volumes/volume-node.ts';
import { mountTable } from '../../src/sys/mount.ts';
import { type ContextFacts, exampleSource, volumeContext } from '../kubelet/volumes/context.ts';
import { isInside, runTestsInVirtualMachine } from './virtual-machine.ts';

if (process.getuid?.() !== 0) test('iscsi volumes', { skip: 'needs root' });
else if (isInside) tests();
else
  test('iscsi volumes, on a machine with Debian’s kernel', { timeout: 600_000 }, async () => {
    const { code, output } = await runTestsInVirtualMachine(import.meta.filename, { timeoutMs: 580_000 });
    process.stdout.write(output);
    assert.equal(code, 0, output || 'the machine printed nothing');
  });

function tests(): void {
  const IQN = 'iqn.2026-11.example:disks';
  const GUARDED = 'iqn.2026-11.example:guarded';
  const rootDir = '/run/kubelet';
  const node = { rootDir } as VolumeNode;
  const sh = (script: string) => execFileSync('sh', ['-ec', script], { encoding: 'utf8' });
  let count = 0;
  const targetNow = () => ({ path: `/run/volume-${count}`, podUid: `pod-${count}`, name: `v${count++}` });
  type Source = Partial<ISCSIPersistentVolumeSource>;
  const source = (own: Source) => ({ targetPortal: '127.0.0.1', iqn: IQN, lun: 1, ...own });
  const mount = async (own: Source = {}, facts: ContextFacts = {}) => {
    const target = targetNow();
    await iscsiVolume.mount(source(own), target, volumeContext({ rootDir, ...facts }));
    return target;
  };
  const unmount = (target: ReturnType<typeof targetNow>) => iscsiVolume.unmount(target, node);
  const unmountLast = () =>
    unmount({ path: `/run/volume-${count - 1}`, podUid: `pod-${count - 1}`, name: `v${count - 1}` });
  const sessions = () => (existsSync('/sys/class/iscsi_session') ? readdirSync('/sys/class/iscsi_session').length : 0);
  const nothingIsLeft = () => {
    assert.equal(sessions(), 0, 'sessions');
    assert.deepEqual(readdirSync(`${rootDir}/plugins/kubernetes.io~iscsi`), []);
    assert.ok(!mountTable().some(({ mountPoint }) => mountPoint.startsWith(rootDir)));
  };
  const secret = (password: string, type = 'kubernetes.io/iscsi-chap') => ({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'chap', namespace: 'default' },
    type,
    data: Object.fromEntries(
      Object.entries({ 'node.session.auth.username': 'user', 'node.session.auth.password': password }).map(
        ([key, value]) => [key, Buffer.from(value).toString('base64')],
      ),
    ),
  });

  before(() => {
    mkdirSync('/run/disks');
    sh(`mkdir -p /run/lock; modprobe iscsi_tcp; ip address add 10.99.0.1/32 dev lo
tgtd; for i in 1 2 3 4 5 6 7 8 9; do tgtadm --op show --mode sys >/dev/null 2>&1 && break; sleep 0.2; done
tgt() { tgtadm --lld iscsi --mode "$@"; }
tgt target --op new --tid 1 -T ${IQN}; tgt target --op new --tid 2 -T ${GUARDED}
for lun in 1 2; do truncate -s 64M /run/disks/$lun; tgt logicalunit --op new --tid 1 --lun $lun -b /run/disks/$lun; done
truncate -s 64M /run/disks/3; tgt logicalunit --op new --tid 2 --lun 1 -b /run/disks/3
tgt target --op bind --tid 1 -I ALL; tgt target --op bind --tid 2 -I ALL
tgt account --op new --user user --password correct-horse; tgt account --op bind --tid 2 --user user`);
  });

  test('pods and disks share a session; what they write is on the target, and nothing is left after the last', async () => {
    const one = await mount();
    const two = await mount();
    writeFileSync(`${one.path}/file`, 'hello');
    assert.equal(readFileSync(`${two.path}/file`, 'utf8'), 'hello');
    await unmount(one);
    assert.equal(readFileSync(`${two.path}/file`, 'utf8'), 'hello', 'the other pod keeps it');
    // The device itself of another disk.
    const block = targetNow();
    const device = await iscsiVolume.map!(source({ lun: 2 }), block, volumeContext({ rootDir, mode: 'Block' }));
    sh(`echo raw | dd of=${device} conv=fsync status=none`);
    assert.equal(sessions(), 1);
    await unmount(two);
    await unmount(two);
    assert.ok(!existsSync(two.path));
    assert.equal(sessions(), 1, 'the other disk still needs it');
    await iscsiVolume.unmap!(block, node);
    nothingIsLeft();
    assert.equal(readFileSync('/run/disks/2', 'utf8').slice(0, 3), 'raw');
  });

  test('two portals of which one is dead, an initiator name of its own, read-only: the data is there', async () => {
    const target = await mount(
      {
        targetPortal: '127.0.0.1:3261',
        portals: ['10.99.0.1', '127.0.0.1'],
        initiatorName: 'iqn.2026-11.example:client',
      },
      { isReadOnly: true },
    );
    assert.equal(sessions(), 2, 'one by each that answers');
    for (const session of readdirSync('/sys/class/iscsi_session'))
      assert.match(readFileSync(`/sys/class/iscsi_session/${session}/initiatorname`, 'utf8'), /example:client/);
    assert.equal(readFileSync(`${target.path}/file`, 'utf8'), 'hello');
    assert.throws(() => writeFileSync(`${target.path}/no`, ''), { code: 'EROFS' });
    await unmount(target);
    nothingIsLeft();
  });

  test('CHAP: the passwords of a secret, and of no other', async () => {
    // The example's, with this machine's portal.
    const guarded = { ...exampleSource<Source>('iscsi.yaml', 'iscsi'), targetPortal: '127.0.0.1', portals: [] };
    assert.equal(guarded.iqn, GUARDED);
    await assert.rejects(
      mount(guarded, { objects: [secret('x', 'Opaque')] }),
      /of type Opaque, not kubernetes.io\/iscsi-chap/,
    );
    await assert.rejects(mount(guarded), /secret "default\/chap" with the CHAP passwords not found/);
    await assert.rejects(mount(guarded, { objects: [secret('battery-staple')] }), /authorization failure/);
    await unmountLast();
    nothingIsLeft();
    const target = await mount(guarded, { objects: [secret('correct-horse')] });
    writeFileSync(`${target.path}/file`, 'guarded');
    await unmount(target);
    nothingIsLeft();
  });

  test('what is wrong is said, and nothing is left', async () => {
    await assert.rejects(mount({ iqn: '--help' }), /Invalid value: "--help"/);
    await assert.rejects(mount({ lun: 7 }), /has no disk with the LUN 7/);
    await unmountLast();
    await assert.rejects(mount({ targetPortal: '127.0.0.1:3261' }), /cannot make connection to 127\.0\.0\.1/);
    await unmountLast();
    nothingIsLeft();
  });
}
