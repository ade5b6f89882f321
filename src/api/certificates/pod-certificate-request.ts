/**
 * PodCertificateRequests: a kubelet asks a signer for the certificate of one pod. What is asked for never changes, and the answer is given
 * once: issued, denied or failed. Refuses keys whose holder did not sign for them, and certificates for any other key. Who may ask, and
 * who may sign, admission decides.
 */

import { createPublicKey, type KeyObject, verify, X509Certificate } from 'node:crypto';
import { fieldErrors } from '../../base/errors.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { checkConditions } from '../machinery/conditions.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { dnsSubdomainProblems, type Problems } from '../machinery/names.ts';
import {
  addInvalid,
  addProblems,
  addRequired,
  checkUnchanged,
  type Errors,
  eachAt,
  requireText,
} from '../machinery/validation.ts';
import type { Condition } from '../meta.ts';
import {
  checkExpiration,
  checkUserAnnotations,
  EXPIRATION_SECONDS_DEFAULT,
  EXPIRATION_SECONDS_MIN,
} from './certificate-lifetime.ts';
import { parseRequestBytes } from './certificate-request.ts';
import { checkSignerName } from './signer-name.ts';
import type { PodCertificateRequest, PodCertificateRequestStatus } from './v1beta1.gen.ts';

export const API_VERSION = 'certificates.k8s.io/v1beta1';
const KEY_BYTES_MAX = 10 * 1024;
const CHAIN_BYTES_MAX = 100 * 1024;
const UID_BYTES_MAX = 128;
const REFRESH_MARGIN_MS = 10 * 60_000;
const OUTCOMES = ['Issued', 'Denied', 'Failed'];
const OMITTED = '<value omitted>';
const CHAIN = 'status.certificateChain';
const BLOCK = /-----BEGIN ([^-]*)-----[\s\S]*?-----END \1-----/g;

export const podCertificateRequest = defineKind<PodCertificateRequest>({
  group: 'certificates.k8s.io',
  version: 'v1beta1',
  kind: 'PodCertificateRequest',
  validateName: () => [],
  unconditionalUpdate: false,
  defaults: ({ spec }) => {
    if (spec) spec.maxExpirationSeconds ??= EXPIRATION_SECONDS_DEFAULT;
  },
  validate: object => {
    const errors: Errors = [];
    const { spec } = object;
    checkSignerName(errors, 'spec.signerName', spec?.signerName);
    for (const field of ['podName', 'serviceAccountName', 'nodeName'] as const)
      addProblems(errors, `spec.${field}`, spec?.[field] ?? '', dnsSubdomainProblems(spec?.[field] ?? ''));
    for (const field of ['podUID', 'serviceAccountUID', 'nodeUID'] as const)
      if (
        requireText(errors, `spec.${field}`, spec?.[field], 'must not be empty') &&
        spec[field].length > UID_BYTES_MAX
      )
        errors.push(fieldErrors.tooLong(`spec.${field}`, UID_BYTES_MAX));
    checkExpiration(errors, 'spec.maxExpirationSeconds', spec?.signerName ?? '', spec?.maxExpirationSeconds);
    checkUserAnnotations(errors, 'spec.unverifiedUserAnnotations', spec?.unverifiedUserAnnotations);
    checkKey(errors, object);
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec', object.spec, old.spec);
    return errors;
  },
  validateStatusUpdate: (object, old) => {
    const errors: Errors = [];
    checkOutcomes(errors, object.status?.conditions);
    if (errors.length === 0) checkOutcome(errors, object, old.status ?? {});
    return errors;
  },
  selectableFields: {
    'spec.signerName': object => object.spec?.signerName ?? '',
    'spec.podName': object => object.spec?.podName ?? '',
    'spec.nodeName': object => object.spec?.nodeName ?? '',
  },
  columns: [
    nameColumn,
    text('PodName', object => object.spec?.podName ?? ''),
    text('ServiceAccountName', object => object.spec?.serviceAccountName ?? ''),
    text('NodeName', object => object.spec?.nodeName ?? ''),
    text('SignerName', object => object.spec?.signerName ?? ''),
    text('State', object => outcomeOf(object.status)?.type ?? 'Pending'),
    ageColumn,
  ],
});

/** The condition that says how the request ended; undefined while it waits. */
export function outcomeOf(status: PodCertificateRequestStatus | undefined): Condition | undefined {
  return status?.conditions?.find(({ type, status: value }) => OUTCOMES.includes(type) && value === 'True');
}

function checkKey(errors: Errors, { spec }: PodCertificateRequest): void {
  const [stub, key, proof] = (['stubPKCS10Request', 'pkixPublicKey', 'proofOfPossession'] as const).map(field => {
    const bytes = Buffer.from(spec?.[field] ?? '', 'base64');
    if (bytes.length > KEY_BYTES_MAX) errors.push(fieldErrors.tooLong(`spec.${field}`, KEY_BYTES_MAX));
    return bytes;
  }) as [Buffer, Buffer, Buffer];
  if (errors.some(({ type }) => type === 'FieldValueTooLong')) return;
  if (stub.length > 0 === (key.length > 0 && proof.length > 0) || (stub.length > 0 && key.length + proof.length > 0)) {
    addInvalid(
      errors,
      'spec',
      OMITTED,
      'exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set',
    );
    return;
  }
  if (stub.length > 0) {
    const path = 'spec.stubPKCS10Request';
    try {
      // It is signed by the key that it names, or does not parse.
      addProblems(errors, path, OMITTED, keyProblems(publicKeyOf(parseRequestBytes(stub).publicKey)));
    } catch (error) {
      addInvalid(errors, path, OMITTED, `must be a valid PKCS#10 request: ${(error as Error).message}`);
    }
    return;
  }
  const public_ = readKey(key);
  if (!public_) {
    addInvalid(errors, 'spec.pkixPublicKey', spec.pkixPublicKey, 'must be a valid PKIX-serialized public key');
    return;
  }
  const problems = keyProblems(public_);
  addProblems(errors, 'spec.pkixPublicKey', OMITTED, problems);
  if (problems.length === 0 && !isProof(public_, spec.podUID ?? '', proof))
    addInvalid(errors, 'spec.proofOfPossession', OMITTED, 'could not verify proof-of-possession signature');
}

const publicKeyOf = (spki: Buffer): KeyObject => createPublicKey({ key: spki, format: 'der', type: 'spki' });

function readKey(spki: Buffer): KeyObject | undefined {
  try {
    return publicKeyOf(spki);
  } catch {
    return undefined;
  }
}

function keyProblems({ asymmetricKeyType: type, asymmetricKeyDetails: details = {} }: KeyObject): Problems {
  if (type === 'ed25519') return [];
  if (type === 'ec')
    return ['prime256v1', 'secp384r1', 'secp521r1'].includes(details.namedCurve ?? '')
      ? []
      : ['elliptic public keys must use curve P256, P384 or P521'];
  if (type === 'rsa')
    return details.modulusLength === 3072 || details.modulusLength === 4096
      ? []
      : ['RSA keys must have modulus size 3072 or 4096'];
  return ['unknown public key type; supported types are Ed25519, ECDSA, and RSA'];
}

/** The pod's uid, signed: RSA keys by PSS, with a salt of any length. */
function isProof(key: KeyObject, podUid: string, proof: Buffer): boolean {
  const data = Buffer.from(podUid);
  if (key.asymmetricKeyType === 'ed25519') return verify(null, data, key, proof);
  if (key.asymmetricKeyType === 'ec') return verify('sha256', data, key, proof);
  // RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_AUTO
  return verify('sha256', data, { key, padding: 6, saltLength: -2 }, proof);
}

function checkOutcomes(errors: Errors, conditions: readonly Condition[] | undefined): void {
  eachAt(conditions, 'status.conditions', ({ type, status }, at, index) => {
    if (!OUTCOMES.includes(type)) {
      errors.push(fieldErrors.notSupported(`${at}.type`, type, OUTCOMES));
      return;
    }
    if (index > 0)
      addInvalid(
        errors,
        `${at}.type`,
        type,
        'There may be at most one condition with type "Issued", "Denied", or "Failed"',
      );
    if (status !== 'True') errors.push(fieldErrors.notSupported(`${at}.status`, status, ['True']));
  });
  checkConditions(errors, 'status.conditions', conditions);
}

function checkOutcome(errors: Errors, object: PodCertificateRequest, old: PodCertificateRequestStatus): void {
  const status = object.status ?? {};
  const unless = (isEqual: boolean, detail: string) => {
    if (!isEqual) addInvalid(errors, 'status', OMITTED, detail);
  };
  const same = semanticEqual(withoutEmpty(status), withoutEmpty(old));
  if (outcomeOf(old)) return unless(same, 'immutable after PodCertificateRequest is issued, denied, or failed');
  const outcome = outcomeOf(status)?.type;
  if (outcome === 'Issued') return checkChain(errors, object);
  if (outcome)
    return unless(
      Object.keys(withoutEmpty(status)).join() === 'conditions',
      'non-condition status fields must be empty when denying or failing the PodCertificateRequest',
    );
  unless(same, 'status is immutable unless transitioning to "Issued", "Denied", or "Failed"');
}

function withoutEmpty(status: PodCertificateRequestStatus): object {
  return Object.fromEntries(
    Object.entries(status).filter(([, value]) => value && (!Array.isArray(value) || value.length > 0)),
  );
}

function checkChain(errors: Errors, { spec, status }: PodCertificateRequest): void {
  const { certificateChain: chain = '', notBefore, notAfter, beginRefreshAt } = status!;
  if (chain.length > CHAIN_BYTES_MAX) {
    errors.push(fieldErrors.tooLong(CHAIN, CHAIN_BYTES_MAX));
    return;
  }
  const refuse = (problem: string) => addInvalid(errors, CHAIN, chain, problem);
  const blocks = [...chain.matchAll(BLOCK)];
  if (blocks.length === 0) return refuse('issued certificate chain must contain at least one certificate');
  const certificates: X509Certificate[] = [];
  for (const [block, type] of blocks) {
    if (type !== 'CERTIFICATE')
      return refuse('issued certificate chain must consist entirely of CERTIFICATE PEM blocks');
    try {
      certificates.push(new X509Certificate(block));
    } catch {
      return refuse(`${certificates.length === 0 ? 'leaf' : 'intermediate'} certificate does not parse as valid X.509`);
    }
  }
  const leaf = certificates[0]!;
  checkNames(errors, leaf);
  const asked = spec.stubPKCS10Request
    ? parseRequestBytes(Buffer.from(spec.stubPKCS10Request, 'base64')).publicKey
    : Buffer.from(spec.pkixPublicKey ?? '', 'base64');
  if (!leaf.publicKey.export({ type: 'spki', format: 'der' }).equals(asked))
    return refuse('leaf certificate was not issued to the requested public key');
  const consistent = 'must be present and consistent with the issued certificate';
  if (!notBefore) addRequired(errors, 'status.notBefore', consistent);
  if (!notAfter) addRequired(errors, 'status.notAfter', consistent);
  if (!beginRefreshAt)
    addRequired(errors, 'status.beginRefreshAt', 'must be present and in the range [notbefore+10min, notafter-10min]');
  if (errors.length > 0) return;
  const [beginsMs, endsMs] = [Date.parse(leaf.validFrom), Date.parse(leaf.validTo)];
  if (Date.parse(notBefore!) !== beginsMs)
    return addInvalid(
      errors,
      'status.notBefore',
      notBefore,
      'must be set to the NotBefore time encoded in the leaf certificate',
    );
  if (Date.parse(notAfter!) !== endsMs)
    return addInvalid(
      errors,
      'status.notAfter',
      notAfter,
      'must be set to the NotAfter time encoded in the leaf certificate',
    );
  const seconds = (endsMs - beginsMs) / 1000;
  if (seconds < EXPIRATION_SECONDS_MIN)
    return addInvalid(errors, CHAIN, `${seconds}s`, 'leaf certificate lifetime must be >= 1 hour');
  if (seconds > spec.maxExpirationSeconds!)
    return addInvalid(
      errors,
      CHAIN,
      `${seconds}s`,
      `leaf certificate lifetime must be <= spec.maxExpirationSeconds (${spec.maxExpirationSeconds})`,
    );
  const refreshMs = Date.parse(beginRefreshAt!);
  if (refreshMs < beginsMs + REFRESH_MARGIN_MS)
    addInvalid(errors, 'status.beginRefreshAt', beginRefreshAt, 'must be at least 10 minutes after status.notBefore');
  else if (refreshMs > endsMs - REFRESH_MARGIN_MS)
    addInvalid(errors, 'status.beginRefreshAt', beginRefreshAt, 'must be at least 10 minutes before status.notAfter');
}

function checkNames(errors: Errors, leaf: X509Certificate): void {
  for (const name of leaf.subjectAltName?.split(', ') ?? []) {
    const [kind, value = ''] = [name.slice(0, name.indexOf(':')), name.slice(name.indexOf(':') + 1)];
    if (kind === 'DNS') {
      if (value === '') addInvalid(errors, CHAIN, value, 'leaf certificate should not contain empty DNSName');
      if (value.includes('..')) addInvalid(errors, CHAIN, value, "leaf certificate's DNSName should not contain '..'");
      if (value.startsWith('.') || value.endsWith('.'))
        addInvalid(errors, CHAIN, value, "leaf certificate's DNSName should not start or end with '.'");
    } else if (kind === 'email' && !/^[^@\s]+@[^@\s]+$/.test(value))
      addInvalid(errors, CHAIN, value, 'leaf certificate should not contain invalid EmailAddress');
  }
}
