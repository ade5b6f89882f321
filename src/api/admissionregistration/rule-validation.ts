/** The rules by which webhooks and policies choose requests: what must be named, and where `*` leaves no room beside it. */

import { fieldErrors } from '../../base/errors.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import { pathSegmentProblems } from '../machinery/names.ts';
import {
  addDuplicate,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkLabelSelector,
  type Errors,
  eachAt,
  requireText,
} from '../machinery/validation.ts';
import type { MatchCondition, MatchResources } from './v1.gen.ts';

const MATCH_CONDITIONS_MAX = 64;
const OPERATIONS = ['*', 'CONNECT', 'CREATE', 'DELETE', 'UPDATE'];

export interface RequestRule {
  readonly operations?: readonly string[];
  readonly apiGroups?: readonly string[];
  readonly apiVersions?: readonly string[];
  readonly resources?: readonly string[];
  readonly scope?: string;
}

/** `operations`: those that the rule may name. */
export function checkRequestRule(
  errors: Errors,
  path: string,
  rule: RequestRule,
  operations: readonly string[] = OPERATIONS,
): void {
  checkList(errors, `${path}.operations`, rule.operations, 'operations');
  eachAt(rule.operations, `${path}.operations`, (operation, at) => allowOneOf(errors, at, operation, operations));
  checkList(errors, `${path}.apiGroups`, rule.apiGroups, 'API groups');
  checkList(errors, `${path}.apiVersions`, rule.apiVersions, 'API versions');
  eachAt(rule.apiVersions, `${path}.apiVersions`, (version, at) => {
    if (version === '') addRequired(errors, at);
  });
  checkResources(errors, `${path}.resources`, rule.resources ?? []);
  allowOneOf(errors, `${path}.scope`, rule.scope, ['*', 'Cluster', 'Namespaced']);
}

function checkList(errors: Errors, path: string, list: readonly string[] | undefined, what: string): void {
  if (!list?.length) addRequired(errors, path);
  else if (list.length > 1 && list.includes('*'))
    addInvalid(errors, path, list, `if '*' is present, must not specify other ${what}`);
}

/** Each entry is `resource` or `resource/subresource`; an earlier one with `*` covers later ones, which is an error. */
function checkResources(errors: Errors, path: string, resources: readonly string[]): void {
  if (resources.length === 0) addRequired(errors, path);
  const withAnySubresource = new Set<string>();
  const ofAnyResource = new Set<string>();
  let hasPlain = false;
  eachAt(resources, path, (entry, at) => {
    if (entry === '') {
      addRequired(errors, at);
      return;
    }
    if (entry === '*/*' || entry === '*') return;
    const slash = entry.indexOf('/');
    if (slash < 0) {
      hasPlain = true;
      return;
    }
    const resource = entry.slice(0, slash);
    const subresource = entry.slice(slash + 1);
    if (withAnySubresource.has(resource))
      addInvalid(errors, at, entry, `if '${resource}/*' is present, must not specify ${entry}`);
    if (ofAnyResource.has(subresource))
      addInvalid(errors, at, entry, `if '*/${subresource}' is present, must not specify ${entry}`);
    if (subresource === '*') withAnySubresource.add(resource);
    if (resource === '*') ofAnyResource.add(subresource);
  });
  if (resources.length > 1 && resources.includes('*/*'))
    addInvalid(errors, path, resources, "if '*/*' is present, must not specify other resources");
  if (resources.includes('*') && hasPlain)
    addInvalid(errors, path, resources, "if '*' is present, must not specify other resources without subresources");
}

export function checkMatchConditions(
  errors: Errors,
  path: string,
  conditions: readonly MatchCondition[] | undefined,
): void {
  if (conditions && conditions.length > MATCH_CONDITIONS_MAX)
    errors.push(fieldErrors.tooMany(path, conditions.length, MATCH_CONDITIONS_MAX));
  const names = new Set<string>();
  eachAt(conditions, path, (condition, at) => {
    requireText(errors, `${at}.expression`, condition.expression?.trim());
    const { name } = condition;
    if (!requireText(errors, `${at}.name`, name)) return;
    addProblems(errors, `${at}.name`, name, qualifiedNameProblems(name));
    if (names.has(name)) addDuplicate(errors, `${at}.name`, name);
    names.add(name);
  });
}

/** What a policy or a binding matches. */
export function checkMatchResources(
  errors: Errors,
  path: string,
  match: MatchResources,
  operations?: readonly string[],
): void {
  checkLabelSelector(errors, `${path}.namespaceSelector`, match.namespaceSelector);
  checkLabelSelector(errors, `${path}.objectSelector`, match.objectSelector);
  for (const field of ['resourceRules', 'excludeResourceRules'] as const)
    eachAt(match[field], `${path}.${field}`, (rule, at) => {
      const names = rule.resourceNames ?? [];
      eachAt(names, `${at}.resourceNames`, (name, nameAt, index) => {
        const problems = pathSegmentProblems(name);
        if (problems.length > 0) addInvalid(errors, nameAt, name, problems.join(','));
        if (names.indexOf(name) < index) addDuplicate(errors, nameAt, name);
      });
      checkRequestRule(errors, at, rule, operations);
    });
  allowOneOf(errors, `${path}.matchPolicy`, match.matchPolicy, ['Equivalent', 'Exact']);
}
