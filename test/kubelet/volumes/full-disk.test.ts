/** Files of a volume on a disk that fills up: the old ones stay whole, nothing half-written is left, and the next try has them new. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type Payload, writePayload } from '../../../src/kubelet/volumes/payload.ts';
import { inOwnNamespaces, root } from './own-namespace.ts';

const SIZE = 1 << 20;
const files = (letter: string): Payload =>
  new Map(['a', 'b', 'c'].map(name => [name, { data: Buffer.alloc(SIZE / 8, letter), mode: 0o644 }]));

if (!root) test('volumes on a full disk', { skip: 'needs root' });
else if (inOwnNamespaces(import.meta.filename)) {
  const disk = mkdtempSync(join(tmpdir(), 'cox-full-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${SIZE}`, 'small', disk]);
  after(() => {
    execFileSync('umount', [disk]);
    rmSync(disk, { recursive: true });
  });
  const volume = join(disk, 'volume');
  const free = () => {
    const { bavail, bsize } = statfsSync(disk);
    return bavail * bsize;
  };
  const letters = () => ['a', 'b', 'c'].map(name => readFileSync(join(volume, name), 'utf8')[0]).join('');

  test('a disk that fills up keeps the old files, and nothing of the new', () => {
    writePayload(volume, files('1'), { stamp: 'first' });
    const filler = join(disk, 'filler');
    writeFileSync(filler, Buffer.alloc(free() - SIZE / 4));
    const before = free();
    for (const stamp of ['second', 'third'])
      assert.throws(() => writePayload(volume, files('2'), { stamp }), { code: 'ENOSPC' });
    assert.equal(letters(), '111');
    assert.equal(free(), before, 'what was written is gone again');
    rmSync(filler);
    assert.ok(writePayload(volume, files('2'), { stamp: 'fourth' }));
    assert.equal(letters(), '222');
  });

  test('what a killed agent left half-written goes with the next change', () => {
    mkdirSync(join(volume, '..half', 'folder'), { recursive: true });
    writePayload(volume, files('3'), { stamp: 'fifth' });
    assert.deepEqual(readdirSync(volume).sort(), ['..data', '..fifth', 'a', 'b', 'c']);
    mkdirSync(join(volume, '..again'));
    assert.ok(!writePayload(volume, files('3'), { stamp: 'sixth' }), 'no change');
    assert.deepEqual(readdirSync(volume).sort(), ['..data', '..fifth', 'a', 'b', 'c']);
  });
}
