/** TLS and the connections below requests, through a real HAProxy that the agent drives. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectH2 } from 'node:http2';
import { createServer as createHttps } from 'node:https';
import { type AddressInfo, connect as connectTcp } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { ensurePki } from '../../src/apiserver/certificates/pki.ts';
import { canRunIngress, IngressBed, until } from './ingress-bed.ts';

describe('ingress: TLS', { skip: !canRunIngress }, () => {
  const bed = new IngressBed();

  before(() => bed.startWeb());
  after(() => bed.close());

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

  test('TLS by SNI, rotation without a dropped connection, the default certificate for the rest', async () => {
    const before = bed.reloads;
    await bed.putCertificate('cert', ['tls.test', '*.many.test']);
    bed.putIngress('tls', { '/': 'web' }, { tls: [{ hosts: ['tls.test'], secretName: 'cert' }] });
    bed.putIngress(
      'many',
      { '/': 'web' },
      { host: '*.many.test', tls: [{ hosts: ['*.many.test'], secretName: 'cert' }] },
    );
    bed.putIngress('bad', { '/': 'web' }, { tls: [{ hosts: ['bad.test'], secretName: 'nosuch' }] });
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
    assert.equal(bed.reloads, before);
  });

  test('a wildcard’s certificate is not shown for a host of another namespace', async () => {
    await bed.putCertificate('wild', ['*.wild.test']);
    const host = (name: string) => ({ host: `${name}.wild.test` });
    bed.putIngress('wild', { '/': 'web' }, { ...host('*'), tls: [{ hosts: ['*.wild.test'], secretName: 'wild' }] });
    bed.putIngress('own', { '/': 'web' }, host('own'));
    bed.putIngress('foreign', { '/': 'web' }, { ...host('foreign'), namespace: 'other' });
    bed.putIngress(
      'lost',
      { '/': 'web' },
      { ...host('lost'), namespace: 'other', tls: [{ hosts: ['lost.wild.test'], secretName: 'nosuch' }] },
    );
    await until('the wildcard’s', async () => (await subject('any.wild.test')) === 'wild-1');
    await until('the default one', async () => (await subject('foreign.wild.test')) === 'default');
    assert.equal(await subject('lost.wild.test'), 'default');
    assert.equal(await subject('own.wild.test'), 'wild-1');
    bed.removeIngress('foreign', 'other');
    await until('the wildcard’s', async () => (await subject('foreign.wild.test')) === 'wild-1');
  });

  test('certificates of clients: who shows none, or a stranger’s, is not let in by any name', async () => {
    await bed.putCertificate('shop', ['shop.test', 'free.test']);
    bed.putSecret('clients', { 'ca.crt': bed.pki.ca });
    const own = await bed.pki.ensureClient('caller', { commonName: 'caller', organizations: [] });
    const strangers = await ensurePki(join(bed.folder, 'strangers'), { sans: ['localhost'] });
    const foreign = await strangers.ensureClient('caller', { commonName: 'caller', organizations: [] });
    bed.putSecret('others', { 'ca.crt': strangers.ca });
    const tls = (host: string) => ({ tls: [{ hosts: [host], secretName: 'shop' }] });
    const asking = { 'auth-tls-secret': 'clients', 'auth-tls-pass-certificate-to-upstream': 'true' };
    bed.putIngress('shop', { '/': 'web' }, { ...tls('shop.test'), annotations: asking });
    bed.putIngress('free', { '/': 'web' }, tls('free.test'));
    bed.putIngress(
      'optional',
      { '/': 'web' },
      { ...tls('optional.test'), annotations: { ...asking, 'auth-tls-verify-client': 'optional' } },
    );
    bed.putIngress(
      'named',
      { '/': 'web' },
      { ...tls('named.test'), annotations: { 'auth-tls-secret': 'clients', 'auth-tls-match-cn': 'CN=call.*' } },
    );
    bed.putIngress('others', { '/': 'web' }, { ...tls('others.test'), annotations: { 'auth-tls-secret': 'others' } });
    bed.putIngress(
      'nosecret',
      { '/': 'web' },
      { ...tls('nosecret.test'), annotations: { 'auth-tls-secret': 'nosuch' } },
    );
    /** Status and body of a request for `host` on a connection that was opened with `servername`. */
    const ask = (host: string, client: { certificate: string; key: string } | undefined, servername = host) =>
      new Promise<{ status: number; text: string }>(resolve => {
        let text = '';
        const finish = () => {
          socket.destroy();
          resolve({ status: Number(/^HTTP\/1.1 (\d+)/.exec(text)?.[1] ?? 0), text });
        };
        const shown = client ? { cert: client.certificate, key: client.key } : {};
        const socket = connectTls(
          { host: '127.0.0.1', port: bed.httpsPort, servername, rejectUnauthorized: false, ...shown },
          () =>
            socket.write(`GET / HTTP/1.1\r\nHost: ${host}\r\nssl-client-verify: SUCCESS\r\nConnection: close\r\n\r\n`),
        );
        socket.on('data', part => {
          text += part;
        });
        socket.on('error', finish).on('close', finish);
      });
    await until('who shows a certificate is let in', async () => (await ask('shop.test', own)).status === 200);
    await until('all are served', async () => (await ask('named.test', own)).status === 200);
    await bed.settled();
    const { text } = await ask('shop.test', own);
    assert.match(text, /"ssl-client-verify":"SUCCESS"/);
    assert.match(text, /"ssl-client-subject-dn":"CN=caller"/);
    assert.match(text, /"ssl-client-cert":"-----BEGIN%20CERTIFICATE-----%0A[^ "]+%0A-----END%20CERTIFICATE-----%0A"/);
    assert.equal((await ask('shop.test', undefined)).status, 400);
    assert.equal((await ask('shop.test', foreign)).status, 400);
    assert.equal((await ask('shop.test', undefined, 'free.test')).status, 421, 'not by a name that asks for nothing');
    assert.equal((await ask('shop.test', foreign, 'others.test')).status, 421, 'nor by one that asks for another');
    assert.equal((await ask('others.test', foreign)).status, 200);
    assert.equal((await ask('others.test', own)).status, 400);
    assert.equal((await ask('free.test', undefined)).status, 200);
    assert.match((await ask('optional.test', undefined)).text, /"ssl-client-verify":"NONE"/);
    assert.equal((await ask('optional.test', foreign)).status, 400);
    assert.equal((await ask('nosecret.test', own)).status, 503);
  });

  test('backends that speak TLS: whose certificate is believed, and what they are shown', async () => {
    const strangers = await ensurePki(join(bed.folder, 'unknown'), { sans: ['localhost'] });
    const pair = bed.pki.issueServer({ commonName: 'inner', organizations: [] }, ['inner.test']);
    const own = bed.pki.issueClient({ commonName: 'front', organizations: [] });
    const server = createHttps(
      { cert: pair.certificate, key: pair.key, ca: bed.pki.ca, requestCert: true, rejectUnauthorized: false },
      (incoming, response) => {
        const { subject } = (incoming.socket as TLSSocket).getPeerCertificate();
        const version = incoming.url === '/version' ? (incoming.socket as TLSSocket).getProtocol() : undefined;
        response.end(version ?? `shown: ${subject?.CN ?? 'nothing'}`);
      },
    ).listen(0, '127.0.0.1');
    await once(server, 'listening');
    bed.track(server);
    bed.putService('inner', [(server.address() as AddressInfo).port]);
    const trusted = { 'ca.crt': bed.pki.ca, 'tls.crt': own.certificate, 'tls.key': own.key };
    bed.putSecret('front', trusted);
    bed.putSecret('trust-only', { 'ca.crt': bed.pki.ca });
    bed.putSecret('wrong', { 'ca.crt': strangers.ca });
    bed.putSecret('nonsense', {
      'ca.crt': '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
      'tls.crt': 'x',
    });
    const put = (name: string, annotations: Record<string, string>) =>
      bed.putIngress(
        name,
        { '/': 'inner' },
        { annotations: { 'backend-protocol': 'HTTPS', 'proxy-ssl-name': 'inner.test', ...annotations } },
      );
    const verify = { 'proxy-ssl-verify': 'on' };
    put('any-cert', {});
    put('mutual', { ...verify, 'proxy-ssl-secret': 'default/front' });
    put('trusting', { ...verify, 'proxy-ssl-secret': 'trust-only' });
    put('wrong-ca', { ...verify, 'proxy-ssl-secret': 'wrong' });
    put('wrong-name', { ...verify, 'proxy-ssl-secret': 'front', 'proxy-ssl-name': 'other.test' });
    put('no-secret', verify);
    put('older', { 'proxy-ssl-protocols': 'TLSv1.1 TLSv1.2' });
    put('newer', { 'proxy-ssl-protocols': 'TLSv1.3' });
    put('too-old', { 'proxy-ssl-protocols': 'TLSv1' });
    put('nonsense', { ...verify, 'proxy-ssl-secret': 'nonsense' });
    // Nor does such a Secret keep others' changes from being taken where it was to be that of clients.
    bed.putIngress('nonsense-clients', { '/': 'web' }, { annotations: { 'auth-tls-secret': 'nonsense' } });
    await bed.answers('nonsense-clients.test', '/', 503);
    await bed.answers('mutual.test', '/', 200);
    const textOf = async (host: string) => (await bed.get(host)).text;
    assert.equal(await textOf('mutual.test'), 'shown: front');
    assert.equal(await textOf('any-cert.test'), 'shown: nothing');
    assert.equal(await textOf('trusting.test'), 'shown: nothing');
    for (const host of ['wrong-ca', 'wrong-name', 'no-secret', 'nonsense'])
      assert.equal((await bed.get(`${host}.test`)).status, 503, host);
    // Another authority takes the place of the wrong one.
    bed.putSecret('wrong', trusted);
    await bed.answers('wrong-ca.test', '/', 200);
    // Endpoints come and go as elsewhere.
    await bed.answers('newer.test', '/', 200);
    const { reloads } = bed;
    bed.putService('inner', []);
    for (const host of ['mutual.test', 'older.test']) await bed.answers(host, '/', 503);
    bed.putService('inner', [(server.address() as AddressInfo).port]);
    for (const host of ['mutual.test', 'older.test']) await bed.answers(host, '/', 200);
    assert.equal(await textOf('mutual.test'), 'shown: front');
    assert.equal(bed.reloads, reloads);
    const versionOf = async (host: string) => (await bed.get(host, '/version')).text;
    assert.equal(await versionOf('older.test'), 'TLSv1.2');
    assert.equal(await versionOf('newer.test'), 'TLSv1.3');
    assert.equal(await versionOf('too-old.test'), 'TLSv1.3', 'what is refused changes nothing');
  });

  test('TLS that is passed through as it is, beside hosts whose TLS ends here', async () => {
    const pair = bed.pki.issueServer({ commonName: 'end', organizations: [] }, ['end.test']);
    const end = createHttps({ cert: pair.certificate, key: pair.key }, (_, response) => {
      response.end('from the end');
    }).listen(0, '127.0.0.1');
    await once(end, 'listening');
    bed.track(end);
    bed.putService('end', [(end.address() as AddressInfo).port]);
    const passthrough = { 'ssl-passthrough': 'true', 'ssl-redirect': 'false' };
    bed.putIngress('passed', { '/': 'end' }, { annotations: passthrough });
    bed.putIngress('wild', { '/': 'end' }, { host: '*.wild-end.test', annotations: passthrough });
    bed.putIngress('late', { '/more': 'end' }, { host: 'plain.test', annotations: passthrough });
    await bed.putCertificate('beside-cert', ['beside.test']);
    bed.putIngress('beside', { '/': 'web' }, { tls: [{ hosts: ['beside.test'], secretName: 'beside-cert' }] });
    const asked = async (servername: string) => {
      const socket = connectTls({ host: '127.0.0.1', port: bed.httpsPort, servername, rejectUnauthorized: false });
      try {
        await once(socket, 'secureConnect');
        const who = socket.getPeerCertificate().subject.CN;
        socket.write(`GET / HTTP/1.1\r\nHost: ${servername}\r\nConnection: close\r\n\r\n`);
        let text = '';
        for await (const part of socket) text += part;
        return `${who} ${text}`;
      } catch (error) {
        return String(error);
      } finally {
        socket.destroy();
      }
    };
    for (const host of ['passed.test', 'any.wild-end.test'])
      await until(
        () => `${host} is passed through`,
        async () => /^end .*from the end/s.test(await asked(host)),
      );
    let beside = '';
    await until(
      () => `the host beside is served: ${beside}`,
      async () => (beside = await asked('beside.test')).startsWith('beside-cert-1 HTTP/1.1 200'),
    );
    await bed.settled();
    assert.match(beside, /"x-forwarded-for":"127\.0\.0\.1","x-forwarded-proto":"https"/);
    assert.match(await asked('plain.test'), /^default /, 'the host is an older Ingress’s');
    // Another endpoint takes no reload.
    const before = bed.reloads;
    bed.putService('end', []);
    await until('nobody answers', async () => !(await asked('passed.test')).includes('from the end'));
    bed.putService('end', [(end.address() as AddressInfo).port]);
    await until('it is back', async () => (await asked('passed.test')).includes('from the end'));
    assert.equal(bed.reloads, before);
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
});
