/** The file of `--authentication-config` (apiserver.config.k8s.io AuthenticationConfiguration): its shape, and what upstream refuses in it. */

import { X509Certificate } from 'node:crypto';
import { Problems, parseDocument, type Shape } from '../configuration/document.ts';
import { checkClaimsExpression, type ExpressionResult } from './claim-expressions.ts';

export interface ClaimOrExpression {
  readonly claim?: string;
  readonly expression?: string;
}
export interface PrefixedClaimOrExpression extends ClaimOrExpression {
  readonly prefix?: string;
}

export interface JwtIssuer {
  readonly url: string;
  readonly discoveryURL?: string;
  /** PEM. */
  readonly certificateAuthority?: string;
  readonly audiences: readonly string[];
  readonly audienceMatchPolicy?: string;
  readonly egressSelectorType?: 'controlplane' | 'cluster' | '';
}

export interface JwtConfiguration {
  readonly issuer: JwtIssuer;
  readonly claimValidationRules?: readonly {
    readonly claim?: string;
    readonly requiredValue?: string;
    readonly expression?: string;
    readonly message?: string;
  }[];
  readonly claimMappings: {
    readonly username: PrefixedClaimOrExpression;
    readonly groups?: PrefixedClaimOrExpression;
    readonly uid?: ClaimOrExpression;
    readonly extra?: readonly { readonly key: string; readonly valueExpression: string }[];
  };
  readonly userValidationRules?: readonly { readonly expression: string; readonly message?: string }[];
  /** Signature algorithms; only by the `--oidc-signing-algs` option, default all that are known. */
  readonly signingAlgorithms?: readonly string[];
}

export interface AnonymousConfiguration {
  readonly enabled: boolean;
  /** Where anonymous requests are let in; everywhere when empty. */
  readonly conditions?: readonly { readonly path: string }[];
}

export interface AuthenticationConfiguration {
  readonly jwt?: readonly JwtConfiguration[];
  readonly anonymous?: AnonymousConfiguration;
}

const CLAIM: Shape = { claim: 'string', expression: 'string' };
const PREFIXED: Shape = { claim: 'string', prefix: 'string', expression: 'string' };
const JWT: Shape = {
  issuer: {
    url: 'string',
    discoveryURL: 'string',
    certificateAuthority: 'string',
    audiences: ['string'],
    audienceMatchPolicy: 'string',
    egressSelectorType: 'string',
  },
  claimValidationRules: [{ claim: 'string', requiredValue: 'string', expression: 'string', message: 'string' }],
  claimMappings: {
    username: PREFIXED,
    groups: PREFIXED,
    uid: CLAIM,
    extra: [{ key: 'string', valueExpression: 'string' }],
  },
  userValidationRules: [{ expression: 'string', message: 'string' }],
};

const ISSUERS_MAX = 64;
const RESERVED_KEY = /(^|\.)(kubernetes\.io|k8s\.io)\//;
const EXTRA_KEY = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[-a-z0-9._~!$&'()*+,;=:@/]+$/;

/** Throws ConfigurationError. `ownIssuers` are those of service account tokens, which nobody else may claim. */
export async function parseAuthenticationConfiguration(
  text: string,
  ownIssuers: readonly string[] = [],
): Promise<AuthenticationConfiguration> {
  const configuration = await parseDocument<AuthenticationConfiguration>(text, {
    kind: 'AuthenticationConfiguration',
    apiVersions: ['apiserver.config.k8s.io/v1', 'apiserver.config.k8s.io/v1beta1', 'apiserver.config.k8s.io/v1alpha1'],
    shape: { jwt: [JWT], anonymous: { enabled: 'boolean', conditions: [{ path: 'string' }] } },
  });
  checkAuthentication(configuration, ownIssuers);
  return configuration;
}

/** Throws ConfigurationError. */
export function checkAuthentication(
  { jwt = [], anonymous }: AuthenticationConfiguration,
  ownIssuers: readonly string[] = [],
): void {
  const problems = new Problems();
  if (jwt.length > ISSUERS_MAX) problems.invalid('jwt', jwt.length, `Too many: must have at most ${ISSUERS_MAX} items`);
  const issuers = new Set<string>();
  const discoveries = new Set<string>();
  for (const [at, one] of jwt.entries()) {
    const path = `jwt[${at}]`;
    checkIssuer(one.issuer, `${path}.issuer`, problems);
    const { url, discoveryURL } = one.issuer ?? {};
    if (url && issuers.has(url)) problems.duplicate(`${path}.issuer.url`, url);
    if (url && ownIssuers.includes(url))
      problems.invalid(
        `${path}.issuer.url`,
        url,
        'URL must not overlap with disallowed issuers: it is that of service account tokens',
      );
    if (url) issuers.add(url);
    if (discoveryURL && discoveries.has(discoveryURL)) problems.duplicate(`${path}.issuer.discoveryURL`, discoveryURL);
    if (discoveryURL) discoveries.add(discoveryURL);
    checkRules(one, path, problems);
    checkMappings(one, path, problems);
  }
  if (anonymous && !anonymous.enabled && anonymous.conditions?.length)
    problems.invalid(
      'anonymous.conditions',
      anonymous.conditions,
      'enabled should be set to true when conditions are defined',
    );
  const paths = new Set<string>();
  for (const [at, { path }] of (anonymous?.conditions ?? []).entries()) {
    if (!path) problems.required(`anonymous.conditions[${at}].path`);
    else if (paths.has(path)) problems.duplicate(`anonymous.conditions[${at}].path`, path);
    paths.add(path);
  }
  problems.throwIfAny();
}

function checkIssuer(issuer: JwtIssuer | undefined, path: string, problems: Problems): void {
  if (!issuer) return problems.required(path);
  const {
    url,
    discoveryURL,
    certificateAuthority,
    audiences = [],
    audienceMatchPolicy = '',
    egressSelectorType = '',
  } = issuer;
  if (!url) problems.required(`${path}.url`, 'URL is required');
  else checkUrl(url, `${path}.url`, problems);
  if (discoveryURL) {
    checkUrl(discoveryURL, `${path}.discoveryURL`, problems);
    if (discoveryURL.replace(/\/+$/, '') === (url ?? '').replace(/\/+$/, ''))
      problems.invalid(`${path}.discoveryURL`, discoveryURL, 'discoveryURL must be different from URL');
  }
  if (certificateAuthority) {
    try {
      new X509Certificate(certificateAuthority);
    } catch {
      problems.invalid(
        `${path}.certificateAuthority`,
        '<omitted>',
        'data does not contain any valid RSA or ECDSA certificates',
      );
    }
  }
  if (audiences.length === 0) problems.required(`${path}.audiences`, 'at least one audience is required');
  const seen = new Set<string>();
  for (const [at, audience] of audiences.entries()) {
    if (!audience) problems.required(`${path}.audiences[${at}]`, 'audience can not be empty');
    if (seen.has(audience)) problems.duplicate(`${path}.audiences[${at}]`, audience);
    seen.add(audience);
  }
  if (audienceMatchPolicy !== '' && audienceMatchPolicy !== 'MatchAny')
    problems.unsupported(`${path}.audienceMatchPolicy`, audienceMatchPolicy, ['MatchAny']);
  if (audiences.length > 1 && audienceMatchPolicy !== 'MatchAny')
    problems.invalid(
      `${path}.audienceMatchPolicy`,
      audienceMatchPolicy,
      'audienceMatchPolicy must be MatchAny for multiple audiences',
    );
  if (!['', 'controlplane', 'cluster'].includes(egressSelectorType))
    problems.unsupported(`${path}.egressSelectorType`, egressSelectorType, ['controlplane', 'cluster']);
}

function checkUrl(text: string, path: string, problems: Problems): void {
  if (!URL.canParse(text)) return problems.invalid(path, text, 'it is no URL');
  const url = new URL(text);
  if (url.protocol !== 'https:') problems.invalid(path, text, 'URL scheme must be https');
  if (url.username || url.password) problems.invalid(path, text, 'URL must not contain a username or password');
  if (url.search) problems.invalid(path, text, 'URL must not contain a query');
  if (url.hash) problems.invalid(path, text, 'URL must not contain a fragment');
}

function checkRules(
  { claimValidationRules = [], userValidationRules = [] }: JwtConfiguration,
  path: string,
  problems: Problems,
): void {
  const claims = new Set<string>();
  const expressions = new Set<string>();
  for (const [index, rule] of claimValidationRules.entries()) {
    const at = `${path}.claimValidationRules[${index}]`;
    if (rule.claim && rule.expression) problems.invalid(at, rule.claim, "claim and expression can't both be set");
    else if (!rule.claim && !rule.expression) problems.required(at, 'claim or expression is required');
    else if (rule.claim) {
      if (rule.message) problems.invalid(`${at}.message`, rule.message, "message can't be set when claim is set");
      if (claims.has(rule.claim)) problems.duplicate(`${at}.claim`, rule.claim);
      claims.add(rule.claim);
    } else {
      if (rule.requiredValue)
        problems.invalid(
          `${at}.requiredValue`,
          rule.requiredValue,
          "requiredValue can't be set when expression is set",
        );
      if (expressions.has(rule.expression!)) problems.duplicate(`${at}.expression`, rule.expression);
      expressions.add(rule.expression!);
      checkExpression(rule.expression, `${at}.expression`, 'bool', 'claims', problems);
    }
  }
  const rules = new Set<string>();
  for (const [index, { expression }] of userValidationRules.entries()) {
    const at = `${path}.userValidationRules[${index}].expression`;
    if (!expression) problems.required(at, 'expression is required');
    else if (rules.has(expression)) problems.duplicate(at, expression);
    else checkExpression(expression, at, 'bool', 'user', problems);
    rules.add(expression);
  }
}

function checkMappings(jwt: JwtConfiguration, path: string, problems: Problems): void {
  const { username, groups, uid, extra = [] } = jwt.claimMappings ?? {};
  const at = `${path}.claimMappings`;
  checkPrefixed(username, `${at}.username`, 'string', problems);
  if (!username?.claim && !username?.expression) problems.required(`${at}.username`, 'claim or expression is required');
  if (groups) checkPrefixed(groups, `${at}.groups`, 'strings', problems);
  if (uid?.claim && uid.expression) problems.invalid(`${at}.uid`, '', "claim and expression can't both be set");
  if (uid?.expression) checkExpression(uid.expression, `${at}.uid.expression`, 'string', 'claims', problems);
  const keys = new Set<string>();
  for (const [index, { key, valueExpression }] of extra.entries()) {
    const where = `${at}.extra[${index}]`;
    if (!key) problems.required(`${where}.key`);
    else if (!EXTRA_KEY.test(key))
      problems.invalid(`${where}.key`, key, 'must be a domain-prefixed path (such as "acme.io/foo"), in lower case');
    else if (RESERVED_KEY.test(key))
      problems.invalid(
        `${where}.key`,
        key,
        'k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use',
      );
    if (keys.has(key)) problems.duplicate(`${where}.key`, key);
    keys.add(key);
    if (!valueExpression) problems.required(`${where}.valueExpression`, 'valueExpression is required');
    else checkExpression(valueExpression, `${where}.valueExpression`, 'strings', 'claims', problems);
  }
  const asksEmail = /\bclaims\s*(\.\s*email\b(?!_)|\[\s*['"]email['"]\s*\])/.test(username?.expression ?? '');
  const others = [
    username?.expression,
    ...extra.map(one => one.valueExpression),
    ...(jwt.claimValidationRules ?? []).map(one => one.expression),
  ];
  if (asksEmail && !others.some(text => /email_verified/.test(text ?? '')))
    problems.invalid(
      `${at}.username.expression`,
      username!.expression,
      'claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression',
    );
}

function checkPrefixed(
  mapping: PrefixedClaimOrExpression | undefined,
  path: string,
  result: ExpressionResult,
  problems: Problems,
): void {
  if (!mapping) return;
  const { claim, prefix, expression } = mapping;
  if (claim && expression) problems.invalid(path, '', "claim and expression can't both be set");
  if (expression && prefix !== undefined)
    problems.invalid(`${path}.prefix`, prefix, "prefix can't be set when expression is set");
  if (claim && prefix === undefined)
    problems.required(
      `${path}.prefix`,
      'prefix is required when claim is set. It can be set to an empty string to disable prefixing',
    );
  if (!claim && prefix) problems.invalid(`${path}.prefix`, prefix, 'claim is required when prefix is set');
  if (expression) checkExpression(expression, `${path}.expression`, result, 'claims', problems);
}

function checkExpression(
  expression: string | undefined,
  path: string,
  result: ExpressionResult,
  variable: 'claims' | 'user',
  problems: Problems,
): void {
  try {
    checkClaimsExpression(expression ?? '', variable, result);
  } catch (error) {
    problems.invalid(path, expression, `compilation failed: ${(error as Error).message}`);
  }
}
