/** Whom and what a rule of a flow schema matches. */

import { fieldErrors } from '../../base/errors.ts';
import { dnsLabelProblems, dnsSubdomainProblems } from '../machinery/names.ts';
import {
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  type Errors,
  eachAt,
  requireText,
} from '../machinery/validation.ts';
import type { NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject } from './v1.gen.ts';

const VERBS = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'proxy', 'update', 'watch'];
const SUBJECTS = { ServiceAccount: 'serviceAccount', User: 'user', Group: 'group' } as const;

export function checkFlowRule(errors: Errors, path: string, rule: PolicyRulesWithSubjects): void {
  if (!rule.subjects?.length) addRequired(errors, `${path}.subjects`, 'subjects must contain at least one value');
  eachAt(rule.subjects, `${path}.subjects`, (subject, at) => checkSubject(errors, at, subject));
  if (!rule.resourceRules?.length && !rule.nonResourceRules?.length)
    addRequired(errors, path, 'at least one of resourceRules and nonResourceRules has to be non-empty');
  eachAt(rule.resourceRules, `${path}.resourceRules`, (each, at) => checkResourceRule(errors, at, each));
  eachAt(rule.nonResourceRules, `${path}.nonResourceRules`, (each, at) => checkNonResourceRule(errors, at, each));
}

function checkSubject(errors: Errors, path: string, subject: Subject): void {
  const expected = SUBJECTS[subject.kind as keyof typeof SUBJECTS];
  if (!expected) {
    errors.push(fieldErrors.notSupported(`${path}.kind`, subject.kind ?? '', Object.keys(SUBJECTS).sort()));
    return;
  }
  const given = subject[expected];
  const at = `${path}.${expected}`;
  if (!given) addRequired(errors, at, `${expected} is required when subject kind is '${subject.kind}'`);
  else {
    const hasName = requireText(errors, `${at}.name`, given.name);
    if (expected === 'serviceAccount') {
      if (hasName && given.name !== '*')
        addProblems(errors, `${at}.name`, given.name, dnsSubdomainProblems(given.name));
      const namespace = subject.serviceAccount!.namespace;
      if (requireText(errors, `${at}.namespace`, namespace, 'must specify namespace for service account'))
        addProblems(errors, `${at}.namespace`, namespace, dnsLabelProblems(namespace));
    }
  }
  for (const [kind, field] of Object.entries(SUBJECTS))
    if (field !== expected && subject[field])
      addForbidden(errors, `${path}.${field}`, `${field} is forbidden when subject kind is not '${kind}'`);
}

function checkVerbs(errors: Errors, path: string, verbs: readonly string[] | undefined): void {
  if (!checkList(errors, path, verbs, { missing: 'verbs must contain at least one value', others: 'verbs' })) return;
  if (!verbs!.every(verb => verb === '*' || VERBS.includes(verb)))
    errors.push(fieldErrors.notSupported(path, verbs, VERBS));
}

/** Not empty, and nothing beside `*`; whether it has entries that remain to be checked. */
function checkList(
  errors: Errors,
  path: string,
  list: readonly string[] | undefined,
  say: { readonly missing: string; readonly others: string },
): boolean {
  if (!list?.length) addRequired(errors, path, say.missing);
  else if (!list.includes('*')) return true;
  else if (list.length > 1) addInvalid(errors, path, list, `if '*' is present, must not specify other ${say.others}`);
  return false;
}

function checkResourceRule(errors: Errors, path: string, rule: ResourcePolicyRule): void {
  checkVerbs(errors, `${path}.verbs`, rule.verbs);
  checkList(errors, `${path}.apiGroups`, rule.apiGroups, {
    missing: 'resource rules must supply at least one api group',
    others: 'api groups',
  });
  checkList(errors, `${path}.resources`, rule.resources, {
    missing: 'resource rules must supply at least one resource',
    others: 'resources',
  });
  const at = `${path}.namespaces`;
  if (!rule.namespaces?.length && rule.clusterScope) return;
  const say = {
    missing: 'resource rules that are not cluster scoped must supply at least one namespace',
    others: 'namespaces',
  };
  if (checkList(errors, at, rule.namespaces, say))
    eachAt(rule.namespaces, at, (namespace, namespaceAt) => {
      for (const problem of dnsLabelProblems(namespace))
        addInvalid(
          errors,
          namespaceAt,
          namespace,
          `each member of this list must be '*' or a DNS-1123 label; ${problem}`,
        );
    });
}

function checkNonResourceRule(errors: Errors, path: string, rule: NonResourcePolicyRule): void {
  checkVerbs(errors, `${path}.verbs`, rule.verbs);
  const say = { missing: 'nonResourceURLs must contain at least one value', others: 'non-resource URLs' };
  if (checkList(errors, `${path}.nonResourceURLs`, rule.nonResourceURLs, say))
    eachAt(rule.nonResourceURLs, `${path}.nonResourceURLs`, (url, at) => {
      const problem = urlProblem(url);
      if (problem) addInvalid(errors, at, url, problem);
    });
}

function urlProblem(url: string): string | undefined {
  if (url === '') return 'must not be empty';
  if (!url.startsWith('/')) return 'must start with slash';
  if (url.includes(' ')) return 'must not contain white-space';
  if (url.includes('//')) return 'must not contain double slash';
  const star = url.indexOf('*');
  return star < 0 || (star === url.length - 1 && url.endsWith('/*'))
    ? undefined
    : 'wildcard can only do suffix matching';
}
