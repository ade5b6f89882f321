/** The file of `--authorization-config` (apiserver.config.k8s.io AuthorizationConfiguration): an ordered list of authorizers. */

import { checkExpression, DYN, listOf, plain, type Type } from '../../api/cel/checker.ts';
import { compile, kubernetesLibrary } from '../../api/cel/environment.ts';
import { messageOf } from '../../base/errors.ts';
import { readKubeconfig, type ServerAccess } from '../../client/kubeconfig.ts';
import { durationMs, Problems, parseDocument, type Shape } from '../configuration/document.ts';

export interface WebhookConfiguration {
  readonly authorizedTTL?: string;
  readonly cacheAuthorizedRequests?: boolean;
  readonly unauthorizedTTL?: string;
  readonly cacheUnauthorizedRequests?: boolean;
  readonly timeout: string;
  readonly subjectAccessReviewVersion: string;
  readonly matchConditionSubjectAccessReviewVersion?: string;
  readonly failurePolicy: 'NoOpinion' | 'Deny';
  readonly connectionInfo: { readonly type: string; readonly kubeConfigFile?: string };
  readonly matchConditions?: readonly { readonly expression: string }[];
  /** What its kubeconfig says; read with the configuration. */
  readonly access?: ServerAccess;
}

export interface AuthorizerConfiguration {
  readonly type: 'Node' | 'RBAC' | 'Webhook' | 'AlwaysAllow' | 'AlwaysDeny';
  readonly name: string;
  readonly webhook?: WebhookConfiguration;
}

export interface AuthorizationConfiguration {
  readonly authorizers: readonly AuthorizerConfiguration[];
}

export const AUTHORIZATION_DEFAULT: AuthorizationConfiguration = {
  authorizers: [
    { type: 'Node', name: 'node' },
    { type: 'RBAC', name: 'rbac' },
  ],
};

const TYPES = ['AlwaysAllow', 'AlwaysDeny', 'Node', 'RBAC', 'Webhook'] as const;
const SHAPE: { readonly [field: string]: Shape } = {
  authorizers: [
    {
      type: 'string',
      name: 'string',
      webhook: {
        authorizedTTL: 'string',
        cacheAuthorizedRequests: 'boolean',
        unauthorizedTTL: 'string',
        cacheUnauthorizedRequests: 'boolean',
        timeout: 'string',
        subjectAccessReviewVersion: 'string',
        matchConditionSubjectAccessReviewVersion: 'string',
        failurePolicy: 'string',
        connectionInfo: { type: 'string', kubeConfigFile: 'string' },
        matchConditions: [{ expression: 'string' }],
      },
    },
  ],
};
const TIMEOUT_MS_MAX = 30_000;
const CONDITIONS_MAX = 64;

/** Throws ConfigurationError. */
export async function parseAuthorizationConfiguration(text: string): Promise<AuthorizationConfiguration> {
  const configuration = await parseDocument<AuthorizationConfiguration>(text, {
    kind: 'AuthorizationConfiguration',
    apiVersions: ['apiserver.config.k8s.io/v1', 'apiserver.config.k8s.io/v1beta1', 'apiserver.config.k8s.io/v1alpha1'],
    shape: SHAPE,
  });
  const problems = new Problems();
  const authorizers = configuration.authorizers ?? [];
  if (authorizers.length === 0) problems.required('authorizers', 'at least one authorization mode must be defined');
  const types = new Set<string>();
  const names = new Set<string>();
  for (const [at, { type, name, webhook }] of authorizers.entries()) {
    const path = `authorizers[${at}]`;
    if (!TYPES.includes(type)) problems.unsupported(`${path}.type`, type, TYPES);
    if (type !== 'Webhook' && types.has(type)) problems.duplicate(`${path}.type`, type);
    types.add(type);
    if (!name) problems.required(`${path}.name`);
    else if (names.has(name)) problems.duplicate(`${path}.name`, name);
    else if (!/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(name))
      problems.invalid(`${path}.name`, name, 'must be a lower case name, as of an object');
    names.add(name);
    if (type === 'Webhook') checkWebhook(webhook, `${path}.webhook`, problems);
    else if (webhook) problems.invalid(`${path}.webhook`, 'non-null', 'may only be specified when type=Webhook');
  }
  problems.throwIfAny();
  return withAccess(configuration);
}

/** With what the kubeconfigs of its webhooks say. Rejects when one cannot be read. */
export async function withAccess({ authorizers }: AuthorizationConfiguration): Promise<AuthorizationConfiguration> {
  const read = async (one: AuthorizerConfiguration): Promise<AuthorizerConfiguration> => {
    const file = one.webhook?.connectionInfo.kubeConfigFile;
    if (!one.webhook || !file) return one;
    try {
      return { ...one, webhook: { ...one.webhook, access: await readKubeconfig(file) } };
    } catch (error) {
      throw new Error(`authorizer ${one.name}: ${file}: ${messageOf(error)}`);
    }
  };
  return { authorizers: await Promise.all(authorizers.map(read)) };
}

function checkWebhook(webhook: WebhookConfiguration | undefined, path: string, problems: Problems): void {
  if (!webhook) return problems.required(path, 'required when type=Webhook');
  const timeout = durationMs(webhook.timeout ?? '');
  if (!webhook.timeout) problems.required(`${path}.timeout`);
  else if (timeout === undefined || timeout <= 0 || timeout > TIMEOUT_MS_MAX)
    problems.invalid(`${path}.timeout`, webhook.timeout, 'must be greater than zero and at most 30s');
  for (const field of ['authorizedTTL', 'unauthorizedTTL'] as const) {
    const text = webhook[field];
    if (text !== undefined && (durationMs(text) ?? 0) <= 0)
      problems.invalid(`${path}.${field}`, text, 'must be a duration greater than zero');
  }
  const versions = ['v1', 'v1beta1'];
  if (!versions.includes(webhook.subjectAccessReviewVersion))
    problems.unsupported(`${path}.subjectAccessReviewVersion`, webhook.subjectAccessReviewVersion ?? '', versions);
  const { matchConditions = [], matchConditionSubjectAccessReviewVersion: version } = webhook;
  if (version !== undefined ? version !== 'v1' : matchConditions.length > 0)
    problems.unsupported(`${path}.matchConditionSubjectAccessReviewVersion`, version ?? '', ['v1']);
  if (webhook.failurePolicy !== 'NoOpinion' && webhook.failurePolicy !== 'Deny')
    problems.unsupported(`${path}.failurePolicy`, webhook.failurePolicy ?? '', ['NoOpinion', 'Deny']);
  const { type, kubeConfigFile } = webhook.connectionInfo ?? {};
  if (type !== 'KubeConfigFile' && type !== 'InClusterConfig')
    problems.unsupported(`${path}.connectionInfo.type`, type ?? '', ['InClusterConfig', 'KubeConfigFile']);
  else if (type === 'InClusterConfig')
    problems.invalid(`${path}.connectionInfo.type`, type, 'this server does not run in a pod; name a kubeConfigFile');
  else if (!kubeConfigFile) problems.required(`${path}.connectionInfo.kubeConfigFile`);
  else if (!kubeConfigFile.startsWith('/'))
    problems.invalid(`${path}.connectionInfo.kubeConfigFile`, kubeConfigFile, 'must be an absolute path');
  if (matchConditions.length > CONDITIONS_MAX)
    problems.invalid(
      `${path}.matchConditions`,
      matchConditions.length,
      `Too many: must have at most ${CONDITIONS_MAX} items`,
    );
  const seen = new Set<string>();
  for (const [at, { expression }] of matchConditions.entries()) {
    const where = `${path}.matchConditions[${at}].expression`;
    if (!expression?.trim()) problems.required(where);
    else if (seen.has(expression)) problems.duplicate(where, expression);
    else
      try {
        checkCondition(expression);
      } catch (error) {
        problems.invalid(where, expression, `compilation failed: ${(error as Error).message}`);
      }
    seen.add(expression);
  }
}

const TEXT = plain('string');
const fields = (known: Readonly<Record<string, Type>>): Type => ({ is: 'object', field: name => known[name] });
const SELECTOR = fields({ rawSelector: TEXT, requirements: DYN });
/** The spec of a SubjectAccessReview v1. */
const REQUEST = fields({
  user: TEXT,
  uid: TEXT,
  groups: listOf(TEXT),
  extra: DYN,
  resourceAttributes: fields({
    namespace: TEXT,
    verb: TEXT,
    group: TEXT,
    version: TEXT,
    resource: TEXT,
    subresource: TEXT,
    name: TEXT,
    fieldSelector: SELECTOR,
    labelSelector: SELECTOR,
  }),
  nonResourceAttributes: fields({ path: TEXT, verb: TEXT }),
});

function checkCondition(expression: string): void {
  const type = checkExpression(expression, kubernetesLibrary(), name => (name === 'request' ? REQUEST : undefined));
  if (type.is !== 'dyn' && !(type.is === 'plain' && type.name === 'bool')) throw new Error('must evaluate to bool');
  compile(expression);
}
