/** What each `type` of a hostPath volume takes, and what it says of the rest. Runs as root: it makes devices. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { hostPathVolume } from '../../../src/kubelet/volumes/host-path.ts';
import type { VolumeContext, VolumeTarget } from '../../../src/kubelet/volumes/volume.ts';

const folder = mkdtempSync(join(tmpdir(), 'cox-host-path-'));
const at = (name: string) => join(folder, name);
const mount = (path: string, type?: string) =>
  hostPathVolume.mount({ path, ...(type === undefined ? {} : { type }) }, {} as VolumeTarget, {} as VolumeContext);
const server = createServer();

before(async () => {
  mkdirSync(at('folder'));
  writeFileSync(at('file'), 'x');
  await new Promise<void>(resolve => server.listen(at('socket'), resolve));
  execFileSync('mknod', [at('char'), 'c', '1', '3']);
  execFileSync('mknod', [at('block'), 'b', '7', '0']);
  symlinkSync(at('folder'), at('link'));
});
after(() => {
  server.close();
  rmSync(folder, { recursive: true });
});

const THINGS = ['folder', 'file', 'socket', 'char', 'block', 'absent'];
const RULES: Readonly<Record<string, { readonly takes: string; readonly says: string }>> = {
  Directory: { takes: 'folder', says: 'a directory' },
  File: { takes: 'file', says: 'a file' },
  Socket: { takes: 'socket', says: 'a socket file' },
  CharDevice: { takes: 'char', says: 'a character device' },
  BlockDevice: { takes: 'block', says: 'a block device' },
};

for (const [type, { takes, says }] of Object.entries(RULES))
  test(`${type} takes ${says} and nothing else`, async () => {
    for (const thing of THINGS) {
      if (thing === takes) await mount(at(thing), type);
      else
        await assert.rejects(mount(at(thing), type), {
          message: `hostPath type check failed: ${at(thing)} is not ${says}`,
        });
    }
    assert.equal(statSync(at('absent'), { throwIfNoEntry: false }), undefined);
  });

test('a link is what it leads to', async () => {
  await mount(at('link'), 'Directory');
  await assert.rejects(mount(at('link'), 'File'), /is not a file$/);
});

test('without a type anything is taken, and what is missing becomes a folder', async () => {
  for (const thing of ['folder', 'file', 'socket', 'char', 'block']) {
    await mount(at(thing));
    await mount(at(thing), '');
  }
  await mount(at('a/b'));
  assert.ok(statSync(at('a/b')).isDirectory());
});

test('…OrCreate: made once, with folders above it for a folder only, whatever the umask', async () => {
  const umask = process.umask(0o077);
  try {
    await mount(at('made/deep'), 'DirectoryOrCreate');
    await mount(at('made/file'), 'FileOrCreate');
  } finally {
    process.umask(umask);
  }
  assert.equal(statSync(at('made/deep')).mode & 0o777, 0o755);
  assert.equal(statSync(at('made/file')).mode & 0o777, 0o644);
  writeFileSync(at('made/file'), 'kept');
  await mount(at('made/file'), 'FileOrCreate');
  await mount(at('made/deep'), 'DirectoryOrCreate');
  assert.equal(statSync(at('made/file')).size, 4);
  await assert.rejects(mount(at('nowhere/file'), 'FileOrCreate'), /no such file or directory.*nowhere/);
  await assert.rejects(mount(at('file'), 'DirectoryOrCreate'), /is not a directory$/);
  await assert.rejects(mount(at('folder'), 'FileOrCreate'), /is not a file$/);
  await assert.rejects(mount(at('folder'), 'Folder'), /^Error: Folder is an invalid volume type$/);
});
