/** What validating and mutating policies have in common, and their bindings: parameters, variables, what they match. */

import { dns1035LabelProblems, dnsSubdomainProblems } from '../machinery/names.ts';
import {
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkLabelSelector,
  type Errors,
  eachAt,
  requireOneOf,
  requireText,
} from '../machinery/validation.ts';
import { checkMatchConditions, checkMatchResources } from './rule-validation.ts';
import type { MatchCondition, MatchResources, ParamKind, ParamRef, Variable } from './v1.gen.ts';

const IDENTIFIER = /^[_a-zA-Z][_a-zA-Z0-9]*$/;
/** Words of the language, which cannot name a variable. */
const RESERVED =
  /^(true|false|null|in|as|break|const|continue|else|for|function|if|import|let|loop|package|namespace|return|var|void|while)$/;
export const UNSPECIFIED = 'expression is not specified';

interface PolicySpec {
  readonly paramKind?: ParamKind;
  readonly matchConstraints?: MatchResources;
  readonly matchConditions?: readonly MatchCondition[];
  readonly variables?: readonly Variable[];
  readonly failurePolicy?: string;
}

/** `operations`: those that the policy's rules may name. */
export function checkPolicy(errors: Errors, spec: PolicySpec, operations?: readonly string[]): void {
  allowOneOf(errors, 'spec.failurePolicy', spec.failurePolicy, ['Fail', 'Ignore']);
  if (spec.paramKind) checkParamKind(errors, 'spec.paramKind', spec.paramKind);
  const match = spec.matchConstraints;
  if (!match) addRequired(errors, 'spec.matchConstraints');
  else {
    checkMatchResources(errors, 'spec.matchConstraints', match, operations);
    if (!match.resourceRules?.length) addRequired(errors, 'spec.matchConstraints.resourceRules');
  }
  checkMatchConditions(errors, 'spec.matchConditions', spec.matchConditions);
  eachAt(spec.variables, 'spec.variables', ({ name, expression }, at) => {
    if (
      requireText(errors, `${at}.name`, name, 'name is not specified') &&
      (!IDENTIFIER.test(name) || RESERVED.test(name))
    )
      addInvalid(errors, `${at}.name`, name, 'name is not a valid CEL identifier');
    requireText(errors, `${at}.expression`, expression?.trim(), UNSPECIFIED);
  });
}

interface BindingSpec {
  readonly policyName?: string;
  readonly paramRef?: ParamRef;
  readonly matchResources?: MatchResources;
}

export function checkPolicyBinding(errors: Errors, spec: BindingSpec, operations?: readonly string[]): void {
  if (requireText(errors, 'spec.policyName', spec.policyName))
    addProblems(errors, 'spec.policyName', spec.policyName, dnsSubdomainProblems(spec.policyName));
  if (spec.paramRef) checkParamRef(errors, 'spec.paramRef', spec.paramRef);
  if (spec.matchResources) checkMatchResources(errors, 'spec.matchResources', spec.matchResources, operations);
}

function checkParamKind(errors: Errors, path: string, { apiVersion, kind }: ParamKind): void {
  if (requireText(errors, `${path}.apiVersion`, apiVersion)) {
    const [version = '', group, ...more] = apiVersion.split('/').reverse();
    if (more.length > 0)
      addInvalid(errors, `${path}.apiVersion`, apiVersion, `unexpected GroupVersion string: ${apiVersion}`);
    else {
      if (group !== undefined) addProblems(errors, `${path}.apiVersion`, group, dnsSubdomainProblems(group));
      addProblems(errors, `${path}.apiVersion`, version, dns1035LabelProblems(version));
    }
  }
  if (requireText(errors, `${path}.kind`, kind))
    for (const problem of dns1035LabelProblems(kind.toLowerCase()))
      addInvalid(errors, `${path}.kind`, kind, `may have mixed case, but should otherwise match: ${problem}`);
}

function checkParamRef(errors: Errors, path: string, reference: ParamRef): void {
  const { name, selector } = reference;
  const both = 'name and selector are mutually exclusive';
  if (name) {
    addProblems(errors, `${path}.name`, name, dnsSubdomainProblems(name));
    if (selector) addForbidden(errors, `${path}.name`, both);
  }
  if (selector) {
    checkLabelSelector(errors, `${path}.selector`, selector);
    if (name) addForbidden(errors, `${path}.selector`, both);
  }
  if (!name && !selector) addRequired(errors, path, 'one of name or selector must be specified');
  requireOneOf(errors, `${path}.parameterNotFoundAction`, reference.parameterNotFoundAction, ['Allow', 'Deny']);
}
