/** MutatingAdmissionPolicy: changes objects by JSON patches or apply configurations that expressions make. */

import type {
  MutatingAdmissionPolicyBinding as Binding,
  Mutation,
  MutatingAdmissionPolicy as Policy,
} from '../../api/admissionregistration/v1.gen.ts';
import { Budget, Message, type Scope } from '../../api/cel/evaluator.ts';
import { CelError, ListValue, MapValue, Optional, toJson, type Value } from '../../api/cel/values.ts';
import type { KubeObject } from '../../api/meta.ts';
import { typeOfKind } from '../../api/schema-registry.ts';
import { ApiError, messageOf } from '../../base/errors.ts';
import { mergeConfiguration } from '../apply/merge.ts';
import { rootTable } from '../apply/structure.ts';
import { jsonPatch } from '../json-patch.ts';
import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';
import { apiVersionOf } from '../resource-table.ts';
import { type AdmissionContext, refusal } from './context.ts';
import { Decisions } from './decisions.ts';
import { evaluate } from './expressions.ts';
import { conditionsHold, type Evaluating, type Invocation, invocations, policyScope } from './policy-evaluation.ts';
import { isExempt } from './request-rules.ts';
import { inVersion } from './review.ts';
import { StoredList } from './stored-list.ts';

const resource = (name: string) => ({ group: 'admissionregistration.k8s.io', version: 'v1', resource: name });

export function mutatingPolicies(context: AdmissionContext): AdmissionPlugin {
  const policies = new StoredList<Policy>(context.reader, resource('mutatingadmissionpolicies'));
  const bindings = new StoredList<Binding>(context.reader, resource('mutatingadmissionpolicybindings'));
  return {
    name: 'MutatingAdmissionPolicy',
    mutate(request) {
      if (bindings.items.length === 0 || !request.object || !request.replace || isExempt(request)) return;
      const chosen = invocations(context, request, { policies: policies.items, bindings: bindings.items });
      return chosen.length > 0 ? changeInTurn(context, request, chosen) : undefined;
    },
  };
}

type Chosen = Invocation<Policy, Binding>;

async function changeInTurn(
  context: AdmissionContext,
  request: AdmissionRequest,
  chosen: ReturnType<typeof invocations<Policy, Binding>>,
): Promise<void> {
  const evaluating = { context, decisions: new Decisions(context.authorizer) };
  const willing: Chosen[] = [];
  const again = new Set<Chosen>();
  for (const one of chosen) {
    if ('error' in one) {
      refuse(request, one, one.error);
      continue;
    }
    if (await apply(evaluating, request, one)) for (const before of willing) again.add(before);
    if (one.policy.spec.reinvocationPolicy === 'IfNeeded') willing.push(one);
  }
  for (const one of again) await apply(evaluating, request, one);
}

function refuse(
  request: AdmissionRequest,
  { policy, binding }: { policy: Policy; binding: Binding },
  why: string,
): void {
  if (policy.spec.failurePolicy === 'Ignore') return;
  const says = `policy '${policy.metadata.name}' with binding '${binding.metadata.name}' denied request: ${why}`;
  const { status } = refusal(request, says);
  throw new ApiError({
    ...status,
    reason: 'Invalid',
    code: 422,
    details: { ...status.details, causes: [{ message: says }] },
  });
}

/** True when the object changed. */
async function apply(evaluating: Evaluating, request: AdmissionRequest, invocation: Chosen): Promise<boolean> {
  const { decisions } = evaluating;
  const { policy } = invocation;
  const before = JSON.stringify(request.object);
  let { left } = invocation.budget;
  /** What is run again spends once. */
  const settled = async <T>(run: (attempt: Chosen, scope: Scope) => T): Promise<T> => {
    const { value, spent } = await decisions.settle(() => {
      const attempt = { ...invocation, budget: new Budget(left) };
      return { value: run(attempt, policyScope(evaluating, request, attempt)), spent: attempt.budget };
    });
    left = spent.left;
    return value;
  };
  const holds = await settled(conditionsHold);
  if ('error' in holds) refuse(request, invocation, holds.error);
  if ('error' in holds || !holds.matches) return false;
  for (const mutation of policy.spec.mutations ?? []) {
    try {
      // Each sees what the ones before it made.
      const next = await settled((attempt, scope) =>
        mutated(evaluating.context, request, { invocation: attempt, mutation, scope }),
      );
      request.replace!(next);
    } catch (error) {
      refuse(request, invocation, messageOf(error));
    }
  }
  return JSON.stringify(request.object) !== before;
}

/** The object as the mutation wants it. */
function mutated(
  context: AdmissionContext,
  request: AdmissionRequest,
  { invocation, mutation, scope }: { invocation: Chosen; mutation: Mutation; scope: Scope },
): KubeObject {
  const { info, expressions, budget } = invocation;
  const isPatch = mutation.patchType === 'JSONPatch';
  const expression = (isPatch ? mutation.jsonPatch?.expression : mutation.applyConfiguration?.expression) ?? '';
  const made = evaluate(expressions.program(expression), scope, budget);
  const seen = inVersion(request.object, request.info, info)!;
  let next: KubeObject;
  if (isPatch) next = jsonPatch(seen, operationsOf(made));
  else {
    if (!(made instanceof Message)) throw new CelError('must evaluate to Object but got something else');
    const configuration = plain(made) as Partial<KubeObject>;
    for (const field of ['name', 'namespace', 'uid', 'resourceVersion'] as const)
      if (configuration.metadata?.[field] !== undefined) throw new CelError(`metadata.${field} must not be set`);
    const served = context.reader().table?.find(info.group, info.version, info.resource);
    // The options of a connection and Scales are not of the resource's kind.
    const of = request.kind ? { ...request.kind, type: typeOfKind(...partsOf(request.kind))! } : info;
    const table = served?.custom && !request.kind ? served.custom.fields('all') : rootTable(of.type, 'all');
    next = mergeConfiguration(table, seen, { ...configuration, apiVersion: apiVersionOf(of), kind: of.kind });
  }
  return inVersion(next, info, request.info)!;
}

const partsOf = ({ group, version, kind }: NonNullable<AdmissionRequest['kind']>) => [group, version, kind] as const;

function operationsOf(made: Value): unknown[] {
  if (!(made instanceof ListValue))
    throw new CelError('type mismatch: JSONPatchType.expression should evaluate to array');
  return [...made].map(operation => {
    if (!(operation instanceof Message) || operation.type !== 'JSONPatch')
      throw new CelError('type mismatch: items of a JSON patch must be JSONPatch{}');
    return plain(operation);
  });
}

/** The JSON of a value with messages in it. */
function plain(value: Value): unknown {
  if (value instanceof Message) return plain(value.fields);
  if (value instanceof Optional) return value.value === undefined ? null : plain(value.value);
  if (value instanceof ListValue) return [...value].map(plain);
  if (!(value instanceof MapValue)) return toJson(value);
  return Object.fromEntries([...value.keys()].map(key => [String(key), plain(value.get(key)!)]));
}
