/**
 * The cluster's keys on disk: one certificate authority, the API server's serving and kubelet-client certificates, and
 * the key that signs service account tokens. Invariant: what is on disk is complete and consistent, or absent (each file
 * is written whole and renamed, mode 0600; a certificate and its key share one file). The authority is never replaced.
 */

import { createPrivateKey, createPublicKey, type KeyObject, X509Certificate } from 'node:crypto';
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { type Clock, systemClock } from '../../base/clock.ts';
import {
  addressBytes,
  type Grant,
  type Issuer,
  issueCertificate,
  issueKeyPair,
  type KeyPair,
  keyPem,
  newKey,
  parseSubject,
  type Subject,
  signGrant,
} from './certificate.ts';

const HOUR_MS = 3_600_000;
const YEAR_MS = 365 * 24 * HOUR_MS;
const AUTHORITY_YEARS = 10;
/** A certificate is renewed when less than this is left of its year. */
const RENEW_BEFORE_MS = 30 * 24 * HOUR_MS;

export interface PkiOptions {
  /** DNS names and IPs of the API server's serving certificate. */
  readonly sans: readonly string[];
  readonly clock?: Clock;
}

export interface Pki {
  /** PEM of the authority: what clients trust, and what verifies client certificates. */
  readonly ca: string;
  /** The API server's serving certificate. */
  readonly server: KeyPair;
  /** What the API server shows to kubelets: kube-apiserver-kubelet-client, system:masters. */
  readonly kubeletClient: KeyPair;
  /** P-256 pair of service account tokens. */
  readonly serviceAccountKey: { readonly privateKey: KeyObject; readonly publicKey: KeyObject };
  /** A certificate for what a signer has granted, not longer valid than the authority. */
  sign(grant: Grant): string;
  /** A certificate for a user (CN) and its groups (O), valid a year. Nothing is written to disk. */
  issueClient(subject: Subject): KeyPair;
  /** A serving certificate; a kubelet's has the subject `system:node:NAME`, `system:nodes`. */
  issueServer(subject: Subject, names: readonly string[]): KeyPair;
  /** A client certificate kept in the PKI directory under `name`, renewed when near expiry. */
  ensureClient(name: string, subject: Subject): Promise<KeyPair>;
  /** Who the API server is towards extension servers: a client certificate, and the authority of its own that vouches for it. */
  ensureFrontProxy(): Promise<{ readonly ca: string; readonly client: KeyPair }>;
  /** A serving certificate kept in the PKI directory, renewed when near expiry or when its names change. */
  ensureServer(name: string, subject: Subject, names: readonly string[]): Promise<KeyPair>;
}

/** The names under which pods and local clients reach the API server, to be joined by addresses of the machine. */
export function defaultServerNames(clusterDomain = 'cluster.local'): string[] {
  return [
    'kubernetes',
    'kubernetes.default',
    'kubernetes.default.svc',
    `kubernetes.default.svc.${clusterDomain}`,
    'localhost',
    '127.0.0.1',
    '::1',
  ];
}

/** Creates what is missing in `directory`, renews what must be, and returns it all. Safe to repeat and to interrupt. */
export async function ensurePki(directory: string, options: PkiOptions): Promise<Pki> {
  const clock = options.clock ?? systemClock;
  await mkdir(directory, { recursive: true, mode: 0o700 });

  const authority = async (name: string, commonName: string): Promise<Issuer> => {
    const pair = await stored(join(directory, `${name}.pem`), async () => {
      const { privateKey, publicKey } = newKey();
      const request = { subject: { commonName }, usages: ['authority' as const], ...validity(clock, AUTHORITY_YEARS) };
      return { certificate: issueCertificate(request, publicKey, { selfKey: privateKey }), key: keyPem(privateKey) };
    });
    return { certificate: pair.certificate, privateKey: createPrivateKey(pair.key) };
  };
  const issuer = await authority('ca', 'kubernetes');

  const issue = (usage: 'server' | 'client', subject: Subject, names: readonly string[], by = issuer) =>
    issueKeyPair({ subject, names, usages: [usage], ...validity(clock, 1) }, by);
  const kept = (
    name: string,
    usage: 'server' | 'client',
    subject: Subject,
    names: readonly string[],
    by: Issuer = issuer,
  ) =>
    stored(
      join(directory, `${name}.pem`),
      async () => issue(usage, subject, names, by),
      pair => isCurrent(pair, { issuer: by, subject, names, nowMs: clock.now() }),
    );
  const [server, kubeletClient, signing] = await Promise.all([
    kept('apiserver', 'server', { commonName: 'kube-apiserver' }, options.sans),
    kept(
      'apiserver-kubelet-client',
      'client',
      { commonName: 'kube-apiserver-kubelet-client', organizations: ['system:masters'] },
      [],
    ),
    stored(join(directory, 'service-account.pem'), async () => ({ certificate: '', key: keyPem(newKey().privateKey) })),
  ]);
  const privateKey = createPrivateKey(signing.key);
  const endMs = Date.parse(new X509Certificate(issuer.certificate).validTo);
  return {
    ca: issuer.certificate,
    server,
    kubeletClient,
    serviceAccountKey: { privateKey, publicKey: createPublicKey(privateKey) },
    sign: grant => signGrant({ ...grant, notAfterMs: Math.min(grant.notAfterMs, endMs) }, issuer),
    issueClient: subject => issue('client', subject, []),
    issueServer: (subject, names) => issue('server', subject, names),
    ensureClient: (name, subject) => kept(name, 'client', subject, []),
    async ensureFrontProxy() {
      const by = await authority('front-proxy-ca', 'front-proxy-ca');
      const subject = { commonName: 'front-proxy-client' };
      return { ca: by.certificate, client: await kept('front-proxy-client', 'client', subject, [], by) };
    },
    ensureServer: (name, subject, names) => kept(name, 'server', subject, names),
  };
}

function validity(clock: Clock, years: number): { notBeforeMs: number; notAfterMs: number } {
  const nowMs = clock.now();
  // An hour back, so that a machine whose clock lags still accepts it.
  return { notBeforeMs: nowMs - HOUR_MS, notAfterMs: nowMs + years * YEAR_MS };
}

function isCurrent(
  pair: KeyPair,
  wanted: { issuer: Issuer; subject: Subject; names: readonly string[]; nowMs: number },
): boolean {
  const certificate = new X509Certificate(pair.certificate);
  if (Date.parse(certificate.validTo) - wanted.nowMs < RENEW_BEFORE_MS) return false;
  const { commonName, organizations } = parseSubject(certificate.subject);
  if (
    commonName !== wanted.subject.commonName ||
    organizations.join('\n') !== (wanted.subject.organizations ?? []).join('\n')
  )
    return false;
  const has = (certificate.subjectAltName ?? '')
    .split(', ')
    .filter(Boolean)
    .map(name => {
      const value = name.slice(name.indexOf(':') + 1);
      return name.startsWith('IP Address:') ? addressBytes(value).toString('hex') : value;
    });
  const wants = wanted.names.map(name => (/^[\d.]+$|:/.test(name) ? addressBytes(name).toString('hex') : name));
  return has.sort().join() === wants.sort().join() && certificate.verify(createPublicKey(wanted.issuer.privateKey));
}

async function stored(
  path: string,
  make: () => Promise<KeyPair>,
  isValid: (pair: KeyPair) => boolean = () => true,
): Promise<KeyPair> {
  const existing = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (existing !== undefined) {
    const pair = split(existing);
    if (isValid(pair)) return pair;
  }
  const pair = await make();
  await writeWhole(path, pair.certificate + pair.key);
  return pair;
}

function split(pem: string): KeyPair {
  const at = pem.search(/-----BEGIN [A-Z ]*PRIVATE KEY-----/);
  return { certificate: pem.slice(0, at), key: pem.slice(at) };
}

/** Writes a file that others see whole or not at all, readable by its owner only. */
export async function writeWhole(path: string, content: string): Promise<void> {
  const temporary = `${path}.${process.pid}.new`;
  const file = await open(temporary, 'w', 0o600);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}
