import { strict as assert } from 'node:assert';
import type { ServerResponse } from 'node:http';
import { type ClientHttp2Session, connect, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http2';
import { request as httpsRequest } from 'node:https';
import { after, before, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { WebSocket } from 'ws';
import { encodeProtobuf } from '../api/protobuf/encoder.ts';
import { openMemoryStore } from '../store/memory.ts';
import { issueCertificate, issueKeyPair, newKey } from './certificates/certificate.ts';
import type { AdmissionRequest, ConnectContext, Credentials, UserInfo } from './request.ts';
import { ApiServer } from './server.ts';

const DAY_MS = 86_400_000;
const validity = { notBeforeMs: Date.now() - DAY_MS, notAfterMs: Date.now() + DAY_MS };
const authority = newKey();
const ca = issueCertificate(
  { subject: { commonName: 'test' }, usages: ['authority'], ...validity },
  authority.publicKey,
  { selfKey: authority.privateKey },
);
const issuer = { certificate: ca, privateKey: authority.privateKey };
const serving = issueKeyPair(
  { subject: { commonName: 'api' }, names: ['127.0.0.1', 'localhost'], usages: ['server'], ...validity },
  issuer,
);
const admin = issueKeyPair(
  { subject: { commonName: 'admin', organizations: ['system:masters'] }, usages: ['client'], ...validity },
  issuer,
);

const authenticator = {
  authenticate({ certificate, headers }: Credentials): UserInfo | undefined {
    if (certificate)
      return { name: certificate.commonName, groups: [...certificate.organizations, 'system:authenticated'] };
    return headers.authorization === 'Bearer reader' ? { name: 'reader', groups: ['system:authenticated'] } : undefined;
  },
};

let server: ApiServer;
let session: ClientHttp2Session;
let port: number;
const connections: ConnectContext[] = [];
const admitted: AdmissionRequest[] = [];

before(async () => {
  server = await ApiServer.open({
    store: openMemoryStore(),
    authenticators: [authenticator],
    authorizer: { authorize: ({ verb, name }) => ({ allowed: verb === 'get' && name !== 'secret', reason: '' }) },
    admission: [
      {
        name: 'Sees',
        mutate(request) {
          const options = request.object as { command?: string[] } | undefined;
          if (request.operation !== 'CONNECT' || options?.command?.[0] !== 'swap') return;
          request.replace!({ ...options, command: ['echo', 'a b'], tty: true, stdin: undefined, none: 1 } as never);
        },
        validate: request => void (request.operation === 'CONNECT' && admitted.push(request)),
      },
    ],
    connectHandlers: [
      {
        of: { group: '', version: 'v1', resource: 'pods' },
        subresource: 'log',
        async handle({ res }) {
          (res as ServerResponse).writeHead(200, { 'content-type': 'text/plain' }).end('a line\n');
        },
      },
      {
        of: { group: '', version: 'v1', resource: 'pods' },
        subresource: 'exec',
        async handle(context) {
          connections.push(context);
          context.socket?.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\nhello');
        },
      },
    ],
  });
  ({ port } = await server.listen({ host: '127.0.0.1', port: 0 }, { key: serving.key, cert: serving.certificate, ca }));
  session = connect(`https://127.0.0.1:${port}`, { ca, key: admin.key, cert: admin.certificate });
});
after(async () => {
  session.close();
  await server.close();
});

interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly json: any;
}

function ask(
  method: string,
  path: string,
  options: { body?: unknown; headers?: OutgoingHttpHeaders; via?: ClientHttp2Session } = {},
): Promise<Reply> {
  const { body, headers, via = session } = options;
  return new Promise((resolve, reject) => {
    const stream = via.request({
      ':method': method,
      ':path': path,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    });
    let replied: (IncomingHttpHeaders & { ':status'?: number }) | undefined;
    const chunks: Buffer[] = [];
    stream.on('response', received => {
      replied = received;
    });
    stream.on('data', (chunk: string | Buffer) => chunks.push(chunk as Buffer));
    stream.on('error', reject);
    stream.on('end', () => {
      const bytes = Buffer.concat(chunks);
      const { ':status': status = 0, ...others } = replied ?? {};
      const json =
        String(others['content-type']).startsWith('application/json') && !others['content-encoding'] && bytes.length > 0
          ? JSON.parse(bytes.toString())
          : undefined;
      resolve({ status, headers: others, body: bytes, json });
    });
    stream.end(
      body === undefined
        ? undefined
        : typeof body === 'string' || Buffer.isBuffer(body)
          ? (body as string)
          : JSON.stringify(body),
    );
  });
}

const maps = '/api/v1/namespaces/default/configmaps';
const configMap = (name: string, data: Record<string, string> = { k: 'v' }) => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name },
  data,
});

/** Reads lines of a watch until there are `count`. */
function lines(path: string, count: number, headers: OutgoingHttpHeaders = {}): Promise<any[]> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':path': path, ...headers });
    let text = '';
    stream.setEncoding('utf8');
    stream.on('data', (chunk: string) => {
      text += chunk;
      const whole = text.split('\n').slice(0, -1);
      if (whole.length < count) return;
      stream.close();
      resolve(whole.map(item => JSON.parse(item)));
    });
    stream.on('error', reject);
  });
}

test('create and read over HTTP/2', async () => {
  const made = await ask('POST', maps, { body: configMap('first') });
  assert.equal(made.status, 201, made.body.toString());
  assert.equal(made.json.metadata.namespace, 'default');
  const got = await ask('GET', `${maps}/first`);
  assert.equal(got.status, 200);
  assert.deepEqual(got.json, made.json);
  assert.equal(got.headers['content-type'], 'application/json');
  const again = await ask('POST', maps, { body: configMap('first') });
  assert.equal(again.status, 409);
  assert.equal(again.json.reason, 'AlreadyExists');
  const list = await ask('GET', maps);
  assert.equal(list.json.kind, 'ConfigMapList');
  assert.ok(list.json.items.some((item: any) => item.metadata.name === 'first'));
});

test('unknown fields: warned of, refused, ignored', async () => {
  const odd = (name: string) => ({ ...configMap(name), extra: 1 });
  const warned = await ask('POST', maps, { body: odd('w') });
  assert.equal(warned.status, 201);
  assert.equal(warned.headers['warning'], '299 - "unknown field \\"extra\\""');
  const foreign = await ask('POST', maps, { body: { ...configMap('f'), größe: 1 } });
  assert.equal(
    Buffer.from(String(foreign.headers['warning']), 'latin1').toString(),
    '299 - "unknown field \\"größe\\""',
  );
  const refused = await ask('POST', `${maps}?fieldValidation=Strict`, { body: odd('s') });
  assert.equal(refused.status, 400);
  assert.match(refused.json.message, /strict decoding error: unknown field "extra"/);
  const ignored = await ask('POST', `${maps}?fieldValidation=Ignore`, { body: odd('i') });
  assert.equal(ignored.headers['warning'], undefined);
  const duplicate = await ask('POST', `${maps}?fieldValidation=Strict`, {
    body: '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"d"},"data":{"a":"1","a":"2"}}',
  });
  assert.match(duplicate.json.message, /duplicate field "data.a"/);
});

test('bodies: yaml, protobuf, too large, broken', async () => {
  const yaml = await ask('POST', maps, {
    body: 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: yaml}\ndata: {mode: "0644"}\n',
    headers: { 'content-type': 'application/yaml' },
  });
  assert.equal(yaml.status, 201, yaml.body.toString());
  const proto = await ask('POST', maps, {
    body: encodeProtobuf({ ...configMap('proto') }),
    headers: { 'content-type': 'application/vnd.kubernetes.protobuf' },
  });
  assert.equal(proto.status, 201, proto.body.toString());
  const unknown = await ask('POST', maps, { body: '<x/>', headers: { 'content-type': 'application/xml' } });
  assert.equal(unknown.status, 415);
  const large = await ask('POST', maps, { body: Buffer.alloc(3 * 1024 * 1024 + 1, ' ') });
  assert.equal(large.status, 413);
  const broken = await ask('POST', maps, { body: '{' });
  assert.equal(broken.status, 400);
  assert.equal(broken.json.reason, 'BadRequest');
  const zipped = await ask('POST', maps, { body: Buffer.from('1f8b0800000000000003ff', 'hex') });
  assert.equal(
    zipped.json.message,
    "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: invalid character '\\x1f' looking for beginning of value (1f8b0800000000000003ff)",
  );
  const wrong = await ask('POST', maps, { body: { ...configMap('x'), kind: 'Secret' } });
  assert.equal(wrong.status, 400);
  for (const odd of [{ apiVersion: 12 }, { kind: {} }])
    assert.match(
      (await ask('POST', maps, { body: { ...configMap('x'), ...odd } })).json.message,
      /parse error: json: /,
    );
  const patched = await ask('PATCH', `${maps}/yaml`, {
    body: { apiVersion: [12] },
    headers: { 'content-type': 'application/merge-patch+json' },
  });
  assert.equal(patched.status, 422);
  const applied = await ask('PATCH', `${maps}/yaml?fieldManager=me`, {
    body: { apiVersion: { a: { toString: [] } } },
    headers: { 'content-type': 'application/apply-patch+yaml' },
  });
  assert.equal(applied.status, 400);
});

test('Accept: tables, metadata only, yaml, nothing that is spoken', async () => {
  await ask('POST', maps, { body: configMap('table') });
  const table = await ask('GET', maps, {
    headers: { accept: 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json' },
  });
  assert.equal(table.json.kind, 'Table');
  assert.equal(table.json.columnDefinitions[0].name, 'Name');
  assert.equal(table.json.rows[0].object.kind, 'PartialObjectMetadata');
  const partial = await ask('GET', `${maps}/table`, {
    headers: { accept: 'application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io' },
  });
  assert.equal(partial.json.kind, 'PartialObjectMetadata');
  assert.equal(partial.json.data, undefined);
  const yaml = await ask('GET', `${maps}/table`, { headers: { accept: 'application/yaml' } });
  assert.match(yaml.body.toString(), /^kind: ConfigMap$/m);
  const both = await ask('GET', `${maps}/table`, {
    headers: { accept: 'application/vnd.kubernetes.protobuf;q=0.1,application/json' },
  });
  assert.equal(both.json.kind, 'ConfigMap');
  const none = await ask('GET', `${maps}/table`, { headers: { accept: 'application/xml' } });
  assert.equal(none.status, 406);
});

test('versions that cannot be are refused at once', async () => {
  for (const [text, why] of [
    ['x', 'invalid syntax'],
    ['99999999999999999999', 'value out of range'],
  ])
    assert.match((await ask('GET', `${maps}?resourceVersion=${text}`)).json.message, new RegExp(`${why}$`));
});

test('watch lines, plain and as tables', async () => {
  const { json } = await ask('POST', maps, { body: configMap('watched') });
  const path = `${maps}?watch=true&resourceVersion=${json.metadata.resourceVersion}&fieldSelector=metadata.name%3Dwatched`;
  const plain = lines(path, 2);
  const tables = lines(path, 2, { accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' });
  await ask('PATCH', `${maps}/watched`, {
    body: { data: { k: 'w' } },
    headers: { 'content-type': 'application/merge-patch+json' },
  });
  await ask('DELETE', `${maps}/watched`);
  assert.deepEqual(
    (await plain).map(event => [event.type, event.object.data.k]),
    [
      ['MODIFIED', 'w'],
      ['DELETED', 'w'],
    ],
  );
  const seen = await tables;
  assert.equal(seen[0].object.kind, 'Table');
  assert.equal(seen[0].object.columnDefinitions[0].name, 'Name');
  assert.equal(seen[1].object.columnDefinitions, null);
  const list = `${maps}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true`;
  const table = 'application/json;as=Table;v=v1;g=meta.k8s.io';
  assert.equal((await ask('GET', list, { headers: { accept: table } })).status, 406, 'no list is made of tables');
  const blueprint = async (accept: string) => {
    const { type, object } = (await lines(`${list}&labelSelector=none`, 1, { accept }))[0];
    assert.equal(type, 'BOOKMARK');
    const encoded = object.metadata.annotations['kubernetes.io/initial-events-list-blueprint'];
    return JSON.parse(Buffer.from(encoded, 'base64').toString());
  };
  assert.deepEqual(await blueprint(`${table},application/json`), {
    kind: 'ConfigMapList',
    apiVersion: 'v1',
    metadata: {},
    items: [],
  });
  const { kind, apiVersion } = await blueprint('application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io');
  assert.equal(`${apiVersion} ${kind}`, 'meta.k8s.io/v1 PartialObjectMetadataList');
  assert.match(
    (await ask('GET', '/metrics')).body.toString(),
    /^apiserver_watch_list_duration_seconds_count\{group="",version="v1",resource="configmaps",scope="namespace"\} 2$/m,
  );
  const bad = await ask('GET', `${maps}?watch=true&resourceVersion=x`);
  assert.equal(bad.status, 400);
});

test('patches by content type', async () => {
  await ask('POST', maps, { body: configMap('patched', { a: '1' }) });
  const patch = (type: string, body: unknown) =>
    ask('PATCH', `${maps}/patched`, { body, headers: { 'content-type': type } });
  const merged = await patch('application/merge-patch+json', { data: { b: '2' } });
  assert.deepEqual(merged.json.data, { a: '1', b: '2' });
  const json = await patch('application/json-patch+json', [{ op: 'remove', path: '/data/a' }]);
  assert.deepEqual(json.json.data, { b: '2' });
  const refused = await patch('application/json-patch+json', [{ op: 'test', path: '/data/b', value: '3' }]);
  assert.deepEqual([refused.status, refused.json.details], [422, {}]);
  const renamed = await patch('application/merge-patch+json', { metadata: { uid: 'z' } });
  assert.deepEqual(
    [renamed.status, renamed.json.message],
    [422, 'ConfigMap "patched" is invalid: metadata.uid: Invalid value: "z": field is immutable'],
  );
  const list = await patch('application/merge-patch+json', []);
  assert.deepEqual(
    [list.status, list.json.message],
    [400, 'error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}'],
  );
  const strategic = await patch('application/strategic-merge-patch+json', { data: { b: null, c: '3' } });
  assert.deepEqual(strategic.json.data, { c: '3' });
  const unknown = await patch('text/plain', {});
  assert.deepEqual([unknown.status, unknown.json.message], [415, '415: Unsupported Media Type']);
});

test('who may and who may not', async () => {
  const other = connect(`https://127.0.0.1:${port}`, { ca });
  const nobody = await ask('GET', `${maps}/first`, { via: other });
  assert.equal(nobody.status, 401);
  assert.equal(nobody.json.message, 'Unauthorized');
  const headers = { authorization: 'Bearer reader' };
  const denied = await ask('GET', '/api/v1/namespaces/default/configmaps', { via: other, headers });
  assert.equal(denied.status, 403);
  assert.equal(
    denied.json.message,
    'configmaps is forbidden: User "reader" cannot list resource "configmaps" in API group "" in the namespace "default"',
  );
  assert.equal((await ask('GET', '/version', { via: other, headers })).status, 200);
  assert.equal(
    (await ask('GET', `${maps}/first`, { via: other, headers: { ...headers, 'impersonate-user': 'admin' } })).status,
    403,
  );
  const acting = await ask('GET', maps, { headers: { 'impersonate-user': 'reader' } });
  assert.match(acting.json.message, /User "reader" cannot list/);
  other.close();
});

test('discovery, health, version, metrics, openapi', async () => {
  assert.deepEqual((await ask('GET', '/api')).json.versions, ['v1']);
  const groups = await ask('GET', '/apis');
  assert.ok(groups.json.groups.some((group: any) => group.name === 'apps'));
  const apps = await ask('GET', '/apis/apps/v1');
  assert.ok(
    apps.json.resources.some(
      (resource: any) => resource.name === 'deployments/scale' && resource.group === 'autoscaling',
    ),
  );
  const aggregated = await ask('GET', '/apis', {
    headers: { accept: 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json' },
  });
  assert.equal(aggregated.json.kind, 'APIGroupDiscoveryList');
  assert.match(String(aggregated.headers['content-type']), /as=APIGroupDiscoveryList/);
  const cached = await ask('GET', '/apis', { headers: { 'if-none-match': groups.headers.etag! } });
  assert.equal(cached.status, 304);
  assert.equal((await ask('GET', '/readyz')).body.toString(), 'ok');
  assert.match((await ask('GET', '/readyz?verbose')).body.toString(), /^\[\+\]ping ok\n[\s\S]*readyz check passed\n$/);
  const told = (await ask('GET', '/metrics/slis')).body.toString();
  assert.match(told, /^kubernetes_healthcheck\{name="etcd",type="readyz"\} 1$/m);
  assert.match(told, /^kubernetes_healthchecks_total\{name="ping",type="readyz",status="success"\} [1-9]/m);
  assert.equal((await ask('GET', '/livez/ping')).body.toString(), 'ok');
  assert.equal((await ask('GET', '/version')).json.minor, '36');
  assert.match((await ask('GET', '/metrics')).body.toString(), /apiserver_request_total\{/);
  const index = await ask('GET', '/openapi/v3');
  const url = index.json.paths['apis/apps/v1'].serverRelativeURL;
  const document = await ask('GET', url, { headers: { 'accept-encoding': 'gzip' } });
  assert.equal(document.headers['content-encoding'], 'gzip');
  assert.ok(JSON.parse(gunzipSync(document.body).toString()).components);
  assert.equal(document.headers['cache-control'], 'public, immutable');
  assert.ok(Date.parse(String(document.headers['expires'])) > Date.now() + 364 * 24 * 3600 * 1000);
  const known = async (value: string) => (await ask('GET', url, { headers: { 'if-none-match': value } })).status;
  const etag = String(document.headers.etag);
  for (const value of [etag, `W/${etag}`, `"old", ${etag}`, '*']) assert.equal(await known(value), 304, value);
  for (const value of ['"old"', etag.slice(1, -1), '']) assert.equal(await known(value), 200, value);
  const head = await ask('HEAD', url);
  assert.deepEqual([head.status, head.headers.etag, head.body.length], [200, etag, 0]);
  const whole = await ask('GET', url);
  assert.equal(Number(head.headers['content-length']), whole.body.length);
  assert.equal((await ask('GET', '/version', { headers: { accept: 'application/yaml' } })).status, 406);
  assert.equal((await ask('GET', '/', { headers: { accept: 'application/yaml' } })).status, 200);
  const any = { headers: { accept: 'application/*' } };
  for (const [path, status] of [
    ['/apis', 200],
    ['/apis/apps', 200],
    ['/apis/apps/v1', 406],
    ['/api', 406],
    [maps, 406],
  ] as const)
    assert.equal((await ask('GET', path, any)).status, status, path);
  assert.equal((await ask('GET', '/nothing')).status, 404);
  assert.equal((await ask('GET', '/apis/apps/v1/nothing')).status, 404);
});

test('JSON is a line, and indented for people', async () => {
  await ask('POST', maps, { body: configMap('laid-out', { 2: 'b', 1: 'a' }) });
  const path = `${maps}/laid-out`;
  const text = async (url: string, headers: Record<string, string> = {}) =>
    (await ask('GET', url, { headers })).body.toString();
  const plain = await text(path);
  assert.equal(plain, `${JSON.stringify(JSON.parse(plain))}\n`);
  const pretty = JSON.stringify(JSON.parse(plain), null, 2);
  for (const agent of ['curl/8.5.0', 'Wget/1.21', 'Mozilla/5.0 (X11)'])
    assert.equal(await text(path, { 'user-agent': agent }), pretty, agent);
  for (const asked of ['true', '1', 'T']) assert.equal(await text(`${path}?pretty=${asked}`), pretty, asked);
  assert.equal(await text(path, { accept: 'application/json;pretty=1' }), pretty);
  assert.equal(await text(`${path}?pretty=no`, { 'user-agent': 'curl/8.5.0' }), plain);
  assert.equal(await text(`${path}?pretty=`), plain);
  for (const other of [maps, `${path}?x=y`, '/api', '/apis', '/apis/apps/v1', `${maps}/missing`]) {
    const line = await text(other);
    assert.ok(line.endsWith('}\n') && !line.slice(0, -1).includes('\n'), other);
    assert.match(await text(other, { 'user-agent': 'curl/8.5.0' }), /^\{\n {2}"[\s\S]*\n\}$/, other);
  }
  // What nobody can read is not laid out: the server would do nothing else meanwhile.
  await ask('POST', maps, { body: configMap('large', { a: 'x'.repeat(600_000) }) });
  await ask('POST', maps, { body: configMap('larger', { a: 'x'.repeat(600_000) }) });
  assert.match(await text(`${maps}/large`, { 'user-agent': 'curl/8.5.0' }), /^\{\n/);
  assert.match(await text(maps, { 'user-agent': 'curl/8.5.0' }), /^\{"/);
  for (const name of ['large', 'larger']) await ask('DELETE', `${maps}/${name}`);
  for (const document of ['/version', '/']) assert.match(await text(document), /^\{\n {2}"[\s\S]*\n\}$/, document);
});

test('autoscaling/v1 shows counts of nothing, v2 only the wanted one', async () => {
  const path = (version: string) => `/apis/autoscaling/${version}/namespaces/default/horizontalpodautoscalers`;
  const scaleTargetRef = { apiVersion: 'apps/v1', kind: 'Deployment', name: 'x' };
  const body = { apiVersion: 'autoscaling/v1', kind: 'HorizontalPodAutoscaler', metadata: { name: 'x' } };
  const made = await ask('POST', path('v1'), { body: { ...body, spec: { maxReplicas: 3, scaleTargetRef } } });
  assert.deepEqual(made.json.status, { currentReplicas: 0, desiredReplicas: 0 });
  assert.deepEqual((await ask('GET', `${path('v1')}/x`)).json.status, { currentReplicas: 0, desiredReplicas: 0 });
  assert.deepEqual((await ask('GET', `${path('v2')}/x`)).json.status, { desiredReplicas: 0 });
});

test('every reply tells its Audit-Id', async () => {
  const id = async (path: string, headers: Record<string, string> = {}) =>
    String((await ask('GET', path, { headers })).headers['audit-id']);
  const own = [
    await id(maps),
    await id('/version'),
    await id('/healthz'),
    await id('/nothing'),
    await id('/openapi/v3'),
  ];
  for (const one of own) assert.match(one, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  assert.equal(new Set(own).size, own.length);
  assert.equal(await id(`${maps}/missing`, { 'audit-id': 'mine' }), 'mine');
  const log = await ask('GET', '/api/v1/namespaces/default/pods/p/log', { headers: { 'audit-id': 'mine' } });
  assert.deepEqual(
    [log.body.toString(), log.headers['audit-id'], log.headers['cache-control']],
    ['a line\n', 'mine', 'no-cache, private'],
  );
});

test('large lists are compressed for who takes it', async () => {
  for (let i = 0; i < 40; i++)
    await ask('POST', '/api/v1/namespaces/large/configmaps', { body: configMap(`c${i}`, { text: 'x'.repeat(5000) }) });
  const zipped = await ask('GET', '/api/v1/namespaces/large/configmaps', { headers: { 'accept-encoding': 'gzip' } });
  assert.equal(zipped.headers['content-encoding'], 'gzip');
  assert.equal(JSON.parse(gunzipSync(zipped.body).toString()).items.length, 40);
});

test('HTTP/1.1 requests and upgrades', async () => {
  const options = { host: '127.0.0.1', port, ca, key: admin.key, cert: admin.certificate, ALPNProtocols: ['http/1.1'] };
  const status = await new Promise<number>((resolve, reject) => {
    const request = httpsRequest({ ...options, path: `${maps}/first` }, response => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    request.on('error', reject).end();
  });
  assert.equal(status, 200);
  const upgrade = (path: string, as: object = options) =>
    new Promise<string>((resolve, reject) => {
      const asked = { connection: 'Upgrade', upgrade: 'test', authorization: 'Bearer reader' };
      const request = httpsRequest({ ...as, path, headers: asked });
      request.on('upgrade', (_response, socket, head) => {
        let text = head.toString();
        socket.on('data', chunk => {
          text += chunk;
        });
        socket.on('end', () => resolve(text));
      });
      request.on('response', response => {
        response.resume();
        resolve(`status ${response.statusCode}`);
      });
      request.on('error', reject).end();
    });
  assert.equal(await upgrade('/api/v1/namespaces/default/pods/p/exec?command=sh&command=-c'), 'hello');
  assert.deepEqual(connections[0]!.query.getAll('command'), ['sh', '-c']);
  assert.equal(connections[0]!.attributes.name, 'p');
  assert.equal(await upgrade('/api/v1/namespaces/default/configmaps/first'), 'status 400');
  // Who may get may not open a shell, though a WebSocket begins as a GET.
  const reader = { ...options, key: undefined, cert: undefined };
  assert.equal(await upgrade('/api/v1/namespaces/default/pods/p/exec?command=sh', reader), 'status 403');
  assert.equal(await upgrade(`/api/v1/namespaces/default/pods/p/exec?command=${'a'.repeat(20_000)}`), 'hello');
  await upgrade('/api/v1/namespaces/default/pods/p/exec?command=ls&stdin=true&stdout=0&tty&container=c');
  assert.deepEqual(admitted.at(-1)!.object, {
    kind: 'PodExecOptions',
    apiVersion: 'v1',
    stdin: true,
    stdout: false,
    tty: true,
    container: 'c',
    command: ['ls'],
  });
});

test('what admission makes of the options is what the connection is opened with', async () => {
  const options = { host: '127.0.0.1', port, ca, key: admin.key, cert: admin.certificate };
  const path = '/api/v1/namespaces/default/pods/p/exec?command=swap&stdin=true&container=c';
  await new Promise<void>((resolve, reject) => {
    const request = httpsRequest({ ...options, path, headers: { connection: 'Upgrade', upgrade: 'test' } });
    request.on('upgrade', (_response, socket) => socket.resume().on('end', resolve)).on('error', reject);
    request.end();
  });
  const { query } = connections.at(-1)!;
  assert.deepEqual(Object.fromEntries(query), { container: 'c', command: 'a b', tty: 'true' });
  assert.deepEqual(query.getAll('command'), ['echo', 'a b']);
  assert.deepEqual((admitted.at(-1)!.object as never as { command: string[] }).command, ['echo', 'a b']);
  assert.equal('none' in admitted.at(-1)!.object!, false);
});

test('a watch over a WebSocket: an event a message, refusals before it opens', async () => {
  const open = (query: string) =>
    new WebSocket(`wss://127.0.0.1:${port}${maps}?watch=1&${query}`, { ca, key: admin.key, cert: admin.certificate });
  const { json } = await ask('POST', maps, { body: configMap('messages') });
  const socket = open(`resourceVersion=${json.metadata.resourceVersion}&fieldSelector=metadata.name%3Dmessages`);
  const events: any[] = [];
  const closed = new Promise<number>(resolve => socket.once('close', resolve));
  const two = new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.on('message', (data, isBinary) => {
      assert.equal(isBinary, false);
      if (events.push(JSON.parse(String(data))) === 2) resolve();
    });
  });
  await ask('DELETE', `${maps}/messages`);
  await ask('POST', maps, { body: configMap('messages') });
  await two;
  assert.deepEqual(
    events.map(({ type, object }) => `${type} ${object.metadata.name}`),
    ['DELETED messages', 'ADDED messages'],
  );
  socket.close();
  await closed;
  const refused = await new Promise<number | undefined>(resolve => {
    const bad = open('resourceVersion=x');
    bad.on('error', () => {});
    bad.once('unexpected-response', (request, response) => {
      resolve(response.statusCode);
      request.destroy();
    });
  });
  assert.equal(refused, 400);
  const ended = open('timeoutSeconds=1&resourceVersion=0');
  assert.equal(await new Promise<number>(resolve => ended.once('close', resolve)), 1000);
});

test('deprecated kinds say so', async () => {
  const { headers } = await ask('GET', '/api/v1/namespaces/default/endpoints');
  assert.equal(
    headers['warning'],
    '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"',
  );
});

test('the protobuf form of OpenAPI v2', async () => {
  const type = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf';
  const document = await ask('GET', '/openapi/v2', { headers: { accept: type } });
  assert.equal(document.headers['content-type'], type);
  assert.equal(document.body.subarray(0, 5).toString('latin1'), '\n\x032.0');
});

test('server-side apply: YAML or JSON, 201 then 200; other writes are recorded by their User-Agent', async () => {
  const apply = (query: string, body: string) =>
    ask('PATCH', `${maps}/applied${query}`, { body, headers: { 'content-type': 'application/apply-patch+yaml' } });
  const yaml = 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: applied\ndata:\n  mode: "0644"\n';
  const made = await apply('?fieldManager=helm', yaml);
  assert.equal(made.status, 201);
  assert.equal(made.json.data.mode, '0644');
  const again = await apply('?fieldManager=helm&force=true', JSON.stringify(configMap('applied', { mode: '0644' })));
  assert.equal(again.status, 200);
  assert.equal(again.json.metadata.resourceVersion, made.json.metadata.resourceVersion);
  const updated = await ask('PUT', `${maps}/applied`, {
    body: configMap('applied', { mode: '1' }),
    headers: { 'user-agent': 'curl/8.0 (linux)' },
  });
  assert.deepEqual(
    updated.json.metadata.managedFields.map((entry: any) => [entry.manager, entry.operation]),
    [['curl', 'Update']],
  );
  const conflicting = await apply('?fieldManager=helm', yaml);
  assert.equal(conflicting.status, 409);
  assert.deepEqual(conflicting.json.details.causes, [
    { reason: 'FieldManagerConflict', message: 'conflict with "curl" using v1', field: '.data.mode' },
  ]);
  assert.equal((await apply('', yaml)).status, 422);
  const forced = await ask('PATCH', `${maps}/applied?force=true`, {
    body: {},
    headers: { 'content-type': 'application/merge-patch+json' },
  });
  assert.match(forced.json.message, /force: Forbidden: may not be specified for non-apply patch$/);
});

test("requests are counted by upstream's labels, and what nobody serves under none", async () => {
  const namespace = '/api/v1/namespaces/counted/configmaps';
  await ask('POST', `${namespace}?dryRun=All`, { body: configMap('x', {}) });
  await ask('GET', namespace);
  await ask('PATCH', `${namespace}/x`, {
    headers: { 'content-type': 'application/apply-patch+yaml' },
    body: configMap('x', {}),
  });
  for (let i = 0; i < 3; i++) await ask('GET', `/apis/made.up/v${i}/things/${i}?dryRun=x${i}`);
  await ask('GET', '/livez');
  const page = (await ask('GET', '/metrics')).body.toString();
  assert.match(
    page,
    /^apiserver_request_total\{verb="GET",dry_run="",group="",version="",resource="",subresource="\/livez",scope="",component="",code="200"\} [1-9]/m,
  );
  const series = (verb: string, dryRun: string, scope: string) =>
    `apiserver_request_total{verb="${verb}",dry_run="${dryRun}",group="",version="v1",resource="configmaps",subresource="",scope="${scope}",component="apiserver"`;
  for (const [verb, dryRun, scope] of [
    ['POST', 'All', 'resource'],
    ['LIST', '', 'namespace'],
    ['APPLY', '', 'resource'],
  ] as const)
    assert.ok(page.includes(series(verb, dryRun, scope)), `${verb} ${scope}`);
  assert.ok(!page.includes('made.up') && !page.includes('dry_run="x'));
  assert.match(page, /^apiserver_current_inflight_requests\{request_kind="readOnly"\} \d/m);
  assert.match(page, /^apiserver_response_sizes_count\{verb="LIST",.*resource="configmaps"/m);
  assert.match(page, /^apiserver_request_body_size_bytes_count\{resource="configmaps",verb="patch"\} [1-9]/m);
  assert.match(page, /^authentication_attempts\{result="success"\} [1-9]/m);
  assert.match(page, /^authorization_attempts_total\{result="no-opinion"\} [1-9]/m);
  assert.match(page, /^apiserver_resource_objects\{group="",resource="configmaps"\} [1-9]/m);
  assert.match(page, /^apiserver_storage_objects\{resource="configmaps"\} [1-9]/m);
  assert.match(page, /^apiserver_storage_events_received_total\{group="",resource="configmaps"\} [1-9]/m);
  assert.match(page, /^apiserver_storage_size_bytes\{storage_cluster_id="etcd-0"\} 0$/m);
  assert.match(page, /^apiserver_resource_size_estimate_bytes\{group="",resource="configmaps"\} [1-9]\d\d/m);
});

test('a group with commas in its name is one group, by HTTP/1.1 and HTTP/2', async () => {
  const groups = ['cn=admins,dc=example', 'dev'];
  const headers = { 'impersonate-user': 'jane', 'impersonate-group': groups };
  const path = '/apis/authentication.k8s.io/v1/selfsubjectreviews';
  const body = JSON.stringify({ apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' });
  const seen: string[] = [];
  const authorize = (server as any).authorize;
  (server as any).authorize = (attributes: { user: UserInfo }) => {
    if (attributes.user.name === 'jane') seen.push(attributes.user.groups.join(' | '));
  };
  try {
    await ask('POST', path, { headers: { ...headers, 'content-type': 'application/json' }, body: JSON.parse(body) });
    await new Promise<void>((resolve, reject) => {
      const connection = { host: '127.0.0.1', port, ca, key: admin.key, cert: admin.certificate };
      const options = { ...connection, path, method: 'POST', headers, ALPNProtocols: ['http/1.1'] };
      const request = httpsRequest(options, response => response.resume().once('end', resolve));
      request.once('error', reject).end(body);
    });
  } finally {
    (server as any).authorize = authorize;
  }
  assert.deepEqual(seen, Array(2).fill('cn=admins,dc=example | dev | system:authenticated'));
});
