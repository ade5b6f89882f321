/**
 * Who is asking: client certificate, then bearer token (service account, bootstrap, static), then anonymous. Everyone but
 * the anonymous user is in `system:authenticated`. A bearer token that is present and bad is refused, never ignored.
 * Impersonation comes after it, in `../impersonation.ts`.
 */

import { timingSafeEqual } from 'node:crypto';
import type { Clock } from '../../base/clock.ts';
import { unauthorized } from '../../base/errors.ts';
import { SECRETS } from '../../client/resources.ts';
import type { Authenticator, Credentials, Reader, UserInfo } from '../request.ts';
import type { ServiceAccountTokens } from './service-account-tokens.ts';

export const ALL_AUTHENTICATED = 'system:authenticated';
export const ANONYMOUS: UserInfo = { name: 'system:anonymous', groups: ['system:unauthenticated'] };

export interface AuthenticatorOptions {
  readonly tokens: ServiceAccountTokens;
  /** Audiences of the API server itself; the first is put into tokens that name none. */
  readonly audiences: readonly string[];
  readonly reader: () => Reader;
  readonly clock: Clock;
  /** Tokens given on the command line. */
  readonly staticTokens?: ReadonlyMap<string, UserInfo>;
  /** Default true, as upstream: RBAC lets anonymous users see little more than /healthz and /version. */
  readonly anonymous?: boolean;
}

export class RequestAuthenticator implements Authenticator {
  readonly #options: AuthenticatorOptions;
  /** Users by certificate subject, so that a connection's requests share one object. */
  readonly #byCertificate = new WeakMap<object, UserInfo>();

  constructor(options: AuthenticatorOptions) {
    this.#options = options;
  }

  /** Never undefined: without credentials it is the anonymous user, or Unauthorized where that is switched off. */
  authenticate({ certificate, headers }: Credentials): UserInfo {
    if (certificate?.commonName) {
      let user = this.#byCertificate.get(certificate);
      if (!user) {
        user = withGroup({ name: certificate.commonName, groups: certificate.organizations });
        this.#byCertificate.set(certificate, user);
      }
      return user;
    }
    const token = bearerToken(headers.authorization) ?? webSocketToken(headers['sec-websocket-protocol']);
    if (token !== undefined) {
      let verified: { user: UserInfo } | undefined;
      try {
        verified = this.verifyToken(token, this.#options.audiences);
      } catch {
        // What exactly is wrong with a token is nobody's business but the log's.
        throw unauthorized();
      }
      if (!verified) throw unauthorized();
      return verified.user;
    }
    if (this.#options.anonymous === false) throw unauthorized();
    return ANONYMOUS;
  }

  /** The user behind a bearer token for any of `audiences`; undefined for a token nobody here knows, throws for a bad one. */
  verifyToken(
    token: string,
    audiences: readonly string[],
  ): { user: UserInfo; audiences: readonly string[] } | undefined {
    const account = this.#options.tokens.verify(token, audiences);
    if (account) return account;
    const own = audiences.filter(audience => this.#options.audiences.includes(audience));
    const user = own.length ? (this.#options.staticTokens?.get(token) ?? this.#bootstrapUser(token)) : undefined;
    return user && { user: withGroup(user), audiences: own };
  }

  // Bootstrap tokens, `id.secret`, are secrets in kube-system (kubeadm's and ours for joining nodes).
  #bootstrapUser(token: string): UserInfo | undefined {
    const match = /^([a-z0-9]{6})\.([a-z0-9]{16})$/.exec(token);
    if (!match) return undefined;
    const secret = this.#options.reader().get(SECRETS, 'kube-system', `bootstrap-token-${match[1]}`) as
      | { type?: string; data?: Record<string, string>; metadata: { deletionTimestamp?: string } }
      | undefined;
    if (secret?.type !== 'bootstrap.kubernetes.io/token' || secret.metadata.deletionTimestamp) return undefined;
    const field = (name: string) => Buffer.from(secret.data?.[name] ?? '', 'base64').toString();
    const expected = Buffer.from(field('token-secret'));
    if (expected.length !== 16 || !timingSafeEqual(expected, Buffer.from(match[2]!)) || field('token-id') !== match[1])
      return undefined;
    const expiration = field('expiration');
    if (expiration !== '' && !(Date.parse(expiration) > this.#options.clock.now())) return undefined;
    if (field('usage-bootstrap-authentication') !== 'true') return undefined;
    const extra = field('auth-extra-groups')
      .split(',')
      .filter(group => /^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$/.test(group));
    return { name: `system:bootstrap:${match[1]}`, groups: ['system:bootstrappers', ...extra] };
  }
}

function withGroup(user: UserInfo): UserInfo {
  return user.groups.includes(ALL_AUTHENTICATED) ? user : { ...user, groups: [...user.groups, ALL_AUTHENTICATED] };
}

function bearerToken(header: string | undefined): string | undefined {
  const match = /^bearer +(\S+)\s*$/i.exec(header ?? '');
  return match?.[1];
}

// Browsers cannot set headers on a WebSocket: the token travels as a subprotocol.
function webSocketToken(header: string | undefined): string | undefined {
  const prefix = 'base64url.bearer.authorization.k8s.io.';
  const protocol = header
    ?.split(',')
    .map(part => part.trim())
    .find(part => part.startsWith(prefix));
  return protocol === undefined ? undefined : Buffer.from(protocol.slice(prefix.length), 'base64url').toString();
}
