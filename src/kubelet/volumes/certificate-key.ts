/** New keys of pods, each with a PKCS#10 request (RFC 2986) that names nobody and shows that we hold it. */

import { generateKeyPair, type KeyObject, sign } from 'node:crypto';
import { promisify } from 'node:util';
import { bits, integer, nothing, oid, sequence, tagged } from '../../api/certificates/der.ts';

export interface CertificateKey {
  /** The private key as PKCS#8 PEM. */
  readonly pem: string;
  /** The request as DER in base64. */
  readonly request: string;
}

interface KeyType {
  readonly make: () => Promise<{ readonly publicKey: KeyObject; readonly privateKey: KeyObject }>;
  /** What signs, as PKCS#10 names it. */
  readonly algorithm: Buffer;
  readonly digest: string | null;
}

// On another thread: a large RSA key takes seconds.
const generate = promisify(generateKeyPair);

const elliptic = (namedCurve: string, digest: string, id: string): KeyType => ({
  make: () => generate('ec', { namedCurve }),
  algorithm: sequence(oid(id)),
  digest,
});
const rsa = (modulusLength: number): KeyType => ({
  make: () => generate('rsa', { modulusLength }),
  algorithm: sequence(oid('1.2.840.113549.1.1.11'), nothing),
  digest: 'sha256',
});

const KEY_TYPES: Readonly<Record<string, KeyType>> = {
  RSA3072: rsa(3072),
  RSA4096: rsa(4096),
  ECDSAP256: elliptic('prime256v1', 'sha256', '1.2.840.10045.4.3.2'),
  ECDSAP384: elliptic('secp384r1', 'sha384', '1.2.840.10045.4.3.3'),
  ECDSAP521: elliptic('secp521r1', 'sha512', '1.2.840.10045.4.3.4'),
  ED25519: { make: () => generate('ed25519'), algorithm: sequence(oid('1.3.101.112')), digest: null },
};

/** Rejects types that this kubelet does not know. */
export async function newCertificateKey(type: string): Promise<CertificateKey> {
  const known = KEY_TYPES[type];
  if (!known)
    throw new Error(`unknown key type ${JSON.stringify(type)}: known are ${Object.keys(KEY_TYPES).join(', ')}`);
  const { publicKey, privateKey } = await known.make();
  const body = sequence(
    integer(Buffer.from([0])),
    sequence(),
    publicKey.export({ type: 'spki', format: 'der' }),
    tagged(0),
  );
  const request = sequence(body, known.algorithm, bits(sign(known.digest, body, privateKey)));
  return { pem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string, request: request.toString('base64') };
}
