/** ValidatingAdmissionPolicy: refuses, warns or notes what the expressions of bound policies find. */

import type {
  ValidatingAdmissionPolicyBinding as Binding,
  ValidatingAdmissionPolicy as Policy,
  Validation,
} from '../../api/admissionregistration/v1.gen.ts';
import type { Scope } from '../../api/cel/evaluator.ts';
import type { Clock } from '../../base/clock.ts';
import { ApiError } from '../../base/errors.ts';
import { countPolicyCheck, type PolicyCheck } from '../metrics/admission-metrics.ts';
import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';
import { type AdmissionContext, refusal } from './context.ts';
import { Decisions } from './decisions.ts';
import { evaluate } from './expressions.ts';
import { conditionsHold, type Evaluating, type Invocation, invocations, policyScope } from './policy-evaluation.ts';
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
      const decisions = new Decisions(context.authorizer);
      const verdict = decisions.settle(() => judgeAll({ context, decisions }, request, given));
      return verdict instanceof Promise ? verdict.then(one => one.act(request)) : verdict.act(request);
    },
  };
}

function judgeAll(
  evaluating: Evaluating,
  request: AdmissionRequest,
  given: { readonly policies: readonly Policy[]; readonly bindings: readonly Binding[] },
): Verdict {
  const verdict = new Verdict(evaluating.context.clock);
  for (const invocation of invocations(evaluating.context, request, given)) {
    const findings =
      'error' in invocation
        ? failed(invocation.policy, invocation.error)
        : run(evaluating, request, { invocation, verdict });
    for (const finding of findings) verdict.add(request, invocation, finding);
  }
  return verdict;
}

type Run = Invocation<Policy, Binding>;
type Action = PolicyCheck['action'];

const actionsOf = ({ spec }: Binding): string[] => spec.validationActions ?? ['Deny'];
const loweredActionsOf = (binding: Binding) => actionsOf(binding).map(action => action.toLowerCase() as Action);

/** A policy that cannot be evaluated: its failure policy decides. */
function failed({ spec }: Policy, message: string): Finding[] {
  return spec.failurePolicy === 'Ignore' ? [] : [{ message, reason: '' }];
}

function run(
  evaluating: Evaluating,
  request: AdmissionRequest,
  { invocation, verdict }: { readonly invocation: Run; readonly verdict: Verdict },
): Finding[] {
  const { policy } = invocation;
  const scope = policyScope(evaluating, request, invocation);
  const holds = conditionsHold(invocation, scope);
  if ('error' in holds) {
    const findings = failed(policy, holds.error);
    verdict.check(invocation, { actions: actionsAfter(invocation, findings) });
    return findings;
  }
  if (!holds.matches) return [];
  return [
    ...(policy.spec.validations ?? []).flatMap((validation, index) =>
      judge(invocation, validation, { scope, verdict }).map(finding => ({ ...finding, index })),
    ),
    ...annotate(invocation, verdict, scope),
  ];
}

/** What the policy wants noted of the request; an expression that fails counts as the failure policy says. */
function annotate(invocation: Run, verdict: Verdict, scope: Scope): Finding[] {
  const { policy, expressions, budget } = invocation;
  return (policy.spec.auditAnnotations ?? []).flatMap(({ key, valueExpression }) => {
    const sinceMs = verdict.nowMs();
    try {
      const value = evaluate(expressions.program(valueExpression), scope, budget);
      if (value === null) return [];
      if (typeof value !== 'string') throw new Error('it is not a string');
      verdict.note(`${policy.metadata.name}/${key}`, value.trim().slice(0, ANNOTATION_LENGTH_MAX));
      return [];
    } catch (error) {
      const findings = failed(policy, `expression '${valueExpression}' resulted in error: ${(error as Error).message}`);
      // Upstream counts it as a refusal, whatever the binding wants.
      if (findings.length > 0) verdict.check(invocation, { actions: ['deny'], sinceMs, error });
      return findings;
    }
  });
}

/** What is done about an expression that failed. */
const actionsAfter = ({ binding }: Run, findings: readonly Finding[]): readonly Action[] =>
  findings.length > 0 ? loweredActionsOf(binding) : ['allow'];

/** What all bindings found of one request: audit annotations, warnings, and the refusal, if any. Nobody is told before `act`. */
class Verdict {
  readonly #values = new Map<string, string[]>();
  readonly #failures: object[] = [];
  readonly #warnings: string[] = [];
  readonly #checks: PolicyCheck[] = [];
  readonly #clock: Clock;
  #refusal: ApiError | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }
  nowMs(): number {
    return this.#clock.monotonic();
  }
  /** Counts an expression that was false, or failed with an error, in a time since `sinceMs`. */
  check({ policy, binding, budget }: Run, { actions, sinceMs, error }: Checked): void {
    const ms = sinceMs === undefined ? 0 : this.nowMs() - sinceMs;
    const isSyntax = error instanceof Error && error.message.startsWith('compilation');
    const errorType = isSyntax ? 'compile_error' : error && budget.left <= 0 ? 'out_of_budget' : 'invalid_error';
    for (const action of actions)
      this.#checks.push({ policy: policy.metadata.name, binding: binding.metadata.name, errorType, action, ms });
  }
  note(key: string, value: string): void {
    const values = this.#values.get(key) ?? [];
    if (value !== '' && !values.includes(value)) this.#values.set(key, [...values, value]);
  }
  add(request: AdmissionRequest, { policy, binding }: { policy: Policy; binding: Binding }, finding: Finding): void {
    const { message, reason, index = 0 } = finding;
    const actions = actionsOf(binding);
    const where = `ValidatingAdmissionPolicy '${policy.metadata.name}' with binding '${binding.metadata.name}'`;
    if (actions.includes('Warn')) this.#warnings.push(`Validation failed for ${where}: ${message}`);
    if (actions.includes('Audit'))
      this.#failures.push({
        message,
        policy: policy.metadata.name,
        binding: binding.metadata.name,
        expressionIndex: index,
        validationActions: actions,
      });
    if (!actions.includes('Deny') || this.#refusal) return;
    const says = `${where} denied request: ${message}`;
    const { status } = refusal(request, says);
    this.#refusal = new ApiError({
      ...status,
      reason: reason || 'Invalid',
      code: CODES[reason] ?? 422,
      details: { ...status.details, causes: [{ message: says }] },
    });
  }
  /** Throws the refusal. */
  act(request: AdmissionRequest): void {
    const { annotate: note } = request;
    for (const check of this.#checks) countPolicyCheck(check);
    for (const warning of this.#warnings) request.warn(warning);
    for (const [key, values] of this.#values) note?.(key, values.join(', '));
    if (this.#failures.length > 0)
      note?.('validation.policy.admission.k8s.io/validation_failure', JSON.stringify(this.#failures));
    if (this.#refusal) throw this.#refusal;
  }
}

interface Checked {
  readonly actions: readonly Action[];
  readonly sinceMs?: number;
  readonly error?: unknown;
}

function judge(
  invocation: Run,
  validation: Validation,
  { scope, verdict }: { readonly scope: Scope; readonly verdict: Verdict },
): Finding[] {
  const { policy, binding, expressions, budget } = invocation;
  const sinceMs = verdict.nowMs();
  const { expression, message, messageExpression, reason = '' } = validation;
  try {
    const result = evaluate(expressions.program(expression), scope, budget);
    if (result === true) return [];
  } catch (error) {
    const findings = failed(policy, `expression '${expression}' resulted in error: ${(error as Error).message}`);
    verdict.check(invocation, { actions: actionsAfter(invocation, findings), sinceMs, error });
    return findings;
  }
  verdict.check(invocation, { actions: loweredActionsOf(binding), sinceMs });
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
