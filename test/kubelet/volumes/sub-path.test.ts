/**
 * Parts of volumes while a process of the pod swaps folders for links: what is mounted, and what is made, is never outside.
 * COX_SUB_PATH_TRIES says how often; 10 000 are tried by hand.
 */

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pinSubPath } from '../../../src/kubelet/volumes/sub-path.ts';
import { unmount } from '../../../src/sys/mount.ts';
import { inOwnNamespaces, root } from './own-namespace.ts';

const TRIES = Number(process.env['COX_SUB_PATH_TRIES'] ?? 1000);

/** Exchanges `a` of the volume for a link that leads out, and back, as fast as it can. */
const SWAPPER = `
import koffi from 'koffi';
import { mkdirSync, symlinkSync } from 'node:fs';
const [volume, outside] = process.argv.slice(-2);
process.chdir(volume);
const rename = koffi.load('libc.so.6').func('int renameat2(int, const char *, int, const char *, unsigned int)');
const exchange = (one, other) => rename(-100, one, -100, other, 2);
mkdirSync('spare');
symlinkSync(outside, 'link');
for (;;) {
  exchange('a', 'link');
  exchange('a', 'link');
  exchange('a', 'spare');
}
`;

if (!root) test('parts of volumes', { skip: 'needs root' });
else if (inOwnNamespaces(import.meta.filename)) tests();

function tests(): void {
  const folder = mkdtempSync(join(tmpdir(), 'cox-sub-path-'));
  const volume = join(folder, 'volume');
  const outside = join(folder, 'outside');
  const pin = join(folder, 'pins', 'v', 'c', '0');
  let swapper: ChildProcess | undefined;

  before(() => {
    for (const path of [join(volume, 'a', 'sub'), join(outside, 'sub')]) mkdirSync(path, { recursive: true });
    writeFileSync(join(outside, 'secret'), 'secret');
    writeFileSync(join(outside, 'sub', 'secret'), 'secret');
  });
  after(() => {
    swapper?.kill('SIGKILL');
    unmount(pin);
    rmSync(folder, { recursive: true, force: true });
  });

  test('folders are made, files and links inside are followed, links that lead out are refused', () => {
    const bind = (subPath: string) => pinSubPath({ volume, subPath, pin: join(folder, 'pins', 'v', 'c', '1') });
    const taken = (subPath: string) => {
      const path = bind(subPath);
      const found = statSync(path);
      unmount(path);
      rmSync(path, { recursive: true });
      return found;
    };
    assert.equal(taken('new/deep/er').ino, statSync(join(volume, 'new', 'deep', 'er')).ino);
    chmodSync(volume, 0o2777);
    assert.equal(taken('open/wide').mode & 0o7777, 0o2777, 'as open as the volume');
    chmodSync(volume, 0o755);
    writeFileSync(join(volume, 'file'), 'x');
    assert.ok(taken('file').isFile());
    symlinkSync('a/sub', join(volume, 'inner'));
    assert.equal(taken('inner').ino, statSync(join(volume, 'a', 'sub')).ino);
    assert.equal(taken('inner/made').ino, statSync(join(volume, 'a', 'sub', 'made')).ino);
    symlinkSync(outside, join(volume, 'out'));
    assert.throws(() => bind('out'), /leads outside of the volume/);
    assert.throws(() => bind('out/made'), /leads outside of the volume/);
    symlinkSync('/nowhere', join(volume, 'dangling'));
    assert.throws(() => bind('dangling'), /EEXIST|changed|ENOTDIR|ELOOP/);
    assert.throws(() => bind('dangling/made'), /EEXIST|ENOTDIR|ELOOP/);
    assert.throws(() => bind('../outside'), /must be a relative path inside the volume/);
    assert.ok(!existsSync('/nowhere'));
  });

  test(`${TRIES} tries while a folder is swapped for a link: none escapes`, { timeout: 600_000 }, async () => {
    const started = spawn(process.execPath, ['--input-type=module', '-e', SWAPPER, volume, outside], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    swapper = started;
    // Begun once the link is there to be swapped in.
    while (!existsSync(join(volume, 'spare'))) await sleep(10);
    let [bound, refused] = [0, 0];
    for (let i = 0; bound + refused < TRIES; i++) {
      const subPath = ['a', 'a/sub', `a/new-${i}`, `a/sub/new-${i}/x`][i % 4]!;
      try {
        pinSubPath({ volume, subPath, pin });
      } catch {
        refused++;
        continue;
      }
      bound++;
      assert.ok(!existsSync(join(pin, 'secret')), `try ${i}: ${subPath} shows what is outside`);
      unmount(pin);
    }
    assert.equal(started.exitCode, null, 'the swapper went on to the end');
    assert.ok(refused > 0 && bound > 0, `bound ${bound}, refused ${refused}: both must have been met`);
    assert.deepEqual(readdirSync(outside).sort(), ['secret', 'sub'], 'nothing was made outside');
    assert.deepEqual(readdirSync(join(outside, 'sub')), ['secret']);
    assert.equal(readFileSync(join(outside, 'secret'), 'utf8'), 'secret');
  });
}
