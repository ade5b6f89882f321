import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import * as tls from 'node:tls';
import { parse } from 'yaml';
import { VirtualClock } from '../../base/clock.ts';
import { kubeconfig } from './kubeconfig.ts';
import { defaultServerNames, ensurePki } from './pki.ts';

let directory: string;
before(async () => void (directory = await mkdtemp(join(tmpdir(), 'cox-pki-'))));
after(() => rm(directory, { recursive: true, force: true }));

test('a repeated call keeps every key, and files are private', async () => {
  const first = await ensurePki(directory, { sans: defaultServerNames() });
  const second = await ensurePki(directory, { sans: defaultServerNames() });
  assert.deepEqual([second.ca, second.server, second.kubeletClient], [first.ca, first.server, first.kubeletClient]);
  assert.ok(first.serviceAccountKey.publicKey.equals(second.serviceAccountKey.publicKey));
  for (const file of await readdir(directory))
    assert.equal((await stat(join(directory, file))).mode & 0o777, 0o600, file);
});

test('the serving certificate is renewed when its names change or it nears its end; the authority stays', async () => {
  const first = await ensurePki(directory, { sans: defaultServerNames() });
  const named = await ensurePki(directory, {
    sans: [...defaultServerNames(), '192.168.7.1', 'fd00::1', 'api.example'],
  });
  assert.notEqual(named.server.certificate, first.server.certificate);
  assert.match(new X509Certificate(named.server.certificate).subjectAltName!, /DNS:api\.example/);
  const late = new VirtualClock(Date.now() + 350 * 86_400_000);
  const renewed = await ensurePki(directory, {
    sans: [...defaultServerNames(), '192.168.7.1', 'fd00::1', 'api.example'],
    clock: late,
  });
  assert.notEqual(renewed.server.certificate, named.server.certificate);
  assert.equal(renewed.ca, first.ca);
});

test('mutual TLS works and the server sees CN and every O', async () => {
  const pki = await ensurePki(directory, { sans: defaultServerNames() });
  const client = pki.issueClient({ commonName: 'jane', organizations: ['dev', 'ops'] });
  const server = tls.createServer({
    cert: pki.server.certificate,
    key: pki.server.key,
    ca: pki.ca,
    requestCert: true,
    rejectUnauthorized: true,
  });
  const seen = new Promise<tls.PeerCertificate>(resolve =>
    server.once('secureConnection', socket => resolve(socket.getPeerCertificate())),
  );
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const socket = tls.connect({ port, host: '127.0.0.1', ca: pki.ca, cert: client.certificate, key: client.key });
  await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
  const { subject } = await seen;
  assert.equal(subject.CN, 'jane');
  assert.deepEqual(subject.O, ['dev', 'ops']);
  socket.destroy();
  server.close();
});

test('kubeconfig is YAML that names one context', async () => {
  const pki = await ensurePki(directory, { sans: defaultServerNames() });
  const config = parse(
    kubeconfig({
      server: 'https://127.0.0.1:6443',
      ca: pki.ca,
      name: 'coxswain-dev',
      credentials: pki.issueClient({ commonName: 'admin' }),
    }),
  );
  assert.equal(config['current-context'], 'coxswain-dev');
  assert.equal(Buffer.from(config.clusters[0].cluster['certificate-authority-data'], 'base64').toString(), pki.ca);
});
