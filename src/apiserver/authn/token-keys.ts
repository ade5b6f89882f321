/**
 * Keys of service account tokens: the private one that signs, held here, and the public ones that tokens are verified with. Another
 * holder of the keys is `external-signer.ts`. A signature is made with the one algorithm that a key is for, and counts with no other.
 */

import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';

/** Signature algorithms of tokens, by type and curve of their keys. */
const ALGORITHMS = [
  { name: 'RS256', type: 'rsa', curve: undefined, hash: 'sha256' },
  { name: 'ES256', type: 'ec', curve: 'prime256v1', hash: 'sha256' },
  { name: 'ES384', type: 'ec', curve: 'secp384r1', hash: 'sha384' },
  { name: 'ES512', type: 'ec', curve: 'secp521r1', hash: 'sha512' },
] as const;
type Algorithm = (typeof ALGORITHMS)[number];

export const ALGORITHM_NAMES: readonly string[] = ALGORITHMS.map(({ name }) => name);

export interface VerificationKey {
  readonly id: string;
  readonly key: KeyObject;
  readonly algorithm: Algorithm;
  /** Not told by discovery: it verifies what it signed once, and signs nothing more. */
  readonly isHidden: boolean;
}

export interface TokenKeys {
  /** The token of a payload, which is base64url. */
  sign(payload: string): string | Promise<string>;
  /** Those with the id, and all where a token names none. What is not known may have to be asked for. */
  find(id: string): readonly VerificationKey[] | Promise<readonly VerificationKey[]>;
  /** All that are known. */
  readonly known: readonly VerificationKey[];
  /** Changes when keys come or go: what was verified before counts no more. */
  readonly generation: number;
  /** How long a copy of the keys is good. */
  readonly copySecondsMax: number;
  /** The longest life of a token, where the holder of the keys has one. */
  readonly lifetimeSecondsMax?: number | undefined;
}

/** Throws for a key of another sort. */
export function verificationKey(key: KeyObject, options: { id?: string; isHidden?: boolean } = {}): VerificationKey {
  const algorithm = ALGORITHMS.find(
    ({ type, curve }) => key.asymmetricKeyType === type && key.asymmetricKeyDetails?.namedCurve === curve,
  );
  if (!algorithm) throw new Error('a key must be one of RSA, or of the curves P-256, P-384 and P-521');
  return { id: options.id ?? keyIdOf(key), key, algorithm, isHidden: options.isHidden ?? false };
}

/** Upstream's: the hash of the key, since nobody should take the ID for the key itself. */
function keyIdOf(key: KeyObject): string {
  return createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest('base64url');
}

export function isSignedBy({ key, algorithm }: VerificationKey, signed: string, signature: Buffer): boolean {
  return verify(algorithm.hash, Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' }, signature);
}

/** The keys that discovery tells, as JSON web keys. */
export function keySetOf(keys: readonly VerificationKey[]): { keys: object[] } {
  return {
    keys: keys
      .filter(({ isHidden }) => !isHidden)
      .map(({ id, key, algorithm }) => {
        // Of the PEM, since a key of a private one does not export itself.
        const { kty, ...rest } = createPublicKey(key.export({ type: 'spki', format: 'pem' })).export({ format: 'jwk' });
        return { use: 'sig', kty, kid: id, alg: algorithm.name, ...rest };
      }),
  };
}

/** The key of a PEM file. Throws when there is none. */
export function privateKeyOf(pem: string): KeyObject {
  const [block] = blocksOf(pem).filter(({ label }) => label.endsWith('PRIVATE KEY'));
  if (!block) throw new Error('data does not contain a valid RSA or ECDSA private key');
  const key = createPrivateKey(block.text);
  verificationKey(createPublicKey(key));
  return key;
}

/** All keys of a PEM file: public ones, and those of certificates and private ones. Throws when there is none. */
export function publicKeysOf(pem: string): KeyObject[] {
  const keys = blocksOf(pem)
    .filter(({ label }) => /KEY$|^CERTIFICATE$/.test(label))
    .map(({ text }) => createPublicKey(text));
  if (keys.length === 0) throw new Error('data does not contain any valid RSA or ECDSA public keys');
  for (const key of keys) verificationKey(key);
  return keys;
}

function blocksOf(pem: string): { readonly label: string; readonly text: string }[] {
  return [...pem.matchAll(/-----BEGIN ([A-Z ]+)-----[^-]+-----END \1-----/g)].map(([text, label]) => ({
    label: label!,
    text,
  }));
}

/** As `--service-account-key-file` has its keys at upstream: they do not change while the server runs. */
const COPY_SECONDS_MAX = 3600;

export class LocalKeys implements TokenKeys {
  readonly generation = 0;
  readonly copySecondsMax = COPY_SECONDS_MAX;
  readonly known: readonly VerificationKey[];
  readonly #privateKey: KeyObject;
  readonly #signing: VerificationKey;
  readonly #header: string;

  /** What the private key signs is verified too. */
  constructor(privateKey: KeyObject, others: readonly KeyObject[] = []) {
    this.#privateKey = privateKey;
    this.#signing = verificationKey(createPublicKey(privateKey));
    const { id, algorithm } = this.#signing;
    this.#header = Buffer.from(JSON.stringify({ alg: algorithm.name, kid: id })).toString('base64url');
    const keys = [this.#signing, ...others.map(key => verificationKey(key))];
    this.known = [...new Map(keys.map(key => [key.id, key])).values()];
  }

  sign(payload: string): string {
    const signed = `${this.#header}.${payload}`;
    const key = { key: this.#privateKey, dsaEncoding: 'ieee-p1363' } as const;
    return `${signed}.${sign(this.#signing.algorithm.hash, Buffer.from(signed), key).toString('base64url')}`;
  }
  find(id: string): readonly VerificationKey[] {
    return id === '' ? this.known : this.known.filter(key => key.id === id);
  }
}
