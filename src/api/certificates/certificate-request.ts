/**
 * Reads PKCS#10 certificate requests (RFC 2986): who they are for, by which key and names. Only reads; what a name entitles to is
 * decided elsewhere. Throws for what is not a whole, self-signed request.
 */

import { createPublicKey, verify } from 'node:crypto';

export interface CertificateRequestContent {
  readonly commonName: string;
  readonly organizations: readonly string[];
  /** The subject as it is written. */
  readonly subject: Buffer;
  /** SubjectPublicKeyInfo. */
  readonly publicKey: Buffer;
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly Buffer[];
  readonly emailAddresses: readonly string[];
  readonly uris: readonly string[];
  /** Value of the extension subjectAltName as it is written; undefined without one. */
  readonly alternativeNames: Buffer | undefined;
}

interface Element {
  readonly tag: number;
  readonly whole: Buffer;
  readonly content: Buffer;
}

const SEQUENCE = 0x30;
const COMMON_NAME = '550403';
const ORGANIZATION = '55040a';
const EXTENSION_REQUEST = '2a864886f70d01090e';
const SUBJECT_ALTERNATIVE_NAME = '551d11';
const SIGNATURES: Readonly<Record<string, string | null>> = {
  '2a8648ce3d040301': 'sha224',
  '2a8648ce3d040302': 'sha256',
  '2a8648ce3d040303': 'sha384',
  '2a8648ce3d040304': 'sha512',
  '2a864886f70d01010b': 'sha256',
  '2a864886f70d01010c': 'sha384',
  '2a864886f70d01010d': 'sha512',
  // Ed25519 has no digest of its own.
  '2b6570': null,
};

function elements(bytes: Buffer): Element[] {
  const found: Element[] = [];
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at + 1];
    if (first === undefined) throw new Error('asn1: structure error: it ends too soon');
    let length = first;
    let start = at + 2;
    if (first & 0x80) {
      const size = first & 0x7f;
      if (size === 0 || size > 4) throw new Error('asn1: structure error: a length is not valid');
      length = 0;
      for (let index = 0; index < size; index++) length = length * 256 + (bytes[start + index] ?? 0);
      start += size;
    }
    if (start + length > bytes.length) throw new Error('asn1: structure error: it ends too soon');
    found.push({
      tag: bytes[at]!,
      whole: bytes.subarray(at, start + length),
      content: bytes.subarray(start, start + length),
    });
    at = start + length;
  }
  return found;
}

function inside(element: Element | undefined, tag = SEQUENCE): Element[] {
  if (element?.tag !== tag) throw new Error("asn1: structure error: tags don't match");
  return elements(element.content);
}

/** The request in the base64 of its PEM, as `spec.request` has it. */
export function parseCertificateRequest(request: string): CertificateRequestContent {
  const pem = Buffer.from(request, 'base64').toString('latin1');
  const match = /^\s*-----BEGIN CERTIFICATE REQUEST-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE REQUEST-----\s*$/.exec(
    pem,
  );
  if (!match) throw new Error('PEM block type must be CERTIFICATE REQUEST');
  return parseRequestBytes(Buffer.from(match[1]!.replace(/\s/g, ''), 'base64'));
}

/** The request in DER. */
export function parseRequestBytes(bytes: Buffer): CertificateRequestContent {
  const outer = elements(bytes);
  if (outer.length !== 1) throw new Error('asn1: syntax error: trailing data');
  const [body, algorithm, signature] = inside(outer[0]);
  const [, subject, key, ...attributes] = inside(body);
  if (!subject || !key || signature?.tag !== 0x03) throw new Error("asn1: structure error: tags don't match");
  checkSignature({ body: body!, algorithm, key, signature });
  const names = inside(subject).flatMap(set => inside(set, 0x31).map(pair => inside(pair)));
  const values = (type: string) =>
    names.filter(([oid]) => oid?.content.toString('hex') === type).map(([, value]) => textOf(value));
  return {
    commonName: values(COMMON_NAME).at(-1) ?? '',
    organizations: values(ORGANIZATION),
    subject: subject.whole,
    publicKey: key.whole,
    ...alternativeNames(attributes),
  };
}

function textOf(element: Element | undefined): string {
  if (!element) return '';
  // BMPString is the only one of two bytes a character.
  return element.tag === 0x1e
    ? Buffer.from(element.content).swap16().toString('utf16le')
    : element.content.toString('utf8');
}

function checkSignature(parts: {
  body: Element;
  algorithm: Element | undefined;
  key: Element;
  signature: Element;
}): void {
  const id = inside(parts.algorithm)[0]?.content.toString('hex') ?? '';
  const digest = SIGNATURES[id];
  if (digest === undefined) throw new Error('x509: cannot verify signature: algorithm unimplemented');
  let valid = false;
  try {
    const key = createPublicKey({ key: parts.key.whole, format: 'der', type: 'spki' });
    valid = verify(digest, parts.body.whole, key, parts.signature.content.subarray(1));
  } catch {
    // A key that is none signs nothing.
  }
  if (!valid) throw new Error('x509: the request is not signed by its own key');
}

function alternativeNames(attributes: readonly Element[]) {
  const found = {
    dnsNames: [] as string[],
    ipAddresses: [] as Buffer[],
    emailAddresses: [] as string[],
    uris: [] as string[],
  };
  let written: Buffer | undefined;
  for (const attribute of attributes.filter(({ tag }) => tag === 0xa0).flatMap(one => elements(one.content))) {
    const [oid, values] = inside(attribute);
    if (oid?.content.toString('hex') !== EXTENSION_REQUEST) continue;
    for (const extension of inside(inside(values, 0x31)[0])) {
      const parts = inside(extension);
      if (parts[0]?.content.toString('hex') !== SUBJECT_ALTERNATIVE_NAME) continue;
      written = parts.at(-1)!.content;
      for (const name of inside(elements(written)[0])) {
        if (name.tag === 0x82) found.dnsNames.push(name.content.toString('latin1'));
        else if (name.tag === 0x87) found.ipAddresses.push(name.content);
        else if (name.tag === 0x81) found.emailAddresses.push(name.content.toString('latin1'));
        else if (name.tag === 0x86) found.uris.push(name.content.toString('latin1'));
      }
    }
  }
  return { ...found, alternativeNames: written };
}
