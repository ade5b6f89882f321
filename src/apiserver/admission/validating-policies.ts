/** ValidatingAdmissionPolicy: refuses, warns or notes what the expressions of bound policies find. */

import type {
  ValidatingAdmissionPolicyBinding as Binding,
  ValidatingAdmissionPolicy as Policy,
  Validation,
} from '../../api/admissionregistration/v1.gen.ts';
import type { Scope } from '../../api/cel/evaluator.ts';
import { ApiError } from '../../base/errors.ts';
import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';
import { type AdmissionContext, refusal } from './context.ts';
import { evaluate } from './expressions.ts';
import { conditionsHold, type Invocation, invocations, policyScope } from './policy-evaluation.ts';
import { isExempt } from './request-rules.ts';
import { StoredList } from './stored-list.ts';

const resource = (name: string) => ({ group: 'admissionregistration.k8s.io', version: 'v1', resource: name });
const CODES: Readonly<Record<string, number>> = {
  Unauthorized: 401,
  Forbidden: 403,
  RequestEntityTooLarge: 413,
  Invalid: 422,
};

/** Upstream cuts values at 10 KB. */
const ANNOTATION_LENGTH_MAX = 10 * 1024;

interface Finding {
  /** Of the validation in its policy. */
  readonly index?: number;
  readonly message: string;
  readonly reason: string;
}

export function validatingPolicies(context: AdmissionContext): AdmissionPlugin {
  const policies = new StoredList<Policy>(context.reader, resource('validatingadmissionpolicies'));
  const bindings = new StoredList<Binding>(context.reader, resource('validatingadmissionpolicybindings'));
  return {
    name: 'ValidatingAdmissionPolicy',
    validate(request) {
      if (bindings.items.length === 0 || isExempt(request)) return;
      const given = { policies: policies.items, bindings: bindings.items };
      const notes = new Notes(request);
      try {
        for (const invocation of invocations(context, request, given)) {
          const findings =
            'error' in invocation
              ? failed(invocation.policy, invocation.error)
              : run(context, request, { invocation, notes });
          for (const finding of findings) act(request, invocation, { finding, notes });
        }
      } finally {
        notes.publish();
      }
    },
  };
}

/** A policy that cannot be evaluated: its failure policy decides. */
function failed({ spec }: Policy, message: string): Finding[] {
  return spec.failurePolicy === 'Ignore' ? [] : [{ message, reason: '' }];
}

function run(
  context: AdmissionContext,
  request: AdmissionRequest,
  { invocation, notes }: { readonly invocation: Invocation<Policy, Binding>; readonly notes: Notes },
): Finding[] {
  const { policy } = invocation;
  const scope = policyScope(context, request, invocation);
  const holds = conditionsHold(invocation, scope);
  if ('error' in holds) return failed(policy, holds.error);
  if (!holds.matches) return [];
  return [
    ...(policy.spec.validations ?? []).flatMap((validation, index) =>
      judge(invocation, validation, scope).map(finding => ({ ...finding, index })),
    ),
    ...annotate(invocation, notes, scope),
  ];
}

/** What the policy wants noted of the request; an expression that fails counts as the failure policy says. */
function annotate({ policy, expressions, budget }: Invocation<Policy, Binding>, notes: Notes, scope: Scope): Finding[] {
  return (policy.spec.auditAnnotations ?? []).flatMap(({ key, valueExpression }) => {
    try {
      const value = evaluate(expressions.program(valueExpression), scope, budget);
      if (value === null) return [];
      if (typeof value !== 'string') throw new Error('it is not a string');
      notes.add(`${policy.metadata.name}/${key}`, value.trim().slice(0, ANNOTATION_LENGTH_MAX));
      return [];
    } catch (error) {
      return failed(policy, `expression '${valueExpression}' resulted in error: ${(error as Error).message}`);
    }
  });
}

/** Audit annotations of one request: values of one key, and what actions of all bindings found. */
class Notes {
  readonly #request: AdmissionRequest;
  readonly #values = new Map<string, string[]>();
  readonly #failures: object[] = [];
  constructor(request: AdmissionRequest) {
    this.#request = request;
  }
  add(key: string, value: string): void {
    const values = this.#values.get(key) ?? [];
    if (value !== '' && !values.includes(value)) this.#values.set(key, [...values, value]);
  }
  failure(found: object): void {
    this.#failures.push(found);
  }
  publish(): void {
    const { annotate: note } = this.#request;
    for (const [key, values] of this.#values) note?.(key, values.join(', '));
    if (this.#failures.length > 0)
      note?.('validation.policy.admission.k8s.io/validation_failure', JSON.stringify(this.#failures));
  }
}

function judge(
  { policy, expressions, budget }: Invocation<Policy, Binding>,
  validation: Validation,
  scope: Scope,
): Finding[] {
  const { expression, message, messageExpression, reason = '' } = validation;
  try {
    const result = evaluate(expressions.program(expression), scope, budget);
    if (result === true) return [];
  } catch (error) {
    return failed(policy, `expression '${expression}' resulted in error: ${(error as Error).message}`);
  }
  let text = '';
  if (messageExpression) {
    try {
      const made = evaluate(expressions.program(messageExpression), scope, budget);
      if (typeof made === 'string' && made.trim() !== '' && !made.includes('\n')) text = made.trim();
    } catch {
      // The fixed message stands in for one that cannot be made.
    }
  }
  return [{ message: text || message?.trim() || `failed expression: ${expression.trim()}`, reason }];
}

function act(
  request: AdmissionRequest,
  { policy, binding }: { policy: Policy; binding: Binding },
  { finding, notes }: { readonly finding: Finding; readonly notes: Notes },
): void {
  const { message, reason, index = 0 } = finding;
  const actions = binding.spec.validationActions ?? ['Deny'];
  const where = `ValidatingAdmissionPolicy '${policy.metadata.name}' with binding '${binding.metadata.name}'`;
  if (actions.includes('Warn')) request.warn(`Validation failed for ${where}: ${message}`);
  if (actions.includes('Audit'))
    notes.failure({
      message,
      policy: policy.metadata.name,
      binding: binding.metadata.name,
      expressionIndex: index,
      validationActions: actions,
    });
  if (!actions.includes('Deny')) return;
  const says = `${where} denied request: ${message}`;
  const { status } = refusal(request, says);
  throw new ApiError({
    ...status,
    reason: reason || 'Invalid',
    code: CODES[reason] ?? 422,
    details: { ...status.details, causes: [{ message: says }] },
  });
}
