import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { createServer } from 'node:tls';
import { issueCertificate, keyPem, newKey } from '../../src/apiserver/certificates/certificate.ts';
import { decodeMessage, Query, TYPE, writeReply } from '../../src/dns/message.ts';
import { parseRecord } from '../../src/dns/record-text.ts';
import { answerOf, textOf } from '../../src/dns/records.ts';
import { exchange, framed } from '../../src/dns/upstream.ts';

const LOCALHOST = '127.0.0.1';
const question = {
  name: 'www.example.com',
  type: TYPE.A,
  recursionDesired: true,
  checkingDisabled: false,
  dnssecOk: false,
};
const within = (timeoutMs: number) => ({ via: 'udp' as const, timeoutMs, signal: new AbortController().signal });

test('over TLS, only when the certificate is the one expected', async t => {
  const { privateKey, publicKey } = newKey();
  const nowMs = Date.now();
  const pem = issueCertificate(
    {
      subject: { commonName: 'dns.test' },
      names: ['dns.test'],
      usages: ['server', 'authority'],
      notBeforeMs: nowMs - 60_000,
      notAfterMs: nowMs + 3_600_000,
    },
    publicKey,
    { selfKey: privateKey },
  );
  const key = keyPem(privateKey);
  const server = createServer({ cert: pem, key }, socket => {
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      const message = chunk.subarray(2);
      const query = new Query();
      query.parse(message, 0, message.length);
      const answer = answerOf(query.name, [parseRecord('answer', `${textOf(query.name)} 60 A 192.0.2.3`)]);
      const out = Buffer.alloc(512);
      socket.write(framed(out.subarray(0, writeReply(query, answer, message, 0, out, 0, { bytesMax: 512, turn: 0 }))));
    });
  });
  server.on('tlsClientError', () => {});
  server.listen(0, LOCALHOST);
  await once(server, 'listening');
  t.after(() => server.close());
  const to = { address: LOCALHOST, port: (server.address() as { port: number }).port, tls: true };
  const reply = await exchange(to, question, { ...within(5000), tls: { ca: pem, servername: 'dns.test' } });
  assert.equal(decodeMessage(reply).records[0]!.data.join('.'), '192.0.2.3');
  await assert.rejects(
    exchange(to, question, { ...within(5000), tls: { ca: pem, servername: 'other.test' } }),
    /altnames|Hostname/,
  );
  await assert.rejects(exchange(to, question, { ...within(5000), tls: { servername: 'dns.test' } }), /self-signed/);
});
