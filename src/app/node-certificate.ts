/**
 * A certificate of a kubelet by the cluster's own signers, that for its port or that by which the API server knows it: asked for by a
 * CertificateSigningRequest that somebody approves, kept in a file, and asked for anew when seven to nine tenths of its time are
 * over. Invariant: the key never leaves this machine. It approves nothing itself, and waits as long as it takes.
 */

import { X509Certificate } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CertificateSigningRequest } from '../api/certificates/v1.gen.ts';
import { makeRequest } from '../apiserver/certificates/signing-request.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import { CERTIFICATE_SIGNING_REQUESTS } from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';

/** Usages with the one that an elliptic key does not need: signers before 1.27 want all three. */
const PURPOSES = {
  serving: {
    signer: 'kubernetes.io/kubelet-serving',
    usages: ['digital signature', 'key encipherment', 'server auth'],
    file: 'kubelet-server-current.pem',
  },
  client: {
    signer: 'kubernetes.io/kube-apiserver-client-kubelet',
    usages: ['digital signature', 'key encipherment', 'client auth'],
    file: 'kubelet-client-current.pem',
  },
} as const;
const POLL_MS_MIN = 250;
const POLL_MS_MAX = 10_000;
/** After that one asks anew, as upstream. */
const PATIENCE_MS = 15 * 60_000;
const RETRY_MS = 10_000;
/** Timers hold no more than 24 days. */
const SLEEP_MS_MAX = 24 * 3600_000;

export interface NodePair {
  readonly cert: string;
  readonly key: string;
}

interface Place {
  readonly purpose: keyof typeof PURPOSES;
  readonly folder: string;
  readonly nodeName: string;
  /** Names and addresses that clients call the node by; none for its own client certificate. */
  readonly names: readonly string[];
  readonly clock: Clock;
}

export interface NodeCertificateOptions extends Place {
  readonly transport: Transport;
  /** In place of the file's, while there is none. */
  readonly first?: NodePair;
  readonly random: Random;
  readonly log: Logger;
}

/** Holds key and certificate. */
export const certificatePath = ({ purpose, folder }: Pick<Place, 'purpose' | 'folder'>): string =>
  join(folder, PURPOSES[purpose].file);

/** Each one as it comes: the one of the file first, if it still holds. Ends with the signal. */
export async function* nodeCertificates(
  options: NodeCertificateOptions,
  signal: AbortSignal,
): AsyncGenerator<NodePair> {
  const { purpose, clock, random, log } = options;
  let current = storedCertificate(options) ?? options.first;
  if (current) yield current;
  while (!signal.aborted) {
    if (current) {
      const { validFromDate, validToDate } = new X509Certificate(current.cert);
      const [from, to] = [validFromDate.getTime(), validToDate.getTime()];
      const leftMs = from + (to - from) * (0.7 + 0.2 * random.next()) - clock.now();
      for (let sleepMs = leftMs; sleepMs > 0 && !signal.aborted; sleepMs -= SLEEP_MS_MAX)
        await clock.sleep(Math.min(sleepMs, SLEEP_MS_MAX), signal);
      if (signal.aborted) return;
    }
    try {
      const next = await request(options, signal);
      if (!next) continue;
      save(options, next);
      current = next;
      log.info('certificate signed', { purpose, until: new X509Certificate(next.cert).validTo });
      yield next;
    } catch (error) {
      if (signal.aborted) return;
      log.warn('no certificate yet, asking again', { purpose, error: messageOf(error) });
      await clock.sleep(RETRY_MS, signal);
    }
  }
}

/** Undefined when nobody has signed it for long. Rejects when it was denied. */
async function request(
  { purpose, transport, nodeName, names, clock, log }: NodeCertificateOptions,
  signal: AbortSignal,
): Promise<NodePair | undefined> {
  const { request, key } = makeRequest(
    { commonName: `system:node:${nodeName}`, organizations: ['system:nodes'] },
    names,
  );
  const asked = (await transport.create({ of: CERTIFICATE_SIGNING_REQUESTS }, {
    apiVersion: 'certificates.k8s.io/v1',
    kind: 'CertificateSigningRequest',
    metadata: { generateName: 'csr-' },
    spec: { request, signerName: PURPOSES[purpose].signer, usages: PURPOSES[purpose].usages },
  } as unknown as CertificateSigningRequest)) as CertificateSigningRequest;
  const { name } = asked.metadata;
  log.info('waiting for the certificate to be approved', { purpose, approve: `kubectl certificate approve ${name}` });
  const endMs = clock.monotonic() + PATIENCE_MS;
  for (let pauseMs = POLL_MS_MIN; clock.monotonic() < endMs; pauseMs = Math.min(pauseMs * 1.5, POLL_MS_MAX)) {
    await clock.sleep(pauseMs, signal);
    signal.throwIfAborted();
    const { status } = (await transport.get({
      of: CERTIFICATE_SIGNING_REQUESTS,
      name,
    })) as CertificateSigningRequest;
    const refused = status?.conditions?.find(({ type }) => type === 'Denied' || type === 'Failed');
    if (refused)
      throw new Error(
        `certificate signing request ${name} was ${refused.type.toLowerCase()}: ${refused.message ?? ''}`,
      );
    if (status?.certificate) return { key, cert: Buffer.from(status.certificate, 'base64').toString('utf8') };
  }
  return undefined;
}

/** What the file holds, if it is this node's and still holds. */
export function storedCertificate({ purpose, folder, nodeName, names, clock }: Place): NodePair | undefined {
  try {
    const text = readFileSync(certificatePath({ purpose, folder }), 'utf8');
    const parts = text.match(/-----BEGIN ([A-Z ]+)-----[\s\S]*?-----END \1-----\n?/g) ?? [];
    const key = parts.find(part => part.includes('PRIVATE KEY')) ?? '';
    const cert = parts.filter(part => part.includes('CERTIFICATE')).join('');
    const certificate = new X509Certificate(cert);
    const covers =
      certificate.subject.split('\n').includes(`CN=system:node:${nodeName}`) &&
      names.every(name => certificate.subjectAltName?.split(', ').some(one => one.endsWith(`:${name}`)));
    return key && covers && certificate.validToDate.getTime() > clock.now() ? { key, cert } : undefined;
  } catch {
    // None yet, or one that cannot be read: asked for anew.
    return undefined;
  }
}

function save(place: Place, { cert, key }: NodePair): void {
  const path = certificatePath(place);
  writeFileSync(`${path}.new`, `${cert.trimEnd()}\n${key}`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}
