import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import * as http from 'node:http';
import * as http2 from 'node:http2';
import * as https from 'node:https';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { after, before, test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { WebSocket } from 'ws';
import type { Pod } from '../../api/core/v1.gen.ts';
import { ApiError } from '../../base/errors.ts';
import { seededRandom } from '../../base/random.ts';
import { ENDPOINT_SLICES, NODES, PODS, SERVICES } from '../../client/resources.ts';
import { ensurePki } from '../certificates/pki.ts';
import { FakeReader } from '../fake-reader.ts';
import { ServerConnection } from '../http2/connection.ts';
import { Http2Exchange } from '../http2/exchange.ts';
import { type ConnectContext, LOOPBACK_USER } from '../request.ts';
import { isProxyable } from './dial.ts';
import { KubeletConnections } from './kubelet-connection.ts';
import { podStreams } from './pod-streams.ts';
import { proxies } from './proxies.ts';
import { forwardedHeaders } from './tunnel.ts';

const BIG = 8 * 1024 * 1024;
const reader = new FakeReader();
const seen: string[] = [];
let directory: string;
let kubelet: https.Server;
let front: http.Server;
let front2: Server;
let agent: http.Agent;

async function listening(server: Server): Promise<number> {
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cox-streaming-'));
  const pki = await ensurePki(directory, { sans: [] });
  const serving = pki.issueServer({ commonName: 'system:node:n1', organizations: ['system:nodes'] }, ['127.0.0.1']);
  kubelet = https.createServer(
    { cert: serving.certificate, key: serving.key, ca: pki.ca, requestCert: true, rejectUnauthorized: true },
    (req, res) => {
      seen.push(`${req.method} ${req.url}`);
      if (req.url!.startsWith('/containerLogs/ns/waiting'))
        return void res.writeHead(400).end('container "c" in pod "waiting" is waiting to start: ContainerCreating');
      if (req.url!.includes('limitBytes=8388608')) return void res.writeHead(200).end(Buffer.alloc(BIG, 'x'));
      if (req.url!.startsWith('/echo')) return void req.pipe(res);
      if (req.url!.startsWith('/moved')) return void res.writeHead(302, { location: '/there?x=1' }).end();
      res
        .writeHead(200, { 'content-type': 'text/plain' })
        .end(`hello from ${req.url}, auth ${req.headers.authorization}`);
    },
  );
  kubelet.on('upgrade', (req, socket, head) => {
    seen.push(
      `${req.method} ${req.url} ${req.headers.upgrade} ${req.headers['sec-websocket-protocol']} ${req.headers.authorization}`,
    );
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n');
    if (head.length) socket.write(head);
    (socket as typeof socket & { allowHalfOpen: boolean }).allowHalfOpen = true;
    socket.pipe(socket);
  });
  const port = await listening(kubelet);
  const node = {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'n1' },
    status: {
      addresses: [{ type: 'InternalIP', address: '127.0.0.1' }],
      daemonEndpoints: { kubeletEndpoint: { Port: port } },
    },
  };
  reader.put(NODES, node as never);
  const pod = (name: string, containers: string[], more: object = {}): Pod =>
    ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: 'ns' },
      spec: { nodeName: 'n1', containers: containers.map(container => ({ name: container })), ...more },
      status: { podIP: '127.0.0.1' },
    }) as Pod;
  for (const object of [
    pod('p', ['c']),
    pod('two', ['a', 'b'], { initContainers: [{ name: 'i' }] }),
    pod('waiting', ['c']),
    pod('unbound', ['c'], { nodeName: undefined }),
  ])
    reader.put(PODS, object);

  const kubelets = new KubeletConnections({ reader: () => reader, client: pki.kubeletClient, ca: pki.ca });
  const handlers = [
    ...podStreams({
      reader: () => reader,
      kubelets,
      authorizer: { authorize: ({ verb }) => ({ allowed: verb === 'create', reason: '' }) },
    }),
    ...proxies({ reader: () => reader, kubelets, random: seededRandom(1), isProxyable: () => true }),
  ];
  // Stands in for the API server's HTTP layer: /resource/name/subresource[/rest].
  const serve = async (context: Pick<ConnectContext, 'req' | 'res' | 'socket' | 'head'>) => {
    const url = new URL(context.req.url!, 'http://x');
    const [, resource = '', name = '', subresource = '', ...rest] = url.pathname.split('/');
    const handler = handlers.find(
      candidate => candidate.of.resource === resource && candidate.subresource === subresource,
    )!;
    const attributes = {
      user: LOOPBACK_USER,
      verb: 'get',
      isResource: true,
      group: '',
      version: 'v1',
      resource,
      subresource,
      namespace: resource === 'nodes' ? '' : 'ns',
      name: decodeURIComponent(name),
      path: url.pathname,
    };
    try {
      await handler.handle({
        ...context,
        attributes,
        query: url.searchParams,
        rest: rest.length ? `/${rest.join('/')}` : '',
      });
    } catch (error) {
      const status = error instanceof ApiError ? error.status : { code: 500, message: String(error) };
      if (context.res) {
        context.res.statusCode = status.code;
        context.res.end(status.message ?? '');
      } else context.socket!.end(`HTTP/1.1 ${status.code} X\r\nConnection: close\r\n\r\n${status.message}`);
    }
  };
  front = http.createServer((req, res) => void serve({ req, res }));
  front.on('upgrade', (req, socket, head) => void serve({ req, socket: socket as Duplex, head }));
  front2 = createServer(
    socket => void new ServerConnection(socket, { handle: stream => serve(new Http2Exchange(stream).raw()) }),
  );
  await listening(front);
  await listening(front2);
  agent = new http.Agent({ keepAlive: false });
});
after(async () => {
  agent.destroy();
  front.closeAllConnections();
  kubelet.closeAllConnections();
  for (const server of [front, front2, kubelet]) server.close();
  await rm(directory, { recursive: true, force: true });
});

const port = () => (front.address() as AddressInfo).port;
async function ask(
  path: string,
  options: { method?: string; body?: Buffer; headers?: Record<string, string> } = {},
): Promise<{ status: number; body: Buffer; headers: http.IncomingHttpHeaders }> {
  return new Promise((resolve, reject) => {
    const request = http.request(
      { port: port(), host: '127.0.0.1', path, agent, method: options.method ?? 'GET', headers: options.headers ?? {} },
      async reply => {
        const chunks: Buffer[] = [];
        for await (const chunk of reply) chunks.push(chunk as Buffer);
        resolve({ status: reply.statusCode!, body: Buffer.concat(chunks), headers: reply.headers });
      },
    );
    request.once('error', reject);
    request.end(options.body);
  });
}
const text = async (path: string) => {
  const { status, body } = await ask(path);
  return `${status} ${body}`;
};

test("logs: the container, the parameters, and the kubelet's refusal", async () => {
  assert.match(
    await text('/pods/p/log?follow=true&tailLines=5'),
    /^200 hello from \/containerLogs\/ns\/p\/c\?follow=true&tailLines=5,/,
  );
  assert.equal(
    await text('/pods/two/log'),
    '400 a container name must be specified for pod two, choose one of: [a b] or one of the init containers: [i]',
  );
  assert.equal(await text('/pods/two/log?container=z'), '400 container z is not valid for pod two');
  assert.equal(await text('/pods/gone/log'), '404 pods "gone" not found');
  assert.equal(await text('/pods/unbound/log'), '200 ');
  assert.equal(
    await text('/pods/waiting/log'),
    '400 container "c" in pod "waiting" is waiting to start: ContainerCreating',
  );
  assert.match(
    await text('/pods/p/log?tailLines=-1'),
    /^422 PodLogOptions "p" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0/,
  );
  // Options are looked at before the pod.
  assert.match(await text('/pods/gone/log?tailLines=-1'), /^422 PodLogOptions "gone" is invalid/);
  assert.equal(
    await text('/pods/gone/log?sinceTime=x'),
    '400 parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006"',
  );
});

test('logs over HTTP/2, larger than any window', async () => {
  const session = http2.connect(`http://127.0.0.1:${(front2.address() as AddressInfo).port}`);
  const stream = session.request({ ':path': `/pods/p/log?limitBytes=${BIG}` });
  let size = 0;
  for await (const chunk of stream) size += (chunk as Buffer).length;
  session.close();
  assert.equal(size, BIG);
});

test('logs over a WebSocket: in the form of its subprotocol, closed at their end', async () => {
  const read = (path: string, ...protocols: string[]) =>
    new Promise<string>(resolve => {
      const socket = new WebSocket(`ws://127.0.0.1:${port()}${path}`, protocols);
      let told = '';
      socket.on('error', () => {});
      socket.once('unexpected-response', (request, response) => {
        resolve(`status ${response.statusCode}`);
        request.destroy();
      });
      socket.on('message', (data, isBinary) => {
        told += isBinary ? String(data) : Buffer.from(String(data), 'base64');
      });
      socket.once('close', code => resolve(`${code} ${socket.protocol} ${told.split(',')[0]}`));
    });
  const hello = 'hello from /containerLogs/ns/p/c';
  assert.equal(await read('/pods/p/log'), `1000  ${hello}`);
  assert.equal(await read('/pods/p/log', 'binary.k8s.io'), `1000 binary.k8s.io ${hello}`);
  assert.equal(await read('/pods/p/log', 'base64.binary.k8s.io'), `1000 base64.binary.k8s.io ${hello}`);
  assert.equal(await read('/pods/p/log', 'v4.channel.k8s.io'), 'status 403');
  assert.equal(await read('/pods/unbound/log'), '1000  ');
  assert.equal(await read('/pods/waiting/log'), 'status 400');
});

test("an upgrade is a raw tunnel: both ways, half closed, without the client's credentials", async () => {
  const data = randomBytes(BIG);
  const socket = connect({ port: port(), host: '127.0.0.1', allowHalfOpen: true });
  socket.write(
    'POST /pods/p/exec?command=sh&command=-c&stdin=true&stdout=true&container=c HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nAuthorization: Bearer secret\r\nSec-WebSocket-Protocol: v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0\r\n\r\n',
  );
  const received: Buffer[] = [];
  const ended = new Promise<void>(resolve => socket.once('end', resolve));
  socket.on('data', chunk => received.push(chunk as Buffer));
  socket.write(data);
  socket.end();
  await ended;
  const all = Buffer.concat(received);
  const at = all.indexOf('\r\n\r\n') + 4;
  assert.match(all.subarray(0, at).toString(), /^HTTP\/1\.1 101 /);
  assert.ok(all.subarray(at).equals(data));
  assert.equal(
    seen.at(-1),
    'POST /exec/ns/p/c?input=1&output=1&command=sh&command=-c SPDY/3.1 v5.channel.k8s.io undefined',
  );
});

test('without an upgrade, without a node, and with a dead kubelet', async () => {
  assert.equal(await text('/pods/p/exec?command=x'), '400 Upgrade request required');
  assert.equal(await text('/pods/unbound/attach'), '400 pod unbound does not have a host assigned');
  reader.put(NODES, {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'dead' },
    status: {
      addresses: [{ type: 'InternalIP', address: '127.0.0.1' }],
      daemonEndpoints: { kubeletEndpoint: { Port: 1 } },
    },
  } as never);
  reader.put(PODS, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'lost', namespace: 'ns' },
    spec: { nodeName: 'dead', containers: [{ name: 'c' }] },
  } as never);
  assert.match(
    await text('/pods/lost/log'),
    /^500 Get "https:\/\/127\.0\.0\.1:1\/containerLogs\/ns\/lost\/c": dial tcp 127\.0\.0\.1:1: connect: connection refused/,
  );
  const { status, body } = await ask('/pods/lost/portforward', {
    headers: { connection: 'Upgrade', upgrade: 'SPDY/3.1' },
  });
  assert.equal(`${status} ${body}`, '500 error dialing backend: dial tcp 127.0.0.1:1: connect: connection refused');
});

test('proxies: paths, methods, bodies, redirects, credentials kept back', async () => {
  const backend = http.createServer(
    (req, res) =>
      void (req.url!.startsWith('/moved')
        ? res.writeHead(302, { location: '/there?x=1' }).end()
        : req.url === '/packed'
          ? res
              .writeHead(200, { 'content-type': 'text/html', 'content-encoding': 'gzip' })
              .end(gzipSync('<a href="/next">'))
          : req.url === '/torn'
            ? res
                .writeHead(200, { 'content-type': 'text/html', 'content-encoding': 'gzip' })
                .end(gzipSync('<a href="/next">').subarray(0, 20))
            : req.url === '/page'
              ? res.setHeader('content-type', 'text/html; charset=utf-8').end('<a href="/next">')
              : req.method === 'PUT'
                ? req.pipe(res)
                : res.end(`${req.method} ${req.url} ${req.headers.authorization} ${req.headers['x-forwarded-uri']}`)),
  );
  const backendPort = await listening(backend);
  assert.equal(
    await text(`/pods/p:${backendPort}/proxy/a%20b/c?d=e`),
    `200 GET /a%20b/c?d=e undefined /pods/p:${backendPort}/proxy/a%20b/c`,
  );
  assert.equal(await text(`/pods/p:${backendPort}/proxy/page`), `200 <a href="/pods/p:${backendPort}/proxy/next">`);
  const packed = await ask(`/pods/p:${backendPort}/proxy/packed`);
  assert.equal(packed.headers['content-encoding'], 'gzip');
  assert.equal(gunzipSync(packed.body).toString(), `<a href="/pods/p:${backendPort}/proxy/next">`);
  await assert.rejects(ask(`/pods/p:${backendPort}/proxy/torn`));
  const body = randomBytes(BIG);
  const echoed = await ask(`/pods/p:${backendPort}/proxy/x`, {
    method: 'PUT',
    body,
    headers: { authorization: 'Bearer secret' },
  });
  assert.ok(echoed.body.equals(body));
  assert.equal((await ask(`/pods/p:${backendPort}/proxy`)).headers.location, `/pods/p:${backendPort}/proxy/`);
  assert.equal(
    (await ask(`/pods/p:${backendPort}/proxy/moved`)).headers.location,
    `/pods/p:${backendPort}/proxy/there?x=1`,
  );

  reader.put(SERVICES, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'ns' },
    spec: { ports: [{ name: 'http', port: 80 }] },
  } as never);
  assert.equal(await text('/services/web:80/proxy/'), '503 no endpoints available for service "web"');
  reader.put(ENDPOINT_SLICES, {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'web-1', namespace: 'ns', labels: { 'kubernetes.io/service-name': 'web' } },
    endpoints: [{ addresses: ['127.0.0.1'], conditions: { ready: true } }],
    ports: [{ name: 'http', port: backendPort }],
  } as never);
  assert.match(await text('/services/web:80/proxy/s'), /^200 GET \/s /);
  assert.match(await text('/services/http:web:http/proxy/s'), /^200 GET \/s /);
  assert.equal(await text('/services/web:81/proxy/'), '503 no service port "81" found for service "web"');
  assert.match(await text('/nodes/n1/proxy/healthz'), /^200 hello from \/healthz/);
  backend.close();
  backend.closeAllConnections();
});

test('nothing of the machine itself is reachable', () => {
  for (const address of [
    '127.0.0.1',
    '0.0.0.0',
    '169.254.169.254',
    '224.0.0.1',
    '255.255.255.255',
    '::1',
    '::',
    'fe80::1',
    '::ffff:127.0.0.1',
    '::ffff:7f00:1',
    'localhost',
    '',
  ])
    assert.equal(isProxyable(address), false, address);
  for (const address of ['10.0.0.1', '172.30.0.2', 'fd00::1', '8.8.8.8'])
    assert.equal(isProxyable(address), true, address);
});

test('forwarded headers lose what belongs to the connection or the client', () => {
  assert.deepEqual(
    forwardedHeaders(
      {
        connection: 'keep-alive, x-hop',
        'x-hop': '1',
        'x-kept': '2',
        'impersonate-user': 'a',
        authorization: 'b',
        host: 'c',
      },
      { upgrade: false },
    ),
    { 'x-kept': '2' },
  );
});
