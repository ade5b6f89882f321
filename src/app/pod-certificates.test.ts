import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseRequestBytes } from '../api/certificates/certificate-request.ts';
import type { PodCertificateRequest } from '../api/certificates/v1beta1.gen.ts';
import type { Pod, PodCertificateProjection } from '../api/core/v1.gen.ts';
import type { KubeObject } from '../api/meta.ts';
import { issueCertificate, newKey, signGrant } from '../apiserver/certificates/certificate.ts';
import { ensurePki, type Pki } from '../apiserver/certificates/pki.ts';
import { loadServerSettings } from '../apiserver/configuration/server-settings.ts';
import { openSecured } from '../apiserver/security-bed.ts';
import { type Clock, formatTime, systemClock } from '../base/clock.ts';
import { issuerOf } from '../base/cluster-defaults.ts';
import { silentLogger } from '../base/log.ts';
import { seededRandom } from '../base/random.ts';
import { NODES, POD_CERTIFICATE_REQUESTS, PODS, SERVICE_ACCOUNTS } from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';
import { PodCertificates } from '../kubelet/volumes/pod-certificates.ts';
import type { VolumeContext } from '../kubelet/volumes/volume.ts';

const NODE = 'node-1';
const SIGNER = 'example.com/pods';
const HOUR_MS = 3_600_000;

let directory: string;
let pki: Pki;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cox-pod-certificates-'));
  pki = await ensurePki(directory, { sans: [] });
});
after(() => rm(directory, { recursive: true, force: true }));

const authorityKey = newKey();
const authority = {
  certificate: issueCertificate(
    {
      subject: { commonName: 'pods' },
      usages: ['authority'],
      notBeforeMs: systemClock.now() - HOUR_MS,
      notAfterMs: systemClock.now() + 48 * HOUR_MS,
    },
    authorityKey.publicKey,
    { selfKey: authorityKey.privateKey },
  ),
  privateKey: authorityKey.privateKey,
};

const SOURCE: PodCertificateProjection = {
  signerName: SIGNER,
  keyType: 'ECDSAP384',
  credentialBundlePath: 'bundle.pem',
  keyPath: 'key.pem',
  certificateChainPath: 'chain.pem',
  userAnnotations: { 'example.com/purpose': 'test' },
};

interface Bed {
  readonly root: Transport;
  readonly kubelet: Transport;
  readonly pod: Pod;
  readonly events: string[];
  clockMs: number;
  files(): Promise<ReadonlyMap<string, { readonly data: Buffer; readonly mode: number }>>;
  /** Settles once the kubelet has been told that something changed. */
  changed(): Promise<void>;
  requests(): Promise<PodCertificateRequest[]>;
}

async function withBed(source: PodCertificateProjection, body: (bed: Bed) => Promise<void>): Promise<void> {
  const settings = await loadServerSettings(
    ['runtime-config=certificates.k8s.io/v1beta1=true'],
    issuerOf('cluster.local'),
  );
  const { server, root } = await openSecured({ pki, settings });
  const stop = new AbortController();
  const events: string[] = [];
  try {
    const make = (of: typeof PODS, kind: string, object: object) =>
      root.create({ of, ...(of === NODES ? {} : { namespace: 'default' }) }, {
        apiVersion: 'v1',
        kind,
        ...object,
      } as KubeObject);
    await make(NODES, 'Node', { metadata: { name: NODE } });
    await make(SERVICE_ACCOUNTS, 'ServiceAccount', { metadata: { name: 'default' } });
    const pod = (await make(PODS, 'Pod', {
      metadata: { name: 'web' },
      spec: {
        nodeName: NODE,
        serviceAccountName: 'default',
        containers: [{ name: 'a', image: 'b' }],
        volumes: [{ name: 'identity', projected: { sources: [{ podCertificate: source }] } }],
      },
    })) as Pod;
    const kubelet = server.transport({
      name: `system:node:${NODE}`,
      uid: '',
      groups: ['system:nodes', 'system:authenticated'],
      extra: {},
    });
    const bed = { root, kubelet, pod, events, clockMs: 0 } as Bed;
    const clock: Clock = {
      now: () => systemClock.now() + bed.clockMs,
      monotonic: () => systemClock.monotonic(),
      after: (ms, run, options) => systemClock.after(ms, run, options),
      sleep: (ms, signal) => systemClock.sleep(ms, signal),
    };
    const certificates = new PodCertificates({
      transport: kubelet,
      nodeName: NODE,
      clock,
      random: seededRandom(1),
      log: silentLogger,
      signal: stop.signal,
    });
    let waiting: (() => void)[] = [];
    const context = {
      pod,
      use: { volume: 'identity' },
      signal: stop.signal,
      changed: () => {
        for (const resolve of waiting) resolve();
        waiting = [];
      },
      event: (_: string, reason: string, message: string) => events.push(`${reason}: ${message}`),
      fetch: async (of: typeof PODS, key: { namespace?: string; name: string }) => {
        try {
          return await kubelet.get({ of, ...key });
        } catch (error) {
          if ((error as { code?: number }).code === 404) return undefined;
          throw error;
        }
      },
    } as unknown as VolumeContext;
    Object.assign(bed, {
      files: () =>
        certificates.files(
          pod.spec.volumes![0]!.projected!.sources![0]!.podCertificate!,
          { index: 0, mode: 0o644 },
          context,
        ),
      changed: () => new Promise<void>(resolve => waiting.push(resolve)),
      requests: async () => (await root.list({ of: POD_CERTIFICATE_REQUESTS })).items as PodCertificateRequest[],
    });
    await body(bed);
  } finally {
    stop.abort();
    await server.close();
  }
}

const condition = (type: string, reason = 'Test') => ({ type, status: 'True', reason, message: 'as asked' });

function issued(
  request: PodCertificateRequest,
  { seconds = 3600, other = false } = {},
): PodCertificateRequest['status'] {
  const notBeforeMs = Math.floor(systemClock.now() / 1000) * 1000;
  const notAfterMs = notBeforeMs + seconds * 1000;
  const publicKey = other
    ? newKey().publicKey.export({ type: 'spki', format: 'der' })
    : parseRequestBytes(Buffer.from(request.spec.stubPKCS10Request, 'base64')).publicKey;
  const subject = Buffer.from([0x30, 0]);
  const leaf = signGrant({ subject, publicKey, usages: ['client auth'], notBeforeMs, notAfterMs }, authority);
  return {
    conditions: [condition('Issued')],
    certificateChain: leaf + authority.certificate,
    notBefore: formatTime(notBeforeMs),
    beginRefreshAt: formatTime(notBeforeMs + 1_800_000),
    notAfter: formatTime(notAfterMs),
  } as PodCertificateRequest['status'];
}

const answer = ({ root }: Bed, request: PodCertificateRequest, status: PodCertificateRequest['status']) =>
  root.update(
    { of: POD_CERTIFICATE_REQUESTS, namespace: 'default', name: request.metadata.name, subresource: 'status' },
    { ...request, status } as KubeObject,
  );

test('a pod gets the certificate of its key, and the next one in time', () =>
  withBed(SOURCE, async bed => {
    await assert.rejects(bed.files(), /credential bundle is not issued yet/);
    const [request] = await bed.requests();
    const { stubPKCS10Request: _, ...spec } = request!.spec;
    assert.deepEqual(
      { ...spec, podUID: spec.podUID === bed.pod.metadata.uid, serviceAccountUID: true, nodeUID: true },
      {
        signerName: SIGNER,
        podName: 'web',
        podUID: true,
        serviceAccountName: 'default',
        serviceAccountUID: true,
        nodeName: NODE,
        nodeUID: true,
        maxExpirationSeconds: 86_400,
        unverifiedUserAnnotations: { 'example.com/purpose': 'test' },
      },
    );
    const told = bed.changed();
    await answer(bed, request!, issued(request!));
    await told;
    const files = await bed.files();
    assert.deepEqual([...files.keys()].sort(), ['bundle.pem', 'chain.pem', 'key.pem']);
    const text = (name: string) => files.get(name)!.data.toString();
    assert.equal(text('bundle.pem'), text('key.pem') + text('chain.pem'));
    const leaf = new X509Certificate(text('chain.pem'));
    assert.ok(leaf.checkPrivateKey(createPrivateKey(text('key.pem'))));
    assert.equal(createPublicKey(text('key.pem')).asymmetricKeyDetails!.namedCurve, 'secp384r1');
    // Not yet, and then until the next one is there the old one serves.
    await bed.files();
    assert.equal((await bed.requests()).length, 1);
    bed.clockMs = 1_800_000 + 5 * 60_000 + 1000;
    assert.equal((await bed.files()).get('key.pem')!.data.toString(), text('key.pem'));
    const next = (await bed.requests()).find(({ metadata }) => metadata.name !== request!.metadata.name)!;
    bed.clockMs = HOUR_MS + 1000;
    await bed.files();
    assert.deepEqual(bed.events, [
      'CertificateOverdueForRefresh: PodCertificate refresh overdue',
      'CertificateExpired: PodCertificate expired',
    ]);
    const again = bed.changed();
    await answer(bed, next, issued(next));
    await again;
    assert.notEqual((await bed.files()).get('key.pem')!.data.toString(), text('key.pem'));
  }));

test('what a signer denies is not asked again; what somebody deletes is', () =>
  withBed({ ...SOURCE, keyType: 'ED25519' }, async bed => {
    await assert.rejects(bed.files(), /not issued yet/);
    const [first] = await bed.requests();
    const told = bed.changed();
    await bed.root.delete({ of: POD_CERTIFICATE_REQUESTS, namespace: 'default', name: first!.metadata.name });
    await told;
    await assert.rejects(bed.files(), /not issued yet/);
    await assert.rejects(bed.files(), /not issued yet/);
    const [second] = await bed.requests();
    const again = bed.changed();
    await answer(bed, second!, { conditions: [condition('Denied', 'UnsupportedKeyType')] } as never);
    await again;
    const refusal = /permanently denied: reason="UnsupportedKeyType", message="as asked"/;
    await assert.rejects(bed.files(), refusal);
    await assert.rejects(bed.files(), refusal);
    assert.equal((await bed.requests()).length, 1);
    assert.match(bed.events.join(), /^Denied: PodCertificateRequest default\/req-\w+ was denied, reason=/);
  }));

test('signers can only give what was asked for, and once', () =>
  withBed(SOURCE, async bed => {
    await assert.rejects(bed.files(), /not issued yet/);
    const [request] = await bed.requests();
    const refused = (status: object, message: RegExp) =>
      assert.rejects(answer(bed, request!, status as PodCertificateRequest['status']), { message });
    const good = issued(request!)!;
    await refused(issued(request!, { other: true })!, /leaf certificate was not issued to the requested public key/);
    await refused(issued(request!, { seconds: 3000 })!, /leaf certificate lifetime must be >= 1 hour/);
    await refused(issued(request!, { seconds: 90_000 })!, /must be <= spec\.maxExpirationSeconds \(86400\)/);
    await refused({ ...good, notBefore: undefined }, /status\.notBefore: Required value/);
    await refused({ ...good, beginRefreshAt: good.notBefore }, /must be at least 10 minutes after status\.notBefore/);
    await refused({ ...good, certificateChain: 'none' }, /must contain at least one certificate/);
    await refused({ conditions: [condition('Ready')] }, /Unsupported value: "Ready"/);
    await refused({ conditions: [condition('Denied'), condition('Failed')] }, /There may be at most one condition/);
    await refused({ ...good, conditions: [condition('Denied')] }, /must be empty when denying or failing/);
    await refused({ ...good, conditions: [] }, /status is immutable unless transitioning/);
    await answer(bed, request!, good);
    const [now] = await bed.requests();
    assert.match(now!.status!.conditions![0]!.lastTransitionTime!, /^20\d\d-/);
    await assert.rejects(answer(bed, now!, { conditions: [condition('Failed')] } as never), /immutable after/);
    const renamed = { ...now!, spec: { ...now!.spec, podName: 'other' } } as KubeObject;
    const target = { of: POD_CERTIFICATE_REQUESTS, namespace: 'default', name: now!.metadata.name };
    await assert.rejects(bed.root.update(target, renamed), /spec: Invalid value: .*field is immutable/);
  }));

test('a node asks for its own pods only, says what is so, and does not answer', () =>
  withBed(SOURCE, async bed => {
    await assert.rejects(bed.files(), /not issued yet/);
    const [request] = await bed.requests();
    const target = { of: POD_CERTIFICATE_REQUESTS, namespace: 'default' };
    const ask = (spec: object) =>
      bed.kubelet.create(target, {
        apiVersion: 'certificates.k8s.io/v1beta1',
        kind: 'PodCertificateRequest',
        metadata: { name: '', generateName: 'x-' },
        spec: { ...request!.spec, ...spec },
      } as KubeObject);
    await assert.rejects(ask({ nodeName: 'node-2' }), /which is not the requesting node "node-1"/);
    await assert.rejects(ask({ podUID: 'b' }), /contains pod UID \("b"\) which differs/);
    await assert.rejects(ask({ serviceAccountName: 'admin' }), /contains serviceAccountName \("admin"\) that differs/);
    await assert.rejects(ask({ stubPKCS10Request: 'AAAA' }), /must be a valid PKCS#10 request/);
    await assert.rejects(ask({ maxExpirationSeconds: 60 }), /must be in the range \[3600, 7862400\]/);
    await assert.rejects(ask({ unverifiedUserAnnotations: { plain: '' } }), /must be a domain-prefixed key/);
    const one = { ...target, name: request!.metadata.name };
    await bed.kubelet.get(one);
    const status = { ...request!, status: issued(request!) } as KubeObject;
    await assert.rejects(
      bed.kubelet.update({ ...one, subresource: 'status' }, status),
      /may not access the subresources/,
    );
    await assert.rejects(bed.kubelet.list(target), /with spec\.nodeName field selector/);
  }));
