/** The options about service account tokens: who issues them, by which keys, for whom and for how long. */

import type { KeyObject } from 'node:crypto';
import { messageOf } from '../../base/errors.ts';
import { privateKeyOf, publicKeysOf } from '../authn/token-keys.ts';
import { type Given, refused } from './given.ts';

export interface ServiceAccountSettings {
  /** Tokens of all of them are taken; new ones are of the first. */
  readonly issuers: readonly string[];
  /** Whom tokens are for that name nobody. */
  readonly audiences: readonly string[];
  /** Where the discovery document says that the keys are, if not below the issuer. */
  readonly jwksUri?: string;
  /** Keys of files instead of the cluster's own. */
  readonly signingKey?: KeyObject;
  readonly keys: readonly KeyObject[];
  /** Socket of an external signer. */
  readonly signingEndpoint?: string;
  readonly maxSeconds?: number;
  /** Tokens that kubelets mount live for a year, for clients that read them once. */
  readonly extendExpiration: boolean;
  /** A token lives no longer than the objects that it is bound to. */
  readonly lookup: boolean;
}

const MAX_EXPIRATION_MS = { least: 3600_000, most: 2 ** 32 * 1000 };

export function defaultServiceAccounts(issuer: string): ServiceAccountSettings {
  return { issuers: [issuer], audiences: [issuer], keys: [], extendExpiration: true, lookup: true };
}

/** `ownIssuer` is the one where none is named. */
export function serviceAccountsOf(given: Given, ownIssuer: string): ServiceAccountSettings {
  given.exclude('service-account-signing-endpoint', ['service-account-signing-key-file', 'service-account-key-file']);
  const issuers = issuersOf(given, ownIssuer);
  const jwksUri = given.text('service-account-jwks-uri');
  if (jwksUri !== undefined) checkUrl(jwksUri, 'service-account-jwks-uri');
  const maxMs = given.duration('service-account-max-token-expiration', 0);
  if (maxMs !== 0 && (maxMs < MAX_EXPIRATION_MS.least || maxMs > MAX_EXPIRATION_MS.most))
    throw refused('service-account-max-token-expiration', 'it must be between 1 hour and 2^32 seconds');
  const signing = given.file('service-account-signing-key-file');
  const signingEndpoint = given.text('service-account-signing-endpoint');
  return {
    issuers,
    audiences: given.list('api-audiences') ?? issuers,
    ...(jwksUri === undefined ? {} : { jwksUri }),
    ...(signing
      ? { signingKey: read('service-account-signing-key-file', signing.path, () => privateKeyOf(signing.text)) }
      : {}),
    keys: given
      .files('service-account-key-file')
      .flatMap(({ path, text }) => read('service-account-key-file', path, () => publicKeysOf(text))),
    ...(signingEndpoint === undefined ? {} : { signingEndpoint }),
    ...(maxMs === 0 ? {} : { maxSeconds: Math.floor(maxMs / 1000) }),
    extendExpiration: given.boolean('service-account-extend-token-expiration', true),
    lookup: given.boolean('service-account-lookup', true),
  };
}

function issuersOf(given: Given, ownIssuer: string): readonly string[] {
  const issuers = given.all('service-account-issuer');
  for (const [at, issuer] of issuers.entries()) {
    if (issuer === '') throw refused('service-account-issuer', 'it must not be empty');
    if (issuers.indexOf(issuer) < at) throw refused('service-account-issuer', `${issuer} is given twice`);
    if (issuer.includes(':') && !URL.canParse(issuer))
      throw refused('service-account-issuer', `${JSON.stringify(issuer)} contained a ':' but was not a valid URL`);
  }
  return issuers.length > 0 ? issuers : [ownIssuer];
}

function checkUrl(url: string, name: 'service-account-jwks-uri'): void {
  if (!URL.canParse(url)) throw refused(name, `Invalid value: ${JSON.stringify(url)}: must be a valid URL`);
  if (new URL(url).protocol !== 'https:') throw refused(name, `it requires https scheme, parsed as: ${url}`);
}

function read<T>(name: string, path: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw refused(name, `${path}: ${messageOf(error)}`);
  }
}
