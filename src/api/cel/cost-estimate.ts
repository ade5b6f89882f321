/**
 * What an expression costs at most, before it runs: upstream's static estimate (cel-go's checker.Cost with Kubernetes' sizes), by the
 * declared sizes of what it looks at. What is not known here counts as small: an expression is never refused that upstream accepts.
 */

import { type Declarations, DYN, type Type, TypeChecker } from './checker.ts';
import type { Library } from './functions.ts';
import { type Expression, parse } from './parser.ts';

const LIST_COST = 10;
const MAP_COST = 30;
const MESSAGE_COST = 40;
/** Of going through a string: for each character. */
const TRAVERSAL = 0.1;
const REGEX = 0.25;
/** What a fold does beside its body in each turn: looks at its accumulator, and whether to go on. */
const FOLD_TURN_COST = 4;

interface Estimate {
  readonly cost: number;
  /** Of a string, list or map: the most characters or entries; undefined: not known. */
  readonly size: number | undefined;
  readonly type: Type;
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
        return found(0, typeof value === 'string' || value instanceof Uint8Array ? value.length : undefined);
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
    // Names with dots (`cel.bind`, `optional.of`) have no value of their own.
    const parts = [...(target && isValue(target, env) ? [target] : []), ...args].map(part => this.of(part, env));
    const before = parts.reduce((sum, part) => sum + part.cost, 0);
    const [first, second] = parts;
    const size = (part: Estimate | undefined) => part?.size ?? 1;
    const traversal = (part: Estimate | undefined) => Math.ceil(size(part) * TRAVERSAL);
    switch (name) {
      case '_||_':
      case '_&&_':
        return found(before + 1);
      case '_?_:_':
        // One of the two branches runs.
        return found((first?.cost ?? 0) + Math.max(second?.cost ?? 0, parts[2]?.cost ?? 0), largest(parts.slice(1)));
      case 'in':
      case '@in':
      case '_in_':
        return found(before + (second?.type.is === 'list' ? size(second) : 1));
      case '_==_':
      case '_!=_':
        // What is equal is no longer than the shorter one.
        return found(before + (isText(first) ? Math.ceil(Math.min(size(first), size(second)) * TRAVERSAL) || 1 : 1));
      case '_+_':
        if (isText(first)) return found(before + traversal(first) + traversal(second), sum(first, second));
        return found(before + 1, first?.type.is === 'list' ? sum(first, second) : undefined);
      case 'matches':
      case 'find':
      case 'findAll':
        return found(before + Math.ceil((size(first) + 1) * TRAVERSAL) * Math.ceil(size(second) * REGEX));
      case 'contains':
        if (!isText(first)) return found(before + 1);
        return found(before + traversal(first) * traversal(second));
      case 'startsWith':
      case 'endsWith':
        return found(before + (traversal(second) || 1));
      default:
        return found(before + 1, isText(first) ? first?.size : undefined);
    }
  }
}

const isText = (part: Estimate | undefined): boolean =>
  part?.type.is === 'plain' && (part.type.name === 'string' || part.type.name === 'bytes');

const sum = (a: Estimate | undefined, b: Estimate | undefined): number | undefined =>
  a?.size === undefined || b?.size === undefined ? undefined : a.size + b.size;

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
