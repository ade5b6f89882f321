/** Builds docker-archive images for tests of the kubelet, around the static busybox that `tools/images` made an image of. */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** Writes an image archive to `file`. */
export function buildBusyboxImage(
  file: string,
  options: { name?: string; config?: Record<string, unknown> } = {},
): void {
  const work = mkdtempSync(join(tmpdir(), 'cox-image-'));
  try {
    const root = join(work, 'root');
    for (const folder of ['bin', 'etc', 'tmp', 'proc', 'sys', 'dev', 'root', 'var/www'])
      mkdirSync(join(root, folder), { recursive: true });
    const busybox = join(root, 'bin/busybox');
    extractBusybox(busybox);
    const applets = execFileSync(busybox, ['--list'], { encoding: 'utf8' }).split('\n').filter(Boolean);
    for (const applet of applets) if (applet !== 'busybox') symlinkSync('busybox', join(root, 'bin', applet));
    writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nweb:x:1234:1234::/:/bin/sh\n');
    writeFileSync(join(root, 'etc/group'), 'root:x:0:\nweb:x:1234:\nextra:x:77:web\n');
    writeFileSync(join(root, 'var/www/index.html'), 'hello\n');
    execFileSync('tar', ['-C', root, '--numeric-owner', '--owner=0', '--group=0', '-cf', join(work, 'layer.tar'), '.']);
    const diffId = createHash('sha256')
      .update(readFileSync(join(work, 'layer.tar')))
      .digest('hex');
    const config = JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      created: '2026-01-01T00:00:00Z',
      config: { Env: ['PATH=/bin'], Cmd: ['sh'], ...options.config },
      rootfs: { type: 'layers', diff_ids: [`sha256:${diffId}`] },
    });
    const configName = `${createHash('sha256').update(config).digest('hex')}.json`;
    writeFileSync(join(work, configName), config);
    writeFileSync(
      join(work, 'manifest.json'),
      JSON.stringify([{ Config: configName, RepoTags: [options.name ?? 'busybox:1'], Layers: ['layer.tar'] }]),
    );
    execFileSync('tar', ['-C', work, '-cf', file, 'layer.tar', configName, 'manifest.json']);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

const archive = resolve(import.meta.dirname, '../../.cache/images/busybox-1.35.tar');

/** The program itself, for roots that are not images. Builds the image when it is not there. */
export function extractBusybox(target: string): void {
  if (!existsSync(archive))
    execFileSync(process.execPath, [resolve(import.meta.dirname, '../../tools/images/build.ts'), 'busybox:1.35'], {
      stdio: 'ignore',
    });
  const work = mkdtempSync(join(tmpdir(), 'cox-busybox-'));
  try {
    execFileSync('tar', ['-C', work, '-xf', archive]);
    const [{ Layers: layers }] = JSON.parse(readFileSync(join(work, 'manifest.json'), 'utf8')) as [
      { Layers: string[] },
    ];
    execFileSync('tar', ['-C', work, '-xf', join(work, layers[0]!), 'bin/busybox']);
    copyFileSync(join(work, 'bin/busybox'), target);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
