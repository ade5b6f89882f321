import assert from 'node:assert/strict';
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock, VirtualClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import { type Span, Tracer } from '../../base/tracing/span.ts';
import { SECRETS } from '../../client/resources.ts';
import { type GrpcServer, serveGrpc } from '../../csi/grpc.ts';
import { openMemoryStore } from '../../store/memory.ts';
import type { Store } from '../../store/store.ts';
import { LOOPBACK_USER } from '../request.ts';
import { ApiServer } from '../server.ts';
import { testFolder } from '../who-bed.ts';
import { openEncrypted } from './encryption.ts';
import { parseEncryptionConfiguration } from './encryption-configuration.ts';
import { KEY_SERVICE_CALLS, KeyService } from './key-service.ts';

const KEY = '/registry/core/secrets/n/a';

/** A plugin with keys in memory; `keyId` is the one it encrypts with. */
class Plugin {
  readonly #keys = new Map<string, Buffer>();
  keyId = 'one';
  healthz = 'ok';
  readonly calls: string[] = [];
  /** How often it was asked how it is. */
  looks = 0;

  serve(socket: string): Promise<GrpcServer> {
    return serveGrpc(
      socket,
      {
        status: () => {
          this.looks++;
          return { version: 'v2', healthz: this.healthz, keyId: this.keyId };
        },
        encrypt: ({ plaintext }) => {
          this.calls.push('encrypt');
          const nonce = randomBytes(12);
          const cipher = createCipheriv('aes-256-gcm', this.#key(this.keyId), nonce);
          const ciphertext = Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
          return { ciphertext, keyId: this.keyId, annotations: [{ key: 'made.by', value: Buffer.from([1, 255]) }] };
        },
        decrypt: ({ ciphertext, keyId, annotations }) => {
          this.calls.push('decrypt');
          assert.deepEqual(annotations, [{ key: 'made.by', value: Buffer.from([1, 255]) }]);
          const decipher = createDecipheriv('aes-256-gcm', this.#key(keyId), ciphertext.subarray(0, 12));
          decipher.setAuthTag(ciphertext.subarray(-16));
          return { plaintext: Buffer.concat([decipher.update(ciphertext.subarray(12, -16)), decipher.final()]) };
        },
      },
      KEY_SERVICE_CALLS,
    );
  }
  #key(id: string): Buffer {
    let key = this.#keys.get(id);
    if (!key) this.#keys.set(id, (key = randomBytes(32)));
    return key;
  }
}

const configuration = (socket: string) =>
  `{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: [{resources: [secrets], providers: [{kms: {apiVersion: v2, name: vault, endpoint: "unix://${socket}", timeout: 2s}}, {identity: {}}]}]}`;

async function open(inner: Store, socket: string) {
  const rules = await parseEncryptionConfiguration(configuration(socket));
  const stop = new AbortController();
  const options = { clock: systemClock, log: silentLogger, signal: stop.signal };
  const file = { path: '', text: '' };
  const store = await openEncrypted(inner, { rules, file, reloads: false }, options);
  const spans: Span[] = [];
  const sink = { take: (span: Span) => void spans.push(span) };
  const tracer = new Tracer({ samplingRatePerMillion: 1e6, sink, clock: systemClock, random: systemRandom });
  const server = await ApiServer.open({ store, tracer });
  const api = server.transport(LOOPBACK_USER);
  return {
    service: rules[0]!.envelopes[0] as KeyService,
    store,
    spans,
    make: (name: string) =>
      api.create({ of: SECRETS, namespace: 'n' }, {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name },
        stringData: { word: `of ${name}` },
      } as never),
    read: async (name: string) => {
      const { data } = (await api.get({ of: SECRETS, namespace: 'n', name })) as unknown as { data: { word: string } };
      return Buffer.from(data.word, 'base64').toString();
    },
    touch: async (name: string) =>
      api.update({ of: SECRETS, namespace: 'n', name }, await api.get({ of: SECRETS, namespace: 'n', name })),
    async close() {
      await server.close();
      stop.abort();
    },
  };
}

test('a plugin keeps the keys: one call for many values, read after a restart, sealed anew when the key changes', async t => {
  const folder = testFolder();
  t.after(folder.remove);
  const socket = join(folder.path, 'kms.sock');
  const plugin = new Plugin();
  const serving = await plugin.serve(socket);
  t.after(() => serving.close());
  const inner = openMemoryStore();
  const first = await open(inner, socket);
  await first.make('a');
  await first.make('b');
  const sealing = first.spans.find(({ name }) => name === 'TransformToStorage with envelopeTransformer')!;
  assert.deepEqual(sealing.attributes, { 'transformer.provider.name': 'vault' });
  assert.equal(sealing.events.length, 4);
  assert.equal(first.spans.find(({ context }) => context.spanId === sealing.parentId)?.name, 'Create etcd3');
  assert.equal(await first.read('a'), 'of a');
  assert.deepEqual(plugin.calls, ['encrypt']);
  const raw = async (key: string) => Buffer.from((await inner.get(key))!.value);
  const sealed = await raw(KEY);
  assert.ok(sealed.toString('latin1').startsWith('k8s:enc:kms:v2:vault:'));
  assert.ok(!sealed.includes('word'));
  // The place in the store is part of what is sealed.
  const body = sealed.subarray(first.service.prefix.length);
  assert.throws(() => first.service.open(body, '/registry/core/secrets/n/other'));
  await first.close();

  const second = await open(inner, socket);
  assert.equal(await second.read('b'), 'of b');
  assert.deepEqual(plugin.calls, ['encrypt', 'encrypt', 'decrypt'], 'both values have one seed');
  assert.equal(second.store.isStale(KEY), false);
  plugin.keyId = 'two';
  await second.service.refresh();
  assert.equal(second.store.isStale(KEY), true);
  await second.touch('a');
  assert.notDeepEqual(await raw(KEY), sealed);
  assert.equal(second.service.markOf((await raw(KEY)).subarray(second.service.prefix.length)), 'two');
  assert.equal(second.store.isStale(KEY), false);

  plugin.healthz = 'the vault is shut';
  await second.service.refresh();
  assert.match(second.store.problem()!, /unhealthy: the vault is shut/);
  await second.make('c');
  assert.equal(await second.read('a'), 'of a');
  await second.close();
});

test('without its plugin nothing starts, and it is said what is missing', async t => {
  const folder = testFolder();
  t.after(folder.remove);
  const socket = join(folder.path, 'none.sock');
  const service = new KeyService({ name: 'vault', socket, timeoutMs: 200 });
  const impatient = { ...systemClock, now: () => systemClock.now(), sleep: async () => {} };
  await assert.rejects(
    service.start({ clock: impatient as never, log: silentLogger, signal: new AbortController().signal }),
    { message: /^key management service vault at .*none\.sock: .*; start its plugin first$/ },
  );
  assert.throws(() => service.seal(Buffer.from('a'), KEY), /has not answered for too long/);
});

test('a configuration that is replaced lets go of its plugin', async t => {
  const folder = testFolder();
  t.after(folder.remove);
  const [path, socket, nextSocket] = ['file.yaml', 'kms.sock', 'next.sock'].map(name => join(folder.path, name)) as [
    string,
    string,
    string,
  ];
  const [plugin, next] = [new Plugin(), new Plugin()];
  const serving = await Promise.all([plugin.serve(socket), next.serve(nextSocket)]);
  t.after(() => Promise.all(serving.map(one => one.close())));
  const stop = new AbortController();
  t.after(() => stop.abort());
  const clock = new VirtualClock();
  const text = configuration(socket);
  writeFileSync(path, text);
  const rules = await parseEncryptionConfiguration(text);
  const file = { path, text };
  const store = await openEncrypted(
    openMemoryStore(),
    { rules, file, reloads: true },
    { clock, log: silentLogger, signal: stop.signal },
  );
  await store.commit({ type: 'put', key: KEY, value: Buffer.from('{}'), expect: 'absent' });
  await store.list('/registry/');
  assert.equal(plugin.looks, 1);
  writeFileSync(
    path,
    configuration(nextSocket)
      .replace('{identity: {}}', text.match(/\{kms: .*?\}\}/)![0])
      .replace('name: vault', 'name: next'),
  );
  // The second plugin of the new configuration is the first of the old one: it is asked by another client.
  await clock.advance(1000);
  await until(() => next.looks === 1 && plugin.looks === 2);
  assert.equal(Buffer.from((await store.get(KEY))!.value).toString(), '{}');
  await until(() => store.isStale(KEY));
  await clock.advance(10_000);
  await clock.advance(60_000);
  await until(() => next.looks === 2 && plugin.looks >= 3);
  assert.equal(plugin.looks, 3, 'only the client of the new configuration still asks');
});

async function until(holds: () => boolean): Promise<void> {
  const signal = AbortSignal.timeout(20_000);
  while (!holds()) {
    signal.throwIfAborted();
    await systemClock.sleep(5);
  }
}
