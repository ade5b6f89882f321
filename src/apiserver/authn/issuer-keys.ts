/**
 * The keys of an OpenID issuer: found by discovery, fetched when a token first needs them and again when one is signed by a key that is
 * not known. Fetches are shared and held apart, so that no stream of bad tokens becomes a stream of requests to the issuer.
 */

import type { Clock } from '../../base/clock.ts';
import type { KeySetMetrics } from '../metrics/configuration-metrics.ts';
import type { Remote } from '../webhooks/remote.ts';
import { type Jwt, KeySet } from './jwt.ts';

const FETCH_MS_MAX = 10_000;
const FETCH_APART_MS = 1000;
const DISCOVERY = '/.well-known/openid-configuration';

export interface IssuerKeysOptions {
  readonly issuer: string;
  /** Where the discovery document is, if not below the issuer's URL. */
  readonly discoveryUrl?: string | undefined;
  readonly remote: Remote;
  readonly clock: Clock;
  /** Of issuers that the configuration names. */
  readonly metrics?: KeySetMetrics;
}

export class IssuerKeys {
  readonly #options: IssuerKeysOptions;
  #keysUrl: string | undefined;
  #keys: KeySet | undefined;
  #fetching: Promise<KeySet> | undefined;
  #fetchedMs = Number.NEGATIVE_INFINITY;
  #failure: Error | undefined;

  constructor(options: IssuerKeysOptions) {
    this.#options = options;
  }

  /** Rejects when the signature is none of the issuer's, or when its keys cannot be had. */
  async verify(jwt: Jwt): Promise<void> {
    const known = this.#keys;
    if (known?.verifies(jwt)) return;
    const keys = await this.#fresh();
    if (keys === known || !keys.verifies(jwt)) throw new Error('failed to verify id token signature');
  }

  #fresh(): Promise<KeySet> {
    if (this.#fetching) return this.#fetching;
    const { clock, metrics } = this.#options;
    if (clock.monotonic() - this.#fetchedMs < FETCH_APART_MS) {
      if (this.#keys) return Promise.resolve(this.#keys);
      if (this.#failure) return Promise.reject(this.#failure);
    }
    this.#fetching = this.#fetch().then(
      keys => {
        this.#keys = keys;
        return keys;
      },
      (error: Error) => {
        metrics?.failed(clock.now());
        this.#failure = error;
        throw error;
      },
    );
    const done = () => {
      this.#fetching = undefined;
      this.#fetchedMs = clock.monotonic();
    };
    this.#fetching.then(done, done);
    return this.#fetching;
  }

  async #fetch(): Promise<KeySet> {
    const { issuer, discoveryUrl, remote, clock, metrics } = this.#options;
    if (!this.#keysUrl) {
      const url = discoveryUrl || `${issuer.replace(/\/$/, '')}${DISCOVERY}`;
      const { value } = await remote.json(url, { timeoutMs: FETCH_MS_MAX });
      const document = value as { issuer?: unknown; jwks_uri?: unknown };
      if (document.issuer !== issuer)
        throw new Error(
          `oidc: issuer did not match the issuer returned by provider, expected ${JSON.stringify(issuer)} got ${JSON.stringify(document.issuer)}`,
        );
      const keysUrl = String(document.jwks_uri);
      if (!keysUrl.startsWith('https://')) throw new Error(`oidc: jwks_uri ${JSON.stringify(keysUrl)} is not https`);
      this.#keysUrl = keysUrl;
    }
    const { value, text } = await remote.json(this.#keysUrl, { timeoutMs: FETCH_MS_MAX });
    const keys = new KeySet(value);
    metrics?.fetched(text, clock.now());
    return keys;
  }
}
