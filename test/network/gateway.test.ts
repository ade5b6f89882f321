/** Requests through a real HAProxy that the agent's gateways drive: matches, filters, weights, TLS in its kinds, TCP, policies of backends. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { connect as connectH2, createServer as createH2Server, type ServerHttp2Stream } from 'node:http2';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, connect as connectTcp, createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import { ensurePki } from '../../src/apiserver/certificates/pki.ts';
import { HaproxyProcess } from '../../src/ingress/haproxy/haproxy-process.ts';
import { freePorts, GatewayBed } from './gateway-bed.ts';
import { until } from './ingress-bed.ts';

const can = process.getuid?.() === 0 && HaproxyProcess.isInstalled();
const to = (name: string, more: object = {}) => ({ name, port: 80, ...more });
const path = (value: string, type = 'PathPrefix') => ({ path: { type, value } });
const [HTTP = 0, HTTPS = 0, MIXED = 0, TCP = 0, TERMINATED = 0, CLIENTS = 0, ANYBODY = 0] = can
  ? await freePorts(7)
  : [];
const parentRefs = [{ name: 'g' }];

/** 2 s of it. */
function trickle(response: ServerResponse): void {
  let left = 20;
  const timer = setInterval(() => {
    response.write('x');
    if (--left === 0) response.end();
    if (left === 0) clearInterval(timer);
  }, 100);
  response.on('close', () => clearInterval(timer));
}

describe('gateway', { skip: !can }, () => {
  const bed = new GatewayBed();
  let a: { port: number };
  let b: { port: number };
  const route = (name: string, rules: object[], more: object = {}) =>
    bed.put('HTTPRoute', name, { parentRefs, hostnames: [`${name}.test`], rules, ...more });
  const isServed = (host: string, at = '/') => bed.answers(host, at, 200);
  const backendOf = async (host: string, at = '/', options: Parameters<GatewayBed['get']>[2] = {}) => {
    const reply = await bed.get(host, at, options);
    return reply.status === 200 ? (JSON.parse(reply.text).backend as string) : String(reply.status);
  };

  before(async () => {
    bed.httpPort = HTTP;
    await bed.start();
    bed.httpPort = HTTP;
    a = await bed.backend('a');
    b = await bed.backend('b');
    bed.putService('a', [a.port]);
    bed.putService('b', [b.port]);
    await bed.putCertificate('tls', ['tls.test', '*.wild.test']);
    const tls = { certificateRefs: [{ name: 'tls' }] };
    const caCertificateRefs = [{ group: '', kind: 'ConfigMap', name: 'ca' }];
    bed.putConfigMap('ca', { 'ca.crt': bed.pki.ca });
    const client = await bed.pki.ensureClient('gateway', { commonName: 'gateway', organizations: [] });
    bed.putSecret('own', { 'tls.crt': client.certificate, 'tls.key': client.key }, 'kubernetes.io/tls');
    bed.putGateway(
      'g',
      [
        { name: 'http', port: 80, target: HTTP, protocol: 'HTTP' },
        { name: 'https', port: 443, target: HTTPS, protocol: 'HTTPS', hostname: 'tls.test', tls },
        { name: 'wild', port: 443, target: HTTPS, protocol: 'HTTPS', hostname: '*.wild.test', tls },
        {
          name: 'pass',
          port: 8443,
          target: MIXED,
          protocol: 'TLS',
          hostname: 'pass.test',
          tls: { mode: 'Passthrough' },
        },
        { name: 'mixed', port: 8443, target: MIXED, protocol: 'HTTPS', hostname: 'tls.test', tls },
        { name: 'tcp', port: 5000, target: TCP, protocol: 'TCP' },
        {
          name: 'end',
          port: 6443,
          target: TERMINATED,
          protocol: 'TLS',
          hostname: 'tls.test',
          tls: { mode: 'Terminate', ...tls },
        },
        { name: 'clients', port: 9443, target: CLIENTS, protocol: 'HTTPS', hostname: 'tls.test', tls },
        { name: 'anybody', port: 9444, target: ANYBODY, protocol: 'HTTPS', hostname: 'tls.test', tls },
      ],
      {
        tls: {
          backend: { clientCertificateRef: { name: 'own' } },
          frontend: {
            default: {},
            perPort: [
              { port: 9443, tls: { validation: { caCertificateRefs } } },
              { port: 9444, tls: { validation: { caCertificateRefs, mode: 'AllowInsecureFallback' } } },
            ],
          },
        },
      },
    );
    route('plain', [{ backendRefs: [to('a')] }], { hostnames: ['plain.test', '*.wild.test'] });
    await isServed('plain.test');
  });
  after(() => bed.close());

  test('hosts, wildcards of many labels, paths; what matches nothing gets 404', async () => {
    const seen = await bed.seen('plain.test', '/x?y=1');
    assert.equal(seen.url, '/x?y=1');
    assert.equal(seen.headers['x-forwarded-proto'], 'http');
    assert.equal(seen.headers['x-forwarded-port'], '80');
    assert.equal(await backendOf('deep.er.wild.test'), 'a');
    assert.equal(await backendOf('wild.test'), '404');
    assert.equal(await backendOf('nobody.test'), '404');
    route('paths', [
      { matches: [path('/')], backendRefs: [to('a')] },
      { matches: [path('/b')], backendRefs: [to('b')] },
      { matches: [path('/b/exact', 'Exact')], backendRefs: [to('a')] },
      { matches: [path('/r/[0-9]+', 'RegularExpression')], backendRefs: [to('b')] },
    ]);
    await isServed('paths.test');
    for (const [at, wanted] of [
      ['/', 'a'],
      ['/b', 'b'],
      ['/b/', 'b'],
      ['/bc', 'a'],
      ['/b/exact', 'a'],
      ['/b/exact/', 'b'],
      ['/r/12', 'b'],
      ['/r/12/x', 'a'],
      ['/x/../b', 'b'],
    ] as const)
      assert.equal(await backendOf('paths.test', at), wanted, at);
  });

  test('methods, headers and parameters, the more of them the earlier; a request that fails them goes on to wider paths', async () => {
    route('tests', [
      {
        matches: [{ ...path('/deep'), headers: [{ name: 'X-Only', value: 'it\'s } "here"' }] }],
        backendRefs: [to('b')],
      },
      { matches: [{ ...path('/'), method: 'POST' }], backendRefs: [to('b')] },
      {
        matches: [
          { ...path('/'), queryParams: [{ name: 'v', value: '2 x' }] },
          { ...path('/'), headers: [{ name: 'version', value: 'v[0-9]', type: 'RegularExpression' }] },
        ],
        backendRefs: [to('b')],
      },
      { matches: [path('/')], backendRefs: [to('a')] },
    ]);
    await isServed('tests.test');
    assert.equal(await backendOf('tests.test'), 'a');
    assert.equal(await backendOf('tests.test', '/', { method: 'POST' }), 'b');
    assert.equal(await backendOf('tests.test', '/?v=2%20x'), 'b');
    assert.equal(await backendOf('tests.test', '/?v=2'), 'a');
    assert.equal(await backendOf('tests.test', '/', { headers: { Version: 'v7' } }), 'b');
    assert.equal(await backendOf('tests.test', '/', { headers: { Version: 'v77' } }), 'a');
    assert.equal(await backendOf('tests.test', '/deep/x', { headers: { 'X-Only': 'it\'s } "here"' } }), 'b');
    assert.equal(await backendOf('tests.test', '/deep/x'), 'a');
  });

  test('headers are changed, paths and hosts rewritten, requests redirected', async () => {
    const filters = [
      {
        type: 'RequestHeaderModifier',
        requestHeaderModifier: {
          set: [{ name: 'X-Set', value: '100% "%[src]" \\1' }],
          add: [{ name: 'X-Add', value: 'two' }],
          remove: ['X-Gone'],
        },
      },
      { type: 'ResponseHeaderModifier', responseHeaderModifier: { set: [{ name: 'X-Answer', value: 'yes' }] } },
    ];
    const rewrite = (replacePrefixMatch: string) => ({
      type: 'URLRewrite',
      urlRewrite: { hostname: 'inner.test', path: { type: 'ReplacePrefixMatch', replacePrefixMatch } },
    });
    const redirect = (requestRedirect: object) => [
      { type: 'RequestRedirect', requestRedirect: { statusCode: 302, ...requestRedirect } },
    ];
    route('filters', [
      { matches: [path('/headers')], filters, backendRefs: [to('a', { filters: [filters[0]] })] },
      { matches: [path('/old')], filters: [rewrite('/new')], backendRefs: [to('a')] },
      { matches: [path('/cut')], filters: [rewrite('/')], backendRefs: [to('a')] },
      {
        matches: [path('/full')],
        filters: [{ type: 'URLRewrite', urlRewrite: { path: { type: 'ReplaceFullPath', replaceFullPath: '/all' } } }],
        backendRefs: [to('a')],
      },
      { matches: [path('/https')], filters: redirect({ scheme: 'https', statusCode: 301 }) },
      {
        matches: [path('/moved')],
        filters: redirect({
          hostname: 'm.test',
          port: 8080,
          path: { type: 'ReplacePrefixMatch', replacePrefixMatch: '/x' },
        }),
      },
      { matches: [path('/')], backendRefs: [to('a')] },
    ]);
    await isServed('filters.test');
    const reply = await bed.get('filters.test', '/headers', {
      headers: { 'X-Add': 'one', 'X-Gone': '1', 'X-Set': '0' },
    });
    const { headers } = JSON.parse(reply.text);
    assert.equal(headers['x-set'], '100% "%[src]" \\1');
    assert.equal(headers['x-add'], 'one, two, two');
    assert.equal(headers['x-gone'], undefined);
    assert.equal(reply.headers['x-answer'], 'yes');
    for (const [at, wanted] of [
      ['/old/a?x=1', '/new/a?x=1'],
      ['/old', '/new'],
      ['/old/', '/new/'],
      ['/cut/a', '/a'],
      ['/cut', '/'],
      ['/cut/', '/'],
      ['/full/x?y', '/all?y'],
    ] as const)
      assert.equal((await bed.seen('filters.test', at)).url, wanted, at);
    assert.equal((await bed.seen('filters.test', '/old')).headers.host, 'inner.test');
    const secure = await bed.get('filters.test', '/https/a?b');
    assert.deepEqual([secure.status, secure.headers.location], [301, 'https://filters.test/https/a?b']);
    const moved = await bed.get('filters.test', '/moved/a');
    assert.deepEqual([moved.status, moved.headers.location], [302, 'http://m.test:8080/x/a']);
  });

  test('weights share requests; what cannot be resolved answers 500, without endpoints 503, without rules 404', async () => {
    route('weights', [{ backendRefs: [to('a', { weight: 3 }), to('b', { weight: 1 })] }]);
    bed.putService('empty', []);
    route('broken', [{ backendRefs: [to('nobody')] }]);
    route('empty', [{ backendRefs: [to('empty')] }]);
    route('foreign', [{ backendRefs: [to('a', { namespace: 'other' })] }]);
    await isServed('weights.test');
    const counts: Record<string, number> = { a: 0, b: 0 };
    for (let at = 0; at < 200; at++) counts[await backendOf('weights.test')]!++;
    // A share of 150 ± 6; six times that is once in a billion.
    assert.ok(counts['a']! > 110 && counts['a']! < 190, JSON.stringify(counts));
    const pid = bed.workerPid;
    const only = async (name: string, weights: readonly [number, number]) => {
      route('weights', [{ backendRefs: [to('a', { weight: weights[0] }), to('b', { weight: weights[1] })] }]);
      await until(`only ${name}`, async () => {
        const said = await Promise.all(Array.from({ length: 16 }, () => backendOf('weights.test')));
        return said.every(one => one === name);
      });
    };
    await only('b', [0, 1]);
    await only('a', [1_000_000, 0]);
    assert.equal(bed.workerPid, pid, 'weights change without a reload');
    await bed.answers('broken.test', '/', 500);
    await bed.answers('empty.test', '/', 503);
    await bed.answers('foreign.test', '/', 500);
  });

  test('endpoints come and go, and plain hosts, without a reload', async () => {
    const pid = bed.workerPid;
    bed.putService('a', [a.port, b.port]);
    const seen = new Set<string>();
    await until('both answer', async () => seen.add(await backendOf('plain.test')).size === 2);
    bed.putService('a', [a.port]);
    route('later', [{ backendRefs: [to('b')] }]);
    await isServed('later.test');
    assert.equal(await backendOf('later.test'), 'b');
    assert.equal(bed.workerPid, pid);
  });

  test('requests are mirrored with their body, and nobody waits for it', async () => {
    const copies: string[] = [];
    const mirror = await bed.backend('mirror', (seen, _, request) => {
      request.setEncoding('utf8');
      let text = '';
      request.on('data', part => (text += part));
      request.on('end', () => copies.push(`${seen.method} ${seen.headers.host}${seen.url} ${text}`));
      return true;
    });
    bed.putService('mirror', [mirror.port]);
    route('mirrored', [
      { filters: [{ type: 'RequestMirror', requestMirror: { backendRef: to('mirror') } }], backendRefs: [to('a')] },
    ]);
    await isServed('mirrored.test');
    await until('a copy', () => copies.length > 0);
    copies.length = 0;
    assert.equal(await backendOf('mirrored.test', '/p?q=1', { method: 'PATCH', body: 'hello' }), 'a');
    await until('the copy', () => copies.length > 0);
    assert.deepEqual(copies, ['PATCH mirrored.test/p?q=1 hello']);
  });

  test('timeouts answer 504 and cut off what trickles, retries ask again', async () => {
    let asked = 0;
    const slow = await bed.backend('slow', (seen, response) => {
      if (seen.url === '/retry' && ++asked < 3) response.writeHead(503).end();
      else if (seen.url.startsWith('/trickle')) trickle(response);
      else if (seen.url === '/slow') return true;
      else return false;
      return true;
    });
    slow.server.on('upgrade', (_, socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: cox\r\n\r\n');
      setTimeout(() => socket.end('after the time'), 600);
    });
    bed.putService('slow', [slow.port]);
    route('times', [
      { matches: [path('/slow')], timeouts: { request: '300ms' }, backendRefs: [to('slow')] },
      { matches: [path('/quick')], timeouts: { request: '30s' }, backendRefs: [to('slow')] },
      { matches: [path('/trickle')], timeouts: { request: '300ms' }, backendRefs: [to('slow')] },
      { matches: [path('/trickle/try')], timeouts: { backendRequest: '300ms' }, backendRefs: [to('slow')] },
      { matches: [path('/trickle/free')], timeouts: { request: '0s' }, backendRefs: [to('slow')] },
      { matches: [path('/')], retry: { attempts: 3, codes: [503] }, backendRefs: [to('slow')] },
    ]);
    await isServed('times.test');
    assert.equal(await backendOf('times.test', '/slow'), '504');
    // On a busy machine the time may be over before the response has begun: 504, as for a silent one.
    const end = (at: string) =>
      bed.get('times.test', at).then(
        ({ status }) => String(status),
        (error: Error) => error.message,
      );
    for (const at of ['/trickle', '/trickle/try'])
      await until(`${at} is cut off`, async () => (await end(at)) === 'aborted', 30_000);
    assert.equal((await bed.get('times.test', '/trickle/free')).text, 'x'.repeat(20));
    const upgrade = 'GET /trickle HTTP/1.1\r\nHost: times.test\r\nConnection: Upgrade\r\nUpgrade: cox\r\n\r\n';
    // HAProxy 2.6 crashes within some hundred requests where its threads share the state of a filter in Lua.
    const worker = bed.workerPid;
    const ask = async () => {
      for (let at = 0; at < 75; at++) assert.equal((await bed.get('times.test', '/quick')).status, 200);
    };
    await Promise.all(Array.from({ length: 8 }, ask));
    assert.equal(bed.workerPid, worker);
    await until('what was upgraded goes on', async () =>
      /^HTTP\/1.1 101 [\s\S]*after the time$/.test(await tcpSaysAll(HTTP, upgrade)),
    );
    assert.equal(await backendOf('times.test', '/retry'), 'slow');
    assert.equal(asked, 3);
  });

  test('HTTPS by the listener’s certificate; other names are refused; TLS passes through beside it', async () => {
    route('tls', [{ backendRefs: [to('a')] }], { hostnames: ['tls.test'] });
    const pair = await bed.pki.ensureServer('inner', { commonName: 'inner', organizations: [] }, ['pass.test']);
    const inner = createTlsServer({ cert: pair.certificate, key: pair.key }, socket => socket.end('inner says hello'));
    inner.listen(0, '127.0.0.1');
    await once(inner, 'listening');
    bed.track(inner);
    bed.putService('inner', [(inner.address() as AddressInfo).port]);
    bed.put('TLSRoute', 'pass', { parentRefs, hostnames: ['pass.test'], rules: [{ backendRefs: [to('inner')] }] });
    const asked = 'GET /t HTTP/1.1\r\nHost: tls.test\r\nConnection: close\r\n\r\n';
    for (const port of [HTTPS, MIXED]) {
      const said = () => tlsSays(port, 'tls.test', asked);
      await until(`port ${port} answers`, async () => /"backend":"a"/.test((await said()).text));
      await bed.settled();
      const { subject, text } = await said();
      assert.equal(subject, 'tls-1');
      assert.match(text, /"x-forwarded-proto":"https"/);
      assert.match(text, /"x-forwarded-for":"127\.0\.0\.1"/);
      assert.equal((await tlsSays(port, 'other.test', '')).subject, undefined);
    }
    // Told apart by name alone: hosts of the other listener of the port are not for this connection, nobody's get 404.
    const misdirected = (host: string) =>
      tlsSays(HTTPS, 'tls.test', `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    await until('421', async () => /^HTTP\/1.1 421/.test((await misdirected('some.wild.test')).text));
    assert.match((await misdirected('nobody.test')).text, /^HTTP\/1.1 404/);
    assert.match((await misdirected('tls.test')).text, /^HTTP\/1.1 200/);
    const client = await bed.pki.ensureClient('caller', { commonName: 'caller', organizations: [] });
    const known = { cert: client.certificate, key: client.key };
    const answered = await tlsSays(CLIENTS, 'tls.test', asked, known);
    assert.match(answered.text, /"backend":"a"/, answered.error ?? 'no answer');
    assert.equal((await tlsSays(CLIENTS, 'tls.test', asked)).text, '', 'who shows no certificate is not let in');
    assert.equal((await tlsSays(CLIENTS, 'tls.test', asked, await stranger())).text, '', 'nor is a stranger');
    for (const shown of [known, undefined, await stranger()])
      assert.match(
        (await tlsSays(ANYBODY, 'tls.test', asked, shown)).text,
        /"backend":"a"/,
        'asked, and let in all the same',
      );
    await until('TLS passes', async () => (await tlsSays(MIXED, 'pass.test', '')).text === 'inner says hello');
    await bed.settled();
    assert.equal((await tlsSays(MIXED, 'pass.test', '')).subject, 'inner');
    bed.put('TLSRoute', 'end', {
      parentRefs: [{ name: 'g', sectionName: 'end' }],
      hostnames: ['tls.test'],
      rules: [{ backendRefs: [to('a')] }],
    });
    await until('TLS ends here', async () =>
      /"backend":"a"/.test(
        (await tlsSays(TERMINATED, 'tls.test', 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')).text,
      ),
    );
  });

  test('TCP goes to the oldest route’s backend', async () => {
    const echo = createTcpServer(socket => socket.pipe(socket)).listen(0, '127.0.0.1');
    await once(echo, 'listening');
    bed.track(echo);
    bed.putService('echo', [(echo.address() as AddressInfo).port]);
    bed.put('TCPRoute', 'echo', {
      parentRefs: [{ name: 'g', sectionName: 'tcp' }],
      rules: [{ backendRefs: [to('echo')] }],
    });
    await until('the echo comes back', () => tcpSays(TCP, 'hello').then(text => text === 'hello'));
  });

  test('gRPC by service and method, over HTTP/2 to the backend', async () => {
    const server = createH2Server();
    server.on('stream', (stream: ServerHttp2Stream, headers) => {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      stream.end(String(headers[':path']));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    bed.track(server);
    bed.putService('grpc', [(server.address() as AddressInfo).port]);
    bed.put('GRPCRoute', 'grpc', {
      parentRefs,
      hostnames: ['grpc.test'],
      rules: [
        { name: 'say', matches: [{ method: { service: 'echo.Echo', method: 'Say' } }], backendRefs: [to('grpc')] },
      ],
    });
    await until('gRPC answers', async () => (await grpc('/echo.Echo/Say')).status === '200');
    await bed.settled();
    assert.deepEqual(await grpc('/echo.Echo/Say'), { status: '200', text: '/echo.Echo/Say', grpc: '0' });
    assert.equal((await grpc('/echo.Echo/Other')).status, '404');
  });

  test('a backend by TLS is checked against its policy', async () => {
    const policy = (hostname: string, subjectAltNames: object[] = []) =>
      bed.put('BackendTLSPolicy', 'secure', {
        targetRefs: [{ group: '', kind: 'Service', name: 'secure' }],
        validation: { hostname, subjectAltNames, caCertificateRefs: [{ group: '', kind: 'ConfigMap', name: 'ca' }] },
      });
    const pair = await bed.pki.ensureServer('secure', { commonName: 'secure', organizations: [] }, ['secure.internal']);
    const server = createHttpsServer(
      { cert: pair.certificate, key: pair.key, ca: bed.pki.ca, requestCert: true, rejectUnauthorized: true },
      (_, response) => response.end('{"backend":"secure"}'),
    );
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    bed.track(server);
    bed.putService('secure', [(server.address() as AddressInfo).port]);
    policy('secure.internal');
    route('secure', [{ backendRefs: [to('secure')] }]);
    await isServed('secure.test');
    assert.equal(await backendOf('secure.test'), 'secure');
    policy('wrong.internal');
    await bed.answers('secure.test', '/', 503);
    policy('secure.internal', [{ type: 'Hostname', hostname: 'secure.internal' }]);
    await isServed('secure.test');
    // HAProxy would take the certificate for the hostname, which is not what is asked for here.
    for (const other of [
      { type: 'Hostname', hostname: 'other.internal' },
      { type: 'URI', uri: 'spiffe://cluster/secure' },
    ]) {
      policy('secure.internal', [{ type: 'Hostname', hostname: 'secure.internal' }]);
      await isServed('secure.test');
      policy('secure.internal', [other]);
      await bed.answers('secure.test', '/', 500);
    }
  });

  /** A certificate of an authority of its own. */
  async function stranger(): Promise<{ cert: string; key: string }> {
    const pki = await ensurePki(join(bed.folder, 'stranger'), { sans: ['localhost'] });
    const { certificate, key } = await pki.ensureClient('stranger', { commonName: 'stranger', organizations: [] });
    return { cert: certificate, key };
  }

  function tlsSays(
    port: number,
    name: string,
    request: string,
    client: object = {},
  ): Promise<{ text: string; subject?: string; error?: string }> {
    return new Promise(resolve => {
      let text = '';
      let subject: string | undefined;
      const socket = connectTls(
        { host: '127.0.0.1', port, servername: name, rejectUnauthorized: false, ...client },
        () => {
          subject = String(socket.getPeerCertificate().subject.CN);
          if (request) socket.write(request);
        },
      );
      const finish = (error?: string) => {
        socket.destroy();
        resolve({ text, ...(subject ? { subject } : {}), ...(error ? { error } : {}) });
      };
      socket.setTimeout(5000, () => finish('no answer'));
      socket.on('data', part => (text += part));
      socket.on('end', () => finish());
      socket.on('error', error => finish(error.message));
    });
  }

  function tcpSays(port: number, text: string): Promise<string> {
    return new Promise(resolve => {
      const socket = connectTcp(port, '127.0.0.1', () => socket.write(text));
      const finish = (said: string) => {
        socket.destroy();
        resolve(said);
      };
      socket.setTimeout(5000, () => finish(''));
      socket.on('data', part => finish(String(part)));
      socket.on('close', () => finish(''));
      socket.on('error', () => finish(''));
    });
  }

  /** Until the other side ends it. */
  function tcpSaysAll(port: number, text: string): Promise<string> {
    return new Promise((resolve, reject) => {
      let said = '';
      const socket = connectTcp(port, '127.0.0.1', () => socket.write(text));
      socket.setTimeout(10_000, () => socket.destroy(new Error('no end')));
      socket.on('data', part => (said += part));
      socket.on('end', () => resolve(said));
      socket.on('close', () => resolve(said));
      socket.on('error', reject);
    });
  }

  function grpc(at: string): Promise<{ status: string; text: string; grpc: string }> {
    return new Promise(resolve => {
      const session = connectH2(`http://127.0.0.1:${HTTP}`);
      const finish = (status: string, text = '', code = '') => {
        session.destroy();
        resolve({ status, text, grpc: code });
      };
      session.on('error', () => finish('0'));
      const stream = session.request({ ':path': at, ':method': 'POST', ':authority': 'grpc.test', te: 'trailers' });
      let [status, text, code] = ['', '', ''];
      stream.on('response', headers => (status = String(headers[':status'])));
      stream.on('trailers', headers => (code = String(headers['grpc-status'])));
      stream.setEncoding('utf8').on('data', part => (text += part));
      stream.on('end', () => finish(status, text, code));
      stream.on('error', () => finish('0'));
      stream.end();
    });
  }
});
