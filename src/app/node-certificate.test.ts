import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseCertificateRequest } from '../api/certificates/certificate-request.ts';
import type { CertificateSigningRequest } from '../api/certificates/v1.gen.ts';
import { issueCertificate, newKey, signGrant } from '../apiserver/certificates/certificate.ts';
import { VirtualClock } from '../base/clock.ts';
import { silentLogger } from '../base/log.ts';
import { seededRandom } from '../base/random.ts';
import type { Transport } from '../client/transport.ts';
import { nodeCertificates } from './node-certificate.ts';

const HOUR_MS = 3_600_000;
let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'cox-serving-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

/** An API server whose signer signs what is approved, for ten hours. */
class Signer {
  readonly requests: CertificateSigningRequest[] = [];
  readonly #keys = newKey();
  readonly #clock: VirtualClock;
  readonly #certificate: string;
  constructor(clock: VirtualClock) {
    this.#clock = clock;
    const subject = { commonName: 'authority' };
    const validity = { notBeforeMs: 0, notAfterMs: clock.now() + 1e10 };
    this.#certificate = issueCertificate({ subject, usages: ['authority'], ...validity }, this.#keys.publicKey, {
      selfKey: this.#keys.privateKey,
    });
  }
  readonly transport = {
    create: async (_: unknown, object: CertificateSigningRequest) => {
      const made = { ...object, metadata: { ...object.metadata, name: `csr-${this.requests.length}` } };
      this.requests.push(made);
      return made;
    },
    get: async ({ name }: { name?: string }) => this.requests.find(({ metadata }) => metadata.name === name)!,
  } as unknown as Transport;
  settle(status: (request: CertificateSigningRequest) => CertificateSigningRequest['status']): void {
    const last = this.requests.length - 1;
    this.requests[last] = { ...this.requests[last]!, status: status(this.requests[last]!)! };
  }
  sign(): void {
    this.settle(({ spec }) => {
      const notBeforeMs = this.#clock.now();
      const grant = { ...parseCertificateRequest(spec.request), usages: spec.usages ?? [], notBeforeMs };
      const certificate = signGrant(
        { ...grant, notAfterMs: notBeforeMs + 10 * HOUR_MS },
        { certificate: this.#certificate, privateKey: this.#keys.privateKey },
      );
      return { certificate: Buffer.from(certificate).toString('base64') };
    });
  }
}

test('asked for, waited for, kept, and asked for anew before it ends', async () => {
  const clock = new VirtualClock(1_700_000_000_000);
  const signer = new Signer(clock);
  const stop = new AbortController();
  const options = {
    purpose: 'serving' as const,
    transport: signer.transport,
    folder,
    nodeName: 'n1',
    names: ['n1', '10.0.0.7'],
    clock,
    random: seededRandom(1),
    log: silentLogger,
  };
  const open = () => nodeCertificates(options, stop.signal)[Symbol.asyncIterator]();
  const pairs = open();
  const first = pairs.next();
  await clock.advance(5000);
  assert.equal(signer.requests.length, 1);
  const { spec } = signer.requests[0]!;
  assert.deepEqual(
    [spec.signerName, spec.usages],
    ['kubernetes.io/kubelet-serving', ['digital signature', 'key encipherment', 'server auth']],
  );
  signer.settle(() => ({ conditions: [{ type: 'Denied', status: 'True', message: 'no' }] }));
  await clock.advance(30_000);
  assert.equal(signer.requests.length, 2);
  signer.sign();
  await clock.advance(20_000);
  const { value } = await first;
  const certificate = new X509Certificate(value!.cert);
  assert.match(certificate.subject, /O=system:nodes\nCN=system:node:n1/);
  assert.equal(certificate.subjectAltName, 'DNS:n1, IP Address:10.0.0.7');
  assert.equal(statSync(join(folder, 'kubelet-server-current.pem')).mode & 0o777, 0o600);

  // A kubelet that comes back has it at once, and asks nobody.
  const again = open();
  assert.equal((await again.next()).value!.key, value!.key);
  assert.equal(signer.requests.length, 2);

  const second = pairs.next();
  await clock.advance(6.9 * HOUR_MS);
  assert.equal(signer.requests.length, 2);
  for (let step = 0; step < 26 && signer.requests.length < 3; step++) await clock.advance(HOUR_MS / 12);
  assert.equal(signer.requests.length, 3);
  signer.sign();
  await clock.advance(20_000);
  assert.notEqual((await second).value!.key, value!.key);
  stop.abort();

  // One for other names is of no use.
  const other = nodeCertificates({ ...options, names: ['n2'] }, new AbortController().signal);
  void other.next();
  await clock.advance(1000);
  assert.equal(signer.requests.length, 4);
});
