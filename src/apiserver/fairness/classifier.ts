/**
 * Which flow schema a request belongs to: the first that matches, by precedence and then name. Schemas are compiled when they
 * change, because every request is looked at. Pure.
 */

import type { FlowSchema, PolicyRulesWithSubjects, ResourcePolicyRule } from '../../api/flowcontrol/v1.gen.ts';
import type { RequestAttributes, UserInfo } from '../request.ts';

const ACCOUNT = 'system:serviceaccount:';

export interface CompiledSchema {
  readonly name: string;
  readonly uid: string;
  readonly level: string;
  /** What tells the flows of the schema apart. */
  readonly by: 'ByUser' | 'ByNamespace' | '';
  matches(request: RequestAttributes): boolean;
}

/** In the order in which they are asked. */
export function compileSchemas(schemas: readonly FlowSchema[]): CompiledSchema[] {
  const precedence = ({ spec }: FlowSchema) => spec.matchingPrecedence ?? 1000;
  return [...schemas]
    .sort((a, b) => precedence(a) - precedence(b) || (a.metadata.name < b.metadata.name ? -1 : 1))
    .map(compile);
}

/** The part of a schema's requests that shares its fate: everybody's, one user's, one namespace's. */
export function flowOf({ name, by }: CompiledSchema, { user, namespace }: RequestAttributes): string {
  return by === 'ByUser' ? `${name}\0${user.name}` : by === 'ByNamespace' ? `${name}\0${namespace}` : name;
}

function compile({ metadata, spec }: FlowSchema): CompiledSchema {
  const rules = (spec.rules ?? []).map(compileRule);
  return {
    name: metadata.name,
    uid: metadata.uid ?? '',
    level: spec.priorityLevelConfiguration.name,
    by: (spec.distinguisherMethod?.type ?? '') as CompiledSchema['by'],
    matches(request) {
      for (const rule of rules) if (rule(request)) return true;
      return false;
    },
  };
}

function compileRule(rule: PolicyRulesWithSubjects): (request: RequestAttributes) => boolean {
  const concerns = compileSubjects(rule);
  const resources = (rule.resourceRules ?? []).map(compileResourceRule);
  const documents = (rule.nonResourceRules ?? []).map(
    ({ verbs, nonResourceURLs }) =>
      (request: RequestAttributes) =>
        holds(verbs, request.verb) && nonResourceURLs.some(pattern => coversPath(pattern, request.path)),
  );
  return request => {
    if (!concerns(request.user)) return false;
    for (const matches of request.isResource ? resources : documents) if (matches(request)) return true;
    return false;
  };
}

function compileSubjects({ subjects }: PolicyRulesWithSubjects): (user: UserInfo) => boolean {
  const names = new Set<string>();
  const groups = new Set<string>();
  const namespaces: string[] = [];
  for (const { kind, user, group, serviceAccount } of subjects) {
    if (kind === 'User') names.add(user!.name);
    else if (kind === 'Group') groups.add(group!.name);
    else if (serviceAccount!.name === '*') namespaces.push(`${ACCOUNT}${serviceAccount!.namespace}:`);
    else names.add(`${ACCOUNT}${serviceAccount!.namespace}:${serviceAccount!.name}`);
  }
  const all = names.has('*') || groups.has('*');
  return user => {
    if (all || names.has(user.name)) return true;
    if (groups.size > 0) for (const group of user.groups) if (groups.has(group)) return true;
    for (const prefix of namespaces) if (user.name.startsWith(prefix)) return true;
    return false;
  };
}

function compileResourceRule(rule: ResourcePolicyRule): (request: RequestAttributes) => boolean {
  const { verbs, apiGroups, resources, clusterScope, namespaces = [] } = rule;
  return request => {
    if (!holds(verbs, request.verb) || !holds(apiGroups, request.group)) return false;
    const { resource, subresource, namespace } = request;
    if (!holds(resources, subresource ? `${resource}/${subresource}` : resource)) return false;
    return namespace === '' ? clusterScope === true : holds(namespaces, namespace);
  };
}

function holds(allowed: readonly string[], value: string): boolean {
  return allowed[0] === '*' || allowed.includes(value) || allowed.includes('*');
}

function coversPath(pattern: string, path: string): boolean {
  if (pattern === '*' || pattern === path) return true;
  return pattern.endsWith('/*') && path.startsWith(pattern.slice(0, -1));
}
