/**
 * Claims that an issuer keeps elsewhere (OpenID Connect Core 5.6.2): a verified token names for its groups claim where another token is
 * that has it. That one is fetched, held against the same audiences and its own issuer's keys, and the claim taken from it. Invariant:
 * nothing is fetched for a token that has not been verified. Aggregated claims are left alone, as upstream leaves them.
 */

import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Remote } from '../webhooks/remote.ts';
import { IssuerKeys } from './issuer-keys.ts';
import { decodeJwt, type Jwt } from './jwt.ts';

const FETCH_MS_MAX = 10_000;
/** Issuers of such claims are a few. */
const ISSUERS_MAX = 32;

type Claims = Jwt['claims'];

export interface DistributedClaimsOptions {
  /** The one claim that is looked for. */
  readonly claim: string;
  readonly remote: Remote;
  readonly clock: Clock;
  /** Rejects a token that does not hold: time, audience, algorithm and signature. */
  readonly verify: (jwt: Jwt, keys: IssuerKeys) => Promise<void>;
  /** The issuer that the configuration names, whose keys are known. */
  readonly issuer: string;
  readonly keys: IssuerKeys;
}

export class DistributedClaims {
  readonly #options: DistributedClaimsOptions;
  readonly #others = new Map<string, IssuerKeys>();

  constructor(options: DistributedClaimsOptions) {
    this.#options = options;
  }

  /** The claims with the one that was elsewhere. Rejects when it cannot be had. */
  async expand(claims: Claims): Promise<Claims> {
    const { claim } = this.#options;
    const names = claims['_claim_names'];
    if (Object.hasOwn(claims, claim) || names === undefined) return claims;
    if (!isMapOf(names, 'string')) throw new Error('error parsing distributed claim names: not a map of strings');
    const sources = claims['_claim_sources'];
    if (sources === undefined) throw new Error('no claim sources');
    if (!isMapOf(sources, 'object')) throw new Error('could not parse claim sources: not a map of objects');
    if (!Object.hasOwn(names, claim)) return claims;
    const source = names[claim] as string;
    if (!Object.hasOwn(sources, source))
      throw new Error(`id token _claim_names contained a source ${source} missing in _claims_sources`);
    const { endpoint, access_token: token } = sources[source] as { endpoint?: unknown; access_token?: unknown };
    if (endpoint === undefined || endpoint === '') return claims;
    if (typeof endpoint !== 'string' || (token !== undefined && typeof token !== 'string'))
      throw new Error('could not parse claim sources: endpoint and access_token must be strings');
    return { ...claims, [claim]: await this.#resolve(endpoint, token) };
  }

  async #resolve(endpoint: string, token: string | undefined): Promise<unknown> {
    const { claim, remote, verify } = this.#options;
    const named = JSON.stringify(claim);
    if (!endpoint.startsWith('https://') || !URL.canParse(endpoint))
      throw new Error(`while getting distributed claim ${named}: endpoint ${JSON.stringify(endpoint)} is not https`);
    const text = await remote.text(endpoint, { timeoutMs: FETCH_MS_MAX, ...(token ? { token } : {}) }).catch(error => {
      throw new Error(`while getting distributed claim ${named}: ${messageOf(error)}`);
    });
    const jwt = decodeJwt(text.trim());
    const issuer = jwt?.claims['iss'];
    if (!jwt || typeof issuer !== 'string')
      throw new Error(`getting untrusted issuer from endpoint ${endpoint} failed for claim ${named}`);
    await verify(jwt, this.#keysOf(issuer)).catch(error => {
      throw new Error(`verify distributed claim token: ${messageOf(error)}`);
    });
    if (!Object.hasOwn(jwt.claims, claim))
      throw new Error(
        `jwt returned by distributed claim endpoint ${JSON.stringify(endpoint)} did not contain claim: ${claim}`,
      );
    return jwt.claims[claim];
  }

  #keysOf(issuer: string): IssuerKeys {
    const { remote, clock } = this.#options;
    if (issuer === this.#options.issuer) return this.#options.keys;
    const known = this.#others.get(issuer);
    if (known) return known;
    if (!issuer.startsWith('https://') || !URL.canParse(issuer))
      throw new Error(`verifying untrusted issuer ${issuer} failed: it is not https`);
    const keys = new IssuerKeys({ issuer, remote, clock });
    if (this.#others.size >= ISSUERS_MAX) this.#others.delete(this.#others.keys().next().value!);
    this.#others.set(issuer, keys);
    return keys;
  }
}

function isMapOf(value: unknown, type: 'string' | 'object'): value is Record<string, unknown> {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every(one => one !== null && typeof one === type)
  );
}
