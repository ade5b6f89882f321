/** Annotations of ingress-nginx and settings of classes, through a real HAProxy that the agent drives. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SERVICES } from '../../src/client/resources.ts';
import { canRunIngress, IngressBed, nameServer, until, type Web } from './ingress-bed.ts';
import { service } from './services.ts';

describe('ingress: annotations', { skip: !canRunIngress }, () => {
  const bed = new IngressBed();
  let web: Web;

  before(async () => {
    const { dns } = await nameServer();
    bed.track(dns);
    bed.nameservers = [`127.0.0.1:${dns.address().port}`];
    web = await bed.startWeb();
  });
  after(() => bed.close());

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
      response.setHeader('X-Told', `${seen.headers['x-tenant']} ${seen.headers['x-odd']}`);
      response.setHeader('X-User', `user of ${seen.headers['x-original-url']}`);
      response.end();
      return true;
    });
    bed.putIngress(
      'external',
      { '/': 'web' },
      {
        annotations: { 'auth-url': `http://auth.example:${auth.port}/check`, 'auth-response-headers': 'X-User' },
      },
    );
    bed.putConfigMap('told', { 'X-Tenant': 'red', 'X-Odd': `"it's, 100%: {x}" \\ #` });
    bed.putConfigMap('odd', { 'X-Tenant': '$host' });
    for (const [host, map] of [
      ['telling', 'told'],
      ['odd', 'default/odd'],
      ['missing', 'nowhere'],
    ] as const)
      bed.putIngress(
        host,
        { '/': 'web' },
        {
          annotations: {
            'auth-url': `http://auth.example:${auth.port}/check`,
            'auth-proxy-set-headers': map,
            'auth-response-headers': 'X-Told',
          },
        },
      );
    bed.putIngress(
      'signin',
      { '/': 'web' },
      {
        annotations: {
          'auth-url': `http://auth.example:${auth.port}/check`,
          'auth-signin': 'https://login.test/?rd=$escaped_request_uri',
        },
      },
    );
    bed.putIngress(
      'return',
      { '/': 'web' },
      {
        annotations: {
          'auth-url': `http://auth.example:${auth.port}/check`,
          'auth-signin': 'https://login.test/?x=1',
          'auth-signin-redirect-param': 'to',
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
    const back = await bed.answers('return.test', '/a?b=c', 302);
    assert.equal(back.headers.location, 'https://login.test/?x=1&to=http://return.test%2Fa%3Fb%3Dc');
    assert.equal((await bed.get('external.test', '/', { headers: { 'X-Token': 'bad' } })).status, 403);
    await bed.answers('telling.test', '/', 401);
    const told = await bed.seen('telling.test', '/', { headers: { 'X-Token': 'good', 'X-Tenant': 'blue' } });
    assert.equal(told.headers['x-told'], `red "it's, 100%: {x}" \\ #`);
    for (const host of ['odd.test', 'missing.test'])
      assert.equal((await bed.get(host, '/', { headers: { 'X-Token': 'good' } })).status, 503, host);
    const seen = await bed.seen('external.test', '/p', { headers: { 'X-Token': 'good', 'X-User': 'forged' } });
    assert.equal(seen.headers['x-user'], 'user of http://external.test/p');
  });

  test('one way in is enough where an Ingress says so', async () => {
    bed.putSecret('one-user', { auth: 'sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=' });
    const login = { headers: { Authorization: `Basic ${btoa('sha:secret')}` } };
    const doorman = await bed.backend('doorman', (seen, response) => {
      response.statusCode = seen.headers['x-token'] === 'good' ? 200 : 401;
      response.end();
      return true;
    });
    const password = { 'auth-type': 'basic', 'auth-secret': 'one-user', satisfy: 'any' };
    const url = { 'auth-url': `http://doorman.example:${doorman.port}/` };
    const [here, elsewhere] = ['127.0.0.0/8', '10.0.0.0/8'].map(range => ({ 'whitelist-source-range': range }));
    bed.putIngress('any-here', { '/': 'web' }, { annotations: { ...password, ...here } });
    bed.putIngress('any-far', { '/': 'web' }, { annotations: { ...password, ...elsewhere } });
    bed.putIngress('any-alone', { '/': 'web' }, { annotations: { satisfy: 'any', ...elsewhere } });
    bed.putIngress('any-asked', { '/': 'web' }, { annotations: { ...url, ...elsewhere, satisfy: 'any' } });
    bed.putIngress('any-let', { '/': 'web' }, { annotations: { ...url, ...here, satisfy: 'any' } });
    bed.putIngress('any-three', { '/': 'web' }, { annotations: { ...password, ...url, ...elsewhere } });
    bed.putIngress('any-wrong', { '/': 'web' }, { annotations: { ...password, ...here, satisfy: 'some' } });
    await bed.answers('any-wrong.test', '/', 503);
    await bed.answers('any-three.test', '/', 401);
    const statusOf = async (host: string, options?: object) => (await bed.get(`any-${host}.test`, '/', options)).status;
    const token = { headers: { 'X-Token': 'good' } };
    assert.deepEqual([await statusOf('here'), await statusOf('far'), await statusOf('far', login)], [200, 401, 200]);
    assert.equal(await statusOf('alone'), 403, 'one condition alone is that one');
    assert.deepEqual([await statusOf('asked'), await statusOf('asked', token)], [401, 200]);
    assert.equal(await statusOf('let'), 200);
    assert.deepEqual([await statusOf('three', login), await statusOf('three', token)], [200, 200]);
  });

  test("the name with and without www, the Service's own address, connections for one request", async () => {
    bed.putIngress('bare', { '/': 'web' }, { annotations: { 'from-to-www-redirect': 'true' } });
    bed.putIngress('long', { '/': 'web' }, { host: 'www.long.test', annotations: { 'from-to-www-redirect': 'true' } });
    bed.putIngress('mine', { '/': 'web' });
    bed.putIngress(
      'theirs',
      { '/': 'web' },
      { host: 'www.mine.test', annotations: { 'from-to-www-redirect': 'true' } },
    );
    bed.putService('direct', [web.a]);
    bed.api.put(
      SERVICES,
      service({ name: 'direct', clusterIP: '127.0.0.1', ports: [{ name: 'http', port: web.b, targetPort: 80 }] }),
    );
    bed.putIngress('direct', { '/': 'direct' }, { annotations: { 'service-upstream': 'true' } });
    bed.putIngress(
      'once',
      { '/': 'web' },
      {
        annotations: {
          'connection-proxy-header': 'close',
          // Sizes of buffers that are not there, and what is done anyway.
          'proxy-buffer-size': '8k',
          'proxy-buffers-number': '4',
          'client-body-buffer-size': '1m',
          'enable-global-auth': 'false',
          'enable-cors': 'true',
          'cors-allow-private-network': 'true',
        },
      },
    );
    const moved = await bed.answers('www.bare.test', '/a?b', 308);
    assert.equal(moved.headers.location, 'http://bare.test/a?b');
    assert.equal((await bed.answers('long.test', '/', 308)).headers.location, 'http://www.long.test/');
    assert.equal((await bed.answers('mine.test', '/', 200)).status, 200, 'another Ingress has that name');
    await bed.answers('direct.test', '/', 200);
    assert.equal((await bed.seen('direct.test')).backend, 'b');
    await bed.answers('once.test', '/', 200);
    assert.equal((await bed.seen('once.test')).headers.connection, 'close');
    const preflight = await bed.get('once.test', '/', { method: 'OPTIONS', headers: { Origin: 'https://a.test' } });
    assert.equal(preflight.headers['access-control-allow-private-network'], 'true');
  });

  test('a copy of each request goes to another server', async () => {
    const copies: string[] = [];
    const mirror = await bed.backend('mirror', (seen, response, request) => {
      let body = '';
      request.on('data', part => {
        body += part;
      });
      request.on('end', () => {
        copies.push(`${seen.method} ${seen.headers.host} ${seen.url} ${seen.headers['x-own']} ${body}`);
        response.writeHead(500).end();
      });
      return true;
    });
    const target = `http://mirror.example:${mirror.port}`;
    bed.putIngress(
      'mirrored',
      { '/': 'web' },
      { annotations: { 'mirror-target': `${target}/copy$request_uri`, 'mirror-host': 'copy.test' } },
    );
    bed.putIngress(
      'headonly',
      { '/': 'web' },
      { annotations: { 'mirror-target': target, 'mirror-request-body': 'off' } },
    );
    await bed.answers('mirrored.test', '/', 200);
    await bed.answers('headonly.test', '/', 200);
    copies.length = 0;
    const post = { method: 'POST', headers: { 'X-Own': 'mine' }, body: 'hello' };
    assert.equal((await bed.seen('mirrored.test', '/a?b=%20', post)).url, '/a?b=%20');
    await until('the copy is there', () => copies.includes('POST copy.test /copy/a?b=%20 mine hello'));
    await bed.seen('headonly.test', '/c', post);
    await until('the copy without its body', () => copies.includes(`POST mirror.example:${mirror.port} /c mine `));
  });

  test('the default backend says what clients get instead of an error', async () => {
    const pages = await bed.backend('pages', (seen, response) => {
      const of = ['x-code', 'x-format', 'x-original-uri', 'x-ingress-name', 'x-service-name', 'x-service-port'];
      response.writeHead(410, { 'Content-Type': 'text/plain', 'X-Page': 'own' });
      response.end(`${of.map(name => seen.headers[name]).join(' ')} ${seen.headers['x-cox-backend']}`);
      return true;
    });
    const failing = await bed.backend('failing', (seen, response) => {
      response.writeHead(Number(/\d+/.exec(seen.url)?.[0] ?? 200)).end('as it was');
      return true;
    });
    bed.putService('pages', [pages.port]);
    bed.putService('failing', [failing.port]);
    bed.putIngress(
      'errors',
      { '/': 'failing' },
      { annotations: { 'custom-http-errors': '404,500', 'default-backend': 'pages' } },
    );
    bed.putIngress('no-pages', { '/': 'failing' }, { annotations: { 'custom-http-errors': '404' } });
    await bed.answers('errors.test', '/200', 200);
    await bed.answers('no-pages.test', '/404', 404);
    const page = await bed.get('errors.test', '/404?q=1', { headers: { Accept: 'text/html' } });
    assert.deepEqual([page.status, page.headers['x-page'], page.headers['content-type']], [410, 'own', 'text/plain']);
    assert.equal(page.text, '404 text/html /404?q=1 errors failing http undefined');
    assert.equal((await bed.get('errors.test', '/500', { method: 'HEAD' })).status, 410);
    assert.equal((await bed.get('errors.test', '/503')).text, 'as it was');
    // Nobody there to ask: that is told, as by nginx.
    bed.putService('pages', []);
    await bed.answers('errors.test', '/404', 503);
  });

  test('sticky sessions stay with their endpoint, canaries get their share, hashes their endpoint', async () => {
    bed.putService('both', [web.a, web.b]);
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
    bed.putService('both', [web.a, web.b]);
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
    const before = bed.reloads;
    for (const [weight, wanted] of [
      ['100', 'b'],
      ['0', 'a'],
    ] as const) {
      const annotations = { canary: 'true', 'canary-by-header': 'X-Canary', 'canary-weight': weight };
      bed.putIngress('canary', { '/': 'other' }, { host: 'canary.test', annotations });
      await until(`all go to ${wanted}`, async () => {
        const all = await Promise.all(Array.from({ length: 16 }, () => bed.seen('canary.test')));
        return all.every(({ backend }) => backend === wanted);
      });
    }
    assert.equal(bed.reloads, before, 'the weight changes without a reload');
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
    bed.putService('empty', [web.a]);
    await until('its own endpoint', async () => (await bed.seen('fallback.test')).backend === 'a');
    const failing = await bed.backend('failing', (_seen, response) => {
      response.statusCode = 503;
      response.end();
      return true;
    });
    bed.putService('half', [failing.port, web.a]);
    bed.putIngress(
      'retried',
      { '/': 'half' },
      { annotations: { 'proxy-next-upstream': 'error http_503', 'proxy-next-upstream-tries': '4' } },
    );
    await bed.answers('retried.test', '/', 200);
    for (let i = 0; i < 6; i++) assert.equal((await bed.get('retried.test')).status, 200);
  });
});
