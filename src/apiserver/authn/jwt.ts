/** JSON web tokens: taking one apart, and checking its signature against a JSON web key set. It judges no claim. */

import { constants, createPublicKey, type KeyObject, verify } from 'node:crypto';

export interface Jwt {
  readonly header: { readonly alg?: unknown; readonly kid?: unknown };
  readonly claims: Readonly<Record<string, unknown>>;
  readonly signed: string;
  readonly signature: Buffer;
}

/** Signature algorithms that upstream accepts, by what node:crypto calls them. */
const ALGORITHMS: Readonly<
  Record<string, { readonly hash: string; readonly type: 'RSA' | 'PSS' | 'EC'; readonly crv?: string }>
> = {
  RS256: { hash: 'sha256', type: 'RSA' },
  RS384: { hash: 'sha384', type: 'RSA' },
  RS512: { hash: 'sha512', type: 'RSA' },
  PS256: { hash: 'sha256', type: 'PSS' },
  PS384: { hash: 'sha384', type: 'PSS' },
  PS512: { hash: 'sha512', type: 'PSS' },
  ES256: { hash: 'sha256', type: 'EC', crv: 'P-256' },
  ES384: { hash: 'sha384', type: 'EC', crv: 'P-384' },
  ES512: { hash: 'sha512', type: 'EC', crv: 'P-521' },
};

/** Tokens are a few KB; what is larger is not worth a parse. */
const TOKEN_LENGTH_MAX = 64 * 1024;

/** Undefined for what is no JWT at all. */
export function decodeJwt(token: string): Jwt | undefined {
  if (token.length > TOKEN_LENGTH_MAX) return undefined;
  const parts = token.split('.');
  if (parts.length !== 3) return undefined;
  const [header, claims] = [decode(parts[0]!), decode(parts[1]!)];
  if (!header || !claims) return undefined;
  return { header, claims, signed: `${parts[0]}.${parts[1]}`, signature: Buffer.from(parts[2]!, 'base64url') };
}

function decode(part: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString());
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

/** As node:crypto takes one. */
type Jwk = Parameters<typeof createPublicKey>[0] extends infer Input
  ? Input extends { key: infer Inner; format: 'jwk' }
    ? Inner & { kty?: string; kid?: string; use?: string; alg?: string; crv?: string }
    : never
  : never;

interface Key {
  readonly id: string | undefined;
  readonly kty: string;
  readonly crv: string | undefined;
  readonly algorithm: string | undefined;
  readonly key: KeyObject;
}

export class KeySet {
  readonly #keys: readonly Key[];

  /** Keys that are not for signatures or not understood are left out. Throws for what is no key set. */
  constructor(document: unknown) {
    const keys = (document as { keys?: unknown } | null)?.keys;
    if (!Array.isArray(keys)) throw new Error('it is no JSON web key set');
    this.#keys = keys.flatMap((jwk: Jwk) => {
      if (jwk.use !== undefined && jwk.use !== 'sig') return [];
      try {
        const key = createPublicKey({ key: jwk, format: 'jwk' });
        return [{ id: jwk.kid, kty: String(jwk.kty), crv: jwk.crv, algorithm: jwk.alg, key }];
      } catch {
        return [];
      }
    });
  }

  /** Whether one of the keys made the signature. */
  verifies({ header, signed, signature }: Jwt): boolean {
    const algorithm = ALGORITHMS[String(header.alg)];
    if (!algorithm) throw new Error(`signature algorithm ${JSON.stringify(header.alg)} is not supported`);
    const data = Buffer.from(signed);
    return this.#keys.some(({ id, kty, crv, algorithm: only, key }) => {
      if (typeof header.kid === 'string' && id !== undefined && id !== header.kid) return false;
      if (only !== undefined && only !== header.alg) return false;
      if (algorithm.type === 'EC')
        return (
          kty === 'EC' &&
          crv === algorithm.crv &&
          verify(algorithm.hash, data, { key, dsaEncoding: 'ieee-p1363' }, signature)
        );
      if (kty !== 'RSA') return false;
      if (algorithm.type === 'RSA') return verify(algorithm.hash, data, key, signature);
      const padding = constants.RSA_PKCS1_PSS_PADDING;
      return verify(algorithm.hash, data, { key, padding, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }, signature);
    });
  }
}

/** The `aud` claim as a list. */
export function audiencesOf({ aud }: Jwt['claims']): readonly string[] {
  if (typeof aud === 'string') return [aud];
  return Array.isArray(aud) ? aud.filter(one => typeof one === 'string') : [];
}
