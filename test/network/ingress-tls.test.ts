/** TLS and the connections below requests, through a real HAProxy that the agent drives. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectH2 } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { canRunIngress, IngressBed, until } from './ingress-bed.ts';

describe('ingress: TLS', { skip: !canRunIngress }, () => {
  const bed = new IngressBed();

  before(() => bed.startWeb());
  after(() => bed.close());

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
