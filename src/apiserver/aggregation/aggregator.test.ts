import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import * as https from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import type { KubeObject } from '../../api/meta.ts';
import { systemClock } from '../../base/clock.ts';
import { systemRandom } from '../../base/random.ts';
import { type Span, Tracer } from '../../base/tracing/span.ts';
import { ENDPOINT_SLICES, SERVICES } from '../../client/resources.ts';
import { ensurePki, type Pki } from '../certificates/pki.ts';
import { LOOPBACK_USER, type StoredObjects } from '../request.ts';
import type { Security } from '../security.ts';
import { openSecured } from '../security-bed.ts';
import type { ApiServer } from '../server.ts';

// biome-ignore lint/suspicious/noExplicitAny: tests look into objects freely
type Any = any;

const API_SERVICES = { group: 'apiregistration.k8s.io', version: 'v1', resource: 'apiservices' };
const GROUP = 'metrics.example.dev';

const VERSION_2 = {
  swagger: '2.0',
  paths: {
    [`/apis/${GROUP}/v1/samples`]: {
      get: {
        operationId: 'listSamples',
        produces: ['application/json'],
        parameters: [{ in: 'query', name: 'limit', type: 'integer' }],
        responses: { 200: { description: 'OK', schema: { $ref: '#/definitions/dev.example.Sample' } } },
      },
    },
    '/apis/apps/v1/deployments': { get: {} },
  },
  definitions: {
    'dev.example.Sample': {
      description: 'A sample.',
      type: 'object',
      properties: {
        metadata: { $ref: '#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta' },
        size: { type: 'integer', description: 'How large.' },
      },
      'x-kubernetes-group-version-kind': [{ group: GROUP, kind: 'Sample', version: 'v1' }],
    },
    'io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta': { description: 'theirs', type: 'object' },
    unused: {},
  },
};

let directory: string;
let pki: Pki;
let extension: https.Server;
let server: ApiServer;
let security: Security;
let port: number;
let frontCa = '';
const seen: { url: string; user: unknown; groups: unknown; subject: string; traceparent: unknown }[] = [];
const spans: Span[] = [];
const tracer = new Tracer({
  samplingRatePerMillion: 0,
  sink: { take: span => void spans.push(span) },
  clock: systemClock,
  random: systemRandom,
});

async function eventually<T>(look: () => Promise<T | undefined> | T | undefined): Promise<T> {
  for (let wait = 0; wait < 250; wait++) {
    const found = await look();
    if (found !== undefined) return found;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  assert.fail('not in time');
}

function get(path: string, headers: Record<string, string> = {}): Promise<{ status: number; body: Any }> {
  const { key, certificate } = pki.issueClient({ commonName: 'jane', organizations: ['system:masters'] });
  return new Promise((resolve, reject) => {
    https
      .get({ host: '127.0.0.1', port, path, key, cert: certificate, ca: pki.ca, headers }, reply => {
        let text = '';
        reply.on('data', part => (text += part));
        reply.on('end', () => {
          let body: Any = text;
          try {
            body = JSON.parse(text);
          } catch {
            // Text it is.
          }
          resolve({ status: reply.statusCode ?? 0, body });
        });
      })
      .on('error', reject);
  });
}

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cox-aggregation-'));
  pki = await ensurePki(directory, { sans: ['127.0.0.1'] });
  const { root: api, ...opened } = await openSecured({ pki, tracer });
  security = opened.security;
  server = opened.server;
  await security.settle();
  ({ port } = await server.listen(
    { host: '127.0.0.1', port: 0 },
    { key: pki.server.key, cert: pki.server.certificate, ca: pki.ca },
  ));
  const map: Any = await api.get({
    of: { group: '', version: 'v1', resource: 'configmaps' },
    namespace: 'kube-system',
    name: 'extension-apiserver-authentication',
  });
  frontCa = map.data['requestheader-client-ca-file'];
  assert.deepEqual(JSON.parse(map.data['requestheader-allowed-names']), ['front-proxy-client']);

  const { key, certificate } = pki.issueServer({ commonName: 'extension' }, ['extension.default.svc']);
  extension = https.createServer(
    { key, cert: certificate, ca: frontCa, requestCert: true, rejectUnauthorized: true },
    (request, reply) => {
      const { subject } = (request.socket as TLSSocket).getPeerCertificate();
      const { 'x-remote-user': user, 'x-remote-group': groups, traceparent } = request.headers;
      seen.push({ url: request.url!, user, groups, subject: String(subject.CN), traceparent });
      reply.setHeader('content-type', 'application/json');
      if (request.url === '/apis') return void reply.writeHead(404).end('{}');
      if (request.url === `/apis/${GROUP}/v1`)
        return void reply.end(
          JSON.stringify({
            kind: 'APIResourceList',
            apiVersion: 'v1',
            groupVersion: `${GROUP}/v1`,
            resources: [
              {
                name: 'samples',
                singularName: 'sample',
                namespaced: true,
                kind: 'Sample',
                verbs: ['delete', 'get', 'list', 'watch'],
              },
            ],
          }),
        );
      if (request.url === '/openapi/v3') return void reply.writeHead(404).end('{}');
      if (request.url === '/openapi/v2') return void reply.end(JSON.stringify(VERSION_2));
      reply.end(JSON.stringify({ kind: 'SampleList', apiVersion: `${GROUP}/v1`, metadata: {}, items: [] }));
    },
  );
  extension.on('upgrade', (request, socket) => {
    const { 'x-remote-user': user, traceparent } = request.headers;
    seen.push({ url: request.url!, user, groups: undefined, subject: '', traceparent });
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${request.headers.upgrade}\r\n\r\n${user}:`,
    );
    socket.pipe(socket);
  });
  await new Promise<void>(resolve => extension.listen(0, '127.0.0.1', resolve));
});
after(async () => {
  extension.closeAllConnections();
  extension.close();
  await server.close();
  await rm(directory, { recursive: true, force: true });
});

test('our own groups have APIServices', async () => {
  const api = server.transport(LOOPBACK_USER);
  const local: Any = await api.get({ of: API_SERVICES, name: 'v1.apps' });
  assert.equal(local.status.conditions[0].reason, 'Local');
  assert.ok(await api.get({ of: API_SERVICES, name: 'v1.' }));
});

test('an extension server is found, forwarded to in the name of the user, and missed when it is gone', async () => {
  const api = server.transport(LOOPBACK_USER);
  await api.create({ of: API_SERVICES }, {
    apiVersion: 'apiregistration.k8s.io/v1',
    kind: 'APIService',
    metadata: { name: `v1.${GROUP}` },
    spec: {
      group: GROUP,
      version: 'v1',
      groupPriorityMinimum: 100,
      versionPriority: 100,
      service: { name: 'extension', namespace: 'default', port: 443 },
      caBundle: Buffer.from(pki.ca).toString('base64'),
    },
  } as unknown as KubeObject);
  const available = async (): Promise<Any> => {
    const object: Any = await api.get({ of: API_SERVICES, name: `v1.${GROUP}` });
    return object.status?.conditions?.find((condition: Any) => condition.type === 'Available');
  };
  const reason = (wanted: string) =>
    eventually(async () => ((await available())?.reason === wanted ? true : undefined));
  await reason('ServiceNotFound');
  assert.deepEqual(security.aggregator.deletable().silent, [`${GROUP}/v1`]);
  assert.equal((await get(`/apis/${GROUP}/v1/samples`)).status, 503);
  await api.create({ of: SERVICES, namespace: 'default' }, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'extension' },
    spec: { ports: [{ port: 443, targetPort: 8443 }] },
  } as unknown as KubeObject);
  await reason('MissingEndpoints');
  await api.create({ of: ENDPOINT_SLICES, namespace: 'default' }, {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'extension-1', labels: { 'kubernetes.io/service-name': 'extension' } },
    addressType: 'IPv4',
    endpoints: [{ addresses: ['10.0.0.1'], conditions: { ready: false } }],
    ports: [{ port: (extension.address() as AddressInfo).port, name: '' }],
  } as unknown as KubeObject);
  // The test's server listens on loopback, which slices may not name: the address is put in past validation.
  const stored = api as unknown as StoredObjects;
  await stored.modify({ of: ENDPOINT_SLICES, namespace: 'default', name: 'extension-1' }, copy => {
    (copy as Any).endpoints = [{ addresses: ['127.0.0.1'], conditions: { ready: true } }];
  });
  await reason('Passed');
  const listed = await get(`/apis/${GROUP}/v1/namespaces/default/samples?limit=5`, { 'x-remote-user': 'root' });
  assert.equal(listed.status, 200);
  assert.equal(listed.body.kind, 'SampleList');
  const last = seen.at(-1)!;
  assert.equal(last.url, `/apis/${GROUP}/v1/namespaces/default/samples?limit=5`);
  assert.equal(last.user, 'jane');
  assert.match(String(last.groups), /system:masters/);
  assert.equal(last.subject, 'front-proxy-client');
  const groups = (await get('/apis')).body.groups.map((group: Any) => group.name);
  assert.deepEqual(groups.slice(-2), [GROUP, 'metrics.k8s.io'], 'of one priority, by name');
  assert.equal((await get(`/apis/${GROUP}`)).body.preferredVersion.version, 'v1');
  const accept = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList';
  const merged = (await get('/apis', { accept })).body.items.find((item: Any) => item.metadata.name === GROUP);
  assert.equal(merged.versions[0].freshness, 'Current');
  assert.equal(merged.versions[0].resources[0].resource, 'samples');
  assert.deepEqual(
    security.aggregator.deletable().served.map(info => `${info.group}/${info.resource}`),
    [`${GROUP}/samples`],
  );
  await tracesGoOn();
  await openapiIsMerged();
  await upgradesGoThrough();
  await api.delete({ of: SERVICES, namespace: 'default', name: 'extension' });
  await reason('ServiceNotFound');
  assert.equal((await get(`/apis/${GROUP}/v1/samples`)).status, 503);
  await api.delete({ of: API_SERVICES, name: `v1.${GROUP}` });
  await eventually(async () => ((await get(`/apis/${GROUP}/v1/samples`)).status === 404 ? true : undefined));
});

/** The extension server hears of the span of the request to it, whose parents are ours, and the first the client's. */
async function tracesGoOn(): Promise<void> {
  const [traceId, spanId] = ['5'.repeat(32), '6'.repeat(16)];
  spans.length = 0;
  await get(`/apis/${GROUP}/v1/samples`, { traceparent: `00-${traceId}-${spanId}-01` });
  const names: string[] = [];
  let id: string | undefined = String(seen.at(-1)!.traceparent).split('-')[2];
  const asking = await eventually(() => spans.find(({ context, isEnded }) => isEnded && context.spanId === id));
  assert.equal(asking.kind, 'client');
  assert.equal(asking.attributes['http.response.status_code'], 200);
  assert.match(String(asking.attributes['url.full']), /\/apis\/metrics\.example\.dev\/v1\/samples$/);
  for (let span: Span | undefined = asking; span; span = spans.find(({ context }) => context.spanId === id)) {
    assert.equal(span.context.traceId, traceId);
    names.push(span.name);
    id = span.parentId;
  }
  assert.equal(id, spanId);
  assert.deepEqual(names.reverse(), [
    'GET /apis/metrics.example.dev/v1/samples',
    ...['audit', 'impersonation', 'priorityandfairness', 'authorization'],
    'HTTP GET',
  ]);
}

async function openapiIsMerged(): Promise<void> {
  const v2: Any = (await get('/openapi/v2')).body;
  assert.ok(v2.paths[`/apis/${GROUP}/v1/samples`]);
  assert.equal(v2.definitions['dev.example.Sample'].description, 'A sample.');
  // Paths and definitions of ours stay ours.
  assert.ok(v2.paths['/apis/apps/v1/deployments'].get.operationId);
  assert.notEqual(v2.definitions['io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta'].description, 'theirs');
  assert.equal(v2.definitions.unused, undefined);
  const url = (await get('/openapi/v3')).body.paths[`apis/${GROUP}/v1`].serverRelativeURL;
  const v3: Any = (await get(url)).body;
  const { schemas } = v3.components;
  assert.deepEqual(schemas['dev.example.Sample'].properties.metadata, {
    $ref: '#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta',
  });
  const { parameters, responses } = v3.paths[`/apis/${GROUP}/v1/samples`].get;
  assert.deepEqual(parameters, [{ in: 'query', name: 'limit', schema: { type: 'integer' } }]);
  assert.deepEqual(responses['200'].content['application/json'].schema, {
    $ref: '#/components/schemas/dev.example.Sample',
  });
}

/** An upgrade reaches the extension server in the name of its user, and bytes go both ways. */
async function upgradesGoThrough(): Promise<void> {
  const { key, certificate } = pki.issueClient({ commonName: 'jane', organizations: ['system:masters'] });
  const traceparent = `00-${'7'.repeat(32)}-${'8'.repeat(16)}-01`;
  const headers = { connection: 'Upgrade', upgrade: 'SPDY/3.1', 'x-remote-user': 'root', traceparent };
  const path = `/apis/${GROUP}/v1/namespaces/default/samples/a/exec`;
  const request = https.request({ host: '127.0.0.1', port, path, key, cert: certificate, ca: pki.ca, headers });
  const [reply, socket, head] = await new Promise<[Any, Any, Buffer]>((resolve, reject) => {
    request.once('upgrade', (...parts) => resolve(parts));
    request.once('response', answer => reject(new Error(`status ${answer.statusCode}`)));
    request.once('error', reject);
    request.end();
  });
  try {
    assert.equal(reply.headers.upgrade, 'SPDY/3.1');
    let heard = head.toString();
    socket.on('data', (part: Buffer) => (heard += part));
    socket.write('hello');
    await eventually(() => (heard === 'jane:hello' ? true : undefined));
    const { traceparent: told } = seen.at(-1)!;
    assert.match(String(told), /^00-7{32}-[0-9a-f]{16}-01$/);
    assert.notEqual(told, traceparent);
  } finally {
    socket.destroy();
  }
}
