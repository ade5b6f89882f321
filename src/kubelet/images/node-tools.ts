/**
 * An image made of the node's own programs (a shell, `find`, `ls` and their libraries; what every user of the node may read), so that the
 * cluster's own chores need no registry: the pod that empties a recycled volume runs from it. Made when it is first asked for.
 */

import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NODE_TOOLS_IMAGE } from '../../base/cluster-defaults.ts';
import { runCommand } from '../../sys/command.ts';
import type { Image, ImageStore } from './image-store.ts';
import { formatReference, parseReference } from './reference.ts';

const PROGRAMS = ['/bin/sh', '/usr/bin/find', '/usr/bin/ls'];

export function isNodeTools(name: string): boolean {
  return name === NODE_TOOLS_IMAGE;
}

export async function nodeTools(store: ImageStore): Promise<Image> {
  const known = store.find(NODE_TOOLS_IMAGE);
  if (known) return known;
  const missing = PROGRAMS.filter(program => !existsSync(program));
  if (missing.length)
    throw new Error(`the node has no ${missing.join(', ')}: apt-get install dash findutils coreutils`);
  const folder = mkdtempSync(join(tmpdir(), 'cox-node-tools-'));
  try {
    const archive = join(folder, 'layer.tar');
    const needed = await runCommand(
      'ldd',
      PROGRAMS.map(program => realpathSync(program)),
    );
    const libraries = [...needed.matchAll(/(?:=>|^\s+)\s*(\/\S+) \(0x/gm)].map(([, path]) => path!);
    const files = [...new Set([...PROGRAMS, ...libraries])].sort().map(path => path.slice(1));
    await runCommand('tar', [
      ...['--create', '--file', archive, '--directory', '/', '--dereference', '--no-recursion', '--format=ustar'],
      ...['--mtime=@0', '--owner=0', '--group=0', '--numeric-owner', '--hard-dereference', '--', ...files],
    ]);
    const hash = createHash('sha256');
    for await (const part of createReadStream(archive)) hash.update(part as Buffer);
    const diffId = `sha256:${hash.digest('hex')}`;
    return await store.add({
      config: Buffer.from(
        JSON.stringify({
          os: 'linux',
          config: { Env: ['PATH=/usr/bin:/bin'], Cmd: ['/bin/sh'] },
          rootfs: { type: 'layers', diff_ids: [diffId] },
        }),
      ),
      layers: [{ diffId, open: () => createReadStream(archive) as AsyncIterable<Buffer> }],
      references: [formatReference(parseReference(NODE_TOOLS_IMAGE)!)],
      manifestDigest: undefined,
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
