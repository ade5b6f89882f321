import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { getAttribute } from '../../sys/xattr.ts';
import { ImageStore } from './image-store.ts';
import { formatReference, parseReference } from './reference.ts';

const work = mkdtempSync(join(tmpdir(), 'cox-store-'));
after(() => rmSync(work, { recursive: true, force: true }));

function archive(name: string, layers: ((root: string) => void)[], reference: string): string {
  const folder = join(work, name);
  const diffIds = layers.map((fill, i) => {
    const root = join(folder, `root${i}`);
    mkdirSync(root, { recursive: true });
    fill(root);
    execFileSync('tar', ['-C', root, '--xattrs', '--numeric-owner', '-cf', join(folder, `${i}.tar`), '.']);
    return `sha256:${createHash('sha256')
      .update(readFileSync(join(folder, `${i}.tar`)))
      .digest('hex')}`;
  });
  writeFileSync(
    join(folder, 'config.json'),
    JSON.stringify({ config: { Cmd: ['x'], StopSignal: 'SIGQUIT' }, rootfs: { type: 'layers', diff_ids: diffIds } }),
  );
  writeFileSync(
    join(folder, 'manifest.json'),
    JSON.stringify([{ Config: 'config.json', RepoTags: [reference], Layers: layers.map((_, i) => `${i}.tar`) }]),
  );
  execFileSync('tar', [
    '-C',
    folder,
    '-cf',
    `${folder}.tar`,
    'manifest.json',
    'config.json',
    ...layers.map((_, i) => `${i}.tar`),
  ]);
  return `${folder}.tar`;
}

test('references normalise as docker does', () => {
  const cases = {
    nginx: 'docker.io/library/nginx:latest',
    'a/b:1': 'docker.io/a/b:1',
    'localhost/x': 'localhost/x:latest',
    'h:5000/x': 'h:5000/x:latest',
    'docker.io/nginx': 'docker.io/library/nginx:latest',
    'index.docker.io/library/nginx:2': 'docker.io/library/nginx:2',
    'r.example/q/w@sha256:': undefined,
    [`x@sha256:${'a'.repeat(64)}`]: `docker.io/library/x@sha256:${'a'.repeat(64)}`,
    Upper: undefined,
    '': undefined,
    'a b': undefined,
  };
  for (const [text, expected] of Object.entries(cases)) {
    const parsed = parseReference(text);
    assert.equal(parsed && formatReference(parsed), expected, text);
  }
});

test('load, resolve, whiteouts, remove', async () => {
  const store = new ImageStore(join(work, 'store'));
  const file = archive(
    'one',
    [
      root => {
        writeFileSync(join(root, 'keep'), 'k', { mode: 0o4755 });
        writeFileSync(join(root, 'gone'), 'g');
        mkdirSync(join(root, 'dir'));
      },
      root => {
        writeFileSync(join(root, '.wh.gone'), '');
        mkdirSync(join(root, 'dir'));
        writeFileSync(join(root, 'dir/.wh..wh..opq'), '');
      },
    ],
    'app:1',
  );
  const [[first], [second]] = await Promise.all([store.load(file), new ImageStore(join(work, 'store')).load(file)]);
  assert.equal(first!.id, second!.id);
  const image = store.resolve('docker.io/library/app:1')!;
  assert.deepEqual(image.references, ['docker.io/library/app:1']);
  assert.equal(image.config.StopSignal, 'SIGQUIT');
  const [bottom, top] = image.layers.map(name => join(store.layersDir, name));
  assert.equal(lstatSync(join(bottom!, 'keep')).mode & 0o7777, 0o4755);
  assert.ok(lstatSync(join(top!, 'gone')).isCharacterDevice());
  assert.equal(String(getAttribute(join(top!, 'dir'), 'trusted.overlay.opaque')), 'y');
  store.hold(image.id, 'c1');
  assert.throws(() => store.remove('app:1'), /in use/);
  store.release(image.id, 'c1');
  store.tag(image.id, 'docker.io/library/app:2');
  assert.ok(store.remove('app:1'));
  assert.ok(existsSync(bottom!));
  assert.ok(store.remove('app:2'));
  assert.equal(existsSync(bottom!), false);
  assert.equal(store.remove('app:2'), false);
  assert.deepEqual(readdirSync(join(work, 'store', 'scratch')), []);
});

test('compressed archives', async () => {
  const file = archive('zip', [root => writeFileSync(join(root, 'a'), 'b')], 'zip:1');
  execFileSync('gzip', ['-k', file]);
  const store = new ImageStore(join(work, 'zip-store'));
  await store.load(`${file}.gz`);
  assert.ok(store.find('zip:1'));
});

/** An OCI layout of one image with one layer; `spoil` may change its files before they are packed. */
function ociArchive(name: string, spoil: (files: Map<string, Buffer>, manifest: string) => void = () => {}): string {
  const folder = join(work, name);
  mkdirSync(join(folder, 'root'), { recursive: true });
  writeFileSync(join(folder, 'root/file'), name);
  execFileSync('tar', ['-C', join(folder, 'root'), '-cf', join(folder, 'layer.tar'), '.']);
  const files = new Map<string, Buffer>();
  const add = (data: Buffer) => {
    const hex = createHash('sha256').update(data).digest('hex');
    files.set(`blobs/sha256/${hex}`, data);
    return { digest: `sha256:${hex}`, size: data.length };
  };
  const layer = add(readFileSync(join(folder, 'layer.tar')));
  const config = add(Buffer.from(JSON.stringify({ rootfs: { type: 'layers', diff_ids: [layer.digest] } })));
  const manifest = add(Buffer.from(JSON.stringify({ schemaVersion: 2, config, layers: [layer] })));
  files.set('oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}'));
  const annotations = { 'org.opencontainers.image.ref.name': `${name}:1` };
  files.set('index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] })));
  spoil(files, manifest.digest);
  for (const [path, data] of files) {
    mkdirSync(join(folder, 'oci', path, '..'), { recursive: true });
    writeFileSync(join(folder, 'oci', path), data);
  }
  execFileSync('tar', ['-C', join(folder, 'oci'), '-cf', `${folder}.tar`, '.']);
  return `${folder}.tar`;
}

test('blobs of an OCI archive are what their digests say', async () => {
  const store = new ImageStore(join(work, 'oci-store'));
  const [image] = await store.load(ociArchive('oci-good'));
  assert.deepEqual(image!.references, ['docker.io/library/oci-good:1']);
  const others = (files: Map<string, Buffer>) => [...files].filter(([path]) => path.startsWith('blobs/'));
  for (const [at, what] of ['layer', 'config', 'manifest'].entries()) {
    const file = ociArchive(`oci-bad-${what}`, files => {
      const [path, data] = others(files)[at]!;
      // What is read stays well formed: only the digest tells.
      files.set(
        path,
        what === 'layer'
          ? Buffer.from(String(data).replace('oci-bad', 'oci-BAD'))
          : Buffer.concat([data, Buffer.from(' ')]),
      );
    });
    await assert.rejects(store.load(file), /does not match its digest/, what);
    assert.equal(store.find(`oci-bad-${what}:1`), undefined);
  }
});

test('archives that are not what they claim to be are refused in words', async () => {
  const store = new ImageStore(join(work, 'odd-store'));
  const index = (text: string) => (files: Map<string, Buffer>) => void files.set('index.json', Buffer.from(text));
  const cases: [string, RegExp][] = [
    ['{"manifests":null}', /manifests of index.json in the image archive is not a list/],
    ['{"manifests":[null]}', /manifests of index.json in the image archive is not a list/],
    ['{"manifests":[]}', /image archive has no image in it/],
    ['{"manifests":[{"digest":"sha256:../../x"}]}', /something else than a digest: sha256:\.\.\/\.\.\/x/],
    ['null', /index.json in the image archive is not what it is to be/],
    ['{', /index.json in the image archive is not what it is to be/],
  ];
  for (const [at, [text, why]] of cases.entries())
    await assert.rejects(store.load(ociArchive(`odd-${at}`, index(text))), why, text);
  const docker = (text: string) => {
    const folder = mkdtempSync(join(work, 'odd-docker-'));
    writeFileSync(join(folder, 'manifest.json'), text);
    execFileSync('tar', ['-C', folder, '-cf', `${folder}.tar`, 'manifest.json']);
    return store.load(`${folder}.tar`);
  };
  await assert.rejects(docker('[]'), /has no image in it/);
  await assert.rejects(docker('[null]'), /manifest.json in the image archive is not a list/);
  await assert.rejects(docker('{"a":1}'), /manifest.json in the image archive is not a list/);
  await assert.rejects(
    docker('[{"Config":"manifest.json"}]'),
    /Layers of manifest.json in the image archive is not a list/,
  );
});

test('an entry cannot leave its layer', async () => {
  const outside = join(work, 'outside');
  mkdirSync(outside);
  const folder = join(work, 'evil');
  mkdirSync(join(folder, 'a/dir'), { recursive: true });
  symlinkSync(outside, join(folder, 'a/link'));
  mkdirSync(join(folder, 'b/link'), { recursive: true });
  writeFileSync(join(folder, 'b/link/file'), 'evil');
  const layer = join(folder, '0.tar');
  execFileSync('tar', ['-C', join(folder, 'a'), '-cf', layer, 'link']);
  execFileSync('tar', ['-C', join(folder, 'b'), '-rf', layer, 'link/file']);
  const diffId = `sha256:${createHash('sha256').update(readFileSync(layer)).digest('hex')}`;
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ rootfs: { type: 'layers', diff_ids: [diffId] } }));
  writeFileSync(
    join(folder, 'manifest.json'),
    JSON.stringify([{ Config: 'config.json', RepoTags: ['evil:1'], Layers: ['0.tar'] }]),
  );
  execFileSync('tar', ['-C', folder, '-cf', join(work, 'evil.tar'), 'manifest.json', 'config.json', '0.tar']);
  const store = new ImageStore(join(work, 'evil-store'));
  await store.load(join(work, 'evil.tar'));
  assert.deepEqual(readdirSync(outside), []);
});
