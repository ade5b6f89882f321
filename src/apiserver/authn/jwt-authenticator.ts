/**
 * Tokens of OpenID providers (KEP-3331): an issuer's JWTs become users by claim mappings, once their signature, audience, time and
 * claims hold. Invariant: a token is judged only by the configuration of its own issuer. A verdict is remembered for seconds, not longer
 * than the token lives.
 */

import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { KeySetMetrics } from '../metrics/configuration-metrics.ts';
import type { UserInfo } from '../request.ts';
import { type Dial, Remote } from '../webhooks/remote.ts';
import type { ClaimOrExpression, JwtConfiguration, PrefixedClaimOrExpression } from './authentication-configuration.ts';
import { evaluateClaims } from './claim-expressions.ts';
import { DistributedClaims } from './distributed-claims.ts';
import { IssuerKeys } from './issuer-keys.ts';
import { audiencesOf, decodeJwt, type Jwt } from './jwt.ts';
import { TimedMemory, type TokenAuthenticator, type Verified } from './token-authenticator.ts';

/** As upstream's cache of token verdicts. */
const REMEMBER_MS = 10_000;
const REMEMBERED_MAX = 4096;
/** Clocks of issuers that are ahead. */
const NOT_BEFORE_LEEWAY_S = 300;

type Claims = Jwt['claims'];

export interface JwtAuthenticatorOptions {
  readonly issuers: readonly JwtConfiguration[];
  /** By the network that `egressSelectorType` names. */
  readonly dial?: { readonly controlplane?: Dial | undefined; readonly cluster?: Dial | undefined };
  readonly clock: Clock;
}

interface Issuer {
  readonly configuration: JwtConfiguration;
  readonly keys: IssuerKeys;
  readonly remote: Remote;
  /** Of an issuer whose groups are a claim. */
  readonly distributed: DistributedClaims | undefined;
  readonly metrics: KeySetMetrics;
}

export class JwtAuthenticator implements TokenAuthenticator {
  readonly #issuers = new Map<string, Issuer>();
  readonly #clock: Clock;
  readonly #verdicts = new TimedMemory<UserInfo>(REMEMBERED_MAX);

  constructor({ issuers, dial = {}, clock }: JwtAuthenticatorOptions) {
    this.#clock = clock;
    for (const configuration of issuers) {
      const { url, discoveryURL, certificateAuthority, egressSelectorType } = configuration.issuer;
      const remote = new Remote(
        { insecure: false, ...(certificateAuthority ? { ca: certificateAuthority } : {}) },
        dial[egressSelectorType || 'controlplane'],
      );
      const metrics = new KeySetMetrics(url);
      const keys = new IssuerKeys({ issuer: url, discoveryUrl: discoveryURL, remote, clock, metrics });
      const claim = configuration.claimMappings.groups?.claim;
      const verify = (jwt: Jwt, by: IssuerKeys) => this.#hold(configuration, by, jwt);
      const distributed = claim
        ? new DistributedClaims({ claim, remote, clock, verify, issuer: url, keys })
        : undefined;
      this.#issuers.set(url, { configuration, keys, remote, distributed, metrics });
    }
  }

  verify(token: string, audiences: readonly string[]): Verified | undefined | Promise<Verified | undefined> {
    const known = this.#verdicts.get(token, this.#clock.monotonic());
    if (known) return { user: known, audiences };
    if (this.#issuers.size === 0) return undefined;
    const jwt = decodeJwt(token);
    const issuer = jwt && this.#issuers.get(String(jwt.claims['iss']));
    if (!jwt || !issuer) return undefined;
    return this.#judge(issuer, jwt, token).then(
      user => ({ user, audiences }),
      error => {
        throw new Error(`oidc: ${messageOf(error)}`);
      },
    );
  }

  close(): void {
    for (const { remote, metrics } of this.#issuers.values()) {
      remote.close();
      metrics.forget();
    }
  }

  async #judge({ configuration, keys, distributed }: Issuer, jwt: Jwt, token: string): Promise<UserInfo> {
    await this.#hold(configuration, keys, jwt).catch(error => {
      throw new Error(`verify token: ${messageOf(error)}`);
    });
    const claims = distributed
      ? await distributed.expand(jwt.claims).catch(error => {
          throw new Error(`could not expand distributed claims: ${messageOf(error)}`);
        })
      : jwt.claims;
    const user = userOf(configuration, claims);
    const livesMs = Number(jwt.claims['exp']) * 1000 - this.#clock.now();
    this.#verdicts.set(token, user, this.#clock.monotonic() + Math.min(REMEMBER_MS, livesMs));
    return user;
  }

  /** Rejects a token that is not of its time, audience and issuer. */
  async #hold({ issuer, signingAlgorithms }: JwtConfiguration, keys: IssuerKeys, jwt: Jwt): Promise<void> {
    const { claims, header } = jwt;
    const nowS = this.#clock.now() / 1000;
    const { exp, nbf } = claims;
    if (typeof exp !== 'number') throw new Error('the token does not expire (no exp claim)');
    if (exp <= nowS) throw new Error(`token is expired (Token Expiry: ${new Date(exp * 1000).toISOString()})`);
    if (typeof nbf === 'number' && nbf > nowS + NOT_BEFORE_LEEWAY_S)
      throw new Error('current time is before the nbf (not before) time');
    const has = audiencesOf(claims);
    if (!issuer.audiences.some(audience => has.includes(audience)))
      throw new Error(`expected audience in ${JSON.stringify(issuer.audiences)} got ${JSON.stringify(has)}`);
    if (signingAlgorithms && !signingAlgorithms.includes(String(header.alg)))
      throw new Error(
        `id token signed with unsupported algorithm, expected ${JSON.stringify(signingAlgorithms)} got ${JSON.stringify(header.alg)}`,
      );
    await keys.verify(jwt);
  }
}

/** The user that the claims make. Throws for claims that do not hold. */
export function userOf(configuration: JwtConfiguration, claims: Claims): UserInfo {
  for (const { claim, requiredValue = '', expression, message } of configuration.claimValidationRules ?? []) {
    if (claim) {
      if (typeof claims[claim] !== 'string') throw new Error(`claim ${claim} not present or not a string`);
      if (claims[claim] !== requiredValue) throw new Error(`required claim ${claim} set to wrong value`);
    } else if (evaluateClaims(expression!, { claims }) !== true)
      throw new Error(
        `error evaluating claim validation expression: ${message || `validation expression '${expression}' failed`}`,
      );
  }
  const { username, groups, uid, extra = [] } = configuration.claimMappings;
  const name = usernameOf(username, claims);
  const user: UserInfo & { extra?: Record<string, string[]> } = {
    name,
    groups: [...(groups ? groupsOf(groups, claims) : []), 'system:authenticated'],
    ...(uid?.claim || uid?.expression ? { uid: textOf('uid', uid, claims) } : {}),
  };
  const { jti } = claims;
  const more: Record<string, string[]> =
    typeof jti === 'string' && jti !== '' ? { 'authentication.kubernetes.io/credential-id': [`JTI=${jti}`] } : {};
  for (const { key, valueExpression } of extra) {
    const values = listOf(`extra[${key}]`, evaluateClaims(valueExpression, { claims })).filter(value => value !== '');
    if (values.length > 0) more[key] = values;
  }
  const whole = Object.keys(more).length > 0 ? { ...user, extra: more } : user;
  const seen = {
    username: name,
    uid: user.uid ?? '',
    groups: user.groups.filter(group => group !== 'system:authenticated'),
    extra: more,
  };
  for (const { expression, message } of configuration.userValidationRules ?? [])
    if (evaluateClaims(expression, { user: seen }) !== true)
      throw new Error(
        `error evaluating user info validation rule: ${message || `validation expression '${expression}' failed`}`,
      );
  return whole;
}

function usernameOf({ claim, prefix = '', expression }: PrefixedClaimOrExpression, claims: Claims): string {
  if (expression) {
    const made = evaluateClaims(expression, { claims });
    if (typeof made !== 'string') throw new Error('error evaluating username claim expression: it is not a string');
    if (made === '') throw new Error('username claim expression returned an empty value');
    return made;
  }
  const value = claims[claim!];
  if (typeof value !== 'string' || value === '')
    throw new Error(`parse username claims ${JSON.stringify(claim)}: claim not present or not a string`);
  // An address that nobody has confirmed is anybody's.
  if (claim === 'email' && claims['email_verified'] !== undefined && claims['email_verified'] !== true)
    throw new Error('email not verified');
  return prefix + value;
}

function groupsOf({ claim, prefix = '', expression }: PrefixedClaimOrExpression, claims: Claims): string[] {
  if (!claim && !expression) return [];
  const value = expression ? evaluateClaims(expression, { claims }) : claims[claim!];
  return listOf(expression ? 'groups' : `groups claim ${JSON.stringify(claim)}`, value)
    .filter(group => !expression || group !== '')
    .map(group => prefix + group);
}

function textOf(what: string, { claim, expression }: ClaimOrExpression, claims: Claims): string {
  const value = expression ? evaluateClaims(expression, { claims }) : claims[claim!];
  if (typeof value !== 'string') throw new Error(`${what}: claim not present or not a string`);
  return value;
}

function listOf(what: string, value: unknown): string[] {
  if (value === undefined || value === null) return [];
  if (typeof value === 'string') return [value];
  if (Array.isArray(value) && value.every(one => typeof one === 'string')) return value;
  throw new Error(`${what}: must be a string or a list of strings`);
}
