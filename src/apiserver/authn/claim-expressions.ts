/** CEL over the claims of a token and the user that they make: `claims` and `user` are its only variables. */

import { checkExpression, DYN, listOf, plain, type Type, typeText } from '../../api/cel/checker.ts';
import { compile, kubernetesLibrary } from '../../api/cel/environment.ts';
import { Budget, type Program } from '../../api/cel/evaluator.ts';
import { fromJson, toJson } from '../../api/cel/values.ts';

/** What an expression must come to; `strings` is a string or a list of them. */
export type ExpressionResult = 'bool' | 'string' | 'strings';

/** As for one call of an expression in admission. */
const COST_MAX = 1_000_000;
const STRING = plain('string');
const USER: Readonly<Record<string, Type>> = {
  username: STRING,
  uid: STRING,
  groups: listOf(STRING),
  extra: DYN,
};

/** Throws for an expression that does not compile or comes to something else. */
export function checkClaimsExpression(source: string, variable: 'claims' | 'user', result: ExpressionResult): void {
  const declared: Type = variable === 'claims' ? DYN : { is: 'object', field: name => USER[name] };
  const type = checkExpression(source, kubernetesLibrary(), name => (name === variable ? declared : undefined));
  const fits =
    type.is === 'dyn' ||
    (type.is === 'plain' && type.name === (result === 'bool' ? 'bool' : 'string')) ||
    (result === 'strings' && type.is === 'list') ||
    (result !== 'bool' && type.is === 'plain' && type.name === 'null_type');
  if (!fits)
    throw new Error(
      `must evaluate to ${result === 'strings' ? 'one of [string list]' : result}, it is ${typeText(type)}`,
    );
  compile(source);
}

const programs = new Map<string, Program>();

/** The value of an expression as JSON. Throws what CEL says. */
export function evaluateClaims(source: string, variables: Readonly<Record<string, unknown>>): unknown {
  let program = programs.get(source);
  if (!program) programs.set(source, (program = compile(source)));
  return toJson(
    program(name => (Object.hasOwn(variables, name) ? fromJson(variables[name]) : undefined), new Budget(COST_MAX)),
  );
}
