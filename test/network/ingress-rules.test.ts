/** Requests through a real HAProxy that the agent drives: hosts and paths, endpoints without reload, protocols, the log, deaths and returns. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { connect as connectH2, createServer as createH2Server } from 'node:http2';
import { type AddressInfo, connect as connectTcp, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { KubeObject } from '../../src/api/meta.ts';
import { metrics } from '../../src/base/metrics.ts';
import { NODES, SERVICES } from '../../src/client/resources.ts';
import { boundAccessLog } from '../../src/ingress/haproxy/access-log.ts';
import { RUNTIME_SOCKET } from '../../src/ingress/haproxy/process-files.ts';
import { ask } from '../../src/ingress/haproxy/runtime-api.ts';
import { canRunIngress, IngressBed, nameServer, until, type Web } from './ingress-bed.ts';

describe('ingress: rules', { skip: !canRunIngress }, () => {
  const bed = new IngressBed();
  let web: Web;

  before(async () => {
    web = await bed.startWeb();
  });
  after(() => bed.close());

  test('a request reaches its Service with the headers of a proxy, and what matches nothing gets 404', async () => {
    const seen = await bed.seen('plain.test', '/x?y=1', {
      headers: { 'X-Forwarded-For': '6.6.6.6', Proxy: 'http://evil' },
    });
    assert.equal(seen.backend, 'a');
    assert.equal(seen.url, '/x?y=1');
    assert.equal(seen.headers['x-forwarded-for'], '127.0.0.1');
    assert.equal(seen.headers['x-forwarded-proto'], 'http');
    assert.equal(seen.headers['x-forwarded-host'], 'plain.test');
    assert.equal(seen.headers['x-forwarded-port'], '80');
    assert.equal(seen.headers['x-real-ip'], '127.0.0.1');
    assert.match(seen.headers['x-request-id'] as string, /^[0-9A-F]{20,24}$/);
    assert.equal(seen.headers.proxy, undefined);
    assert.equal((await bed.get('nobody.test')).status, 404);
    // It says so once it answers.
    await until(
      'the node tells its ports',
      () =>
        bed.api.read(NODES, 'node-1')!.metadata.annotations?.['ingress.coxswain.dev/data-plane'] ===
        `${bed.httpPort}/${bed.httpsPort}`,
    );
  });

  test('hosts and paths by upstream precedence, new ones without a reload', async () => {
    const before = bed.reloads;
    bed.putIngress(
      'paths',
      {
        '/': 'web',
        '/foo': 'other',
        '/foo/bar/': 'web',
        '/exact': { pathType: 'Exact', backend: { service: { name: 'other', port: { number: 80 } } } },
      },
      { host: 'Paths.test'.toLowerCase() },
    );
    bed.putIngress('wild', { '/': 'other' }, { host: '*.wild.test' });
    bed.putIngress('precise', { '/only': 'web' }, { host: 'precise.wild.test' });
    await bed.answers('x.wild.test', '/', 200);
    await bed.answers('precise.wild.test', '/only', 200);
    const backend = async (host: string, path: string) => (await bed.seen(host, path)).backend;
    assert.equal(await backend('paths.test', '/'), 'a');
    assert.equal(await backend('PATHS.test:8080', '/foo'), 'b');
    assert.equal(await backend('paths.test', '/foo/'), 'b');
    assert.equal(await backend('paths.test', '/foo/x?q=/foo/bar'), 'b');
    assert.equal(await backend('paths.test', '/foobar'), 'a');
    assert.equal(await backend('paths.test', '/foo/bar'), 'a');
    assert.equal(await backend('paths.test', '/foo/barn'), 'b');
    assert.equal(await backend('paths.test', '/exact'), 'b');
    assert.equal(await backend('paths.test', '/exact/'), 'a');
    assert.equal(await backend('x.wild.test', '/'), 'b');
    assert.equal(await backend('precise.wild.test', '/only'), 'a');
    assert.equal((await bed.get('a.b.wild.test')).status, 404, 'a wildcard is one label');
    assert.equal((await bed.get('wild.test')).status, 404);
    assert.equal(await backend('paths.test', '/foo/../%66oo'), 'b', 'what is matched is what the backend sees');
    assert.equal((await bed.get('paths.test/foo', '/')).status, 400, 'a host has no slash');
    assert.equal(bed.reloads, before);
  });

  test('endpoints come and go without a reload, and a connection that is refused is tried elsewhere', async () => {
    const before = bed.reloads;
    const dead = await bed.backend('dead');
    bed.putService('web', [web.a, dead.port]);
    await until('both answer', async () => (await bed.seen('plain.test')).backend === 'dead');
    dead.server.close();
    dead.server.closeAllConnections();
    for (let i = 0; i < 10; i++) assert.equal((await bed.seen('plain.test')).backend, 'a');
    bed.putService('web', []);
    await bed.answers('plain.test', '/', 503);
    bed.putService('web', [web.a]);
    await bed.answers('plain.test', '/', 200);
    assert.equal(bed.reloads, before);
  });

  test('connections to endpoints are used again, also to those that came without a reload', async () => {
    const before = bed.reloads;
    const kept = await bed.backend('kept');
    let connections = 0;
    kept.server.on('connection', () => connections++);
    bed.putService('kept', [kept.port]);
    bed.putIngress('kept', { '/': 'kept' });
    await bed.answers('kept.test', '/', 200);
    connections = 0;
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    try {
      for (let i = 0; i < 20; i++) assert.equal((await bed.seen('kept.test', '/', { agent })).backend, 'kept');
    } finally {
      agent.destroy();
    }
    assert.equal(bed.reloads, before);
    assert.ok(connections <= 1, `${connections} connections for 20 requests`);
    // Nor do they keep a server that has left from being removed.
    bed.putService('kept', []);
    await bed.answers('kept.test', '/', 503);
    const servers = () => ask(join(bed.folder, 'ingress', RUNTIME_SOCKET), 'show servers state');
    await until('the server is gone', async () => !(await servers()).includes(`:${kept.port}`));
    assert.equal(bed.reloads, before);
  });

  test('what a dying endpoint took along is asked of another, unless it may have been done', async () => {
    const rude = await bed.backend('rude');
    rude.server.removeAllListeners('request');
    rude.server.on('request', (_, response) => response.socket!.destroy());
    bed.putService('dying', [rude.port]);
    bed.putIngress('dying', { '/': 'dying' });
    await bed.answers('dying.test', '/', 502);
    bed.putService('dying', [rude.port, web.a]);
    await bed.answers('dying.test', '/', 200);
    for (let i = 0; i < 8; i++) assert.equal((await bed.get('dying.test')).status, 200);
    const posted = async () => (await bed.get('dying.test', '/', { method: 'POST', body: 'x' })).status;
    assert.deepEqual([...new Set([await posted(), await posted(), await posted(), await posted()])].sort(), [200, 502]);
  });

  test('slow clients get their answer, and are in nobody’s way', async () => {
    const clients = Array.from({ length: 300 }, () => connectTcp(bed.httpPort, '127.0.0.1').on('error', () => {}));
    try {
      await Promise.all(clients.map(client => once(client, 'connect')));
      // Heads that never end, and bodies that do not come.
      for (const [at, client] of clients.entries())
        client.write(`POST / HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 10\r\n${at % 2 ? '\r\n' : 'X-Slow: y'}`);
      const slow = clients[0]!;
      let said = '';
      slow.on('data', bytes => (said += bytes));
      for (const part of ['es', '\r', '\n\r', '\n01', '234', '5', '678']) {
        slow.write(part);
        // Others meanwhile are served as ever.
        for (let i = 0; i < 5; i++) assert.equal((await bed.seen('plain.test')).backend, 'a');
      }
      assert.equal(said, '');
      slow.write('9');
      await until('the slow one is answered', () => /^HTTP\/1.1 200 [\s\S]*"x-slow":"yes"/.test(said));
    } finally {
      for (const client of clients) client.destroy();
    }
  });

  test('WebSockets and idle connections live through endpoint changes and many reloads', async () => {
    const socketServer = await bed.backend('ws');
    socketServer.server.on('upgrade', (_request, socket) => {
      socket.write(
        'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n',
      );
      socket.on('data', (data: Buffer) => socket.write(data));
      socket.on('error', () => {});
    });
    bed.putService('ws', [socketServer.port]);
    bed.putIngress('ws', { '/': 'ws' });
    await bed.answers('ws.test', '/', 200);
    const socket = connectTcp(bed.httpPort, '127.0.0.1');
    const handshake =
      'GET /chat HTTP/1.1\r\nHost: ws.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n';
    const reply = async (from: Socket, text: string) => {
      from.write(text);
      const closed = once(from, 'close').then(() => assert.fail('closed'));
      return String(((await Promise.race([once(from, 'data'), closed])) as Buffer[])[0]);
    };
    assert.match(await reply(socket, handshake), /^HTTP\/1.1 101/);
    const echo = async (text: string) => assert.equal(await reply(socket, text), text);
    await echo('one');
    const idle = connectTcp(bed.httpPort, '127.0.0.1');
    const askIdle = async () =>
      assert.match(await reply(idle, 'GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n'), /^HTTP\/1.1 200/);
    await askIdle();
    const before = bed.reloads;
    const reloads = 12;
    for (let at = 1; at <= reloads; at++) {
      bed.putIngress('reload', { '/': 'web' }, { annotations: { 'app-root': `/in-${at}` } });
      await until('the new path', async () => (await bed.get('reload.test', '/')).headers['location'] === `/in-${at}`);
    }
    assert.equal(bed.reloads, before + reloads);
    await echo('two');
    await askIdle();
    idle.destroy();
    bed.putService('ws', []);
    await bed.answers('ws.test', '/', 503);
    await echo('three');
    socket.destroy();
  });

  test('gRPC: HTTP/2 to the backend, trailers come through', async () => {
    const server = createH2Server((request, response) => {
      response.writeHead(200, { 'content-type': 'application/grpc' });
      response.addTrailers({ 'grpc-status': '0' });
      response.end(request.httpVersion);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    bed.track(server);
    bed.putService('grpc', [(server.address() as AddressInfo).port]);
    bed.putIngress('grpc', { '/': 'grpc' }, { annotations: { 'backend-protocol': 'GRPC' } });
    await bed.answers('grpc.test', '/', 200);
    const session = connectH2(`http://127.0.0.1:${bed.httpPort}`);
    const stream = session.request({
      ':path': '/pkg.Service/Method',
      ':authority': 'grpc.test',
      ':method': 'POST',
      te: 'trailers',
    });
    stream.end('hello');
    const trailers = once(stream, 'trailers');
    let text = '';
    for await (const part of stream) text += part;
    assert.equal(text, '2.0');
    assert.equal((await trailers)[0]['grpc-status'], '0');
    session.close();
  });

  test('a Service of type ExternalName leads out by name or address, and not to the node itself', async () => {
    const outside = await bed.backend('outside');
    const external = (name: string, externalName: string) =>
      bed.api.put(SERVICES, {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name, namespace: 'default' },
        spec: { type: 'ExternalName', externalName, ports: [{ name: 'http', port: outside.port }] },
      } as KubeObject);
    // An address of the loopback range would be the node's own: the whole of 127.0.0.0/8 is refused.
    external('self', '127.0.0.1');
    external('localhost', 'localhost');
    external('link', '169.254.169.254');
    external('named', 'outside.example');
    for (const name of ['self', 'localhost', 'link', 'named'])
      bed.putIngress(`external-${name}`, { '/': `${name}:http` });
    for (const name of ['self', 'localhost', 'link', 'named']) await bed.answers(`external-${name}.test`, '/', 503);
    const { dns, asked } = await nameServer();
    bed.track(dns);
    bed.nameservers = [`127.0.0.1:${dns.address().port}`];
    await bed.stopAgent();
    await bed.startAgent();
    external('named', 'elsewhere.example');
    await until('the name is asked', () => asked.has('elsewhere.example'));
    // The server's answer is the loopback address, which a name may well have: what is asked is where it leads.
    const reply = await bed.answers('external-named.test', '/', 200);
    assert.equal(JSON.parse(reply.text).backend, 'outside');
    assert.equal(JSON.parse(reply.text).headers.host, 'external-named.test');
  });

  test('the access log is JSON whatever a client sends; metrics count by route', async () => {
    const lines = () =>
      readFileSync(bed.accessLog, 'utf8')
        .split('\n')
        .filter(text => text.startsWith('{'))
        .map(text => JSON.parse(text) as Record<string, unknown>);
    const logged = async (path: string) => {
      await until('a line in the log', () => lines().some(line => line['path'] === path));
      return lines().find(line => line['path'] === path)!;
    };
    const path = '/%22,%22x%22:%22\\"}';
    await bed.get('plain.test', `${path}?q=1`, { headers: { 'X-Request-ID': 'a"b\\c' } });
    const line = await logged(path);
    assert.match(line['request'] as string, /^[0-9A-F]{20,24}$/, 'an identifier that could end a string is not kept');
    assert.equal(line['client'], '127.0.0.1');
    assert.equal(
      (await bed.seen('plain.test', '/kept', { headers: { 'X-Request-ID': 'mine-1' } })).headers['x-request-id'],
      'mine-1',
    );
    assert.equal((await logged('/kept'))['request'], 'mine-1');
    assert.equal(line['host'], 'plain.test');
    assert.equal(line['route'], 'default/plain web:http');
    assert.equal(line['status'], 200);
    assert.equal(line['endpoint'], `127.0.0.1:${web.a}`);
    await until('requests are counted', () =>
      /cox_ingress_requests_total\{namespace="default",ingress="plain",service="web:http",status="2xx"\} [1-9]/.test(
        metrics.render(),
      ),
    );
  });

  test('the access log goes on from its beginning when it has been moved aside', async () => {
    const text = () => readFileSync(bed.accessLog, 'utf8');
    const logged = async (path: string) => {
      await bed.get('plain.test', path);
      await until('a line in the log', () => text().includes(`${path.slice(1)}"`));
    };
    for (const path of ['/before', '/after']) {
      await logged(path);
      await boundAccessLog(bed.accessLog, { bytesMax: 1, pid: bed.masterPid! });
    }
    assert.match(readFileSync(`${bed.accessLog}.1`, 'utf8'), /^\{.*after".*\}\n$/);
    await logged('/last');
    assert.match(text(), /^\{.*last".*\}\n$/);
  });

  test('a ConfigMap of files is a backend', async () => {
    const odd = 'a"]]\\ \n\0ü';
    bed.putConfigMap('site', { 'index.html': '<h1>one</h1>', 'odd.txt': odd });
    const resource = { resource: { kind: 'ConfigMap', name: 'site' } };
    bed.putIngress('site', { '/': { backend: resource }, '/api': 'web' });
    bed.putIngress('bucket', {
      '/': { backend: { resource: { apiGroup: 'example.com', kind: 'Bucket', name: 'b' } } },
    });
    const page = await bed.answers('site.test', '/', 200);
    assert.equal(page.text, '<h1>one</h1>');
    assert.match(page.headers['content-type']!, /^text\/html/);
    assert.equal((await bed.get('site.test', '/deep/odd.txt')).text, odd);
    assert.equal((await bed.get('site.test', '/none')).status, 404);
    assert.equal((await bed.get('site.test', '/', { method: 'POST', body: 'x' })).status, 405);
    assert.equal((await bed.seen('site.test', '/api/x')).backend, 'a');
    assert.equal((await bed.get('bucket.test')).status, 503);
    bed.putConfigMap('site', { 'index.html': 'x'.repeat(500_000) });
    await until('the new page', async () => (await bed.get('site.test')).text.length === 500_000);
  });

  test('the agent dies and comes back; HAProxy dies and comes back', async () => {
    const pid = bed.masterPid!;
    await bed.stopAgent();
    assert.equal((await bed.get('plain.test')).status, 200);
    await bed.startAgent();
    const d = await bed.backend('d');
    bed.putService('web', [d.port]);
    await until('the new agent drives', async () => (await bed.seen('plain.test')).backend === 'd');
    assert.equal(bed.masterPid, pid, 'the same process');
    process.kill(pid, 'SIGKILL');
    await until('a new process', () => bed.masterPid !== undefined && bed.masterPid !== pid);
    await bed.answers('plain.test', '/', 200);
  });
});

/** Answers every question for an address with 127.0.0.1. */
