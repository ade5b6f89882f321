import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { cdiEdits } from './cdi.ts';

const folder = mkdtempSync(join(tmpdir(), 'cox-cdi-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const edits = (containerEdits: object) => {
  const file = { cdiVersion: '1.0.0', kind: 'example.com/card', devices: [{ name: 'a', containerEdits }] };
  writeFileSync(join(folder, 'card.json'), JSON.stringify(file));
  return cdiEdits(['example.com/card=a'], [folder]);
};
const node = (said: object) => edits({ deviceNodes: [{ path: '/dev/a', ...said }] }).devices[0]!;

test('what a description says of a device node is kept', () => {
  const plain = { hostPath: '/dev/a', containerPath: '/dev/a', isReadOnly: false, node: { access: 'rwm' } };
  assert.deepEqual(node({}), plain);
  assert.deepEqual(node({ type: '', permissions: '', hostPath: '' }), plain);
  const full = { type: 'c', major: 1, minor: 5, fileMode: 0o640, uid: 5, gid: 6 };
  assert.deepEqual(node({ ...full, hostPath: '/dev/b', permissions: 'r' }), {
    hostPath: '/dev/b',
    containerPath: '/dev/a',
    isReadOnly: true,
    node: { ...full, access: 'r' },
  });
});

test('a description in YAML has its modes as Go reads them', () => {
  const text =
    'kind: example.com/disk\ndevices: [{name: a, containerEdits: {deviceNodes: [{path: /dev/a, fileMode: 0640}]}}]';
  writeFileSync(join(folder, 'disk.yaml'), text);
  assert.equal(cdiEdits(['example.com/disk=a'], [folder]).devices[0]!.node!.fileMode, 0o640);
});

test('groups, without the first', () => {
  assert.deepEqual(edits({ additionalGids: [7, 0, 7, 8] }).additionalGids, [7, 8]);
});

test('what cannot be done is refused by name', () => {
  assert.throws(() => node({ type: 'x' }), /device node \/dev\/a: type must be one of b, c, u, p, not "x"/);
  assert.throws(() => node({ permissions: 'rx' }), /permissions must be of r, w and m, not "rx"/);
  assert.throws(() => node({ major: 'one' }), /major must be a number, not "one"/);
  assert.throws(() => node({ path: 'dev/a' }), /absolute path/);
  assert.throws(() => node({ colour: 'red' }), /device node \/dev\/a: field "colour" is not supported/);
  assert.throws(() => edits({ intelRdt: {} }), /containerEdits of example.com\/card=a: field "intelRdt"/);
  const mount = { hostPath: '/a', containerPath: '/b' };
  assert.throws(() => edits({ mounts: [{ ...mount, type: 'tmpfs' }] }), /mount \/b: type "tmpfs" is not supported/);
  assert.equal(edits({ mounts: [{ ...mount, type: 'bind' }] }).mounts[0]!.hostPath, '/a');
});
