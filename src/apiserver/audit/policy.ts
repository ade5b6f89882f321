/** Audit policies (audit.k8s.io/v1 Policy): which requests are recorded, how much of them, at which stages. The first rule that fits decides. */

import { ConfigurationError, Problems, parseDocument, type Shape } from '../configuration/document.ts';
import type { RequestAttributes, UserInfo } from '../request.ts';

export const LEVELS = ['None', 'Metadata', 'Request', 'RequestResponse'] as const;
export type Level = (typeof LEVELS)[number];
export const STAGES = ['RequestReceived', 'ResponseStarted', 'ResponseComplete', 'Panic'] as const;
export type Stage = (typeof STAGES)[number];

interface GroupResources {
  readonly group?: string;
  readonly resources?: readonly string[];
  readonly resourceNames?: readonly string[];
}

interface Rule {
  readonly level: Level;
  readonly users?: readonly string[];
  readonly userGroups?: readonly string[];
  readonly verbs?: readonly string[];
  readonly resources?: readonly GroupResources[];
  readonly namespaces?: readonly string[];
  readonly nonResourceURLs?: readonly string[];
  readonly omitStages?: readonly Stage[];
  readonly omitManagedFields?: boolean;
}

export interface AuditPolicy {
  readonly rules: readonly Rule[];
  readonly omitStages?: readonly Stage[];
  readonly omitManagedFields?: boolean;
}

/** What is recorded of one request. */
export interface Recording {
  readonly level: Level;
  readonly omitStages: ReadonlySet<Stage>;
  readonly omitManagedFields: boolean;
}

const STRINGS: Shape = ['string'];
const RULE: Shape = {
  level: 'string',
  users: STRINGS,
  userGroups: STRINGS,
  verbs: STRINGS,
  resources: [{ group: 'string', resources: STRINGS, resourceNames: STRINGS }],
  namespaces: STRINGS,
  nonResourceURLs: STRINGS,
  omitStages: STRINGS,
  omitManagedFields: 'boolean',
};

/** Throws ConfigurationError. */
export async function parseAuditPolicy(text: string): Promise<AuditPolicy> {
  const policy = await parseDocument<AuditPolicy>(text, {
    kind: 'Policy',
    apiVersions: ['audit.k8s.io/v1'],
    shape: { rules: [RULE], omitStages: STRINGS, omitManagedFields: 'boolean' },
  });
  if (!policy.rules?.length) throw new ConfigurationError(['rules: Required value: a policy needs at least one rule']);
  const problems = new Problems();
  checkStages(policy.omitStages, 'omitStages', problems);
  for (const [at, rule] of policy.rules.entries()) checkRule(rule, `rules[${at}]`, problems);
  problems.throwIfAny();
  return policy;
}

function checkRule(rule: Rule, path: string, problems: Problems): void {
  if (!rule.level) problems.required(`${path}.level`);
  else if (!LEVELS.includes(rule.level)) problems.unsupported(`${path}.level`, rule.level, LEVELS);
  checkStages(rule.omitStages, `${path}.omitStages`, problems);
  if (rule.nonResourceURLs?.length && (rule.resources?.length || rule.namespaces?.length))
    problems.invalid(
      `${path}.nonResourceURLs`,
      rule.nonResourceURLs,
      'rules cannot apply to both regular resources and non-resource URLs',
    );
  for (const [at, url] of (rule.nonResourceURLs ?? []).entries())
    if (url !== '*' && (!url.startsWith('/') || url.slice(0, -1).includes('*')))
      problems.invalid(
        `${path}.nonResourceURLs[${at}]`,
        url,
        "must begin with a '/' character; a '*' may only be its last character",
      );
  for (const [at, { group = '', resources = [], resourceNames = [] }] of (rule.resources ?? []).entries()) {
    if (group.includes('/')) problems.invalid(`${path}.resources[${at}].group`, group, 'a group has no version');
    if (resourceNames.length > 0 && resources.length === 0)
      problems.invalid(
        `${path}.resources[${at}].resourceNames`,
        resourceNames,
        'using resourceNames requires at least one resource',
      );
  }
}

function checkStages(stages: readonly Stage[] | undefined, path: string, problems: Problems): void {
  for (const [at, stage] of (stages ?? []).entries())
    if (!STAGES.includes(stage)) problems.unsupported(`${path}[${at}]`, stage, STAGES);
}

/** The policy's word on requests. */
export class PolicyEvaluator {
  readonly #policy: AuditPolicy;
  readonly #recordings: readonly Recording[];
  constructor(policy: AuditPolicy) {
    this.#policy = policy;
    this.#recordings = policy.rules.map(rule => ({
      level: rule.level,
      omitStages: new Set([...(policy.omitStages ?? []), ...(rule.omitStages ?? [])]),
      omitManagedFields: rule.omitManagedFields ?? policy.omitManagedFields ?? false,
    }));
  }

  /** Undefined when nothing is to be recorded. */
  recording(
    attributes: Omit<RequestAttributes, 'user'> & { readonly user: UserInfo | undefined },
  ): Recording | undefined {
    const at = this.#policy.rules.findIndex(rule => fits(rule, attributes));
    const found = at < 0 ? undefined : this.#recordings[at];
    return found?.level === 'None' ? undefined : found;
  }
}

function fits(
  rule: Rule,
  attributes: Omit<RequestAttributes, 'user'> & { readonly user: UserInfo | undefined },
): boolean {
  const { user } = attributes;
  if (rule.users?.length && !(user && rule.users.includes(user.name))) return false;
  if (rule.userGroups?.length && !rule.userGroups.some(group => user?.groups.includes(group))) return false;
  if (rule.verbs?.length && !rule.verbs.includes(attributes.verb)) return false;
  if (rule.namespaces?.length || rule.resources?.length) return fitsResource(rule, attributes);
  if (rule.nonResourceURLs?.length)
    return !attributes.isResource && rule.nonResourceURLs.some(url => fitsUrl(url, attributes.path));
  return true;
}

function fitsResource(rule: Rule, attributes: Omit<RequestAttributes, 'user'>): boolean {
  if (!attributes.isResource) return false;
  if (rule.namespaces?.length && !rule.namespaces.includes(attributes.namespace)) return false;
  if (!rule.resources?.length) return true;
  const { group, resource, subresource, name } = attributes;
  const whole = subresource ? `${resource}/${subresource}` : resource;
  return rule.resources.some(one => {
    if (one.group !== '*' && (one.group ?? '') !== group) return false;
    if (!one.resources?.length) return true;
    if (one.resourceNames?.length && !one.resourceNames.includes(name)) return false;
    return one.resources.some(
      wanted =>
        wanted === whole ||
        wanted === '*' ||
        (subresource !== '' && (wanted === `*/${subresource}` || wanted === `${resource}/*`)),
    );
  });
}

function fitsUrl(pattern: string, path: string): boolean {
  if (pattern === '*' || pattern === path) return true;
  return pattern.endsWith('*') && path.startsWith(pattern.slice(0, -1));
}
