/** Match conditions of webhooks and policies: all must hold; an error counts only when none is false. */

import type { MatchCondition } from '../../api/admissionregistration/v1.gen.ts';
import { Budget, type Scope } from '../../api/cel/evaluator.ts';
import { type Expressions, evaluate, POLICY_COST_MAX } from './expressions.ts';

export type Matching = { readonly matches: boolean } | { readonly error: string };

export function matchConditions(
  conditions: readonly MatchCondition[] | undefined,
  expressions: Expressions,
  scope: Scope,
): Matching {
  if (!conditions?.length) return { matches: true };
  const budget = new Budget(POLICY_COST_MAX);
  let failed: string | undefined;
  for (const { name, expression } of conditions) {
    try {
      if (evaluate(expressions.program(expression), scope, budget) !== true) return { matches: false };
    } catch (error) {
      failed ??= `match condition ${JSON.stringify(name)}: ${(error as Error).message}`;
    }
  }
  return failed === undefined ? { matches: true } : { error: failed };
}
