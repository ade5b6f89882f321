/** Pulls from Debian's docker-registry (plain, TLS, passwords, tokens), and how a pull goes on after a break, all on 127.0.0.1. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createPrivateKey, randomBytes, sign, X509Certificate } from 'node:crypto';
import { closeSync, openSync, readdirSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { ensurePki, type Pki } from '../../src/apiserver/certificates/pki.ts';
import { type Credential, Keyring } from '../../src/kubelet/images/credentials.ts';
import { ImageStore } from '../../src/kubelet/images/image-store.ts';
import { eventually } from '../e2e/process.ts';
import { fileIn, freshStore, hostile, pull, stops, work } from './pull-bed.ts';
import { buildImage, hasRegistry, push, pushIndex, Registry, tarOf } from './registry.ts';

let open: Registry;
let pki: Pki;
const content = join(work, 'content');

before(async () => {
  if (!hasRegistry) return;
  pki = await ensurePki(join(work, 'pki'), { sans: ['127.0.0.1'] });
  open = await Registry.start({ folder: content });
  stops.push(() => open.stop());
});
const needs = { skip: hasRegistry ? false : 'needs docker-registry' };

test('gzip, zstd and plain layers of both kinds of manifest; the second pull fetches nothing', needs, async () => {
  const big = randomBytes(3 << 20);
  const image = buildImage([
    tarOf({ one: '1' }),
    { tar: tarOf({ two: '2', big }), as: 'zstd' },
    { tar: tarOf({ three: '3' }), as: 'tar' },
  ]);
  await push(open.host, 'team/app', ['v1', 'v2'], image);
  await push(open.host, 'team/docker', ['v1'], buildImage([tarOf({ old: 'docker' })], { kind: 'docker' }));
  const target = freshStore();
  let bytes = 0;
  const pulled = await pull(`${open.host}/team/app:v1`, target, {
    onProgress: now => {
      bytes = now;
    },
  });
  assert.equal(pulled.image.id, image.id);
  assert.equal(pulled.digest, image.digest);
  assert.ok(bytes > big.length);
  const [bottom, middle, top] = pulled.image.layers as [string, string, string];
  assert.equal(fileIn(target.store, bottom, 'one'), '1');
  assert.equal(fileIn(target.store, middle, 'two'), '2');
  assert.equal(fileIn(target.store, top, 'three'), '3');
  assert.equal(pulled.image.sizeBytes, big.length + 3);
  bytes = 0;
  await pull(`${open.host}/team/app:v2`, target, {
    onProgress: now => {
      bytes = now;
    },
  });
  assert.equal(bytes, 0);
  assert.deepEqual(target.store.resolve(`${open.host}/team/app:v2`)!.references, [
    `${open.host}/team/app:v1`,
    `${open.host}/team/app:v2`,
    `${open.host}/team/app@${image.digest}`,
  ]);
  assert.equal(target.store.find(`${open.host}/team/app@${image.digest}`)!.id, image.id);
  const docker = await pull(`${open.host}/team/docker:v1`, target);
  assert.equal(fileIn(target.store, docker.image.layers[0]!, 'old'), 'docker');
  const byDigest = await pull(`${open.host}/team/app@${image.digest}`, freshStore());
  assert.equal(byDigest.image.id, image.id);
});

test('an index leads to this platform, or says that there is none', needs, async () => {
  const own = buildImage([tarOf({ mine: 'yes' })]);
  const other = buildImage([tarOf({ mine: 'no' })], { architecture: 's390x' });
  const architecture = process.arch === 'x64' ? 'amd64' : 'arm64';
  const digest = await pushIndex(open.host, 'multi', 'v1', [
    { image: other, architecture: 's390x' },
    { image: own, architecture },
  ]);
  await pushIndex(open.host, 'multi', 'foreign', [{ image: other, architecture: 's390x' }]);
  await push(open.host, 'multi', ['single'], other);
  const target = freshStore();
  const pulled = await pull(`${open.host}/multi:v1`, target);
  assert.equal(pulled.image.id, own.id);
  assert.equal(pulled.digest, digest);
  await assert.rejects(pull(`${open.host}/multi:foreign`, target), /no match for platform in manifest/);
  await assert.rejects(pull(`${open.host}/multi:single`, target), /no match for platform/);
  await assert.rejects(pull(`${open.host}/multi:none`, target), {
    message: `failed to pull and unpack image "${open.host}/multi:none": failed to resolve reference "${open.host}/multi:none": ${open.host}/multi:none: not found`,
  });
});

const user = { name: 'ann', password: 'secret:with:colons' };
const keys = (host: string, name = user.name, password = user.password): Credential[] => {
  const ring = new Keyring();
  ring.add(JSON.stringify({ auths: { [host]: { auth: Buffer.from(`${name}:${password}`).toString('base64') } } }), {
    form: 'dockerconfigjson',
  });
  return ring.lookup(`${host}/private`);
};

test('TLS by a CA of its own, passwords, mirrors', needs, async () => {
  await push(open.host, 'private', ['v1'], buildImage([tarOf({ p: 'private' })]));
  const serving = await pki.ensureServer('registry', { commonName: 'registry', organizations: [] }, ['127.0.0.1']);
  const closed = await Registry.start({ folder: content, user, tls: serving });
  stops.push(() => closed.stop());
  const name = `${closed.host}/private:v1`;
  await assert.rejects(pull(name, freshStore(), { credentials: keys(closed.host) }), /certificate|self-signed/);
  const ca = join(work, 'ca.pem');
  writeFileSync(ca, pki.ca);
  const trusted = `registries: {"${closed.host}": {tls: {ca: ${ca}}}}`;
  await assert.rejects(
    pull(name, freshStore(trusted)),
    /pull access denied, repository does not exist or may require authorization/,
  );
  await assert.rejects(
    pull(name, freshStore(trusted), { credentials: keys(closed.host, 'ann', 'wrong') }),
    /pull access denied/,
  );
  // The second credential opens it.
  const both = [...keys(closed.host, 'ann', 'wrong'), ...keys(closed.host)];
  assert.equal((await pull(name, freshStore(trusted), { credentials: both })).credential, 1);
  await pull(name, freshStore(`registries: {"${closed.host}": {tls: {skipVerify: true}}}`), {
    credentials: keys(closed.host),
  });
  // The node's own credentials.
  const node = freshStore(trusted);
  writeFileSync(
    join(node.dir, 'config.json'),
    JSON.stringify({ auths: { [`https://${closed.host}/v2/`]: { username: user.name, password: user.password } } }),
  );
  assert.equal((await pull(name, node)).credential, undefined);
  // Mirrors, in order: one that is not there, one that lacks the image, one that has it.
  const mirrored = freshStore(
    `registries: {docker.io: {mirrors: ["http://127.0.0.1:1", "http://${open.host}/no", "http://${open.host}"], mirrorsOnly: true}}`,
  );
  await push(open.host, 'library/thing', ['latest'], buildImage([tarOf({ t: 'thing' })]));
  const mirror = await pull('thing', mirrored);
  assert.deepEqual(mirrored.store.resolve('thing')!.references[0], 'docker.io/library/thing:latest');
  assert.equal(fileIn(mirrored.store, mirror.image.layers[0]!, 't'), 'thing');
  await assert.rejects(pull('absent', mirrored), /docker.io\/library\/absent:latest: not found/);
});

test('tokens with scope from a token server, also for a refresh token', needs, async () => {
  await push(open.host, 'tokened', ['v1'], buildImage([tarOf({ p: 'tokened' })]));
  const issuer = await pki.ensureServer('issuer', { commonName: 'issuer', organizations: [] }, ['localhost']);
  const asked: { scope: string | null; user: string; method: string }[] = [];
  const tokens = createServer(async (request, response) => {
    const body = await new Promise<string>(resolve => {
      let text = '';
      request
        .on('data', part => {
          text += part;
        })
        .on('end', () => resolve(text));
    });
    const parameters =
      request.method === 'POST' ? new URLSearchParams(body) : new URL(request.url!, 'http://x').searchParams;
    const who = Buffer.from((request.headers.authorization ?? '').replace('Basic ', ''), 'base64').toString();
    asked.push({ scope: parameters.get('scope'), user: who, method: request.method! });
    if (who !== `${user.name}:${user.password}` && parameters.get('refresh_token') !== 'renew-me')
      return void response.writeHead(401).end('{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}');
    const [type, name, actions] = (parameters.get('scope') ?? '').split(':');
    const now = Math.floor(Date.now() / 1000);
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const algorithm = createPrivateKey(issuer.key).asymmetricKeyType === 'ec' ? 'ES256' : 'RS256';
    const head = part({
      typ: 'JWT',
      alg: algorithm,
      x5c: [new X509Certificate(issuer.certificate).raw.toString('base64')],
    });
    const claims = part({
      iss: 'issuer',
      aud: 'tests',
      sub: user.name,
      iat: now,
      nbf: now - 60,
      exp: now + 300,
      jti: '1',
      access: [{ type, name, actions: actions?.split(',') }],
    });
    const signature = sign('sha256', Buffer.from(`${head}.${claims}`), {
      key: issuer.key,
      dsaEncoding: 'ieee-p1363',
    }).toString('base64url');
    const token = `${head}.${claims}.${signature}`;
    response.end(JSON.stringify(request.method === 'POST' ? { access_token: token } : { token }));
  }).listen(0, '127.0.0.1');
  await new Promise(resolve => tokens.once('listening', resolve));
  stops.push(
    () =>
      new Promise(resolve => {
        tokens.closeAllConnections();
        tokens.close(() => resolve());
      }),
  );
  const realm = `http://127.0.0.1:${(tokens.address() as { port: number }).port}/token`;
  const registry = await Registry.start({
    folder: content,
    token: { realm, service: 'tests', issuer: 'issuer', certificate: pki.ca },
  });
  stops.push(() => registry.stop());
  const name = `${registry.host}/tokened:v1`;
  await pull(name, freshStore(), { credentials: keys(registry.host) });
  assert.deepEqual(asked[0], {
    scope: 'repository:tokened:pull',
    user: `${user.name}:${user.password}`,
    method: 'GET',
  });
  await pull(name, freshStore(), { credentials: [{ identityToken: 'renew-me' }] });
  assert.equal(asked.at(-1)!.method, 'POST');
  await assert.rejects(pull(name, freshStore()), /pull access denied.*failed to fetch anonymous token.*who are you/);
});
test('a connection that breaks goes on by Range, and without ranges from the start', async () => {
  const image = buildImage([{ tar: tarOf({ big: randomBytes(2 << 20) }), as: 'tar' }]);
  const [layer] = [...image.blobs].sort((a, b) => b[1].length - a[1].length)[0]!;
  for (const hasRanges of [true, false]) {
    const registry = await hostile(image);
    let breaks = 3;
    registry.first = (request, response) => {
      if (!request.url!.endsWith(layer)) return false;
      if (breaks-- <= 0 && hasRanges) return false;
      const blob = image.blobs.get(layer)!;
      const from = hasRanges ? Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0) : 0;
      if (breaks < 0) return response.end(blob);
      if (from > 0)
        response.writeHead(206, {
          'Content-Range': `bytes ${from}-${blob.length - 1}/${blob.length}`,
          'Content-Length': blob.length - from,
        });
      else response.writeHead(200, { 'Content-Length': blob.length });
      response.write(blob.subarray(from, from + (512 << 10)), () => request.socket.destroy());
      return true;
    };
    const target = freshStore();
    const { image: pulled } = await pull(`${registry.host}/broken:1`, target);
    assert.equal(pulled.id, image.id);
    const ranges = registry.requests.filter(({ url }) => url.endsWith(layer)).map(({ headers }) => headers.range);
    assert.equal(ranges.length, 4);
    assert.match(ranges.at(-1)!, /^bytes=[1-9]\d*-$/);
  }
});

test('a pull that is killed goes on where it was, and a partial blob that rotted is fetched anew', async () => {
  const image = buildImage([{ tar: tarOf({ big: randomBytes(4 << 20) }), as: 'tar' }]);
  const [layer, blob] = [...image.blobs].sort((a, b) => b[1].length - a[1].length)[0]!;
  const registry = await hostile(image);
  type Target = ReturnType<typeof freshStore>;
  const partials = ({ dir }: Target) => readdirSync(join(dir, 'partial')).map(name => join(dir, 'partial', name));
  const killedHalfway = async (): Promise<Target> => {
    const target = freshStore();
    registry.first = (request, response) => {
      if (!request.url!.endsWith(layer)) return false;
      response.writeHead(200, { 'Content-Length': blob.length });
      return response.write(blob.subarray(0, 2 << 20)) || true;
    };
    const at = (path: string) => JSON.stringify(new URL(`../../src/kubelet/images/${path}`, import.meta.url).href);
    const script = `
      const { pullImage } = await import(${at('image-pull.ts')});
      const { ImageStore } = await import(${at('image-store.ts')});
      const dir = ${JSON.stringify(target.dir)};
      await pullImage({ reference: ${JSON.stringify(`${registry.host}/killed:1`)}, credentials: [] },
        { store: new ImageStore(dir), settingsDir: dir, network: {}, signal: new AbortController().signal });`;
    const file = join(work, 'killed.mjs');
    writeFileSync(file, script);
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const child = spawn(process.execPath, [file], { stdio: 'inherit', env });
    const ended = new Promise(resolve => child.once('close', resolve));
    await eventually('half of it has come', async () => partials(target).some(path => statSync(path).size > 1 << 20), {
      timeoutMs: 60_000,
    });
    child.kill('SIGKILL');
    await ended;
    registry.first = () => false;
    registry.requests.length = 0;
    return target;
  };
  const ranges = () => registry.requests.filter(({ url }) => url.endsWith(layer)).map(({ headers }) => headers.range);

  const target = await killedHalfway();
  const had = statSync(partials(target)[0]!).size;
  const { image: pulled } = await pull(`${registry.host}/killed:1`, target);
  assert.deepEqual([pulled.id, ranges()], [image.id, [`bytes=${had}-`]]);
  for (const folder of ['partial', 'locks']) assert.deepEqual(readdirSync(join(target.dir, folder)), [], folder);

  const rotten = await killedHalfway();
  const fd = openSync(partials(rotten)[0]!, 'r+');
  writeSync(fd, Buffer.from('rot'), 0, 3, 1 << 20);
  closeSync(fd);
  await assert.rejects(pull(`${registry.host}/killed:1`, rotten), /does not match its digest/);
  assert.deepEqual(partials(rotten), []);
  assert.equal((await pull(`${registry.host}/killed:1`, rotten)).image.id, image.id);
  assert.equal(ranges().at(-1), undefined);
});

test('nodes that share a store fetch an image once, however many ask at the same time', async () => {
  const image = buildImage([tarOf({ a: randomBytes(1 << 20) }), tarOf({ b: randomBytes(1 << 20) })]);
  const registry = await hostile(image);
  const { dir } = freshStore();
  const pulls = Array.from({ length: 3 }, () => pull(`${registry.host}/shared:1`, { store: new ImageStore(dir), dir }));
  for (const { image: one } of await Promise.all(pulls)) assert.equal(one.id, image.id);
  const layers = registry.requests.map(({ url }) => url.slice(url.lastIndexOf('/') + 1));
  for (const [digest] of image.blobs)
    if (digest !== image.id) assert.equal(layers.filter(one => one === digest).length, 1);
});
