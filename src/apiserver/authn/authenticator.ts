/**
 * Who is asking: a proxy in front, client certificate, then bearer token, then anonymous. Everyone but
 * the anonymous user is in `system:authenticated`. A bearer token that is present and bad is refused, never ignored.
 * Impersonation comes after it, in `../impersonation.ts`.
 */

import { unauthorized } from '../../base/errors.ts';
import type { Authenticator, Credentials, UserInfo } from '../request.ts';
import type { AnonymousConfiguration } from './authentication-configuration.ts';
import { proxiedUser, type RequestHeaderOptions } from './request-header.ts';
import type { TokenAuthenticator, Verified } from './token-authenticator.ts';

export const ALL_AUTHENTICATED = 'system:authenticated';
export const ANONYMOUS: UserInfo = { name: 'system:anonymous', groups: ['system:unauthenticated'] };

export interface AuthenticatorOptions {
  readonly tokens: TokenAuthenticator;
  /** Audiences of the API server itself; the first is put into tokens that name none. */
  readonly audiences: readonly string[];
  /** Without it no proxy is believed. */
  readonly requestHeader?: RequestHeaderOptions | undefined;
  /** Default everywhere, as upstream: RBAC lets anonymous users see little more than /healthz and /version. */
  readonly anonymous?: () => AnonymousConfiguration;
}

const EVERYWHERE: AnonymousConfiguration = { enabled: true };

export class RequestAuthenticator implements Authenticator {
  readonly #options: AuthenticatorOptions;
  /** Users by certificate subject, so that a connection's requests share one object. */
  readonly #byCertificate = new WeakMap<object, UserInfo>();

  constructor(options: AuthenticatorOptions) {
    this.#options = options;
  }

  /** Never undefined: without credentials it is the anonymous user, or Unauthorized where that is switched off. */
  authenticate(credentials: Credentials): UserInfo | Promise<UserInfo> {
    const { certificate, headers, path } = credentials;
    const { requestHeader } = this.#options;
    if (certificate?.isFrontProxy) {
      const proxied = requestHeader && proxiedUser(credentials, requestHeader);
      if (proxied) return withGroup(proxied);
    } else if (certificate?.commonName) {
      let user = this.#byCertificate.get(certificate);
      if (!user) {
        const { commonName: name, organizations: groups, uids = [], fingerprint } = certificate;
        const [uid] = uids;
        if (uids.length > 1 || uid === '') throw unauthorized();
        const extra = fingerprint
          ? { extra: { 'authentication.kubernetes.io/credential-id': [`X509SHA256=${fingerprint}`] } }
          : {};
        user = withGroup({ name, groups, ...(uid ? { uid } : {}), ...extra });
        this.#byCertificate.set(certificate, user);
      }
      return user;
    }
    const token = bearerToken(headers.authorization) ?? webSocketToken(headers['sec-websocket-protocol']);
    if (token === undefined) return this.#anonymous(path);
    let verified: ReturnType<TokenAuthenticator['verify']>;
    try {
      verified = this.verifyToken(token, this.#options.audiences);
    } catch {
      // What exactly is wrong with a token is nobody's business but the log's.
      throw unauthorized();
    }
    if (!(verified instanceof Promise)) return known(verified, credentials);
    return verified.then(
      later => known(later, credentials),
      () => {
        throw unauthorized();
      },
    );
  }

  #anonymous(path: string | undefined): UserInfo {
    const { enabled, conditions } = this.#options.anonymous?.() ?? EVERYWHERE;
    if (!enabled) throw unauthorized();
    if (conditions?.length && !conditions.some(condition => condition.path === path)) throw unauthorized();
    return ANONYMOUS;
  }

  /** The user behind a bearer token for any of `audiences`; undefined for a token nobody here knows, throws for a bad one. */
  verifyToken(token: string, audiences: readonly string[]): Verified | undefined | Promise<Verified | undefined> {
    const found = this.#options.tokens.verify(token, audiences);
    return found instanceof Promise ? found.then(whole) : whole(found);
  }
}

function known(verified: Verified | undefined, { note, warn }: Credentials): UserInfo {
  if (!verified) throw unauthorized();
  if (verified.warning !== undefined) warn?.(verified.warning);
  if (note) for (const one of verified.notes ?? []) note(one);
  return verified.user;
}

function whole(verified: Verified | undefined): Verified | undefined {
  if (!verified || verified.user.groups.includes(ALL_AUTHENTICATED)) return verified;
  return { ...verified, user: withGroup(verified.user) };
}

/** One that knows nothing of audiences speaks for those of the API server only. */
export function forApiServer(tokens: TokenAuthenticator, own: readonly string[]): TokenAuthenticator {
  return {
    verify(token, audiences) {
      // What nearly every request asks for.
      const common = audiences === own ? own : audiences.filter(audience => own.includes(audience));
      return common.length > 0 ? tokens.verify(token, common) : undefined;
    },
  };
}

function withGroup(user: UserInfo): UserInfo {
  return user.groups.includes(ALL_AUTHENTICATED) ? user : { ...user, groups: [...user.groups, ALL_AUTHENTICATED] };
}

/** At most 4 MB of what anybody sends. */
const HEADERS_MAX = 1024;
const HEADER_LETTERS_MAX = 4096;
/** A client's requests come with one header, whose token keeps its identity and with it the hash by which it is looked up. */
const tokens = new Map<string, string | undefined>();
let latest: { readonly header: string; readonly token: string | undefined } = { header: '', token: undefined };

function bearerToken(header: string | undefined): string | undefined {
  if (header === undefined) return undefined;
  // Comparing is cheaper than hashing, which a header that came as a new string would need.
  if (header === latest.header) return latest.token;
  let token = tokens.get(header);
  if (token === undefined && !tokens.has(header)) {
    token = /^bearer +(\S+)\s*$/i.exec(header)?.[1];
    if (header.length > HEADER_LETTERS_MAX) return token;
    if (tokens.size >= HEADERS_MAX) tokens.clear();
    tokens.set(header, token);
  }
  latest = { header, token };
  return token;
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
