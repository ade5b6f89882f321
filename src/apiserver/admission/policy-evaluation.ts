/**
 * What validating and mutating admission policies share: which bindings of which policies are about a request, with which
 * params, and the variables that their expressions see.
 */

import type {
  MatchCondition,
  MatchResources,
  MutatingAdmissionPolicy,
  MutatingAdmissionPolicyBinding,
  ParamKind,
  ParamRef,
  ValidatingAdmissionPolicy,
  ValidatingAdmissionPolicyBinding,
} from '../../api/admissionregistration/v1.gen.ts';
import { Budget, type Scope } from '../../api/cel/evaluator.ts';
import { CelError, type Value } from '../../api/cel/values.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { ResourceInfo } from '../../api/schema.ts';
import { NAMESPACES } from '../../client/resources.ts';
import type { AdmissionRequest } from '../request.ts';
import { splitApiVersion } from '../resource-table.ts';
import type { AdmissionContext } from './context.ts';
import type { Decisions } from './decisions.ts';
import { Expressions, evaluate, LazyVariables, POLICY_COST_MAX, scopeOf } from './expressions.ts';
import { matchConditions } from './match-conditions.ts';
import { type Criteria, matchedResource } from './request-rules.ts';
import { reviewOf } from './review.ts';

type Policy = ValidatingAdmissionPolicy | MutatingAdmissionPolicy;
type Binding = ValidatingAdmissionPolicyBinding | MutatingAdmissionPolicyBinding;

/** One run of a policy's expressions: a binding with one of its params. */
export interface Invocation<P extends Policy, B extends Binding> {
  readonly policy: P;
  readonly binding: B;
  readonly info: ResourceInfo;
  readonly expressions: Expressions;
  readonly budget: Budget;
  readonly params: KubeObject | undefined;
}

/** A policy that could not be run, and what it said. */
export interface Misconfigured<P extends Policy, B extends Binding> {
  readonly policy: P;
  readonly binding: B;
  readonly error: string;
}

const known = new WeakMap<Policy, Expressions>();

export function expressionsOf(policy: Policy): Expressions {
  let found = known.get(policy);
  if (!found) known.set(policy, (found = new Expressions()));
  return found;
}

function criteriaOf(resources: MatchResources | undefined): Criteria | undefined {
  if (!resources) return undefined;
  return {
    rules: resources.resourceRules ?? [],
    excluded: resources.excludeResourceRules ?? [],
    namespaceSelector: resources.namespaceSelector,
    objectSelector: resources.objectSelector,
    matchPolicy: resources.matchPolicy,
  };
}

const ANY_RULE = [{ operations: ['*'], apiGroups: ['*'], apiVersions: ['*'], resources: ['*', '*/*'] }];

/** Everything that is to be run for the request. */
export function invocations<P extends Policy, B extends Binding>(
  context: AdmissionContext,
  request: AdmissionRequest,
  { policies, bindings }: { policies: readonly P[]; bindings: readonly B[] },
): (Invocation<P, B> | Misconfigured<P, B>)[] {
  const reader = context.reader();
  const found: (Invocation<P, B> | Misconfigured<P, B>)[] = [];
  for (const policy of policies) {
    const criteria = criteriaOf(policy.spec.matchConstraints);
    const info = criteria && matchedResource(criteria, request, reader);
    if (!info) continue;
    for (const binding of bindings) {
      if (binding.spec.policyName !== policy.metadata.name) continue;
      const own = criteriaOf(binding.spec.matchResources);
      // A binding without rules narrows by its selectors alone.
      if (own && !matchedResource({ ...own, rules: own.rules.length ? own.rules : ANY_RULE }, request, reader))
        continue;
      const expressions = expressionsOf(policy);
      try {
        for (const params of paramsOf(context, policy.spec.paramKind, binding.spec.paramRef, request))
          found.push({ policy, binding, info, expressions, budget: new Budget(POLICY_COST_MAX), params });
      } catch (error) {
        found.push({ policy, binding, error: `failed to configure binding: ${(error as Error).message}` });
      }
    }
  }
  return found;
}

function paramsOf(
  context: AdmissionContext,
  kind: ParamKind | undefined,
  ref: ParamRef | undefined,
  request: AdmissionRequest,
): readonly (KubeObject | undefined)[] {
  if (!kind || !ref) return [undefined];
  const reader = context.reader();
  const { group, version } = splitApiVersion(kind.apiVersion ?? '');
  const info = reader.table?.ofKind(group, version, kind.kind ?? '')?.info;
  if (!info)
    throw new Error(`failed to find resource referenced by paramKind: '${kind.apiVersion}, Kind=${kind.kind}'`);
  const namespace = info.namespaced ? ref.namespace || request.attributes.namespace : '';
  if (info.namespaced && !namespace)
    throw new Error('cannot use namespaced paramRef in policy binding that matches cluster-scoped resources');
  const found = ref.name
    ? [reader.get(info, namespace, ref.name)].filter(one => one !== undefined)
    : reader.list(info, namespace).filter(one => labelSelectorMatch(ref.selector ?? {})(one.metadata.labels));
  if (found.length > 0) return found;
  if (ref.parameterNotFoundAction === 'Deny')
    throw new Error('no params found for policy binding with `Deny` parameterNotFoundAction');
  return [];
}

/** What expressions of one request are evaluated with. */
export interface Evaluating {
  readonly context: AdmissionContext;
  readonly decisions: Decisions;
}

/** The scope of an invocation's expressions. */
export function policyScope(
  { context, decisions }: Evaluating,
  request: AdmissionRequest,
  invocation: Invocation<Policy, Binding>,
): Scope {
  const reader = context.reader();
  const { info, params, policy, expressions, budget } = invocation;
  const { object, oldObject, ...review } = reviewOf(request, info, '', reader);
  const { namespace: home } = request.attributes;
  const namespace = home ? reader.get(NAMESPACES, '', home) : undefined;
  const base = scopeOf(
    {
      object: object ?? null,
      oldObject: oldObject ?? null,
      request: review,
      params: params ?? null,
      namespaceObject: namespace ?? null,
    },
    decisions.variable(request),
  );
  const sources = new Map<string, () => Value>();
  const variables = new LazyVariables(sources);
  const scope: Scope = name => (name === 'variables' ? variables : base(name));
  for (const { name, expression } of policy.spec.variables ?? [])
    sources.set(name, () => {
      // One that speaks of itself would never end.
      sources.set(name, () => {
        throw new CelError(`variable ${name} is used in its own expression`);
      });
      return evaluate(expressions.program(expression), scope, budget);
    });
  return scope;
}

export function conditionsHold(
  invocation: Invocation<Policy, Binding>,
  scope: Scope,
): { readonly matches: boolean } | { readonly error: string } {
  const conditions: readonly MatchCondition[] = invocation.policy.spec.matchConditions ?? [];
  return matchConditions(conditions, invocation.expressions, scope);
}
