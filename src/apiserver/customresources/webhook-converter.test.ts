import { strict as assert } from 'node:assert';
import * as https from 'node:https';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import type { KubeObject } from '../../api/meta.ts';
import { ApiError } from '../../base/errors.ts';
import { CUSTOM_RESOURCE_DEFINITIONS } from '../../client/resources.ts';
import { openMemoryStore } from '../../store/memory.ts';
import { issueCertificate, issueKeyPair, newKey } from '../certificates/certificate.ts';
import { LOOPBACK_USER } from '../request.ts';
import { ApiServer } from '../server.ts';

// biome-ignore lint/suspicious/noExplicitAny: tests look into objects freely
type Any = any;

const DAY_MS = 86_400_000;
const validity = { notBeforeMs: Date.now() - DAY_MS, notAfterMs: Date.now() + DAY_MS };
const authority = newKey();
const ca = issueCertificate(
  { subject: { commonName: 'test' }, usages: ['authority'], ...validity },
  authority.publicKey,
  {
    selfKey: authority.privateKey,
  },
);
const serving = issueKeyPair(
  { subject: { commonName: 'hook' }, names: ['127.0.0.1'], usages: ['server'], ...validity },
  { certificate: ca, privateKey: authority.privateKey },
);

let hook: https.Server;
let url: string;
let spoil: (object: Any) => Any = object => object;
const sizes: number[] = [];

/** v1 has `hostPort: "a:1"`, v2 has host and port. */
function convert(object: Any, apiVersion: string): Any {
  const next = { ...object, apiVersion };
  const { hostPort, host, port, ...rest } = object.spec;
  if (apiVersion.endsWith('/v2')) {
    const [name, number] = hostPort.split(':');
    next.spec = { ...rest, host: name, port: number };
  } else next.spec = { ...rest, hostPort: `${host}:${port}` };
  return spoil(next);
}

before(async () => {
  hook = https.createServer({ key: serving.key, cert: serving.certificate }, async (request, reply) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const { apiVersion, request: asked } = JSON.parse(Buffer.concat(parts).toString()) as Any;
    sizes.push(asked.objects.length);
    reply.end(
      JSON.stringify({
        kind: 'ConversionReview',
        apiVersion,
        response: {
          uid: asked.uid,
          result: { status: 'Success' },
          convertedObjects: asked.objects.map((object: Any) => convert(object, asked.desiredAPIVersion)),
        },
      }),
    );
  });
  await new Promise<void>(resolve => hook.listen(0, '127.0.0.1', resolve));
  url = `https://127.0.0.1:${(hook.address() as AddressInfo).port}/convert`;
});
after(() => {
  hook.closeAllConnections();
  hook.close();
});

const version = (name: string, fields: string[], storage: boolean): object => ({
  name,
  served: true,
  storage,
  schema: {
    openAPIV3Schema: {
      type: 'object',
      properties: {
        spec: {
          type: 'object',
          required: fields,
          properties: Object.fromEntries([...fields, 'note'].map(field => [field, { type: 'string' }])),
        },
      },
    },
  },
});

test('objects are converted by the webhook, both ways, lists in one call, watches too', async () => {
  const server = await ApiServer.open({ store: openMemoryStore() });
  const api = server.transport(LOOPBACK_USER);
  await api.create({ of: CUSTOM_RESOURCE_DEFINITIONS }, {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'addresses.example.dev' },
    spec: {
      group: 'example.dev',
      scope: 'Namespaced',
      names: { plural: 'addresses', singular: 'address', kind: 'Address' },
      versions: [version('v1', ['hostPort'], true), version('v2', ['host', 'port'], false)],
      conversion: {
        strategy: 'Webhook',
        webhook: {
          conversionReviewVersions: ['v1'],
          clientConfig: { url, caBundle: Buffer.from(ca).toString('base64') },
        },
      },
    },
  } as unknown as KubeObject);
  const of = (name: string) => ({ group: 'example.dev', version: name, resource: 'addresses' });
  for (let wait = 0; wait < 250 && !server.table.of(of('v1')); wait++)
    await new Promise(resolve => setTimeout(resolve, 10));
  const at = (name: string, object?: string) => ({
    of: of(name),
    namespace: 'default',
    ...(object ? { name: object } : {}),
  });
  const make = (name: string, object: string, spec: object): Promise<Any> =>
    api.create(at(name), {
      apiVersion: `example.dev/${name}`,
      kind: 'Address',
      metadata: { name: object },
      spec,
    } as Any);

  const first = await make('v2', 'a', { host: 'x', port: '1' });
  assert.deepEqual([first.apiVersion, first.spec], ['example.dev/v2', { host: 'x', port: '1' }]);
  const stored: Any = await api.get(at('v1', 'a'));
  assert.deepEqual([stored.apiVersion, stored.spec], ['example.dev/v1', { hostPort: 'x:1' }]);
  await make('v1', 'b', { hostPort: 'y:2' });
  await make('v1', 'c', { hostPort: 'z:3' });
  sizes.length = 0;
  const listed = await api.list(at('v2'));
  assert.deepEqual(
    listed.items.map((item: Any) => item.spec.host),
    ['x', 'y', 'z'],
  );
  assert.deepEqual(sizes, [2], 'one call for the two that were not known');
  await assert.rejects(make('v2', 'bad', { host: 'x' }), /spec\.port: Required value/);
  const patched: Any = await api.patch(at('v2', 'b'), { spec: { port: '9' } }, 'application/merge-patch+json');
  assert.deepEqual(patched.spec, { host: 'y', port: '9' });
  assert.equal(((await api.get(at('v1', 'b'))) as Any).spec.hostPort, 'y:9');
  for await (const [event] of api.watch(
    at('v2'),
    { resourceVersion: listed.metadata.resourceVersion! },
    AbortSignal.timeout(5000),
  )) {
    assert.equal((event!.object as Any).spec.port, '9');
    break;
  }
  spoil = object => ({ ...object, metadata: { ...object.metadata, name: 'other' } });
  await make('v1', 'd', { hostPort: 'q:1' });
  await assert.rejects(
    api.get(at('v2', 'd')),
    (error: unknown) =>
      error instanceof ApiError &&
      error.code === 500 &&
      /conversion webhook for example.dev\/v1, Kind=Address failed: webhook changed metadata.name/.test(error.message),
  );
  await server.close();
});
