import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { DeviceConfig, DeviceNode } from '../runtime.ts';
import { differences, ociDevice } from './device-nodes.ts';

const folder = mkdtempSync(join(tmpdir(), 'cox-devices-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const device = (node?: DeviceNode, extra: Partial<DeviceConfig> = {}): DeviceConfig => ({
  hostPath: '/dev/null',
  containerPath: '/dev/a',
  isReadOnly: false,
  ...(node ? { node } : {}),
  ...extra,
});
const user = { uid: 1000, gid: 2000 };
const machines = statSync('/dev/null');
const [uid, gid, fileMode] = [machines.uid, machines.gid, machines.mode & 0o777];
const null0 = { path: '/dev/a', type: 'c', major: 1, minor: 3 };

test('one that nobody describes is as on the machine', () => {
  assert.deepEqual(ociDevice(device(), user), {
    node: { ...null0, fileMode, uid, gid },
    rule: { allow: true, type: 'c', major: 1, minor: 3, access: 'rwm' },
  });
  assert.deepEqual(Object(ociDevice(device(undefined, { isReadOnly: true }), user).rule).access, 'rm');
  writeFileSync(join(folder, 'file'), '');
  assert.throws(() => ociDevice(device(undefined, { hostPath: join(folder, 'file') }), user), /is not a device/);
});

test('a described one: what is not said is the process’s and the machine’s', () => {
  assert.deepEqual(ociDevice(device({ access: 'r' }), user), {
    node: { ...null0, fileMode: 0o666, uid: 1000, gid: 2000 },
    rule: { allow: true, type: 'c', major: 1, minor: 3, access: 'r' },
  });
  const said = { fileMode: 0o600, uid: 0, gid: 5 };
  assert.deepEqual(ociDevice(device({ type: 'u', ...said }), user), {
    node: { ...null0, type: 'u', ...said },
    rule: { allow: true, type: 'c', major: 1, minor: 3, access: 'rwm' },
  });
  assert.throws(() => ociDevice(device({ type: 'b' }), user), /\/dev\/null is of type c, not b/);
});

test('numbers and pipes need nothing on the machine', () => {
  const away = { hostPath: '/nowhere' };
  assert.deepEqual(ociDevice(device({ type: 'b', major: 8, fileMode: 0 }, away), user), {
    node: { path: '/dev/a', type: 'b', major: 8, minor: 0, fileMode: 0, uid: 1000, gid: 2000 },
    rule: { allow: true, type: 'b', major: 8, minor: 0, access: 'rwm' },
  });
  const pipe = ociDevice(device({ type: 'p' }, away), user);
  assert.deepEqual(pipe, { node: { path: '/dev/a', type: 'p', fileMode: 0o666, uid: 1000, gid: 2000 } });
});

test('what a description says otherwise than the machine', () => {
  assert.deepEqual(differences(device()), []);
  const same = { type: 'u', major: 1, minor: 3, fileMode, uid, gid, access: 'r' } as const;
  assert.deepEqual(differences(device(same)), []);
  assert.deepEqual(differences(device({ ...same, minor: 5, gid: gid + 6 })).sort(), ['gid', 'minor']);
  assert.deepEqual(differences(device({ type: 'c' }, { hostPath: '/nowhere' })), ['type']);
  execFileSync('mkfifo', ['-m', '600', join(folder, 'pipe')]);
  assert.deepEqual(differences(device({ type: 'p', fileMode: 0o600 }, { hostPath: join(folder, 'pipe') })), []);
});
