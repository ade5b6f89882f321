/**
 * What kube-apiserver's options say, as `NAME=VALUE` without dashes: who may come in, how they are judged, what is recorded, how it is
 * kept. Files are read and checked here, all of them, so that a mistake is told before anything starts. What is not known is refused.
 */

import { optionalResources } from '../../api/resources.ts';
import type { ResourceInfo } from '../../api/schema.ts';
import { messageOf } from '../../base/errors.ts';
import type { TracingSettings } from '../../base/tracing/configuration.ts';
import { readKubeconfig, type ServerAccess } from '../../client/kubeconfig.ts';
import type { AuditPolicy } from '../audit/policy.ts';
import type { AuthenticationConfiguration, JwtConfiguration } from '../authn/authentication-configuration.ts';
import { REQUEST_HEADER_DEFAULTS, type RequestHeaderOptions } from '../authn/request-header.ts';
import { AUTHORIZATION_DEFAULT, type AuthorizationConfiguration } from '../authz/authorization-configuration.ts';
import type { EncryptionRule } from '../encryption/encryption-configuration.ts';
import type { UserInfo } from '../request.ts';
import { type FollowedText, Given, OPTION_NAMES, type Option, refused } from './given.ts';
import { type ServiceAccountSettings, serviceAccountsOf } from './service-account-settings.ts';

export interface AuditSettings {
  readonly policy: AuditPolicy;
  readonly log?: {
    readonly path: string;
    readonly format: 'json' | 'legacy';
    readonly bytesMax: number;
    readonly backupsMax: number;
    readonly ageDaysMax: number;
  };
  readonly webhook?: {
    readonly access: ServerAccess;
    readonly bufferMax: number;
    readonly batchMax: number;
    readonly waitMs: number;
  };
}

export interface ServerSettings {
  readonly authentication: AuthenticationConfiguration;
  readonly authenticationFile?: FollowedText;
  /** Absent: as without options. */
  readonly serviceAccounts?: ServiceAccountSettings;
  readonly staticTokens: ReadonlyMap<string, UserInfo>;
  readonly tokenWebhook?: {
    readonly access: ServerAccess;
    readonly version: 'v1' | 'v1beta1';
    readonly cacheMs: number;
  };
  readonly requestHeader: RequestHeaderOptions;
  /** PEM; absent: the authority of the server's own front proxy. */
  readonly requestHeaderCa?: string;
  readonly authorization: AuthorizationConfiguration;
  readonly authorizationFile?: FollowedText;
  readonly audit?: AuditSettings;
  readonly encryption?: {
    readonly rules: readonly EncryptionRule[];
    readonly file: FollowedText;
    readonly reloads: boolean;
  };
  readonly tracing?: TracingSettings;
  readonly disabledAdmission: readonly string[];
  /** Beta resources that are served although a server without options does not. */
  readonly optional: readonly ResourceInfo[];
  /** Every option that was given, as it was. */
  readonly flags: Readonly<Record<string, string>>;
}

const MEGABYTE = 1024 * 1024;
const TOKEN_CACHE_MS = 120_000;
const SIGNING_ALGORITHMS = ['ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512', 'RS256', 'RS384', 'RS512'];

const OIDC_OPTIONS = OPTION_NAMES.filter(name => name.startsWith('oidc-'));

/** Throws BadRequest that names the option. `ownIssuer` is that of service account tokens where no option names one. */
export async function loadServerSettings(args: readonly string[], ownIssuer: string): Promise<ServerSettings> {
  const given = new Given(args);
  given.exclude('authentication-config', OIDC_OPTIONS);
  given.exclude('authorization-config', ['authorization-mode', 'authorization-webhook-config-file']);
  const serviceAccounts = serviceAccountsOf(given, ownIssuer);
  const authentication = await authenticationOf(given, serviceAccounts.issuers);
  const tokenWebhook = await given.parsed('authentication-token-webhook-config-file', (_, path) =>
    readKubeconfig(path),
  );
  const requestHeaderCa = given.file('requestheader-client-ca-file')?.text;
  const authenticationFile = given.file('authentication-config');
  const authorizationFile = given.file('authorization-config');
  const tokens = await given.parsed('token-auth-file', async text =>
    (await import('../authn/static-tokens.ts')).parseTokenFile(text),
  );
  const audit = await auditOf(given);
  const encryption = await encryptionOf(given);
  const tracing = await given.parsed('tracing-config-file', async text =>
    (await import('./tracing-configuration.ts')).parseTracingConfiguration(text),
  );
  return {
    authentication,
    serviceAccounts,
    ...(authenticationFile ? { authenticationFile } : {}),
    staticTokens: tokens ?? new Map(),
    ...(tokenWebhook
      ? {
          tokenWebhook: {
            access: tokenWebhook,
            version: given.oneOf('authentication-token-webhook-version', ['v1', 'v1beta1'], 'v1beta1'),
            cacheMs: given.duration('authentication-token-webhook-cache-ttl', TOKEN_CACHE_MS),
          },
        }
      : {}),
    requestHeader: {
      allowedNames: given.list('requestheader-allowed-names') ?? REQUEST_HEADER_DEFAULTS.allowedNames,
      usernameHeaders: given.list('requestheader-username-headers') ?? REQUEST_HEADER_DEFAULTS.usernameHeaders,
      uidHeaders: given.list('requestheader-uid-headers') ?? REQUEST_HEADER_DEFAULTS.uidHeaders,
      groupHeaders: given.list('requestheader-group-headers') ?? REQUEST_HEADER_DEFAULTS.groupHeaders,
      extraHeaderPrefixes:
        given.list('requestheader-extra-headers-prefix') ?? REQUEST_HEADER_DEFAULTS.extraHeaderPrefixes,
    },
    ...(requestHeaderCa ? { requestHeaderCa } : {}),
    authorization: await authorizationOf(given),
    ...(authorizationFile ? { authorizationFile } : {}),
    ...(audit ? { audit } : {}),
    ...(encryption ? { encryption } : {}),
    ...(tracing ? { tracing } : {}),
    disabledAdmission: given.list('disable-admission-plugins') ?? [],
    optional: optionalOf(given),
    flags: given.flags,
  };
}

/** `GROUP/VERSION=true`, `GROUP/VERSION/RESOURCE=true`, `api/beta=true` and `api/all=true`. What every server serves cannot be turned off. */
function optionalOf(given: Given): readonly ResourceInfo[] {
  const found = new Set<ResourceInfo>();
  for (const entry of given.list('runtime-config') ?? []) {
    const [name = '', value = 'true'] = entry.split('=', 2);
    const matches = optionalResources.filter(
      ({ group, version, resource }) =>
        name === 'api/all' ||
        (name === 'api/beta' && version.includes('beta')) ||
        name === `${group}/${version}` ||
        name === `${group}/${version}/${resource}`,
    );
    const isSwitch = name === 'api/all' || name === 'api/beta';
    if (value !== 'true' && value !== 'false')
      throw refused('runtime-config', `Invalid value: ${JSON.stringify(entry)}: must be NAME=true or NAME=false`);
    if ((matches.length === 0 && !isSwitch) || (name === 'api/all' && value === 'false')) {
      const known = optionalResources.map(({ group, version, resource }) => `${group}/${version}/${resource}`);
      throw refused('runtime-config', `${JSON.stringify(name)} cannot be switched; known: ${known.join(', ')}`);
    }
    for (const info of matches) value === 'true' ? found.add(info) : found.delete(info);
  }
  return [...found];
}

async function authenticationOf(given: Given, ownIssuers: readonly string[]): Promise<AuthenticationConfiguration> {
  const { parseAuthenticationConfiguration, checkAuthentication } = await import(
    '../authn/authentication-configuration.ts'
  );
  const anonymous = { enabled: given.boolean('anonymous-auth', true) };
  const fromFile = await given.parsed('authentication-config', text =>
    parseAuthenticationConfiguration(text, ownIssuers),
  );
  if (fromFile?.anonymous && given.has('anonymous-auth'))
    throw refused('anonymous-auth', 'it cannot be used when authentication-config has the field anonymous');
  if (fromFile) return { anonymous, ...fromFile };
  const jwt = oidcOptions(given);
  if (!jwt) return { anonymous };
  try {
    checkAuthentication({ jwt: [jwt] }, ownIssuers);
  } catch (error) {
    throw refused('oidc-issuer-url', messageOf(error));
  }
  return { jwt: [jwt], anonymous };
}

/** The one issuer of the `oidc-` options, as an authentication configuration has it. */
function oidcOptions(given: Given): JwtConfiguration | undefined {
  const url = given.text('oidc-issuer-url');
  const audience = given.text('oidc-client-id');
  for (const name of OIDC_OPTIONS) given.needs(name, 'oidc-issuer-url');
  given.needs('oidc-issuer-url', 'oidc-client-id');
  if (!url || !audience) return undefined;
  const ca = given.file('oidc-ca-file')?.text;
  const claim = given.text('oidc-username-claim') ?? 'sub';
  const prefix = given.text('oidc-username-prefix') ?? (claim === 'email' ? '' : `${url}#`);
  const groups = given.text('oidc-groups-claim');
  const signingAlgorithms = given.list('oidc-signing-algs') ?? ['RS256'];
  for (const one of signingAlgorithms)
    if (!SIGNING_ALGORITHMS.includes(one))
      throw refused(
        'oidc-signing-algs',
        `Unsupported value: ${JSON.stringify(one)}: supported values: ${SIGNING_ALGORITHMS.join(', ')}`,
      );
  return {
    issuer: { url, audiences: [audience], ...(ca ? { certificateAuthority: ca } : {}) },
    claimValidationRules: given.all('oidc-required-claim').map(text => {
      const at = text.indexOf('=');
      if (at < 1) throw refused('oidc-required-claim', `Invalid value: ${JSON.stringify(text)}: must be CLAIM=VALUE`);
      return { claim: text.slice(0, at), requiredValue: text.slice(at + 1) };
    }),
    claimMappings: {
      // A dash is upstream's way to say: no prefix.
      username: { claim, prefix: prefix === '-' ? '' : prefix },
      ...(groups ? { groups: { claim: groups, prefix: given.text('oidc-groups-prefix') ?? '' } } : {}),
    },
    signingAlgorithms,
  };
}

async function authorizationOf(given: Given): Promise<AuthorizationConfiguration> {
  if (given.has('authorization-config')) {
    const { parseAuthorizationConfiguration } = await import('../authz/authorization-configuration.ts');
    return (await given.parsed('authorization-config', text => parseAuthorizationConfiguration(text)))!;
  }
  const modes = given.list('authorization-mode');
  const file = given.text('authorization-webhook-config-file');
  if (!modes) {
    given.needs('authorization-webhook-config-file', 'authorization-mode');
    return AUTHORIZATION_DEFAULT;
  }
  const allowed = ['Node', 'RBAC', 'Webhook', 'AlwaysAllow', 'AlwaysDeny'] as const;
  if (modes.length === 0) throw refused('authorization-mode', 'at least one mode must be given');
  const authorizers = modes.map(mode => {
    const type = allowed.find(one => one === mode);
    if (!type)
      throw refused(
        'authorization-mode',
        `Unsupported value: ${JSON.stringify(mode)}: supported values: ${allowed.join(', ')}`,
      );
    return { type, name: type.toLowerCase() };
  });
  if (new Set(modes).size < modes.length) throw refused('authorization-mode', 'a mode is given twice');
  if (modes.includes('Webhook') !== (file !== undefined))
    throw refused('authorization-mode', 'the mode Webhook and authorization-webhook-config-file belong together');
  const ttl = (name: Option) => (given.has(name) ? `${given.duration(name, 0)}ms` : undefined);
  const [authorizedTTL, unauthorizedTTL] = [
    ttl('authorization-webhook-cache-authorized-ttl'),
    ttl('authorization-webhook-cache-unauthorized-ttl'),
  ];
  const { withAccess } = await import('../authz/authorization-configuration.ts');
  const configuration: AuthorizationConfiguration = {
    authorizers: authorizers.map(one =>
      one.type === 'Webhook'
        ? {
            ...one,
            webhook: {
              timeout: '30s',
              failurePolicy: 'NoOpinion' as const,
              subjectAccessReviewVersion: given.oneOf('authorization-webhook-version', ['v1', 'v1beta1'], 'v1beta1'),
              connectionInfo: { type: 'KubeConfigFile', kubeConfigFile: file! },
              ...(authorizedTTL ? { authorizedTTL } : {}),
              ...(unauthorizedTTL ? { unauthorizedTTL } : {}),
            },
          }
        : one,
    ),
  };
  try {
    return await withAccess(configuration);
  } catch (error) {
    throw refused('authorization-webhook-config-file', messageOf(error));
  }
}

async function auditOf(given: Given): Promise<AuditSettings | undefined> {
  const policy = await given.parsed('audit-policy-file', async text =>
    (await import('../audit/policy.ts')).parseAuditPolicy(text),
  );
  const path = given.text('audit-log-path');
  const access = await given.parsed('audit-webhook-config-file', (_, file) => readKubeconfig(file));
  // Without a policy upstream records nothing either, silently; here it is said.
  given.needs('audit-log-path', 'audit-policy-file');
  given.needs('audit-webhook-config-file', 'audit-policy-file');
  if (!policy) return undefined;
  if (!path && !access) throw refused('audit-policy-file', 'it needs audit-log-path or audit-webhook-config-file');
  return {
    policy,
    ...(path
      ? {
          log: {
            path,
            format: given.oneOf('audit-log-format', ['json', 'legacy'], 'json'),
            bytesMax: given.count('audit-log-maxsize', 100) * MEGABYTE,
            backupsMax: given.count('audit-log-maxbackup', 100),
            ageDaysMax: given.count('audit-log-maxage', 366),
          },
        }
      : {}),
    ...(access
      ? {
          webhook: {
            access,
            bufferMax: given.count('audit-webhook-batch-buffer-size', 10_000),
            batchMax: Math.max(1, given.count('audit-webhook-batch-max-size', 400)),
            waitMs: given.duration('audit-webhook-batch-max-wait', 30_000),
          },
        }
      : {}),
  };
}

async function encryptionOf(given: Given): Promise<ServerSettings['encryption']> {
  given.needs('encryption-provider-config-automatic-reload', 'encryption-provider-config');
  const rules = await given.parsed('encryption-provider-config', async text =>
    (await import('../encryption/encryption-configuration.ts')).parseEncryptionConfiguration(text),
  );
  if (!rules) return undefined;
  return {
    rules,
    file: given.file('encryption-provider-config')!,
    reloads: given.boolean('encryption-provider-config-automatic-reload', false),
  };
}
