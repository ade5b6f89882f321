/** iscsi volumes of a real target (Debian's tgt), with Debian's initiator, on a machine whose kernel has one. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { before, test } from 'node:test';
import type { ISCSIPersistentVolumeSource } from '../../src/api/core/v1.gen.ts';
import { iscsiVolume } from '../../src/kubelet/volumes/iscsi/iscsi-volume.ts';
import type { VolumeNode } from '../../src/kubelet/volumes/volume-node.ts';
import { mountTable } from '../../src/sys/mount.ts';
import { type ContextFacts, volumeContext } from '../kubelet/volumes/context.ts';
import { isInside, runInVirtualMachine } from './virtual-machine.ts';

if (process.getuid?.() !== 0) test('iscsi volumes', { skip: 'needs root' });
else if (isInside) tests();
else
  test('iscsi volumes, on a machine with Debian’s kernel', { timeout: 400_000 }, async () => {
    const { code, output } = await runInVirtualMachine(
      [process.execPath, '--test-reporter=spec', import.meta.filename],
      { timeoutMs: 380_000 },
    );
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

  test('one session for two pods; what they write is on the target, and nothing is left after the last', async () => {
    const one = await mount();
    const two = await mount();
    writeFileSync(`${one.path}/file`, 'hello');
    assert.equal(readFileSync(`${two.path}/file`, 'utf8'), 'hello');
    assert.equal(sessions(), 1);
    await unmount(one);
    assert.equal(readFileSync(`${two.path}/file`, 'utf8'), 'hello', 'the other pod keeps it');
    await unmount(two);
    await unmount(two);
    assert.ok(!existsSync(two.path));
    nothingIsLeft();
    const again = await mount();
    assert.equal(readFileSync(`${again.path}/file`, 'utf8'), 'hello', 'the data stayed');
    await unmount(again);
    nothingIsLeft();
  });

  test('two disks of one target share its session; read-only stays so', async () => {
    const one = await mount({}, { isReadOnly: true });
    assert.throws(() => writeFileSync(`${one.path}/no`, ''), { code: 'EROFS' });
    const two = await mount({ lun: 2 });
    assert.ok(!existsSync(`${two.path}/file`));
    assert.equal(sessions(), 1);
    await unmount(one);
    writeFileSync(`${two.path}/still`, 'there');
    await unmount(two);
    nothingIsLeft();
  });

  test('block mode: the device itself', async () => {
    const target = targetNow();
    const device = await iscsiVolume.map!(source({ lun: 2 }), target, volumeContext({ rootDir, mode: 'Block' }));
    assert.match(sh(`blkid -p -s TYPE -o value ${device}`), /ext4/, 'made by the test before');
    await iscsiVolume.unmap!(target, node);
    nothingIsLeft();
  });

  test('CHAP: the right password gets in, a wrong one is said, and so is a secret of another type', async () => {
    const guarded = { iqn: GUARDED, chapAuthSession: true, secretRef: { name: 'chap' } };
    await assert.rejects(mount(guarded, { objects: [secret('wrong-password')] }), /authori[sz]ation failure/);
    await assert.rejects(
      mount(guarded, { objects: [secret('x', 'Opaque')] }),
      /of type Opaque, not kubernetes.io\/iscsi-chap/,
    );
    await assert.rejects(mount(guarded), /secret "default\/chap" with the CHAP passwords not found/);
    for (let failed = 0; failed < count; failed++)
      await unmount({ path: `/run/volume-${failed}`, podUid: `pod-${failed}`, name: `v${failed}` });
    nothingIsLeft();
    const target = await mount(guarded, { objects: [secret('correct-horse')] });
    writeFileSync(`${target.path}/file`, 'guarded');
    await unmount(target);
    nothingIsLeft();
  });

  test('two portals: a session by each; the disk is mounted once', async () => {
    const target = await mount({ portals: ['10.99.0.1:3260'] });
    assert.equal(sessions(), 2);
    assert.equal(readFileSync(`${target.path}/file`, 'utf8'), 'hello');
    await unmount(target);
    nothingIsLeft();
  });

  test('a portal that is dead is passed over; all dead is said', async () => {
    const target = await mount({ targetPortal: '127.0.0.1:3261', portals: ['127.0.0.1:3260'] });
    assert.equal(readFileSync(`${target.path}/file`, 'utf8'), 'hello');
    await unmount(target);
    const refused = await mount({ targetPortal: '127.0.0.1:3261' }).catch(error => String(error));
    assert.match(String(refused), /iscsiadm: .*(connect|encountered|refused)/);
    await unmount({ path: `/run/volume-${count - 1}`, podUid: `pod-${count - 1}`, name: `v${count - 1}` });
    nothingIsLeft();
  });

  test('an initiator name of its own', async () => {
    const target = await mount({ initiatorName: 'iqn.2026-11.example:client' });
    const [session] = readdirSync('/sys/class/iscsi_session');
    assert.equal(
      readFileSync(`/sys/class/iscsi_session/${session}/initiatorname`, 'utf8').trim(),
      'iqn.2026-11.example:client',
    );
    await unmount(target);
    nothingIsLeft();
  });

  test('what is wrong is said', async () => {
    await assert.rejects(mount({ lun: 7 }), /has no disk with the LUN 7/);
    await assert.rejects(mount({ iqn: '--help' }), /Invalid value: "--help"/);
    for (const number of [count - 2, count - 1])
      await unmount({ path: `/run/volume-${number}`, podUid: `pod-${number}`, name: `v${number}` });
    nothingIsLeft();
  });
}
