/**
 * What upstream's conformance tests of HTTPRoute's extended features ask for, asked of a real HAProxy: CORS, redirects in all their statuses,
 * protocols of backends, mirrors by share, filters of backends, backends that are partly wrong. docs/gateway.md has the list.
 */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createH2Server } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { WebSocket, WebSocketServer } from 'ws';
import { SERVICES } from '../../src/client/resources.ts';
import { HaproxyProcess } from '../../src/ingress/haproxy/haproxy-process.ts';
import { freePorts, GatewayBed } from './gateway-bed.ts';
import { until } from './ingress-bed.ts';
import { service } from './services.ts';

const can = process.getuid?.() === 0 && HaproxyProcess.isInstalled();
const to = (name: string, more: object = {}) => ({ name, port: 80, ...more });
const path = (value: string, type = 'PathPrefix') => ({ path: { type, value } });
const [HTTP = 0, OTHER = 0] = can ? await freePorts(2) : [];

describe('gateway features', { skip: !can }, () => {
  const bed = new GatewayBed();
  const route = (name: string, rules: object[], more: object = {}) =>
    bed.put('HTTPRoute', name, { parentRefs: [{ name: 'g' }], hostnames: [`${name}.test`], rules, ...more });
  const isServed = (host: string, at = '/') => bed.answers(host, at, 200);

  before(async () => {
    bed.httpPort = HTTP;
    await bed.start();
    bed.httpPort = HTTP;
    for (const name of ['a', 'b']) bed.putService(name, [(await bed.backend(name)).port]);
    bed.putGateway('g', [
      { name: 'http', port: 80, target: HTTP, protocol: 'HTTP' },
      { name: 'other', port: 8080, target: OTHER, protocol: 'HTTP' },
    ]);
    route('ready', [{ backendRefs: [to('a')] }]);
    await isServed('ready.test');
  });
  after(() => bed.close());

  test('HTTPRouteCORS, …AllowCredentialsBehavior', async () => {
    const cors = (more: object) => [
      { type: 'CORS', cors: { allowOrigins: ['https://www.foo.com', 'https://*.bar.com'], ...more } },
    ];
    const given = {
      allowMethods: ['GET', 'PUT'],
      allowHeaders: ['X-One', 'X-Two'],
      exposeHeaders: ['X-Out'],
      maxAge: 60,
    };
    route('cors', [
      { matches: [path('/named')], filters: cors({ ...given, allowCredentials: true }), backendRefs: [to('a')] },
      { matches: [path('/')], filters: cors({ allowOrigins: ['*'] }), backendRefs: [to('a')] },
    ]);
    await isServed('cors.test');
    const ask = (at: string, origin: string, preflight = false) =>
      bed.get('cors.test', at, {
        method: preflight ? 'OPTIONS' : 'GET',
        headers: { Origin: origin, ...(preflight ? { 'Access-Control-Request-Method': 'PUT' } : {}) },
      });
    for (const origin of ['https://www.foo.com', 'https://x.y.bar.com']) {
      const early = await ask('/named', origin, true);
      assert.ok([200, 204].includes(early.status));
      const { headers } = early;
      assert.equal(headers['access-control-allow-origin'], origin);
      assert.equal(headers['access-control-allow-methods'], 'GET, PUT');
      assert.equal(headers['access-control-allow-headers'], 'X-One, X-Two');
      assert.equal(headers['access-control-max-age'], '60');
      assert.equal(headers['access-control-allow-credentials'], 'true');
      const plain = await ask('/named', origin);
      assert.equal(plain.headers['access-control-allow-origin'], origin);
      assert.equal(plain.headers['access-control-expose-headers'], 'X-Out');
    }
    for (const origin of ['https://foo.com', 'http://www.foo.com', 'https://bar.com', 'https://www.foo.com.evil.test'])
      for (const preflight of [true, false])
        assert.equal(
          (await ask('/named', origin, preflight)).headers['access-control-allow-origin'],
          undefined,
          origin,
        );
    const any = await ask('/', 'https://whoever.test');
    assert.ok(['*', 'https://whoever.test'].includes(String(any.headers['access-control-allow-origin'])));
    assert.equal(any.headers['access-control-allow-credentials'], undefined);
  });

  test('HTTPRouteRedirectScheme, …Port, …PortAndScheme, 301 to 308', async () => {
    const redirect = (at: string, requestRedirect: object) => ({
      matches: [path(at)],
      filters: [{ type: 'RequestRedirect', requestRedirect: { statusCode: 302, ...requestRedirect } }],
    });
    route('moved', [
      ...[301, 302, 303, 307, 308].map(statusCode => redirect(`/${statusCode}`, { hostname: 'm.test', statusCode })),
      redirect('/http', { scheme: 'http', hostname: 'm.test' }),
      redirect('/https', { scheme: 'https', hostname: 'm.test' }),
      redirect('/https-port', { scheme: 'https', hostname: 'm.test', port: 8443 }),
      redirect('/http-443', { scheme: 'http', hostname: 'm.test', port: 443 }),
      redirect('/port-80', { hostname: 'm.test', port: 80 }),
      redirect('/whole', { path: { type: 'ReplaceFullPath', replaceFullPath: '/new' } }),
      { matches: [path('/')], backendRefs: [to('a')] },
    ]);
    await isServed('moved.test');
    const located = async (at: string, port = HTTP) => {
      const { status, headers } = await bed.get('moved.test', at, { port });
      return `${status} ${headers.location}`;
    };
    for (const status of [301, 302, 303, 307, 308])
      assert.equal(await located(`/${status}/x`), `${status} http://m.test/${status}/x`);
    // Without a port or scheme of its own the listener's port stays, unless it is the scheme's.
    assert.equal(await located('/302', OTHER), '302 http://m.test:8080/302');
    for (const [at, wanted] of [
      ['/http', 'http://m.test/http'],
      ['/https', 'https://m.test/https'],
      ['/https-port', 'https://m.test:8443/https-port'],
      ['/http-443', 'http://m.test:443/http-443'],
      ['/port-80', 'http://m.test/port-80'],
    ] as const)
      for (const port of [HTTP, OTHER]) assert.equal(await located(at, port), `302 ${wanted}`);
    assert.equal(await located('/whole/x?y=1'), '302 http://moved.test/new?y=1');
  });

  test('HTTPRouteBackendProtocolH2C, …WebSocket', async () => {
    const h2 = createH2Server((request, response) => response.end(JSON.stringify({ version: request.httpVersion })));
    h2.listen(0, '127.0.0.1');
    await once(h2, 'listening');
    bed.track(h2);
    bed.putService('h2c', [(h2.address() as AddressInfo).port]);
    const ports = [{ name: 'http', port: 80, targetPort: 80, appProtocol: 'kubernetes.io/h2c' }];
    bed.api.put(SERVICES, service({ name: 'h2c', clusterIP: '10.96.0.9', ports }));
    const socket = await bed.backend('socket');
    const sockets = new WebSocketServer({ server: socket.server });
    sockets.on('connection', peer => peer.on('message', bytes => peer.send(`${bytes} and back`)));
    bed.putService('socket', [socket.port]);
    route('protocols', [
      { matches: [path('/h2')], backendRefs: [to('h2c')] },
      { matches: [path('/')], backendRefs: [to('socket')] },
    ]);
    await isServed('protocols.test');
    assert.equal(JSON.parse((await bed.answers('protocols.test', '/h2', 200)).text).version, '2.0');
    const client = new WebSocket(`ws://127.0.0.1:${HTTP}/`, { headers: { Host: 'protocols.test' } });
    try {
      await once(client, 'open');
      client.send('there');
      assert.equal(String((await once(client, 'message'))[0]), 'there and back');
    } finally {
      client.terminate();
      sockets.close();
    }
  });

  test('HTTPRouteRequestMultipleMirrors, …PercentageMirror', async () => {
    const copies: Record<string, number> = { all: 0, some: 0, none: 0 };
    for (const name of Object.keys(copies))
      bed.putService(name, [(await bed.backend(name, () => void copies[name]!++)).port]);
    const mirror = (name: string, more: object = {}) => ({
      type: 'RequestMirror',
      requestMirror: { backendRef: to(name), ...more },
    });
    const filters = [
      mirror('all'),
      mirror('some', { fraction: { numerator: 1, denominator: 2 } }),
      mirror('none', { percent: 0 }),
    ];
    route('mirrors', [{ filters, backendRefs: [to('a')] }]);
    await isServed('mirrors.test');
    await until('a copy', () => copies['all']! > 0);
    const before = { ...copies };
    for (let i = 0; i < 100; i++) await isServedOnce();
    await until('a copy of each', () => copies['all']! >= before['all']! + 100);
    const some = copies['some']! - before['some']!;
    // 50 ± 5; six times that is once in a billion, and the last copies may be on their way.
    assert.ok(some > 15 && some < 85, String(some));
    assert.equal(copies['none'], 0);
    async function isServedOnce(): Promise<void> {
      assert.equal((await bed.get('mirrors.test')).status, 200);
    }
  });

  test('HTTPRouteBackendRequestHeaderModifier, …ResponseHeaderModifier, NamedRule, PartiallyInvalid…', async () => {
    const filters = [
      {
        type: 'RequestHeaderModifier',
        requestHeaderModifier: { set: [{ name: 'X-Set', value: 'b' }], remove: ['X-Gone'] },
      },
      {
        type: 'ResponseHeaderModifier',
        responseHeaderModifier: { add: [{ name: 'X-Out', value: 'b' }], remove: ['Date'] },
      },
    ];
    route('backends', [
      { name: 'modified', matches: [path('/modified')], backendRefs: [to('b', { filters })] },
      { name: 'halves', matches: [path('/halves')], backendRefs: [to('a'), to('nobody'), to('b', { weight: 0 })] },
      { name: 'rest', matches: [path('/')], backendRefs: [to('a')] },
    ]);
    await isServed('backends.test');
    const { headers, text } = await bed.get('backends.test', '/modified', { headers: { 'X-Set': 'a', 'X-Gone': '1' } });
    const seen = JSON.parse(text);
    assert.deepEqual([seen.backend, seen.headers['x-set'], seen.headers['x-gone']], ['b', 'b', undefined]);
    assert.deepEqual([headers['x-out'], headers.date], ['b', undefined]);
    const statuses = new Set<number>();
    for (let i = 0; i < 60; i++) statuses.add((await bed.get('backends.test', '/halves')).status);
    assert.deepEqual([...statuses].sort(), [200, 500]);
  });
});
