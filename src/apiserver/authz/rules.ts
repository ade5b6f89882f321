/** RBAC rules: matching a request, and whether one set of rules covers another (escalation checks). Semantics of upstream's `validation.Covers`. */

import type { PolicyRule } from '../../api/rbac/v1.gen.ts';
import type { RequestAttributes } from '../request.ts';

const has = (list: readonly string[] | undefined, wanted: string): boolean => list?.includes(wanted) === true;
const hasOrAll = (list: readonly string[] | undefined, wanted: string): boolean =>
  list !== undefined && (list.includes(wanted) || list.includes('*'));

/** Whether the rule allows the request. */
export function ruleAllows(rule: PolicyRule, attributes: RequestAttributes): boolean {
  if (!hasOrAll(rule.verbs, attributes.verb)) return false;
  if (!attributes.isResource)
    return rule.nonResourceURLs?.some(pattern => urlMatches(pattern, attributes.path)) === true;
  return (
    hasOrAll(rule.apiGroups, attributes.group) &&
    resourceMatches(rule.resources, attributes.resource, attributes.subresource) &&
    (!rule.resourceNames?.length || rule.resourceNames.includes(attributes.name))
  );
}

function resourceMatches(resources: readonly string[] | undefined, resource: string, subresource: string): boolean {
  if (!resources) return false;
  if (subresource === '') return hasOrAll(resources, resource);
  return hasOrAll(resources, `${resource}/${subresource}`) || resources.includes(`*/${subresource}`);
}

function urlMatches(pattern: string, path: string): boolean {
  if (pattern === '*' || pattern === path) return true;
  return pattern.endsWith('*') && path.startsWith(pattern.replace(/\*+$/, ''));
}

/** The part of `wanted` that `owned` does not grant, one atomic rule each; empty when all is covered. */
export function missingRules(owned: readonly PolicyRule[], wanted: readonly PolicyRule[]): PolicyRule[] {
  return wanted.flatMap(atoms).filter(atom => !owned.some(rule => covers(rule, atom)));
}

// Splits a rule into rules of one verb, group, resource, name or URL each.
function atoms(rule: PolicyRule): PolicyRule[] {
  const result: PolicyRule[] = [];
  for (const verb of rule.verbs) {
    for (const group of rule.apiGroups ?? [])
      for (const resource of rule.resources ?? [])
        for (const name of rule.resourceNames?.length ? rule.resourceNames : [undefined])
          result.push({
            verbs: [verb],
            apiGroups: [group],
            resources: [resource],
            ...(name === undefined ? {} : { resourceNames: [name] }),
          });
    for (const url of rule.nonResourceURLs ?? []) result.push({ verbs: [verb], nonResourceURLs: [url] });
  }
  return result;
}

function covers(owned: PolicyRule, atom: PolicyRule): boolean {
  if (!hasOrAll(owned.verbs, atom.verbs[0]!)) return false;
  if (atom.nonResourceURLs)
    return owned.nonResourceURLs?.some(pattern => urlMatches(pattern, atom.nonResourceURLs![0]!)) === true;
  if (!hasOrAll(owned.apiGroups, atom.apiGroups![0]!)) return false;
  const resource = atom.resources![0]!;
  const subresource = resource.split('/')[1];
  const resources =
    has(owned.resources, '*') ||
    has(owned.resources, resource) ||
    (subresource !== undefined && has(owned.resources, `*/${subresource}`));
  if (!resources) return false;
  return (
    !owned.resourceNames?.length ||
    (atom.resourceNames !== undefined && owned.resourceNames.includes(atom.resourceNames[0]!))
  );
}

/** Upstream's `CompactString` of missing rules, merged by everything but the verb, sorted: `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`. */
export function describeRules(rules: readonly PolicyRule[]): string[] {
  const merged = new Map<string, PolicyRule>();
  for (const rule of rules) {
    const key = JSON.stringify([rule.apiGroups, rule.resources, rule.resourceNames, rule.nonResourceURLs]);
    const same = merged.get(key);
    if (same) same.verbs = [...same.verbs, ...rule.verbs];
    else merged.set(key, { ...rule });
  }
  const list = (values: readonly string[]) => `[${values.map(value => JSON.stringify(value)).join(' ')}]`;
  const text = (rule: PolicyRule) => {
    const parts: string[] = [];
    if (rule.apiGroups?.length) parts.push(`APIGroups:${list(rule.apiGroups)}`);
    if (rule.resources?.length) parts.push(`Resources:${list(rule.resources)}`);
    if (rule.nonResourceURLs?.length) parts.push(`NonResourceURLs:${list(rule.nonResourceURLs)}`);
    if (rule.resourceNames?.length) parts.push(`ResourceNames:${list(rule.resourceNames)}`);
    if (rule.verbs.length) parts.push(`Verbs:${list(rule.verbs)}`);
    return `{${parts.join(', ')}}`;
  };
  return [...merged.values()].map(text).sort();
}
