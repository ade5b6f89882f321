import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { type ClientHttp2Session, connect, type OutgoingHttpHeaders } from 'node:http2';
import * as https from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { KubeObject } from '../api/meta.ts';
import { systemClock } from '../base/clock.ts';
import { systemRandom } from '../base/random.ts';
import { within } from '../base/tracing/active.ts';
import { SCOPES, type Span, Tracer } from '../base/tracing/span.ts';
import { HttpsTransport } from '../client/https-transport.ts';
import { ensurePki, type Pki } from './certificates/pki.ts';
import { LOOPBACK_USER } from './request.ts';
import { openSecured } from './security-bed.ts';
import type { ApiServer } from './server.ts';

let directory: string;
let pki: Pki;
let server: ApiServer;
let port: number;
let rate = 1_000_000;
const spans: Span[] = [];
const sessions: ClientHttp2Session[] = [];

const sink = { take: (span: Span) => void spans.push(span) };
const tracers = [0, 1_000_000].map(
  samplingRatePerMillion => new Tracer({ samplingRatePerMillion, sink, clock: systemClock, random: systemRandom }),
);
/** One whose rate a test can set. */
const tracer = {
  start: (...args: Parameters<Tracer['start']>) => tracers[rate === 0 ? 0 : 1]!.start(...args),
} as Tracer;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cox-request-trace-'));
  pki = await ensurePki(directory, { sans: ['127.0.0.1'] });
  ({ server } = await openSecured({ pki, tracer }));
  const tls = { key: pki.server.key, cert: pki.server.certificate, ca: pki.ca };
  ({ port } = await server.listen({ host: '127.0.0.1', port: 0 }, tls));
});
after(async () => {
  for (const session of sessions) session.destroy();
  await server.close();
  await rm(directory, { recursive: true, force: true });
});

/** Asks, and gives what the request left of spans, the innermost last. */
async function ask(
  who: string | undefined,
  method: string,
  path: string,
  options: { readonly body?: object; readonly headers?: OutgoingHttpHeaders } = {},
): Promise<{ readonly status: number; readonly text: string; readonly spans: readonly Span[] }> {
  const pair = who === undefined ? undefined : pki.issueClient({ commonName: 'jane', organizations: [who] });
  const session = connect(`https://127.0.0.1:${port}`, {
    ca: pki.ca,
    ...(pair ? { key: pair.key, cert: pair.certificate } : {}),
  });
  sessions.push(session);
  spans.length = 0;
  const { body, headers } = options;
  const stream = session.request(
    { ':method': method, ':path': path, ...(body ? { 'content-type': 'application/json' } : {}), ...headers },
    { endStream: !body },
  );
  if (body) stream.end(JSON.stringify(body));
  const answered = new Promise<number>((resolve, reject) => {
    stream.once('response', head => resolve(Number(head[':status'])));
    stream.once('error', reject);
  });
  let text = '';
  for await (const part of stream) text += part;
  const status = await answered;
  session.close();
  // The spans end in the turn in which the reply leaves.
  await new Promise(setImmediate);
  // What the server asks of itself meanwhile is of other traces.
  const others = spans.filter(({ kind, scope }) => kind === 'server' && scope === SCOPES.component);
  const own = spans.filter(({ context }) => !others.some(other => other.context.traceId === context.traceId));
  return { status, text, spans: own.reverse() };
}

const [traceId, spanId] = ['c'.repeat(32), 'd'.repeat(16)];
const traced = { traceparent: `00-${traceId}-${spanId}-01`, tracestate: 'me=1' };
const FILTERS = ['audit', 'impersonation', 'priorityandfairness', 'authorization'];
const PATH = '/api/v1/namespaces/default/configmaps';
const NAMED = 'GET /api/v1/namespaces/{:namespace}/configmaps/{:name}';
const map = (name: string) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name } });

const named = (all: readonly Span[], name: string): Span => {
  const found = all.find(span => span.name === name);
  assert.ok(found, `${name} of ${all.map(span => span.name).join(', ')}`);
  return found;
};
const eventsOf = (span: Span): string[] => span.events.map(({ name }) => name);
/** The names of the spans above one. */
function above(all: readonly Span[], span: Span): string[] {
  const parent = all.find(({ context }) => context.spanId === span.parentId);
  return parent ? [...above(all, parent), parent.name] : [];
}

test('who is trusted goes on with a trace, of others a new one names theirs', async () => {
  for (const [who, isTrusted] of [
    ['system:masters', true],
    ['system:monitoring', true],
    ['system:nodes', false],
    [undefined, false],
  ] as const) {
    const { spans: all } = await ask(who, 'GET', '/version', { headers: traced });
    const request = named(all, 'GET');
    assert.deepEqual(
      [request.context.traceId === traceId, request.parentId, request.link?.spanId],
      isTrusted ? [true, spanId, undefined] : [false, undefined, spanId],
      String(who),
    );
    assert.equal(request.context.state, isTrusted ? 'me=1' : undefined);
    // Before it is known who asks, nobody is believed anything.
    assert.notEqual(named(all, 'authentication').context.traceId, traceId);
  }
});

test('without a trace of one’s own, authentication is its beginning', async () => {
  const { spans: all } = await ask('system:masters', 'GET', '/healthz');
  const request = named(all, 'GET');
  assert.equal(request.parentId, named(all, 'authentication').context.spanId);
  assert.equal(request.hasRemoteParent, false);
  const stranger = await ask('friends', 'GET', '/healthz');
  assert.equal(named(stranger.spans, 'GET').parentId, undefined);
});

test('who is sampled: nobody at a rate of 0 but those whom somebody trusted has sampled', async () => {
  rate = 0;
  try {
    assert.deepEqual((await ask('system:masters', 'GET', '/healthz')).spans, []);
    assert.deepEqual((await ask('friends', 'GET', '/healthz', { headers: traced })).spans, []);
    const { spans: all } = await ask('system:masters', 'GET', '/healthz', { headers: traced });
    assert.deepEqual(all.map(({ name }) => name).sort(), ['GET', ...FILTERS].sort());
  } finally {
    rate = 1_000_000;
  }
  const unsampled = { traceparent: `00-${traceId}-${spanId}-00` };
  const { spans: all } = await ask('system:masters', 'GET', '/healthz', { headers: unsampled });
  assert.deepEqual(
    all.map(({ name }) => name),
    ['authentication'],
  );
});

test('a request that nobody is known for leaves the span of authentication', async () => {
  const { status, spans: all } = await ask(undefined, 'GET', '/healthz', { headers: { authorization: 'Bearer bad' } });
  assert.equal(status, 401);
  assert.deepEqual(
    all.map(({ name }) => name),
    ['authentication'],
  );
});

test('the span of a request, as upstream names and describes it', async () => {
  const headers = { 'user-agent': 'tracing.test', 'audit-id': 'x'.repeat(70), 'x-forwarded-for': '10.1.2.3, 10.0.0.1' };
  const { spans: all } = await ask('system:masters', 'POST', `${PATH}?fieldManager=a`, { body: map('named'), headers });
  const request = named(all, 'POST /api/v1/namespaces/{:namespace}/configmaps');
  const { 'http.request.body.size': sent, 'http.response.body.size': answered, ...attributes } = request.attributes;
  assert.deepEqual(attributes, {
    'server.address': '127.0.0.1',
    'server.port': port,
    'http.request.method': 'POST',
    'url.scheme': 'https',
    'network.peer.address': '127.0.0.1',
    'user_agent.original': 'tracing.test',
    'client.address': '10.1.2.3',
    'url.path': PATH,
    'network.protocol.version': '2.0',
    'http.target': `${PATH}?fieldManager=a`,
    'audit-id': 'x'.repeat(64),
    'http.response.status_code': 201,
  });
  assert.ok(Number(answered) > Number(sent ?? 0));
  assert.deepEqual([request.kind, request.failure], ['server', undefined]);
  assert.deepEqual(named(all, 'Create').attributes, {
    accept: '',
    'audit-id': 'x'.repeat(64),
    client: '10.1.2.3',
    protocol: 'HTTP/2.0',
    resource: 'configmaps',
    scope: 'resource',
    url: PATH,
    'user-agent': 'tracing.test',
    verb: 'POST',
  });
  for (const [path, name] of [
    ['/api/v1/nodes', 'GET /api/v1/nodes'],
    [
      '/apis/apps/v1/namespaces/a/deployments/b/status',
      'GET /apis/apps/v1/namespaces/{:namespace}/deployments/{:name}/status',
    ],
    ['/openapi/v2', 'GET'],
  ] as const)
    named((await ask('system:masters', 'GET', path)).spans, name);
});

test('what handlers do: each within the one before, with upstream’s events', async () => {
  const write = ['About to write a response', 'Writing http response done'];
  const read = ['limitedReadBody succeeded', 'About to convert to expected version', 'Conversion done'];
  const stored = ['About to store object in database', 'Write to database call succeeded'];
  const one = `${PATH}/events`;
  const cases: [string, string, object | undefined, string, string[]][] = [
    ['POST', PATH, map('events'), 'Create', [...read, ...stored, ...write]],
    ['GET', one, undefined, 'Get', ['About to Get from storage', ...write]],
    [
      ...(['GET', PATH, undefined, 'List'] as const),
      ['About to List from storage', 'Listing from storage done', 'Writing http response done'],
    ],
    ['PUT', one, { ...map('events'), data: { a: 'b' } }, 'Update', [...read, ...stored, ...write]],
    [
      ...(['PATCH', one, { data: { c: 'd' } }, 'Patch'] as const),
      [
        ...['limitedReadBody succeeded', 'Recorded the audit event', 'About to apply patch'],
        ...['Object stored in database', ...write],
      ],
    ],
    [
      ...(['DELETE', one, { kind: 'DeleteOptions', apiVersion: 'v1' }, 'Delete'] as const),
      [
        ...['limitedReadBody succeeded', 'Decoded delete options', 'Recorded the audit event'],
        ...['About to delete object from database', 'Object deleted from database', ...write],
      ],
    ],
  ];
  for (const [method, path, body, name, events] of cases) {
    const headers = method === 'PATCH' ? { 'content-type': 'application/merge-patch+json' } : {};
    const { status, spans: all } = await ask('system:masters', method, path, { ...(body ? { body } : {}), headers });
    assert.ok(status < 300, `${method}: ${status}`);
    const handler = named(all, name);
    assert.deepEqual(eventsOf(handler), events, name);
    assert.deepEqual(above(all, handler).slice(2), FILTERS, name);
    const sending = named(all, 'SerializeObject');
    assert.deepEqual(above(all, sending).at(-1), name);
    assert.deepEqual(eventsOf(sending), ['About to start writing response', 'Write call succeeded']);
    assert.equal(sending.attributes['mediaType'], 'application/json');
    assert.ok(all.every(span => span.isEnded && span.context.traceId === handler.context.traceId));
  }
  const { spans: created } = await ask('system:masters', 'POST', PATH, { body: map('kept') });
  const store = named(created, 'Create etcd3');
  assert.deepEqual([above(created, store).at(-1), eventsOf(store)], ['Create', ['Txn call succeeded']]);
  assert.deepEqual(
    [store.attributes['key'], store.attributes['type'], store.attributes['resource']],
    ['/core/configmaps/default/kept', '*core.ConfigMap', 'configmaps'],
  );
  assert.equal(store.attributes['audit-id'], named(created, 'Create').attributes['audit-id']);
  const found = await ask('system:masters', 'GET', `${PATH}/kept?resourceVersion=0`);
  const { 'audit-id': id, ...asked } = named(found.spans, 'cacher.Get').attributes;
  assert.ok(id);
  assert.deepEqual(asked, { key: '/core/configmaps/default/kept', 'resource-version': '0' });
  const listed = named((await ask('system:masters', 'GET', '/apis/apps/v1/deployments')).spans, 'cacher.GetList');
  assert.deepEqual([listed.attributes['type'], eventsOf(listed)], ['deployments.apps', ['Listed items from cache']]);
  const again = await ask('system:masters', 'POST', PATH, { body: map('kept') });
  assert.equal(again.status, 409);
  assert.deepEqual(eventsOf(named(again.spans, 'Create')).slice(-1), ['Write to database call failed']);
  const missing = await ask('system:masters', 'GET', `${PATH}/missing`);
  assert.equal(named(missing.spans, NAMED).attributes['http.response.status_code'], 404);
  assert.equal(named(missing.spans, NAMED).failure, undefined, 'a client’s mistake is no failure of the server');
});

test('a watch is one span, for as long as it lasts', async () => {
  const { status, spans: all } = await ask('system:masters', 'GET', `${PATH}?watch=true&timeoutSeconds=1`);
  assert.equal(status, 200);
  const request = named(all, 'GET /api/v1/namespaces/{:namespace}/configmaps');
  assert.ok(request.isEnded);
  assert.ok(all.every(({ name }) => name !== 'List'));
});

test('webhooks of admission are told of the trace', async () => {
  const heard: (string | undefined)[] = [];
  const { key, certificate } = pki.issueServer({ commonName: 'hooks' }, ['127.0.0.1']);
  const hooks = https.createServer({ key, cert: certificate }, async (request, reply) => {
    let text = '';
    for await (const part of request) text += part;
    heard.push(request.headers['traceparent'] as string | undefined, request.headers['baggage'] as string | undefined);
    const { uid } = JSON.parse(text).request;
    reply.setHeader('content-type', 'application/json');
    const response = { uid, allowed: !text.includes('refused') };
    reply.end(JSON.stringify({ kind: 'AdmissionReview', apiVersion: 'admission.k8s.io/v1', response }));
  });
  await new Promise<void>(resolve => hooks.listen(0, '127.0.0.1', resolve));
  try {
    const url = `https://127.0.0.1:${(hooks.address() as AddressInfo).port}/hook`;
    await server
      .transport(LOOPBACK_USER)
      .create(
        { of: { group: 'admissionregistration.k8s.io', version: 'v1', resource: 'validatingwebhookconfigurations' } },
        {
          apiVersion: 'admissionregistration.k8s.io/v1',
          kind: 'ValidatingWebhookConfiguration',
          metadata: { name: 'hooks' },
          webhooks: [
            {
              name: 'hook.example.dev',
              clientConfig: { url, caBundle: Buffer.from(pki.ca).toString('base64') },
              rules: [{ operations: ['CREATE'], apiGroups: [''], apiVersions: ['v1'], resources: ['configmaps'] }],
              sideEffects: 'None',
              admissionReviewVersions: ['v1'],
            },
          ],
        } as unknown as KubeObject,
      );
    const headers = { ...traced, baggage: 'user=me' };
    const { spans: all } = await ask('system:masters', 'POST', PATH, { body: map('hooked'), headers });
    const asking = named(all, 'HTTP POST');
    assert.deepEqual(heard, [`00-${traceId}-${asking.context.spanId}-01`, 'user=me']);
    assert.deepEqual(above(all, asking).slice(-2), ['Create', 'Call validating webhook']);
    assert.equal(asking.attributes['url.full'], url);
    const call = named(all, 'Call validating webhook');
    const { UID, ...attributes } = call.attributes;
    assert.match(String(UID), /^[0-9a-f-]{36}$/);
    assert.deepEqual(attributes, {
      configuration: 'hooks',
      webhook: 'hook.example.dev',
      resource: '/v1, Resource=configmaps',
      subresource: '',
      operation: 'CREATE',
    });
    assert.deepEqual(eventsOf(call), ['Request completed']);
    // What controllers ask in this process begins a trace too.
    heard.length = spans.length = 0;
    const transport = server.transport(LOOPBACK_USER, 'kube-controller-manager');
    const of = { group: '', version: 'v1', resource: 'configmaps' };
    await transport.create({ of, namespace: 'default' }, map('in-process') as unknown as KubeObject);
    const own = named(spans, 'POST /api/v1/namespaces/{:namespace}/configmaps');
    assert.deepEqual(own.attributes, {
      'http.request.method': 'POST',
      'url.path': PATH,
      'user_agent.original': 'kube-controller-manager',
      'http.response.status_code': 201,
    });
    assert.equal(own.parentId, undefined);
    assert.match(heard[0]!, new RegExp(`^00-${own.context.traceId}-[0-9a-f]{16}-01$`));
    assert.deepEqual(above(spans, named(spans, 'Create etcd3')), [own.name]);
    await assert.rejects(transport.get({ of, namespace: 'default', name: 'missing' }), /not found/);
    assert.equal(named([...spans].reverse(), NAMED).attributes['http.response.status_code'], 404);
    hooks.closeAllConnections();
    await new Promise(resolve => hooks.close(resolve));
    const { status, spans: failed } = await ask('system:masters', 'POST', PATH, { body: map('nobody') });
    assert.equal(status, 500);
    assert.match(named(failed, 'HTTP POST').failure!, /ECONNREFUSED/);
    assert.equal(named(failed, 'POST /api/v1/namespaces/{:namespace}/configmaps').failure, '');
  } finally {
    hooks.closeAllConnections();
    hooks.close();
  }
});

test('a client that traces is heard of by the server', async () => {
  const ended: Span[] = [];
  const clients = new Tracer({
    samplingRatePerMillion: 1_000_000,
    sink: { take: span => void ended.push(span) },
    clock: systemClock,
    random: systemRandom,
  });
  const { key, certificate: cert } = pki.issueClient({ commonName: 'node', organizations: ['system:masters'] });
  const url = `https://127.0.0.1:${port}`;
  const client = new HttpsTransport({ server: url, ca: pki.ca, key, cert, tracer: clients });
  const untilEnded = async (count: number) => {
    while (ended.length < count) await new Promise(setImmediate);
  };
  const of = { group: '', version: 'v1', resource: 'configmaps' };
  spans.length = 0;
  const root = clients.start('root', undefined);
  await assert.rejects(within({ span: root }, () => client.get({ of, namespace: 'default', name: 'none' })));
  await untilEnded(1);
  const [asking] = ended as [Span];
  assert.deepEqual([asking.name, asking.kind, asking.parentId], ['HTTP GET', 'client', root.context.spanId]);
  assert.deepEqual(asking.attributes, {
    'http.request.method': 'GET',
    'url.full': `${url}${PATH}/none`,
    'server.address': '127.0.0.1',
    'server.port': port,
    'http.response.status_code': 404,
    'error.type': '404',
  });
  assert.equal(asking.failure, '');
  assert.equal(named(spans, NAMED).parentId, asking.context.spanId);
  // A watch is a span until it ends.
  const stop = new AbortController();
  for await (const _ of client.watch({ of, namespace: 'default' }, {}, stop.signal)) {
    assert.equal(ended.length, 1);
    stop.abort();
  }
  await untilEnded(2);
  assert.deepEqual([ended[1]!.name, ended[1]!.parentId], ['HTTP GET', undefined]);
  client.close();
  const nobody = new HttpsTransport({ server: 'https://127.0.0.1:1', ca: pki.ca, tracer: clients });
  await assert.rejects(nobody.get({ of, namespace: 'default', name: 'none' }));
  await untilEnded(3);
  assert.equal(ended[2]!.attributes['error.type'] !== undefined, true);
  assert.match(ended[2]!.failure!, /ECONNREFUSED/);
  nobody.close();
});
