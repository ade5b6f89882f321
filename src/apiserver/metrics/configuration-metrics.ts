/**
 * Which configuration of its own the API server goes by, as metrics: the hash of each file that it follows and of the keys that issuers
 * of tokens gave it, and whether the last attempt to read them anew went well. By upstream's names, hashes and labels.
 */

import { createHash } from 'node:crypto';
import { hostname } from 'node:os';
import { metrics } from '../../base/metrics.ts';
import { identityOf } from '../identity-lease.ts';

export type FollowedConfiguration = 'authentication' | 'authorization' | 'encryption';

export const hashOf = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}`;

/** Of the server's name in its lease. */
const server = hashOf(identityOf(hostname()));

const familyOf = (kind: FollowedConfiguration) => {
  const name = `apiserver_${kind}_config_controller`;
  const labels = ['apiserver_id_hash', 'status'];
  return {
    info: metrics.gauge(
      `${name}_last_config_info`,
      `Information about the last applied ${kind} configuration with hash as label, split by apiserver identity.`,
      ['apiserver_id_hash', 'hash'],
    ),
    reloads: metrics.counter(
      `${name}_automatic_reloads_total`,
      `Total number of automatic reloads of ${kind} configuration split by status and apiserver identity.`,
      labels,
    ),
    reloadedAt: metrics.gauge(
      `${name}_automatic_reload_last_timestamp_seconds`,
      `Timestamp of the last automatic reload of ${kind} configuration split by status and apiserver identity.`,
      labels,
    ),
  };
};

/** One file that is followed. */
export class ConfigurationMetrics {
  readonly #family: ReturnType<typeof familyOf>;
  #hash: string | undefined;

  constructor(kind: FollowedConfiguration) {
    this.#family = familyOf(kind);
  }
  /** The text is what the server goes by. */
  applied(text: string): void {
    if (this.#hash) this.#family.info.remove(server, this.#hash);
    this.#hash = hashOf(text);
    this.#family.info.set(1, server, this.#hash);
  }
  reloaded(status: 'success' | 'failure', nowMs: number): void {
    this.#family.reloads.add(1, server, status);
    this.#family.reloadedAt.set(nowMs / 1000, server, status);
  }
}

const keySet = metrics.gauge(
  'apiserver_authentication_jwt_authenticator_jwks_fetch_last_key_set_info',
  'Information about the last JWKS fetched by the JWT authenticator with hash as label, split by api server identity and jwt issuer.',
  ['jwt_issuer_hash', 'apiserver_id_hash', 'hash'],
);
const keysFetchedAt = metrics.gauge(
  'apiserver_authentication_jwt_authenticator_jwks_fetch_last_timestamp_seconds',
  'Timestamp of the last successful or failed JWKS fetch split by result, api server identity and jwt issuer for the JWT authenticator.',
  ['result', 'jwt_issuer_hash', 'apiserver_id_hash'],
);

/** The keys of one issuer of tokens. */
export class KeySetMetrics {
  readonly #issuer: string;
  #hash: string | undefined;

  constructor(issuer: string) {
    this.#issuer = hashOf(issuer);
  }
  fetched(text: string, nowMs: number): void {
    this.#forgetSet();
    this.#hash = hashOf(text);
    keySet.set(1, this.#issuer, server, this.#hash);
    keysFetchedAt.set(nowMs / 1000, 'success', this.#issuer, server);
  }
  failed(nowMs: number): void {
    keysFetchedAt.set(nowMs / 1000, 'failure', this.#issuer, server);
  }
  /** The issuer is trusted no more. */
  forget(): void {
    this.#forgetSet();
    for (const result of ['success', 'failure']) keysFetchedAt.remove(result, this.#issuer, server);
  }
  #forgetSet(): void {
    if (this.#hash) keySet.remove(this.#issuer, server, this.#hash);
  }
}
