/** Requests through a real HAProxy that the agent's ingress drives: routing, endpoints without reload, TLS, protocols, annotations. */

import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect as connectH2, createServer as createH2Server } from 'node:http2';
import { type AddressInfo, connect as connectTcp } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import type { KubeObject } from '../../src/api/meta.ts';
import { metrics } from '../../src/base/metrics.ts';
import { NODES, SERVICES } from '../../src/client/resources.ts';
import { HaproxyProcess } from '../../src/ingress/haproxy/haproxy-process.ts';
import { IngressBed, until } from './ingress-bed.ts';

const can = process.getuid?.() === 0 && HaproxyProcess.isInstalled();

describe('ingress', { skip: !can }, () => {
  const bed = new IngressBed();
  let [a, b]: { port: number }[] = [];

  before(async () => {
    await bed.start();
    a = await bed.backend('a');
    b = await bed.backend('b');
    bed.putService('web', [a.port]);
    bed.putService('other', [b.port]);
    bed.putIngress('plain', { '/': 'web' });
    // The first exact path, wildcard and redirect cost a reload, which later ones do not.
    bed.putIngress(
      'first',
      { '/': { pathType: 'Exact' } },
      { host: '*.first.test', tls: [{ hosts: ['*.first.test'] }] },
    );
    await bed.answers('plain.test', '/', 200);
    await bed.answers('x.first.test', '/', 308);
  });
  after(() => bed.close());

  const reloads = () =>
    (readFileSync(`${bed.folder}/ingress/haproxy.log`, 'utf8').match(/Loading success/g) ?? []).length;

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
    assert.match(seen.headers['x-request-id'] as string, /^[0-9a-f-]{36}$/);
    assert.equal(seen.headers.proxy, undefined);
    assert.equal((await bed.get('nobody.test')).status, 404);
    assert.equal(
      bed.api.read(NODES, 'node-1')!.metadata.annotations!['ingress.coxswain.dev/data-plane'],
      `${bed.httpPort}/${bed.httpsPort}`,
    );
  });

  test('hosts and paths by upstream precedence, new ones without a reload', async () => {
    const before = reloads();
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
    assert.equal(reloads(), before);
  });

  test('endpoints come and go without a reload, and a connection that is refused is tried elsewhere', async () => {
    const before = reloads();
    const dead = await bed.backend('dead');
    bed.putService('web', [a!.port, dead.port]);
    await until('both answer', async () => (await bed.seen('plain.test')).backend === 'dead');
    dead.server.close();
    dead.server.closeAllConnections();
    for (let i = 0; i < 10; i++) assert.equal((await bed.seen('plain.test')).backend, 'a');
    bed.putService('web', []);
    await bed.answers('plain.test', '/', 503);
    bed.putService('web', [a!.port]);
    await bed.answers('plain.test', '/', 200);
    assert.equal(reloads(), before);
  });

  test('TLS by SNI, rotation without a dropped connection, the default certificate for the rest', async () => {
    const before = reloads();
    await bed.putCertificate('cert', ['tls.test', '*.many.test']);
    bed.putIngress('tls', { '/': 'web' }, { tls: [{ hosts: ['tls.test'], secretName: 'cert' }] });
    bed.putIngress(
      'many',
      { '/': 'web' },
      { host: '*.many.test', tls: [{ hosts: ['*.many.test'], secretName: 'cert' }] },
    );
    bed.putIngress('bad', { '/': 'web' }, { tls: [{ hosts: ['bad.test'], secretName: 'nosuch' }] });
    const open = async (servername: string) => {
      const socket = connectTls({ host: '127.0.0.1', port: bed.httpsPort, servername, rejectUnauthorized: false });
      await once(socket, 'secureConnect');
      return socket;
    };
    const subject = async (name: string) => {
      const socket = await open(name);
      const found = socket.getPeerCertificate().subject.CN;
      socket.destroy();
      return found;
    };
    await until('certificate shown', async () => (await subject('tls.test')) === 'cert-1');
    await until('that of the wildcard', async () => (await subject('x.many.test')) === 'cert-1');
    assert.equal(await subject('bad.test'), 'default');
    assert.equal(await subject('plain.test'), 'default');

    // Certificates come before routes.
    await bed.answers('tls.test', '/t', 308);
    const kept = await open('tls.test');
    const ask = async () => {
      kept.write('GET /t HTTP/1.1\r\nHost: tls.test\r\n\r\n');
      const [answer] = await once(kept, 'data');
      return String(answer);
    };
    assert.match(await ask(), /"x-forwarded-proto":"https"/);
    await bed.putCertificate('cert', ['tls.test', '*.many.test'], 2);
    await until('new certificate shown', async () => (await subject('tls.test')) === 'cert-2');
    assert.match(await ask(), /^HTTP\/1.1 200/);
    kept.destroy();

    const redirected = await bed.get('tls.test', '/a?b=c');
    assert.equal(redirected.status, 308);
    assert.equal(redirected.headers.location, 'https://tls.test/a?b=c');
    assert.equal((await bed.get('plain.test')).status, 200);
    bed.removeIngress('tls');
    await until('certificate gone', async () => (await subject('tls.test')) === 'default');
    assert.equal(reloads(), before);
  });

  test('HTTP/2 to clients, over TLS and by prior knowledge', async () => {
    for (const url of [`https://127.0.0.1:${bed.httpsPort}`, `http://127.0.0.1:${bed.httpPort}`]) {
      const session = connectH2(url, { rejectUnauthorized: false });
      const stream = session.request({ ':path': '/h2', ':authority': 'plain.test' });
      const [headers] = await once(stream, 'response');
      assert.equal(headers[':status'], 200);
      let text = '';
      for await (const part of stream) text += part;
      assert.equal(JSON.parse(text).url, '/h2');
      session.close();
    }
  });

  test('WebSockets live through endpoint changes and a reload', async () => {
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
    socket.write(
      'GET /chat HTTP/1.1\r\nHost: ws.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
    assert.match(String((await once(socket, 'data'))[0]), /^HTTP\/1.1 101/);
    const echo = async (text: string) => {
      socket.write(text);
      assert.equal(String((await once(socket, 'data'))[0]), text);
    };
    await echo('one');
    const before = reloads();
    bed.putIngress('reload', { '/': 'web' }, { annotations: { 'app-root': '/in' } });
    await bed.answers('reload.test', '/', 302);
    assert.equal(reloads(), before + 1);
    await echo('two');
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

  test('large bodies both ways, and a limit where one is asked for', async () => {
    const sizes = await bed.backend('sizes', (_seen, response, request) => {
      let bytes = 0;
      request.on('data', (part: Buffer) => {
        bytes += part.length;
      });
      request.on('end', () => response.end(`${bytes}`));
      return true;
    });
    bed.putService('sizes', [sizes.port]);
    bed.putIngress('sizes', { '/': 'sizes' });
    bed.putIngress('small', { '/': 'sizes' }, { annotations: { 'proxy-body-size': '1k' } });
    await bed.answers('small.test', '/', 200);
    const body = 'x'.repeat(20_000_000);
    assert.equal((await bed.get('sizes.test', '/', { method: 'PUT', body })).text, String(body.length));
    assert.equal((await bed.get('small.test', '/', { method: 'POST', body: 'x'.repeat(1024) })).text, '1024');
    assert.equal((await bed.get('small.test', '/', { method: 'POST', body: 'x'.repeat(1025) })).status, 413);
    assert.equal(
      (await bed.get('small.test', '/', { method: 'POST', body: 'x', headers: { 'Transfer-Encoding': 'chunked' } }))
        .status,
      411,
    );
  });

  test('rewriting, redirects, headers and CORS as ingress-nginx has them', async () => {
    bed.putIngress(
      'rewrite',
      { '/api(/|$)(.*)': { pathType: 'ImplementationSpecific' } },
      { annotations: { 'rewrite-target': '/v1/$2' } },
    );
    bed.putIngress('moved', { '/': 'web' }, { annotations: { 'permanent-redirect': 'https://new.test$request_uri' } });
    bed.putIngress(
      'temporal',
      { '/': 'web' },
      { annotations: { 'temporal-redirect': 'https://t.test/', 'temporal-redirect-code': '307' } },
    );
    bed.putIngress('forced', { '/': 'web' }, { annotations: { 'force-ssl-redirect': 'true' } });
    bed.putIngress(
      'vhost',
      { '/': 'web' },
      { annotations: { 'upstream-vhost': 'inner.local', 'x-forwarded-prefix': '/pre', 'server-alias': 'alias.test' } },
    );
    bed.putConfigMap('extra', { 'X-Extra': "it's 100% there" });
    bed.putIngress(
      'cors',
      { '/': 'web' },
      {
        annotations: {
          'enable-cors': 'true',
          'cors-allow-origin': 'https://*.app.test, http://localhost:3000',
          'custom-headers': 'default/extra',
        },
      },
    );
    await bed.answers('cors.test', '/', 200);
    assert.equal((await bed.seen('rewrite.test', '/api/users?x=1')).url, '/v1/users?x=1');
    assert.equal((await bed.seen('rewrite.test', '/API')).url, '/v1/');
    assert.equal((await bed.get('rewrite.test', '/apis')).status, 404);
    const moved = await bed.get('moved.test', '/a?b');
    assert.deepEqual([moved.status, moved.headers.location], [301, 'https://new.test/a?b']);
    assert.equal((await bed.get('temporal.test')).status, 307);
    assert.equal((await bed.get('forced.test')).status, 308);
    for (const host of ['vhost.test', 'alias.test']) {
      const seen = await bed.seen(host, '/');
      assert.equal(seen.headers.host, 'inner.local');
      assert.equal(seen.headers['x-forwarded-prefix'], '/pre');
      assert.equal(seen.headers['x-forwarded-host'], host);
    }
    const preflight = await bed.get('cors.test', '/', { method: 'OPTIONS', headers: { Origin: 'https://x.app.test' } });
    assert.equal(preflight.status, 204);
    assert.equal(preflight.headers['access-control-allow-origin'], 'https://x.app.test');
    const foreign = await bed.get('cors.test', '/', { headers: { Origin: 'https://evil.test' } });
    assert.equal(foreign.headers['access-control-allow-origin'], undefined);
    assert.equal(foreign.headers['x-extra'], "it's 100% there");
  });

  test('what a backend says of itself is told by the names that clients know', async () => {
    const inner = await bed.backend('inner', (_, response) => {
      response.writeHead(302, {
        Location: 'http://inner.local/app/x?y',
        'Set-Cookie': ['a=1; Path=/app/x; Domain=inner.local', 'b=2; path=/other'],
      });
      response.end();
      return true;
    });
    bed.putService('inner', [inner.port]);
    bed.putIngress(
      'names',
      { '/': 'inner' },
      {
        annotations: {
          'proxy-redirect-from': 'http://inner.local/app/',
          'proxy-redirect-to': 'https://names.test/',
          'proxy-cookie-path': '/app/ /',
          'proxy-cookie-domain': 'inner.local names.test',
        },
      },
    );
    const reply = await bed.answers('names.test', '/', 302);
    assert.equal(reply.headers.location, 'https://names.test/x?y');
    assert.deepEqual(reply.headers['set-cookie'], ['a=1; Path=/x; Domain=names.test', 'b=2; path=/other']);
  });

  test('who may come in: addresses, passwords of htpasswd and crypt, another server', async () => {
    bed.putIngress('closed', { '/': 'web' }, { annotations: { 'whitelist-source-range': '10.0.0.0/8' } });
    bed.putIngress('open', { '/': 'web' }, { annotations: { 'whitelist-source-range': '10.0.0.0/8,127.0.0.0/8' } });
    bed.putIngress('denied', { '/': 'web' }, { annotations: { 'denylist-source-range': '127.0.0.1' } });
    bed.putIngress('broken', { '/': 'web' }, { annotations: { 'whitelist-source-range': 'not-an-address' } });
    // By htpasswd's methods and by crypt(3); the password is "secret" but for one.
    const users = [
      'anna:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/',
      'long:$apr1$xy$KWmjAYxMqmqTjytotPjDu.',
      'sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=',
      'crypt:$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.',
    ];
    bed.putSecret('users', { auth: users.join('\n') });
    bed.putIngress(
      'basic',
      { '/': 'web' },
      { annotations: { 'auth-type': 'basic', 'auth-secret': 'users', 'auth-realm': 'Say "who"' } },
    );
    bed.putIngress('nosecret', { '/': 'web' }, { annotations: { 'auth-type': 'basic', 'auth-secret': 'nosuch' } });
    const auth = await bed.backend('auth', (seen, response) => {
      const token = seen.headers['x-token'];
      response.statusCode = token === 'good' ? 200 : token === 'bad' ? 403 : 401;
      response.setHeader('X-User', `user of ${seen.headers['x-original-url']}`);
      response.end();
      return true;
    });
    bed.putIngress(
      'external',
      { '/': 'web' },
      {
        annotations: { 'auth-url': `http://127.0.0.1:${auth.port}/check`, 'auth-response-headers': 'X-User' },
      },
    );
    bed.putIngress(
      'signin',
      { '/': 'web' },
      {
        annotations: {
          'auth-url': `http://127.0.0.1:${auth.port}/check`,
          'auth-signin': 'https://login.test/?rd=$escaped_request_uri',
        },
      },
    );
    await bed.answers('external.test', '/', 401);
    await bed.answers('signin.test', '/', 302);
    assert.equal((await bed.get('closed.test')).status, 403);
    assert.equal((await bed.get('open.test')).status, 200);
    assert.equal((await bed.get('denied.test')).status, 403);
    assert.equal((await bed.get('broken.test')).status, 503, 'a guard that is not understood shuts');
    const basic = (user: string, password: string) => ({
      headers: { Authorization: `Basic ${btoa(`${user}:${password}`)}` },
    });
    const refused = await bed.get('basic.test');
    assert.equal(refused.status, 401);
    assert.match(refused.headers['www-authenticate']!, /realm="Say/);
    for (const user of ['anna', 'sha', 'crypt'])
      assert.equal((await bed.get('basic.test', '/', basic(user, 'secret'))).status, 200, user);
    const long = 'a much longer password than sixteen bytes';
    for (const status of [200, 200])
      assert.equal((await bed.get('basic.test', '/', basic('long', long))).status, status);
    assert.equal((await bed.get('basic.test', '/', basic('anna', 'Secret'))).status, 401);
    assert.equal((await bed.get('basic.test', '/', basic('crypt', 'Secret'))).status, 401);
    assert.equal((await bed.get('basic.test', '/', basic('sha', 'Secret'))).status, 401);
    assert.equal((await bed.get('nosecret.test', '/', basic('sha', 'secret'))).status, 401);
    const signIn = await bed.get('signin.test', '/a?b=c');
    assert.equal(signIn.headers.location, 'https://login.test/?rd=%2Fa%3Fb%3Dc');
    assert.equal((await bed.get('external.test', '/', { headers: { 'X-Token': 'bad' } })).status, 403);
    const seen = await bed.seen('external.test', '/p', { headers: { 'X-Token': 'good', 'X-User': 'forged' } });
    assert.equal(seen.headers['x-user'], 'user of http://external.test/p');
  });

  test('sticky sessions stay with their endpoint, canaries get their share, hashes their endpoint', async () => {
    bed.putService('both', [a!.port, b!.port]);
    bed.putIngress(
      'sticky',
      { '/': 'both' },
      { annotations: { affinity: 'cookie', 'session-cookie-name': 'ROUTE', 'session-cookie-samesite': 'Lax' } },
    );
    bed.putIngress('hash', { '/': 'both' }, { annotations: { 'upstream-hash-by': '$http_x_key' } });
    bed.putIngress('main', { '/': 'web' }, { host: 'canary.test' });
    bed.putIngress(
      'canary',
      { '/': 'other' },
      {
        host: 'canary.test',
        annotations: { canary: 'true', 'canary-by-header': 'X-Canary', 'canary-weight': '30' },
      },
    );
    await until('the canary gets something', async () =>
      (await bed.get('canary.test', '/', { headers: { 'X-Canary': 'always' } })).text.includes('"b"'),
    );
    await bed.answers('sticky.test', '/', 200);
    const first = await bed.get('sticky.test');
    const cookie = first.headers['set-cookie']![0]!;
    assert.match(cookie, /^ROUTE=[0-9a-f]+;.*SameSite=Lax/);
    const home = JSON.parse(first.text).backend;
    for (let i = 0; i < 6; i++)
      assert.equal((await bed.seen('sticky.test', '/', { headers: { Cookie: cookie.split(';')[0]! } })).backend, home);
    const both = new Set<string>();
    for (let i = 0; i < 8; i++) both.add((await bed.seen('sticky.test')).backend);
    assert.equal(both.size, 2);
    // An endpoint that comes later gets its cookie too.
    const c = await bed.backend('c');
    bed.putService('both', [c.port]);
    await until('the later endpoint is sticky', async () => {
      const { headers, text } = await bed.get('sticky.test');
      return (
        text.includes('"c"') &&
        (headers['set-cookie']?.[0] ?? '').startsWith('ROUTE=') &&
        !headers['set-cookie']![0]!.startsWith('ROUTE=;')
      );
    });
    bed.putService('both', [a!.port, b!.port]);
    const answering = new Set<string>();
    await until(
      'all are back',
      async () => answering.add((await bed.seen('sticky.test')).backend).size >= 2 && !answering.delete('c'),
    );
    for (const key of ['k1', 'k2', 'k3']) {
      const homes = new Set<string>();
      for (let i = 0; i < 4; i++) homes.add((await bed.seen('hash.test', '/', { headers: { 'X-Key': key } })).backend);
      assert.equal(homes.size, 1);
    }
    assert.equal((await bed.seen('canary.test', '/', { headers: { 'X-Canary': 'never' } })).backend, 'a');
    let canaries = 0;
    for (let i = 0; i < 300; i++) if ((await bed.seen('canary.test')).backend === 'b') canaries++;
    assert.ok(canaries > 45 && canaries < 145, `${canaries} of 300`);
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
    external('named', 'outside.example');
    for (const name of ['self', 'localhost', 'named']) bed.putIngress(`external-${name}`, { '/': `${name}:http` });
    for (const name of ['self', 'localhost', 'named']) await bed.answers(`external-${name}.test`, '/', 503);
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

  test('rates are limited for each client', async () => {
    bed.putIngress('limited', { '/': 'web' }, { annotations: { 'limit-rps': '1', 'limit-burst-multiplier': '5' } });
    bed.putIngress(
      'exempt',
      { '/': 'web' },
      { annotations: { 'limit-rps': '1', 'limit-burst-multiplier': '1', 'limit-whitelist': '127.0.0.0/8' } },
    );
    await bed.answers('exempt.test', '/', 200);
    const statuses: number[] = [];
    for (let i = 0; i < 20; i++) statuses.push((await bed.get('limited.test')).status);
    assert.ok(statuses.slice(0, 3).every(status => status === 200));
    assert.ok(statuses.includes(503));
    for (let i = 0; i < 20; i++) assert.equal((await bed.get('exempt.test')).status, 200);
  });

  test('a class of settings: defaults for its Ingresses', async () => {
    bed.putConfigMap('settings', { 'app-root': '/home' });
    bed.putClass('special', { parameters: 'settings' });
    bed.putIngress('byclass', { '/': 'web' }, { className: 'special' });
    bed.putIngress('overridden', { '/': 'web' }, { className: 'special', annotations: { 'app-root': '/own' } });
    bed.putIngress('foreign', { '/': 'web' }, { className: 'nginx' });
    const reply = await bed.answers('byclass.test', '/', 302);
    assert.equal(reply.headers.location, '/home');
    assert.equal((await bed.get('overridden.test')).headers.location, '/own');
    assert.equal((await bed.get('foreign.test')).status, 404);
  });

  test('another Service while there is no endpoint, another endpoint after a bad answer', async () => {
    bed.putService('empty', []);
    bed.putIngress('fallback', { '/': 'empty' }, { annotations: { 'default-backend': 'other' } });
    await bed.answers('fallback.test', '/', 200);
    assert.equal((await bed.seen('fallback.test')).backend, 'b');
    bed.putService('empty', [a!.port]);
    await until('its own endpoint', async () => (await bed.seen('fallback.test')).backend === 'a');
    const failing = await bed.backend('failing', (_seen, response) => {
      response.statusCode = 503;
      response.end();
      return true;
    });
    bed.putService('half', [failing.port, a!.port]);
    bed.putIngress(
      'retried',
      { '/': 'half' },
      { annotations: { 'proxy-next-upstream': 'error http_503', 'proxy-next-upstream-tries': '4' } },
    );
    await bed.answers('retried.test', '/', 200);
    for (let i = 0; i < 6; i++) assert.equal((await bed.get('retried.test')).status, 200);
  });

  test('the PROXY protocol tells the address of the client', async () => {
    bed.putConfigMap('proxied', { 'use-proxy-protocol': 'true' });
    bed.putClass('proxied', { parameters: 'proxied' });
    bed.putIngress('pp', { '/': 'web' }, { className: 'proxied' });
    const ask = async () => {
      const socket = connectTcp(bed.httpPort, '127.0.0.1');
      socket.on('error', () => {});
      socket.end(
        'PROXY TCP4 192.0.2.7 127.0.0.1 1111 80\r\nGET / HTTP/1.1\r\nHost: pp.test\r\nConnection: close\r\n\r\n',
      );
      let text = '';
      socket.on('data', part => {
        text += part;
      });
      await once(socket, 'close');
      return text;
    };
    await until('the header is read', async () => (await ask()).includes('"x-forwarded-for":"192.0.2.7"'));
    bed.putConfigMap('proxied', {});
    await bed.answers('pp.test', '/', 200);
  });

  test('the access log is JSON whatever a client sends; metrics count by route', async () => {
    await bed.get('plain.test', '/%22,%22x%22:%22\\"}?q=1', { headers: { 'X-Request-ID': 'a"b\\c' } });
    const line = await (async () => {
      let found: Record<string, unknown> | undefined;
      await until('a line in the log', () => {
        const lines = readFileSync(bed.accessLog, 'utf8')
          .split('\n')
          .filter(text => text.startsWith('{'));
        found = lines.map(text => JSON.parse(text)).find(entry => entry.request === 'a"b\\c');
        return found !== undefined;
      });
      return found!;
    })();
    assert.equal(line['host'], 'plain.test');
    assert.equal(line['route'], 'default/plain web:http');
    assert.equal(line['status'], 200);
    assert.equal(line['endpoint'], `127.0.0.1:${a!.port}`);
    await until('requests are counted', () =>
      /cox_ingress_requests_total\{namespace="default",ingress="plain",service="web:http",status="2xx"\} [1-9]/.test(
        metrics.render(),
      ),
    );
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
async function nameServer(): Promise<{ dns: Socket; asked: Set<string> }> {
  const asked = new Set<string>();
  const dns = createSocket('udp4');
  dns.on('message', (question, { port, address }) => {
    const labels: string[] = [];
    let at = 12;
    for (; question[at] !== 0; at += question[at]! + 1)
      labels.push(question.toString('latin1', at + 1, at + 1 + question[at]!));
    asked.add(labels.join('.').toLowerCase());
    const isA = question.readUInt16BE(at + 1) === 1;
    const head = Buffer.from(question.subarray(0, 12));
    head.writeUInt16BE(0x8180, 2);
    head.writeUInt16BE(isA ? 1 : 0, 6);
    head.writeUInt32BE(0, 8);
    const answer = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 127, 0, 0, 1]);
    dns.send(Buffer.concat([head, question.subarray(12, at + 5), ...(isA ? [answer] : [])]), port, address);
  });
  dns.bind(0, '127.0.0.1');
  await once(dns, 'listening');
  return { dns, asked };
}
