/** TokenReview, and TokenRequest (`serviceaccounts/token`): tokens are checked and handed out, never stored. */

import type { TokenRequest, TokenReview } from '../../api/authentication/v1.gen.ts';
import type { Pod } from '../../api/core/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { type Clock, formatTime } from '../../base/clock.ts';
import { badRequest, conflict, type FieldError, fieldErrors, invalid, messageOf, notFound } from '../../base/errors.ts';
import { NODES, PODS, SECRETS, SERVICE_ACCOUNTS } from '../../client/resources.ts';
import { WARN_ONLY_TOKEN_SECONDS } from '../admission/service-account.ts';
import type { RequestAuthenticator } from '../authn/authenticator.ts';
import { decodeJwt } from '../authn/jwt.ts';
import type { ObjectReference, ServiceAccountTokens } from '../authn/service-account-tokens.ts';
import type { CreateHandler, Reader } from '../request.ts';
import { shown } from './subject-access.ts';

const TOKEN_SECONDS_DEFAULT = 3600;
const TOKEN_SECONDS_MIN = 600;
const TOKEN_SECONDS_MAX = 2 ** 32;

export interface TokenHandlersOptions {
  readonly authenticator: RequestAuthenticator;
  readonly tokens: ServiceAccountTokens;
  readonly reader: () => Reader;
  readonly clock: Clock;
}

export function tokenHandlers(options: TokenHandlersOptions): CreateHandler[] {
  return [
    {
      of: { group: 'authentication.k8s.io', version: 'v1', resource: 'tokenreviews' },
      async create(body) {
        const { spec } = body as TokenReview;
        if (!spec?.token) throw badRequest('token is required for TokenReview in authentication');
        const audiences = spec.audiences?.length ? spec.audiences : options.tokens.audiences;
        const answer = (status: object) => ({ ...body, metadata: body.metadata ?? {}, status }) as KubeObject;
        try {
          const verified = await options.authenticator.verifyToken(spec.token, audiences);
          if (!verified) return answer({ user: {}, error: 'invalid bearer token' });
          return answer({ authenticated: true, user: shown(verified.user), audiences: verified.audiences });
        } catch (error) {
          return answer({ user: {}, error: `[invalid bearer token, ${messageOf(error)}]` });
        }
      },
    },
    {
      of: SERVICE_ACCOUNTS,
      subresource: 'token',
      create: async (body, request) => {
        const issued = await issue(options, request, body as TokenRequest);
        const id = credentialOf((issued as TokenRequest).status?.token ?? '');
        if (id) request.annotate?.('authentication.kubernetes.io/issued-credential-id', id);
        return issued;
      },
    },
  ];
}

/** `JTI=…`, by which uses of the token can be found in the audit log. */
function credentialOf(token: string): string | undefined {
  const id = decodeJwt(token)?.claims['jti'];
  return typeof id === 'string' ? `JTI=${id}` : undefined;
}

async function issue(
  options: TokenHandlersOptions,
  asked: Parameters<CreateHandler['create']>[1],
  request: TokenRequest,
): Promise<KubeObject> {
  const { namespace, name } = asked.attributes;
  const reader = options.reader();
  const account = reader.get(SERVICE_ACCOUNTS, namespace, name);
  if (!account) throw notFound(SERVICE_ACCOUNTS, name);
  const { uid } = request.metadata ?? {};
  if (uid && uid !== account.metadata.uid)
    throw conflict(
      { group: 'authentication.k8s.io', resource: 'TokenRequest' },
      name,
      `the UID in the token request (${uid}) does not match the UID of the service account (${account.metadata.uid})`,
    );
  let seconds = request.spec?.expirationSeconds ?? TOKEN_SECONDS_DEFAULT;
  const errors: FieldError[] = [];
  if (seconds < TOKEN_SECONDS_MIN)
    errors.push(
      fieldErrors.invalid('spec.expirationSeconds', seconds, 'may not specify a duration less than 10 minutes'),
    );
  if (seconds > TOKEN_SECONDS_MAX)
    errors.push(
      fieldErrors.invalid('spec.expirationSeconds', seconds, 'may not specify a duration larger than 2^32 seconds'),
    );
  if (errors.length) throw invalid({ group: 'authentication.k8s.io', kind: 'TokenRequest' }, '', errors);
  const { maxSeconds, extendedSeconds } = options.tokens.limits;
  if (maxSeconds !== undefined && seconds > maxSeconds) {
    asked.warn(`requested expiration of ${seconds} seconds shortened to ${maxSeconds} seconds`);
    seconds = maxSeconds;
  }
  const audiences = request.spec?.audiences?.length ? request.spec.audiences : options.tokens.audiences;

  const bound = boundObjects(reader, namespace, name, request);
  const forApi = audiences.every(audience => options.tokens.audiences.includes(audience));
  // What is mounted into pods is renewed by the kubelet each hour, but old clients read it once.
  const isExtended = bound.pod !== undefined && seconds === WARN_ONLY_TOKEN_SECONDS && forApi;
  const extended = isExtended ? extendedSeconds : undefined;
  const token = await options.tokens.issue({
    namespace,
    serviceAccount: { name, uid: account.metadata.uid! },
    audiences,
    bound,
    lifetimeSeconds: extended ?? seconds,
    ...(extended === undefined ? {} : { warnAfterSeconds: seconds }),
  });
  return {
    kind: 'TokenRequest',
    apiVersion: 'authentication.k8s.io/v1',
    metadata: { name, namespace, creationTimestamp: formatTime(options.clock.now()) },
    spec: { audiences, expirationSeconds: seconds, boundObjectRef: request.spec?.boundObjectRef ?? null },
    status: { token, expirationTimestamp: formatTime(options.clock.now() + seconds * 1000) },
  } as unknown as KubeObject;
}

function boundObjects(
  reader: Reader,
  namespace: string,
  account: string,
  request: TokenRequest,
): { pod?: ObjectReference; secret?: ObjectReference; node?: ObjectReference } {
  const reference = request.spec?.boundObjectRef;
  if (!reference) return {};
  const { kind, apiVersion, name = '', uid } = reference;
  const kinds = { Pod: PODS, Secret: SECRETS, Node: NODES } as const;
  const of = kinds[kind as keyof typeof kinds];
  if (!of || apiVersion !== 'v1')
    throw badRequest(
      `cannot bind token to object of type ${apiVersion?.includes('/') ? apiVersion : `/${apiVersion}`}, Kind=${kind}`,
    );
  const object = reader.get(of, kind === 'Node' ? '' : namespace, name);
  if (!object) throw notFound(of, name);
  if (uid && uid !== object.metadata.uid)
    throw conflict(
      of,
      name,
      `the UID in the bound object reference (${uid}) does not match the UID in record. The object might have been deleted and then recreated`,
    );
  const found: ObjectReference = { name, uid: object.metadata.uid! };
  if (kind === 'Node') return { node: found };
  if (kind === 'Secret') return { secret: found };
  const pod = object as Pod;
  if (pod.spec?.serviceAccountName !== account)
    throw badRequest(
      `cannot bind token for serviceaccount ${JSON.stringify(account)} to pod running with different serviceaccount name.`,
    );
  const nodeName = pod.spec?.nodeName;
  if (!nodeName) return { pod: found };
  const nodeUid = reader.get(NODES, '', nodeName)?.metadata.uid;
  return { pod: found, node: { name: nodeName, uid: nodeUid ?? '' } };
}
