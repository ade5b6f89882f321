/** What registries that mean harm cannot do to a pull, all on 127.0.0.1. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { freshStore, hostile, nothingLeft, pull } from './pull-bed.ts';
import { type BuiltImage, buildImage, digestOf, tarOf } from './registry.ts';

test('wrong digests, long bodies and odd manifests change nothing', async () => {
  const good = buildImage([tarOf({ a: 'a' }), tarOf({ b: 'b' })]);
  const manifest = JSON.parse(good.manifest.toString()) as {
    config: { digest: string; size: number };
    layers: { digest: string; size: number; mediaType: string }[];
  };
  const altered = (change: (copy: typeof manifest) => void): BuiltImage => {
    const copy = structuredClone(manifest);
    change(copy);
    return { ...good, manifest: Buffer.from(JSON.stringify(copy)) };
  };
  const [first] = manifest.layers as [(typeof manifest.layers)[0]];
  const swapped = new Map(good.blobs);
  swapped.set(first.digest, gzipSync(tarOf({ a: 'evil' })));
  const longer = new Map(good.blobs);
  longer.set(first.digest, Buffer.concat([good.blobs.get(first.digest)!, randomBytes(1 << 20)]));
  const otherTar = new Map(good.blobs);
  const otherConfig = Buffer.from(
    good.blobs
      .get(manifest.config.digest)!
      .toString()
      .replace(/"diff_ids":\["sha256:..../, '"diff_ids":["sha256:0000'),
  );
  otherTar.set(digestOf(otherConfig), otherConfig);
  const cases: [string, BuiltImage, RegExp][] = [
    ['layer of other content', { ...good, blobs: swapped }, /digest|longer|EOF/],
    ['layer longer than said', { ...good, blobs: longer }, /longer/],
    [
      'layer shorter than said',
      altered(copy => {
        copy.layers[0]!.size += 5;
      }),
      /EOF/,
    ],
    [
      'content is not the configuration’s',
      {
        ...altered(copy => {
          copy.config = { ...copy.config, digest: digestOf(otherConfig), size: otherConfig.length };
        }),
        blobs: otherTar,
      },
      /does not match its digest/,
    ],
    [
      'diff id that is a path',
      {
        ...(() => {
          const bytes = Buffer.from(
            good.blobs
              .get(manifest.config.digest)!
              .toString()
              .replace(/"diff_ids":\["[^"]*"/, '"diff_ids":["../../../../etc"'),
          );
          return {
            ...altered(copy => {
              copy.config = { ...copy.config, digest: digestOf(bytes), size: bytes.length };
            }),
            blobs: new Map([...good.blobs, [digestOf(bytes), bytes]]),
          };
        })(),
      },
      /no proper digest/,
    ],
    [
      'digest that is a path',
      altered(copy => {
        copy.layers[0]!.digest = '../../etc/passwd';
      }),
      /not one of an image/,
    ],
    [
      'negative size',
      altered(copy => {
        copy.layers[0]!.size = -1;
      }),
      /not one of an image/,
    ],
    [
      'layer missing',
      altered(copy => {
        copy.layers.pop();
      }),
      /names 2 layers/,
    ],
    [
      'foreign kind of layer',
      altered(copy => {
        copy.layers[0]!.mediaType = 'application/vnd.oci.image.layer.v1.tar+encrypted';
      }),
      /not supported/,
    ],
    [
      'too many layers',
      altered(copy => {
        copy.layers = Array.from({ length: 300 }, () => first);
      }),
      /too many layers/,
    ],
    ['schema 1', { ...good, manifest: Buffer.from('{"schemaVersion":1}') }, /not supported/],
    ['no JSON', { ...good, manifest: Buffer.from('<html>') }, /not JSON/],
  ];
  for (const [what, image, expected] of cases) {
    const registry = await hostile(image);
    const target = freshStore();
    await assert.rejects(pull(`${registry.host}/evil:1`, target), expected, what);
    assert.deepEqual(target.store.list(), [], what);
    assert.deepEqual(readdirSync(join(target.dir, 'scratch')), [], what);
    assert.equal(target.store.find(`${registry.host}/evil:1`), undefined, what);
  }
});

test('endless answers end', async () => {
  const image = buildImage([tarOf({ a: 'a' })]);
  const registry = await hostile(image);
  const endless = (response: import('node:http').ServerResponse) => {
    const chunk = Buffer.alloc(1 << 20, 'x');
    const more = () => {
      while (!response.destroyed && response.write(chunk));
    };
    response.on('drain', more);
    more();
    return true;
  };
  for (const [part, status, expected] of [
    ['/manifests/', 200, /manifest is larger/],
    ['/blobs/', 200, /longer than/],
    ['/manifests/', 500, /unexpected status 500/],
  ] as const) {
    registry.first = (request, response) => {
      if (!request.url!.includes(part)) return false;
      response.statusCode = status;
      return endless(response);
    };
    const target = freshStore();
    await assert.rejects(pull(`${registry.host}/endless:1`, target), expected);
    nothingLeft(target);
  }
});

test('a registry cannot send us to files, plain HTTP or this machine, nor have the secret sent on', async () => {
  const image = buildImage([tarOf({ a: 'a' })]);
  const victim = await hostile(image);
  const registry = await hostile(image);
  const seen: (string | undefined)[] = [];
  registry.first = (request, response) => {
    if (!request.headers.authorization) {
      response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="x"' }).end();
      return true;
    }
    if (!request.url!.includes('/blobs/')) return false;
    response.writeHead(307, { Location: `http://localhost:${victim.host.split(':')[1]}${request.url}` }).end();
    return true;
  };
  victim.first = request => {
    seen.push(request.headers.authorization);
    return false;
  };
  const credentials = [{ username: 'ann', password: 'pw' }];
  // `localhost` is another host than 127.0.0.1, which the name of the image does not cover.
  await assert.rejects(
    pull(`${registry.host}/sent:1`, freshStore(), { credentials }),
    /refused to follow the registry to localhost/,
  );
  assert.deepEqual(seen, []);
  for (const [location, expected] of [
    ['file:///etc/passwd', /refused a redirect to file:/],
    ['http://169.254.169.254/latest/meta-data', /refused to follow the registry to 169.254/],
    ['http://[::1]:1/x', /refused to follow the registry/],
    ['gopher://x/', /refused a redirect/],
  ] as const) {
    registry.first = (_, response) => response.writeHead(302, { Location: location }).end();
    await assert.rejects(pull(`${registry.host}/sent:1`, freshStore()), expected);
  }
  registry.first = (request, response) => response.writeHead(302, { Location: request.url! }).end();
  await assert.rejects(pull(`${registry.host}/sent:1`, freshStore()), /too many redirects/);
  // To another port of the same host: the content may come from there, the secret stays.
  registry.first = (request, response) => {
    if (!request.headers.authorization) return response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="x"' }).end();
    if (!request.url!.includes('/blobs/')) return false;
    return response.writeHead(307, { Location: `http://${victim.host}${request.url}` }).end();
  };
  await pull(`${registry.host}/sent:1`, freshStore(), { credentials });
  assert.deepEqual([...new Set(seen)], [undefined]);
});

test('a bomb ends before the disk is full, and an aborted pull leaves nothing', async () => {
  // 1 TiB of zeros in one file of a tar, well compressed by its repetition: only the beginning is ever sent.
  const header = Buffer.alloc(512);
  header.write('bomb', 0);
  header.write('0000644\0', 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  header[124] = 0x80;
  header.writeBigUInt64BE(1n << 40n, 128);
  header.write('        ', 148);
  header.write('0', 156);
  header.write('ustar\0' + '00', 257);
  let sum = 0;
  for (const byte of header) sum += byte;
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  const layer = gzipSync(Buffer.concat([header, Buffer.alloc(200 << 20)]));
  const image = buildImage([]);
  const config = Buffer.from(JSON.stringify({ rootfs: { type: 'layers', diff_ids: [digestOf('x')] } }));
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: image.manifestType,
      config: { digest: digestOf(config), size: config.length },
      layers: [
        { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: digestOf(layer), size: layer.length },
      ],
    }),
  );
  const registry = await hostile({
    ...image,
    manifest,
    blobs: new Map([
      [digestOf(config), config],
      [digestOf(layer), layer],
    ]),
  });
  const target = freshStore();
  await assert.rejects(pull(`${registry.host}/bomb:1`, target), /middle of an entry|no space left/);
  nothingLeft(target);

  const slow = await hostile(buildImage([tarOf({ a: randomBytes(1 << 20) })]));
  slow.first = (request, response) =>
    request.url!.includes('/blobs/') && response.writeHead(200, { 'Content-Length': 1 << 20 }).write('x');
  const stop = new AbortController();
  const aborted = freshStore();
  const pulling = pull(`${slow.host}/slow:1`, aborted, { signal: stop.signal });
  setTimeout(() => stop.abort(new Error('the pod ends')), 200);
  await assert.rejects(pulling, /the pod ends/);
  nothingLeft(aborted);
});

test('plain HTTP is for this machine or where it is written', async () => {
  const registry = await hostile(buildImage([tarOf({ a: 'a' })]));
  await pull(`${registry.host}/here:1`, freshStore());
  const port = registry.host.split(':')[1];
  await pull(`localhost:${port}/here:1`, freshStore());
  // Configured as secure: no way back to plain HTTP for a mirror.
  await assert.rejects(
    pull('x/y:1', freshStore(`registries: {docker.io: {mirrors: ["https://${registry.host}"], mirrorsOnly: true}}`)),
    /failed to pull/,
  );
  for (const [settings, expected] of [
    ['registries: {a: {mirror: [x]}}', /registries\.a\.mirror: unknown; known here: mirrors/],
    ['registries: {a: {mirrors: [ftp://x]}}', /no address such as/],
    ['outside: maybe', /outside: must be true or false/],
    ['imageGCHighThresholdPercent: 10', /imageGCLowThresholdPercent: must be less/],
    ['maxParallelImagePulls: 3\nserializeImagePulls: true', /maxParallelImagePulls: must be 1/],
    ['[1, 2]', /must be a mapping/],
    ['a: [', /images\.yaml/],
  ] as const)
    await assert.rejects(pull(`${registry.host}/here:1`, freshStore(settings)), expected, settings);
});
