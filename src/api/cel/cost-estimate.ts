/**
 * What an expression costs at most, before it runs: upstream's static estimate (cel-go's checker.Cost with Kubernetes' sizes), by the
 * declared sizes of what it looks at. What is not known here counts as small: an expression is never refused that upstream accepts.
 */

import { estimatedCost, type Sized } from './call-cost.ts';
import { type Declarations, DYN, type Type, TypeChecker } from './checker.ts';
import { dottedName } from './evaluator.ts';
import type { Library } from './functions.ts';
import { type Expression, parse } from './parser.ts';

const LIST_COST = 10;
const MAP_COST = 30;
const MESSAGE_COST = 40;
/** What a fold does beside its body in each turn: looks at its accumulator, and whether to go on. */
const FOLD_TURN_COST = 4;

interface Estimate extends Sized {
  readonly cost: number;
}

/** The most that the expression can cost. Throws CelSyntaxError. */
export function estimateCost(source: string, library: Library, declarations: Declarations): number {
  return new Estimator(new TypeChecker(source, library)).of(parse(source), declarations).cost;
}

class Estimator {
  readonly #checker: TypeChecker;

  constructor(checker: TypeChecker) {
    this.#checker = checker;
  }

  of(expression: Expression, env: Declarations): Estimate {
    const type = this.#checker.type(expression, env);
    const found = (cost: number, size: number | undefined = sizeOf(type)): Estimate => ({ cost, size, type });
    const inner = (part: Expression, scope = env) => this.of(part, scope);
    const all = (parts: readonly Expression[]) => parts.reduce((sum, part) => sum + inner(part).cost, 0);
    switch (expression.is) {
      case 'literal': {
        const { value } = expression;
        const size = typeof value === 'string' || value instanceof Uint8Array ? value.length : undefined;
        return { ...found(0, size), isExact: true };
      }
      case 'name':
        return found(1);
      case 'select':
        return found(inner(expression.operand).cost + 1);
      case 'has':
        return found(inner(expression.operand).cost);
      case 'index':
        return found(inner(expression.operand).cost + inner(expression.index).cost + 1);
      case 'list':
        return found(LIST_COST + all(expression.items.map(({ value }) => value)), expression.items.length);
      case 'map':
        return found(
          MAP_COST + all(expression.entries.flatMap(({ key, value }) => [key, value])),
          expression.entries.length,
        );
      case 'message':
        return found(MESSAGE_COST + all(expression.fields.map(({ value }) => value)));
      case 'call':
        return this.#call(expression, env, found);
      case 'fold': {
        const range = inner(expression.range);
        const scope = this.#checker.foldScope(expression, env);
        const parts = [expression.filter, expression.body, expression.value].filter(part => part !== undefined);
        const body = parts.reduce((sum, part) => sum + inner(part, scope).cost, 0);
        const turns = range.size ?? 1;
        return found(range.cost + 1 + turns * (body + FOLD_TURN_COST), range.size);
      }
      case 'bind': {
        const value = inner(expression.value);
        const body = inner(expression.body, name => (name === expression.name ? value.type : env(name)));
        return found(value.cost + body.cost, body.size);
      }
      case 'optional': {
        const operand = inner(expression.operand);
        const body = inner(expression.body, name => (name === expression.name ? DYN : env(name)));
        return found(operand.cost + body.cost);
      }
    }
  }

  #call(
    { name, target, args }: Expression & { is: 'call' },
    env: Declarations,
    found: (cost: number, size?: number) => Estimate,
  ): Estimate {
    // Names with dots (`ip.isCanonical`, `optional.of`) have no value before them.
    const receiver = target && isValue(target, env) ? this.of(target, env) : undefined;
    const given = args.map(arg => this.of(arg, env));
    const parts = receiver ? [receiver, ...given] : given;
    if (name === '_?_:_') {
      const [condition, ...branches] = parts;
      return found(condition!.cost + Math.max(...branches.map(({ cost }) => cost)), largest(branches));
    }
    const prefix = target && !receiver ? `${dottedName(target)}.` : '';
    const { cost, size } = estimatedCost(prefix + name, parts, receiver);
    return found(
      parts.reduce((sum, part) => sum + part.cost, cost),
      size,
    );
  }
}

const largest = (parts: readonly Estimate[]): number | undefined =>
  parts.some(({ size }) => size === undefined) ? undefined : Math.max(...parts.map(({ size }) => size!));

function sizeOf(type: Type): number | undefined {
  return 'max' in type ? type.max : undefined;
}

/** Not the beginning of a function's dotted name. */
function isValue(expression: Expression, env: Declarations): boolean {
  if (expression.is === 'name') return env(expression.name) !== undefined;
  return expression.is === 'select' ? isValue(expression.operand, env) : true;
}
