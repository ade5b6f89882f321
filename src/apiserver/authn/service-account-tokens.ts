/**
 * Service account tokens: JWTs with upstream's claims, issued and verified here. A token is valid only while its
 * service account, and the pod, secret or node it is bound to, exist with the uid in the token; the signature is checked
 * once per token and remembered while the keys stay the same, the objects at every use.
 */

import type { ServiceAccount } from '../../api/core/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import { metrics } from '../../base/metrics.ts';
import type { Random } from '../../base/random.ts';
import { NODES, PODS, SECRETS, SERVICE_ACCOUNTS } from '../../client/resources.ts';
import type { ResourceId } from '../../client/transport.ts';
import type { ServiceAccountSettings } from '../configuration/service-account-settings.ts';
import type { Reader, UserInfo } from '../request.ts';
import type { Verified } from './token-authenticator.ts';
import { isSignedBy, keySetOf, type TokenKeys, type VerificationKey } from './token-keys.ts';

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
/** Of annotations in the audit log. */
const GENERATED_WARNING =
  'Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.';
const NOTE = 'authentication.k8s.io';
const LAST_USED = 'kubernetes.io/legacy-token-last-used';
const INVALID_SINCE = 'kubernetes.io/legacy-token-invalid-since';

export interface ServiceAccountTokensOptions {
  readonly keys: TokenKeys;
  readonly settings: ServiceAccountSettings;
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

/** Whom a token is for, of those that are wanted. Throws for a token that holds no more. */
type Judge = (audiences: readonly string[]) => Verified;

/** Upstream's: the longest life of a token that is mounted into a pod. */
const EXTENDED_SECONDS = 365 * 24 * 3600;

export class ServiceAccountTokens {
  readonly #options: ServiceAccountTokensOptions;
  /** Tokens whose signature is right; oldest first. */
  readonly #verified = new Map<string, Judge>();
  /** That of the keys when they were verified. */
  #generation = 0;

  constructor(options: ServiceAccountTokensOptions) {
    this.#options = options;
  }

  /** Whom tokens are for that name nobody. */
  get audiences(): readonly string[] {
    return this.#options.settings.audiences;
  }
  /** The longest life that may be asked for, and the one of tokens that clients may read only once, if they get one. */
  get limits(): { readonly maxSeconds: number | undefined; readonly extendedSeconds: number | undefined } {
    const { keys, settings } = this.#options;
    const { lifetimeSecondsMax = Number.POSITIVE_INFINITY } = keys;
    return {
      maxSeconds: settings.maxSeconds ?? keys.lifetimeSecondsMax,
      extendedSeconds: settings.extendExpiration ? Math.min(EXTENDED_SECONDS, lifetimeSecondsMax) : undefined,
    };
  }

  /** A signed token for the subject, whose existence the caller has checked. */
  issue(subject: TokenSubject): string | Promise<string> {
    const now = Math.floor(this.#options.clock.now() / 1000);
    const claims: Claims = {
      aud: subject.audiences,
      exp: now + subject.lifetimeSeconds,
      iat: now,
      iss: this.#options.settings.issuers[0]!,
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
    return this.#options.keys.sign(encode(claims));
  }

  /** A token that a Secret holds: it names no audience and does not expire, and lives as long as the Secret. */
  issueLegacy(of: LegacySubject): string | Promise<string> {
    const claims = {
      iss: LEGACY_ISSUER,
      'kubernetes.io/serviceaccount/namespace': of.namespace,
      'kubernetes.io/serviceaccount/secret.name': of.secret,
      'kubernetes.io/serviceaccount/service-account.name': of.serviceAccount.name,
      'kubernetes.io/serviceaccount/service-account.uid': of.serviceAccount.uid,
      sub: `system:serviceaccount:${of.namespace}:${of.serviceAccount.name}`,
    };
    return this.#options.keys.sign(encode(claims));
  }

  /**
   * The user of a token and those of the wanted audiences that it has. undefined: not one of ours (another issuer, not a
   * JWT); otherwise throws an Error that says what is wrong. At once, unless keys have to be asked for.
   */
  verify(token: string, audiences: readonly string[]): Verified | undefined | Promise<Verified | undefined> {
    const { keys, settings } = this.#options;
    if (keys.generation !== this.#generation) {
      this.#verified.clear();
      this.#generation = keys.generation;
    }
    const known = this.#verified.get(token);
    if (known) return known(audiences);
    const parts = token.split('.');
    if (parts.length !== 3) return undefined;
    const claims = decode(parts[1]!) as Claims | undefined;
    if (!claims || !(claims.iss === LEGACY_ISSUER || settings.issuers.includes(claims.iss))) return undefined;
    const kid = (decode(parts[0]!) as { kid?: unknown } | undefined)?.kid;
    const found = keys.find(typeof kid === 'string' ? kid : '');
    const judged = (candidates: readonly VerificationKey[]) => this.#judge(token, claims, candidates)(audiences);
    return found instanceof Promise ? found.then(judged) : judged(found);
  }

  /** Bodies of `/.well-known/openid-configuration` and `/openid/v1/jwks`, and how long they are good. */
  discovery(): { configuration: object; keys: object; ageSecondsMax: number } {
    const { settings, keys } = this.#options;
    const issuer = settings.issuers[0]!;
    const shown = keys.known.filter(({ isHidden }) => !isHidden);
    return {
      configuration: {
        issuer,
        jwks_uri: settings.jwksUri ?? `${issuer}/openid/v1/jwks`,
        response_types_supported: ['id_token'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: [...new Set(shown.map(({ algorithm }) => algorithm.name))].sort(),
      },
      keys: keySetOf(shown),
      ageSecondsMax: keys.copySecondsMax,
    };
  }

  /** Checks the signature, once. */
  #judge(token: string, claims: Claims, keys: readonly VerificationKey[]): Judge {
    const [header, body, signature] = token.split('.') as [string, string, string];
    const algorithm = (decode(header) as { alg?: unknown } | undefined)?.alg;
    if (keys.length === 0) throw new Error('invalid signature, no keys found');
    const fitting = keys.filter(key => key.algorithm.name === algorithm);
    if (fitting.length === 0) throw new Error('unexpected signature algorithm');
    const bytes = Buffer.from(signature, 'base64url');
    if (!fitting.some(key => isSignedBy(key, `${header}.${body}`, bytes))) throw new Error('invalid signature');
    const judge =
      claims.iss === LEGACY_ISSUER
        ? this.#legacyJudge(token, claims as unknown as Readonly<Record<string, string>>)
        : this.#boundJudge(claims);
    if (this.#verified.size >= CACHE_LIMIT) this.#verified.delete(this.#verified.keys().next().value!);
    this.#verified.set(token, judge);
    return judge;
  }

  #boundJudge(claims: Claims): Judge {
    const user = userOf(claims);
    const { warnafter = Number.POSITIVE_INFINITY } = claims['kubernetes.io'];
    return audiences => {
      const seconds = this.#options.clock.now() / 1000;
      if (claims.exp <= seconds) throw new Error('service account token has expired');
      if (claims.nbf > seconds + 60) throw new Error('service account token is not valid yet');
      const common = audiences.filter(audience => claims.aud.includes(audience));
      if (common.length === 0)
        throw new Error(
          `token audiences ${JSON.stringify(claims.aud)} is invalid for the target audiences ${JSON.stringify(audiences)}`,
        );
      this.#checkObjects(claims['kubernetes.io']);
      const staleSeconds = Math.floor(seconds - warnafter);
      if (staleSeconds <= 0) {
        validTokens.add(1);
        return { user, audiences: common };
      }
      staleTokens.add(1);
      const note = `subject: ${user.name}, seconds after warning threshold: ${staleSeconds}`;
      return { user, audiences: common, notes: [[`${NOTE}/stale-token`, note]] };
    };
  }

  #legacyJudge(token: string, claims: Readonly<Record<string, string>>): Judge {
    const { reader, clock, settings, legacyUsed } = this.#options;
    const claim = (name: string) => String(claims[`kubernetes.io/serviceaccount/${name}`] ?? '');
    const [namespace, secretName] = [claim('namespace'), claim('secret.name')];
    const account = { name: claim('service-account.name'), uid: claim('service-account.uid') };
    const user = accountUser(namespace, account);
    return audiences => {
      const secret = reader().get(SECRETS, namespace, secretName) as
        | { data?: Record<string, string>; metadata: { deletionTimestamp?: string; labels?: Record<string, string> } }
        | undefined;
      const held = Buffer.from(secret?.data?.['token'] ?? '', 'base64').toString();
      if (settings.lookup && (!secret || secret.metadata.deletionTimestamp || held !== token))
        throw new Error('service account token has been invalidated');
      if (secret?.metadata.labels?.[INVALID_SINCE]) throw new Error('the token in secret has been marked as invalid');
      this.#checkObjects({ namespace, serviceaccount: account });
      const own = audiences.filter(audience => settings.audiences.includes(audience));
      if (own.length === 0)
        throw new Error(`token audiences are invalid for the target audiences ${JSON.stringify(audiences)}`);
      const day = new Date(clock.now()).toISOString().slice(0, 10);
      if (secret && secret.metadata.labels?.[LAST_USED] !== day) legacyUsed?.({ namespace, name: secretName }, day);
      const { secrets = [] } = (reader().get(SERVICE_ACCOUNTS, namespace, account.name) ?? {}) as ServiceAccount;
      const isGenerated = secrets.some(({ name }) => name === secretName);
      (isGenerated ? generatedTokenUses : manualTokenUses).add(1);
      const note = `${NOTE}/legacy-token-${isGenerated ? 'autogenerated' : 'manual'}-secret`;
      const known = { user, audiences: own, notes: [[note, secretName]] as const };
      return isGenerated ? { ...known, warning: GENERATED_WARNING } : known;
    };
  }

  #checkObjects(claims: PrivateClaims): void {
    if (!this.#options.settings.lookup) return;
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

const validTokens = metrics.counter(
  'serviceaccount_valid_tokens_total',
  'Cumulative valid projected service account tokens used',
);
const staleTokens = metrics.counter(
  'serviceaccount_stale_tokens_total',
  'Cumulative stale projected service account tokens used',
);
const generatedTokenUses = metrics.counter(
  'serviceaccount_legacy_auto_token_uses_total',
  'Cumulative auto-generated legacy tokens used',
);
const manualTokenUses = metrics.counter(
  'serviceaccount_legacy_manual_token_uses_total',
  'Cumulative manually created legacy tokens used',
);
