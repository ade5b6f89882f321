/** Folders go only when nothing is mounted in them; in a mount namespace that the test makes for itself. */

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { CLONE_NEWNS, MS_BIND, MS_PRIVATE, MS_REC, mount, unshare } from '../../src/sys/libc.ts';
import { unmount, unmountBelow } from '../../src/sys/mount.ts';
import { removeUnmounted } from '../../src/sys/remove-unmounted.ts';

let root: string;
before(() => {
  unshare(CLONE_NEWNS);
  mount('none', '/', null, MS_REC | MS_PRIVATE, null);
  root = mkdtempSync('/var/tmp/cox-remove-');
});
after(() => {
  unmountBelow(root);
  rmSync(root, { recursive: true, force: true });
});

const folderWith = (name: string): { folder: string; deep: string; other: string } => {
  const [folder, other] = [join(root, name), join(root, `${name}-other`)];
  const deep = join(folder, 'volumes/a/b');
  mkdirSync(deep, { recursive: true });
  mkdirSync(other);
  writeFileSync(join(other, 'theirs'), 'stays');
  writeFileSync(join(folder, 'file'), '');
  symlinkSync(other, join(folder, 'volumes/link'));
  return { folder, deep, other };
};

test('a folder of its own file system goes with all that is in it; links are not followed', () => {
  const { folder, other } = folderWith('plain');
  removeUnmounted(folder);
  assert.equal(existsSync(folder), false);
  assert.deepEqual(readdirSync(other), ['theirs']);
  removeUnmounted(folder);
  removeUnmounted(join(root, 'no/such/folder'));
});

test('a mount of any kind below keeps everything: a bind of the same file system, of a file, another file system, the folder itself', () => {
  const { folder, deep, other } = folderWith('mounted');
  for (const [what, at, mountIt] of [
    ['bind', deep, () => mount(other, deep, null, MS_BIND, null)],
    ['file', join(folder, 'file'), () => mount(join(other, 'theirs'), join(folder, 'file'), null, MS_BIND, null)],
    ['tmpfs', deep, () => mount('tmpfs', deep, 'tmpfs', 0, null)],
    ['itself', folder, () => mount(other, folder, null, MS_BIND, null)],
  ] as const) {
    mountIt();
    assert.throws(() => removeUnmounted(folder), new RegExp(`${folder} is not removed: ${at} is still mounted`), what);
    unmount(at);
    assert.ok(existsSync(deep) && existsSync(join(folder, 'file')), what);
  }
  assert.deepEqual(readdirSync(other), ['theirs']);
  removeUnmounted(folder);
  assert.equal(existsSync(folder), false);
});
