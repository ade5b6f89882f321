/**
 * Service account tokens: ES256 JWTs with upstream's claims, signed and verified here. A token is valid only while its
 * service account, and the pod, secret or node it is bound to, exist with the uid in the token; the signature is checked
 * once per token and remembered, the objects at every use.
 */

import { createHash, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import type { Clock } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import { NODES, PODS, SECRETS, SERVICE_ACCOUNTS } from '../../client/resources.ts';
import type { ResourceId } from '../../client/transport.ts';
import type { Reader, UserInfo } from '../request.ts';

export interface ObjectReference {
  readonly name: string;
  readonly uid: string;
}

/** The `kubernetes.io` claim. */
interface PrivateClaims {
  readonly namespace: string;
  readonly serviceaccount: ObjectReference;
  readonly pod?: ObjectReference;
  readonly secret?: ObjectReference;
  readonly node?: ObjectReference;
  readonly warnafter?: number;
}

interface Claims {
  readonly iss: string;
  readonly sub: string;
  readonly aud: readonly string[];
  readonly exp: number;
  readonly iat: number;
  readonly nbf: number;
  readonly jti: string;
  readonly 'kubernetes.io': PrivateClaims;
}

export interface TokenSubject {
  readonly namespace: string;
  readonly serviceAccount: ObjectReference;
  readonly audiences: readonly string[];
  readonly lifetimeSeconds: number;
  readonly bound?: {
    readonly pod?: ObjectReference;
    readonly secret?: ObjectReference;
    readonly node?: ObjectReference;
  };
  /** Seconds after which a use is stale, for tokens whose life was extended. */
  readonly warnAfterSeconds?: number;
}

/** What a token in a Secret is for. */
export interface LegacySubject {
  readonly namespace: string;
  readonly secret: string;
  readonly serviceAccount: ObjectReference;
}

const LEGACY_ISSUER = 'kubernetes/serviceaccount';
/** Put on a Secret whose token has not been used for long. */
const LAST_USED = 'kubernetes.io/legacy-token-last-used';
const INVALID_SINCE = 'kubernetes.io/legacy-token-invalid-since';

export interface ServiceAccountTokensOptions {
  readonly keys: { readonly privateKey: KeyObject; readonly publicKey: KeyObject };
  readonly issuer: string;
  readonly reader: () => Reader;
  readonly clock: Clock;
  readonly random: Random;
  /** The token of a Secret was used, first on this day (`2026-01-31`): the Secret is to say so. */
  readonly legacyUsed?: (secret: { readonly namespace: string; readonly name: string }, day: string) => void;
}

/** Verified signatures remembered; a claim set is about 1 KB, so at most 4 MB. */
const CACHE_LIMIT = 4096;
/** Objects being deleted keep their tokens alive this long, as upstream, so that pods can shut down. */
const DELETION_LEEWAY_MS = 60_000;

export class ServiceAccountTokens {
  readonly #options: ServiceAccountTokensOptions;
  readonly #keyId: string;
  readonly #header: string;
  /** Token → its verified claims; oldest first. */
  readonly #verified = new Map<string, { claims: Claims; user: UserInfo }>();

  constructor(options: ServiceAccountTokensOptions) {
    this.#options = options;
    this.#keyId = createHash('sha256')
      .update(options.keys.publicKey.export({ type: 'spki', format: 'der' }))
      .digest('base64url');
    this.#header = encode({ alg: 'ES256', kid: this.#keyId });
  }

  /** A signed token for the subject, whose existence the caller has checked. */
  issue(subject: TokenSubject): string {
    const now = Math.floor(this.#options.clock.now() / 1000);
    const claims: Claims = {
      aud: subject.audiences,
      exp: now + subject.lifetimeSeconds,
      iat: now,
      iss: this.#options.issuer,
      jti: this.#options.random.uuid(),
      'kubernetes.io': {
        namespace: subject.namespace,
        ...(subject.bound?.node ? { node: subject.bound.node } : {}),
        ...(subject.bound?.pod ? { pod: subject.bound.pod } : {}),
        ...(subject.bound?.secret ? { secret: subject.bound.secret } : {}),
        serviceaccount: subject.serviceAccount,
        ...(subject.warnAfterSeconds === undefined ? {} : { warnafter: now + subject.warnAfterSeconds }),
      },
      nbf: now,
      sub: `system:serviceaccount:${subject.namespace}:${subject.serviceAccount.name}`,
    };
    return this.#sign(claims);
  }

  /** A token that a Secret holds: it names no audience and does not expire, and lives as long as the Secret. */
  issueLegacy(of: LegacySubject): string {
    const claims = {
      iss: LEGACY_ISSUER,
      'kubernetes.io/serviceaccount/namespace': of.namespace,
      'kubernetes.io/serviceaccount/secret.name': of.secret,
      'kubernetes.io/serviceaccount/service-account.name': of.serviceAccount.name,
      'kubernetes.io/serviceaccount/service-account.uid': of.serviceAccount.uid,
      sub: `system:serviceaccount:${of.namespace}:${of.serviceAccount.name}`,
    };
    return this.#sign(claims);
  }

  #sign(claims: object): string {
    const signed = `${this.#header}.${encode(claims)}`;
    return `${signed}.${sign('sha256', Buffer.from(signed), { key: this.#options.keys.privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  }

  /**
   * The user of a token and those of the wanted audiences that it has. undefined: not one of ours (another issuer, not a
   * JWT); otherwise throws an Error that says what is wrong.
   */
  verify(token: string, audiences: readonly string[]): { user: UserInfo; audiences: readonly string[] } | undefined {
    let known = this.#verified.get(token);
    if (!known && isLegacy(token)) return this.#verifyLegacy(token, audiences);
    known ??= this.#checkSignature(token);
    if (!known) return undefined;
    const { claims, user } = known;
    const seconds = this.#options.clock.now() / 1000;
    if (claims.exp <= seconds) throw new Error('service account token has expired');
    if (claims.nbf > seconds + 60) throw new Error('service account token is not valid yet');
    const common = audiences.filter(audience => claims.aud.includes(audience));
    if (common.length === 0)
      throw new Error(
        `token audiences ${JSON.stringify(claims.aud)} is invalid for the target audiences ${JSON.stringify(audiences)}`,
      );
    this.#checkObjects(claims['kubernetes.io']);
    return { user, audiences: common };
  }

  /** Bodies of `/.well-known/openid-configuration` and `/openid/v1/jwks`. */
  discovery(): { configuration: object; keys: object } {
    const { issuer, keys } = this.#options;
    const jwk = createPublicKey(keys.publicKey.export({ type: 'spki', format: 'pem' })).export({ format: 'jwk' });
    return {
      configuration: {
        issuer,
        jwks_uri: `${issuer}/openid/v1/jwks`,
        response_types_supported: ['id_token'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: ['ES256'],
      },
      keys: { keys: [{ use: 'sig', kty: jwk.kty, kid: this.#keyId, crv: jwk.crv, alg: 'ES256', x: jwk.x, y: jwk.y }] },
    };
  }

  #checkSignature(token: string): { claims: Claims; user: UserInfo } | undefined {
    const parts = token.split('.');
    if (parts.length !== 3) return undefined;
    const [header, body, signature] = parts as [string, string, string];
    const claims = decode(body) as Claims | undefined;
    if (claims?.iss !== this.#options.issuer) return undefined;
    if ((decode(header) as { alg?: string } | undefined)?.alg !== 'ES256')
      throw new Error('unexpected signature algorithm');
    const key = { key: this.#options.keys.publicKey, dsaEncoding: 'ieee-p1363' as const };
    if (!verify('sha256', Buffer.from(`${header}.${body}`), key, Buffer.from(signature, 'base64url')))
      throw new Error('invalid signature');
    const entry = { claims, user: userOf(claims) };
    if (this.#verified.size >= CACHE_LIMIT) this.#verified.delete(this.#verified.keys().next().value!);
    this.#verified.set(token, entry);
    return entry;
  }

  #verifyLegacy(token: string, audiences: readonly string[]): { user: UserInfo; audiences: readonly string[] } {
    const [header, body, signature] = token.split('.') as [string, string, string];
    if ((decode(header) as { alg?: string } | undefined)?.alg !== 'ES256')
      throw new Error('unexpected signature algorithm');
    const key = { key: this.#options.keys.publicKey, dsaEncoding: 'ieee-p1363' as const };
    if (!verify('sha256', Buffer.from(`${header}.${body}`), key, Buffer.from(signature, 'base64url')))
      throw new Error('invalid signature');
    const claims = decode(body) as Readonly<Record<string, string>>;
    const claim = (name: string) => String(claims[`kubernetes.io/serviceaccount/${name}`] ?? '');
    const [namespace, secretName] = [claim('namespace'), claim('secret.name')];
    const account = { name: claim('service-account.name'), uid: claim('service-account.uid') };
    const secret = this.#options.reader().get(SECRETS, namespace, secretName) as
      | { data?: Record<string, string>; metadata: { deletionTimestamp?: string; labels?: Record<string, string> } }
      | undefined;
    const held = Buffer.from(secret?.data?.['token'] ?? '', 'base64').toString();
    if (!secret || secret.metadata.deletionTimestamp || held !== token)
      throw new Error('service account token has been invalidated');
    if (secret.metadata.labels?.[INVALID_SINCE]) throw new Error('the token in secret has been marked as invalid');
    this.#checkObjects({ namespace, serviceaccount: account });
    const own = audiences.filter(audience => audience === this.#options.issuer);
    if (own.length === 0)
      throw new Error(`token audiences are invalid for the target audiences ${JSON.stringify(audiences)}`);
    const day = new Date(this.#options.clock.now()).toISOString().slice(0, 10);
    if (secret.metadata.labels?.[LAST_USED] !== day) this.#options.legacyUsed?.({ namespace, name: secretName }, day);
    return { user: accountUser(namespace, account), audiences: own };
  }

  #checkObjects(claims: PrivateClaims): void {
    const check = (kind: string, of: ResourceId, namespace: string, reference: ObjectReference | undefined) => {
      if (!reference) return;
      const { metadata } = this.#options.reader().get(of, namespace, reference.name) ?? {};
      if (!metadata) throw new Error(`${kind} ${namespace ? `${namespace}/` : ''}${reference.name} not found`);
      if (metadata.uid !== reference.uid)
        throw new Error(`${kind} UID (${metadata.uid}) does not match claim (${reference.uid})`);
      if (
        metadata.deletionTimestamp &&
        this.#options.clock.now() > Date.parse(metadata.deletionTimestamp) + DELETION_LEEWAY_MS
      )
        throw new Error(`${kind} ${reference.name} has been deleted`);
    };
    check('ServiceAccount', SERVICE_ACCOUNTS, claims.namespace, claims.serviceaccount);
    check('Secret', SECRETS, claims.namespace, claims.secret);
    check('Pod', PODS, claims.namespace, claims.pod);
    // With a pod the node is information only: the pod's own end is what ends the token.
    if (!claims.pod) check('Node', NODES, '', claims.node);
  }
}

function isLegacy(token: string): boolean {
  const body = token.split('.', 3)[1];
  return body !== undefined && (decode(body) as { iss?: string } | undefined)?.iss === LEGACY_ISSUER;
}

function accountUser(namespace: string, { name, uid }: ObjectReference): UserInfo {
  return {
    name: `system:serviceaccount:${namespace}:${name}`,
    uid,
    groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
  };
}

function userOf(claims: Claims): UserInfo {
  const { namespace, serviceaccount, pod, node } = claims['kubernetes.io'];
  return {
    ...accountUser(namespace, serviceaccount),
    extra: {
      'authentication.kubernetes.io/credential-id': [`JTI=${claims.jti}`],
      ...(node
        ? { 'authentication.kubernetes.io/node-name': [node.name], 'authentication.kubernetes.io/node-uid': [node.uid] }
        : {}),
      ...(pod
        ? { 'authentication.kubernetes.io/pod-name': [pod.name], 'authentication.kubernetes.io/pod-uid': [pod.uid] }
        : {}),
    },
  };
}

const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

function decode(part: string): unknown {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString());
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}
