import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import { metrics } from '../../base/metrics.ts';
import { CONFIG_MAPS, SECRETS } from '../../client/resources.ts';
import { openMemoryStore } from '../../store/memory.ts';
import type { Store } from '../../store/store.ts';
import { loadServerSettings } from '../configuration/server-settings.ts';
import { hashOf } from '../metrics/configuration-metrics.ts';
import { LOOPBACK_USER } from '../request.ts';
import { ApiServer } from '../server.ts';
import { eventually, testFolder } from '../who-bed.ts';
import { openEncrypted } from './encryption.ts';
import { parseEncryptionConfiguration } from './encryption-configuration.ts';
import { aesGcm, secretBox } from './envelope.ts';

const secretOf = (byte: number, size = 32) => Buffer.alloc(size, byte).toString('base64');
const provider = (kind: string, ...names: string[]) =>
  `{${kind}: {keys: [${names.map((name, at) => `{name: ${name}, secret: ${secretOf(name.charCodeAt(0) + at * 0)}}`).join(', ')}]}}`;
const configuration = (...providers: string[]) =>
  `{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: [{resources: [secrets, '*.apps'], providers: [${providers.join(', ')}]}]}`;

test('vectors: secretbox of NaCl, AES-GCM of NIST', () => {
  const key = Buffer.from('1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389', 'hex');
  const nonce = '69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37';
  const sealed =
    'f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5';
  const plain =
    'be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705';
  assert.equal(
    secretBox(key)
      .open(Buffer.from(nonce + sealed, 'hex'), '')
      .toString('hex'),
    plain,
  );
  const gcm = aesGcm(Buffer.alloc(16));
  const [iv, text, tag] = ['00'.repeat(12), '0388dace60b6a392f328c2b971b2fe78', 'ab6e47d42cec13bdf53a67b21257bddf'];
  assert.equal(gcm.open(Buffer.from(iv + text + tag, 'hex'), '').toString('hex'), '00'.repeat(16));
});

async function cluster(inner: Store, path: string) {
  const settings = await loadServerSettings(
    [`encryption-provider-config=${path}`, 'encryption-provider-config-automatic-reload'],
    'https://issuer',
  );
  const stop = new AbortController();
  const store = await openEncrypted(inner, settings.encryption!, {
    clock: systemClock,
    log: silentLogger,
    signal: stop.signal,
  });
  const server = await ApiServer.open({ store }).catch(error => {
    stop.abort();
    throw error;
  });
  const api = server.transport(LOOPBACK_USER);
  return {
    api,
    make: (name: string) =>
      api.create({ of: SECRETS, namespace: 'n' }, {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name },
        data: { password: Buffer.from('hunter2').toString('base64') },
      } as never),
    read: async (name: string) =>
      ((await api.get({ of: SECRETS, namespace: 'n', name })) as never as { data: object }).data,
    /** Writes each secret as it is, as `kubectl replace` of all does. */
    async rewrite() {
      for (const item of (await api.list({ of: SECRETS })).items)
        await api.update({ of: SECRETS, namespace: 'n', name: item.metadata.name }, item);
    },
    async close() {
      stop.abort();
      await server.close();
    },
  };
}

const DATA = { password: Buffer.from('hunter2').toString('base64') };
const raw = async (store: Store, name: string, resource = 'secrets') =>
  Buffer.from((await store.get(`/registry/core/${resource}/n/${name}`))!.value).toString('latin1');

test('secrets are sealed at rest, read back after a restart, and sealed anew by rotation', async () => {
  const folder = testFolder();
  const inner = openMemoryStore();
  // Begun without encryption.
  const plain = await ApiServer.open({ store: inner });
  await plain.transport(LOOPBACK_USER).create({ of: SECRETS, namespace: 'n' }, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'old' },
    data: DATA,
  } as never);
  await plain.close();
  assert.match(await raw(inner, 'old'), /aHVudGVyMg==/);

  const path = folder.file('encryption.yaml', configuration(provider('aescbc', 'a'), '{identity: {}}'));
  let server = await cluster(inner, path);
  const made = await server.make('new');
  assert.match(await raw(inner, 'new'), /^k8s:enc:aescbc:v1:a:/);
  assert.ok(!(await raw(inner, 'new')).includes('aHVudGVyMg'));
  await server.api.create({ of: CONFIG_MAPS, namespace: 'n' }, {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'c' },
    data: { k: 'v' },
  } as never);
  assert.match(await raw(inner, 'c', 'configmaps'), /^\{/);
  assert.deepEqual([await server.read('old'), await server.read('new')], [DATA, DATA]);
  // An unchanged write seals what was plain, and only that.
  await server.rewrite();
  assert.match(await raw(inner, 'old'), /^k8s:enc:aescbc:v1:a:/);
  const now = await server.api.get({ of: SECRETS, namespace: 'n', name: 'new' });
  assert.equal(now.metadata.resourceVersion, made.metadata.resourceVersion);

  // Rotation while the server runs: another key first, the old one still readable.
  folder.file('encryption.yaml', 'nonsense');
  folder.file('encryption.yaml', configuration(provider('secretbox', 'b'), provider('aescbc', 'a')));
  await eventually(async () => {
    await server.rewrite();
    assert.match(await raw(inner, 'old'), /^k8s:enc:secretbox:v1:b:/);
    assert.match(await raw(inner, 'new'), /^k8s:enc:secretbox:v1:b:/);
  });
  const told = metrics.render();
  const name = 'apiserver_encryption_config_controller';
  assert.deepEqual(
    told
      .match(/^apiserver_encryption_config_controller_last_config_info.*/gm)
      ?.map(line => /hash="([^"]*)"} 1$/.exec(line)?.[1]),
    [hashOf(readFileSync(path, 'utf8'))],
  );
  assert.match(
    told,
    new RegExp(`^${name}_automatic_reloads_total\\{apiserver_id_hash="sha256:[0-9a-f]{64}",status="success"} 1$`, 'm'),
  );
  await server.close();

  folder.file('encryption.yaml', configuration(provider('aesgcm', 'c'), provider('secretbox', 'b')));
  server = await cluster(inner, path);
  assert.deepEqual([await server.read('old'), await server.read('new')], [DATA, DATA]);
  await server.rewrite();
  assert.match(await raw(inner, 'old'), /^k8s:enc:aesgcm:v1:c:/);
  await server.close();

  folder.file('encryption.yaml', configuration(provider('aesgcm', 'd')));
  await assert.rejects(
    cluster(inner, path),
    /secrets\/n\/new is encrypted \(k8s:enc:aesgcm:v1:c:\) and no provider .* has its key/,
  );
  await assert.rejects(ApiServer.open({ store: inner }), /secrets\/n\/new is kept encrypted; start the server with/);
  // Sealed values belong to their place.
  const moved = await inner.get('/registry/core/secrets/n/old');
  await inner.commit({ type: 'put', key: '/registry/core/secrets/n/other', value: moved!.value });
  folder.file('encryption.yaml', configuration(provider('aesgcm', 'c')));
  await assert.rejects(cluster(inner, path), /secrets\/n\/other cannot be decrypted with the key/);
  folder.remove();
});

test('what is wrong with the file is told without its secrets', async () => {
  const bad: [string, RegExp][] = [
    [
      configuration('{aescbc: {keys: [{name: a, secret: c2hvcnQ=}]}}'),
      /keys\[0\]\.secret: Invalid value: "REDACTED": secret is not of the expected length, got 5/,
    ],
    [configuration('{}'), /provider needs exactly one of/],
    [
      configuration('{kms: {name: x, endpoint: "http://x"}}'),
      /kms\.apiVersion: Invalid value: "v1": only v2.*kms\.endpoint: Invalid value: "http:\/\/x": unsupported scheme/s,
    ],
    [configuration(provider('aesgcm', 'a', 'a')), /keys\[1\]\.name: Duplicate value/],
    [configuration(provider('rot13', 'a')), /rot13: unknown field/],
    ['{apiVersion: v1, kind: Secret}', /wanted: kind EncryptionConfiguration/],
    ['a: [', /not YAML/],
  ];
  for (const [text, why] of bad) await assert.rejects(parseEncryptionConfiguration(text), why);
  await assert.rejects(
    loadServerSettings(['encryption-provider-config=/does/not/exist'], ''),
    /--kube-apiserver-arg encryption-provider-config: .*ENOENT/,
  );
});
