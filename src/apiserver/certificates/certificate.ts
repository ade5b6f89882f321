/**
 * Issues X.509 v3 certificates with ECDSA P-256 keys, straight over node:crypto: a certificate library costs 200 ms and
 * 20 MB at start-up, most of the API server's whole budget. Refuses nothing by itself: who may get which name is decided
 * by the callers (`pki.ts`, and the signers of certificate requests).
 */

import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign, X509Certificate } from 'node:crypto';
import { isIP, isIPv4 } from 'node:net';
import {
  bits,
  bool,
  integer,
  octets,
  oid,
  primitive,
  sequence,
  set,
  tagged,
  time,
  utf8,
} from '../../api/certificates/der.ts';

/** A certificate and its private key, both PEM. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
}

export interface Subject {
  readonly commonName: string;
  readonly organizations?: readonly string[];
}

export interface CertificateRequest {
  readonly subject: Subject;
  /** DNS names and IP addresses. */
  readonly names?: readonly string[];
  readonly usages: readonly ('server' | 'client' | 'authority')[];
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** What signs: the authority's name and key. */
export interface Issuer {
  readonly certificate: string;
  readonly privateKey: KeyObject;
}

const ECDSA_WITH_SHA256 = '1.2.840.10045.4.3.2';
const USAGE_OIDS = { server: '1.3.6.1.5.5.7.3.1', client: '1.3.6.1.5.5.7.3.2' } as const;

/** A new P-256 key. */
export function newKey(): { privateKey: KeyObject; publicKey: KeyObject } {
  return generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
}

/** The key as PKCS#8 PEM. */
export function keyPem(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }) as string;
}

/** Signs a certificate for the public key. Without an issuer it is self-signed with `selfKey`. Returns PEM. */
export function issueCertificate(
  request: CertificateRequest,
  publicKey: KeyObject,
  issuer: Issuer | { readonly selfKey: KeyObject },
): string {
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  const subject = nameOf(request.subject);
  const keyId = keyIdOf(spki);
  const parent = 'certificate' in issuer ? new X509Certificate(issuer.certificate) : undefined;
  const authorityId = parent ? keyIdOf(parent.publicKey.export({ type: 'spki', format: 'der' })) : keyId;
  const signingKey = 'certificate' in issuer ? issuer.privateKey : issuer.selfKey;
  return signed(
    { ...request, subject, publicKey: spki, extensions: extensions(request, keyId, authorityId) },
    { name: parent ? subjectBytes(parent) : subject, key: signingKey },
  );
}

/** The certificate as PEM. */
function signed(
  content: {
    readonly subject: Uint8Array;
    readonly publicKey: Uint8Array;
    readonly extensions: readonly Buffer[];
    readonly notBeforeMs: number;
    readonly notAfterMs: number;
  },
  by: { readonly name: Buffer; readonly key: KeyObject },
): string {
  const algorithm = sequence(oid(ECDSA_WITH_SHA256));
  const serial = randomBytes(16);
  serial[0]! &= 0x7f;
  const body = sequence(
    tagged(0, integer(Buffer.from([2]))),
    integer(serial),
    algorithm,
    by.name,
    sequence(time(content.notBeforeMs), time(content.notAfterMs)),
    content.subject,
    content.publicKey,
    tagged(3, sequence(...content.extensions)),
  );
  const certificate = sequence(body, algorithm, bits(sign('sha256', body, by.key)));
  return `-----BEGIN CERTIFICATE-----\n${certificate.toString('base64').replace(/.{1,64}/g, '$&\n')}-----END CERTIFICATE-----\n`;
}

/** What a signer grants to a certificate request: the subject and names that it asks for, as they are written. */
export interface Grant {
  readonly subject: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly alternativeNames?: Uint8Array | undefined;
  /** As in CertificateSigningRequests: `digital signature`, `client auth`. */
  readonly usages: readonly string[];
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** Signs a certificate for a request. Throws for a usage that there is not. Returns PEM. */
export function signGrant(grant: Grant, issuer: Issuer): string {
  const parent = new X509Certificate(issuer.certificate);
  const bytes = [0, 0];
  const extended: Buffer[] = [];
  for (const usage of grant.usages) {
    const bit = KEY_USAGE_BITS[usage];
    const id = EXTENDED_USAGES[usage];
    if (bit !== undefined) bytes[bit >> 3]! |= 0x80 >> (bit & 7);
    else if (id) extended.push(oid(id));
    else throw new Error(`unrecognized usage: ${usage}`);
  }
  const used = bytes[1] ? bytes : bytes.slice(0, 1);
  const unused = used.at(-1) ? Math.clz32(used.at(-1)! & -used.at(-1)!) ^ 31 : 0;
  const list = [
    ...(bytes.some(byte => byte !== 0) ? [extension('2.5.29.15', true, bits(Buffer.from(used), unused))] : []),
    ...(extended.length > 0 ? [extension('2.5.29.37', false, sequence(...extended))] : []),
    extension('2.5.29.19', true, sequence()),
    extension(
      '2.5.29.35',
      false,
      sequence(primitive(0, keyIdOf(parent.publicKey.export({ type: 'spki', format: 'der' })))),
    ),
    ...(grant.alternativeNames
      ? [extension('2.5.29.17', isEmptyName(grant.subject), Buffer.from(grant.alternativeNames))]
      : []),
  ];
  return signed(
    { ...grant, subject: grant.subject, extensions: list },
    { name: subjectBytes(parent), key: issuer.privateKey },
  );
}

const isEmptyName = (name: Uint8Array): boolean => name.length <= 2;

/** X.509 key usages by what Kubernetes calls them: their bits, from the first. */
const KEY_USAGE_BITS: Readonly<Record<string, number>> = {
  signing: 0,
  'digital signature': 0,
  'content commitment': 1,
  'key encipherment': 2,
  'data encipherment': 3,
  'key agreement': 4,
  'cert sign': 5,
  'crl sign': 6,
  'encipher only': 7,
  'decipher only': 8,
};
const EXTENDED_USAGES: Readonly<Record<string, string>> = {
  any: '2.5.29.37.0',
  'server auth': USAGE_OIDS.server,
  'client auth': USAGE_OIDS.client,
  'code signing': '1.3.6.1.5.5.7.3.3',
  'email protection': '1.3.6.1.5.5.7.3.4',
  's/mime': '1.3.6.1.5.5.7.3.4',
  'ipsec end system': '1.3.6.1.5.5.7.3.5',
  'ipsec tunnel': '1.3.6.1.5.5.7.3.6',
  'ipsec user': '1.3.6.1.5.5.7.3.7',
  timestamping: '1.3.6.1.5.5.7.3.8',
  'ocsp signing': '1.3.6.1.5.5.7.3.9',
  'microsoft sgc': '1.3.6.1.4.1.311.10.3.3',
  'netscape sgc': '2.16.840.1.113730.4.1',
};

/** A fresh key with a certificate signed by the issuer. */
export function issueKeyPair(request: CertificateRequest, issuer: Issuer): KeyPair {
  const { privateKey, publicKey } = newKey();
  return { certificate: issueCertificate(request, publicKey, issuer), key: keyPem(privateKey) };
}

function nameOf(subject: Subject): Buffer {
  const attribute = (type: string, value: string) => sequence(oid(type), utf8(value));
  // Each organization is an RDN of its own; Go reads them all as groups, in order.
  const organizations = (subject.organizations ?? []).map(value => set(attribute('2.5.4.10', value)));
  return sequence(...organizations, set(attribute('2.5.4.3', subject.commonName)));
}

// The issuer's name must be copied byte for byte from the authority's subject; re-encoding its fields does that because
// every authority here was written by this file, with nothing but O and CN.
function subjectBytes(certificate: X509Certificate): Buffer {
  const { commonName, organizations } = parseSubject(certificate.subject);
  return nameOf({ commonName, organizations });
}

/** Whether the authority signed the certificate, or one of those that came with it and lead to it. */
export function comesFrom(certificate: X509Certificate | undefined, authority: string): boolean {
  const by = new X509Certificate(authority);
  for (let at = certificate; at; at = at.issuerCertificate) {
    if (at.checkIssued(by) && at.verify(by.publicKey)) return true;
    if (at.issuerCertificate?.fingerprint256 === at.fingerprint256) return false;
  }
  return false;
}

/** CN and O out of the lines of `X509Certificate.subject`. */
export function parseSubject(subject: string | undefined): { commonName: string; organizations: string[] } {
  const result = { commonName: '', organizations: [] as string[] };
  for (const line of (subject ?? '').split('\n')) {
    if (line.startsWith('CN=')) result.commonName = line.slice(3);
    else if (line.startsWith('O=')) result.organizations.push(line.slice(2));
  }
  return result;
}

const keyIdOf = (spki: Uint8Array): Buffer => createHash('sha1').update(spki.subarray(-65)).digest();

const extension = (id: string, critical: boolean, value: Buffer): Buffer =>
  sequence(oid(id), ...(critical ? [bool(true)] : []), octets(value));

function extensions(request: CertificateRequest, keyId: Buffer, authorityId: Buffer): Buffer[] {
  const authority = request.usages.includes('authority');
  // digitalSignature + keyCertSign + cRLSign, or digitalSignature + keyEncipherment.
  const keyUsage = authority ? bits(Buffer.from([0b1000_0110]), 1) : bits(Buffer.from([0b1010_0000]), 5);
  const result = [extension('2.5.29.15', true, keyUsage)];
  const extended = request.usages.filter(usage => usage !== 'authority').map(usage => oid(USAGE_OIDS[usage]));
  if (extended.length) result.push(extension('2.5.29.37', false, sequence(...extended)));
  result.push(extension('2.5.29.19', true, authority ? sequence(bool(true)) : sequence()));
  result.push(
    extension('2.5.29.14', false, octets(keyId)),
    extension('2.5.29.35', false, sequence(primitive(0, authorityId))),
  );
  const names = (request.names ?? []).map(name =>
    isIP(name) ? primitive(7, addressBytes(name)) : primitive(2, Buffer.from(name)),
  );
  if (names.length) result.push(extension('2.5.29.17', false, sequence(...names)));
  return result;
}

/** 4 or 16 bytes of an IP address. */
export function addressBytes(address: string): Buffer {
  if (isIPv4(address)) return Buffer.from(address.split('.').map(Number));
  let text = address;
  const embedded = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  if (embedded) {
    const [a, b, c, d] = embedded[2]!.split('.').map(Number) as [number, number, number, number];
    text = `${embedded[1]}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  }
  const [head = '', tail] = text.split('::');
  const left = head ? head.split(':') : [];
  const right = tail ? tail.split(':') : [];
  const groups =
    tail === undefined ? left : [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right];
  const bytes = Buffer.alloc(16);
  for (const [index, group] of groups.entries()) bytes.writeUInt16BE(Number.parseInt(group, 16), index * 2);
  return bytes;
}
