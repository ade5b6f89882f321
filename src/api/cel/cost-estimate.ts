/**
 * What an expression costs at most, before it runs: upstream's static estimate (cel-go's checker.Cost with Kubernetes' sizes). What a
 * path of fields leads to is as large as declared; what an expression makes (`string(x)`, parts of a URL, values of optionals) has no
 * bound unless its function is known to give one. A value of a type that is open (`dyn`) counts as small, as upstream's do.
 */

import { estimatedCost, type Sized, UNBOUNDED } from './call-cost.ts';
import { type Declarations, DYN, type Type, TypeChecker } from './checker.ts';
import { dottedName, unescapedField } from './evaluator.ts';
import type { Library } from './functions.ts';
import { type Expression, type Fold, parse } from './parser.ts';

const LIST_COST = 10;
const MAP_COST = 30;
const MESSAGE_COST = 40;

/** What a fold does beside its range and body, by the macro's expansion: once, and in each turn. */
const FOLD_COSTS: Readonly<Record<Fold, { readonly once: number; readonly turn: number }>> = {
  all: { once: 1, turn: 2 + 1 },
  exists: { once: 1, turn: 3 + 1 },
  exists_one: { once: 2, turn: 2 },
  filter: { once: LIST_COST + 1, turn: 1 + LIST_COST + 1 + 1 },
  map: { once: LIST_COST + 1, turn: 1 + LIST_COST + 1 },
  transformList: { once: LIST_COST + 1, turn: 1 + LIST_COST + 1 },
  transformMap: { once: MAP_COST + 1, turn: 3 },
  transformMapEntry: { once: MAP_COST + 1, turn: 2 },
};

/** From a variable (or, as upstream has it, a value that was made) through fields, `@items`, `@values` and `@keys`. */
type Path = readonly string[];

interface Estimate extends Sized {
  readonly cost: number;
  readonly path?: Path | undefined;
}

interface Scope {
  readonly type: Declarations;
  /** Variables of folds and bindings. */
  readonly local: (name: string) => { readonly path: Path | undefined; readonly size?: number } | undefined;
}

/** The most that the expression can cost. Throws CelSyntaxError. */
export function estimateCost(source: string, library: Library, declarations: Declarations): number {
  const scope = { type: declarations, local: () => undefined };
  return new Estimator(new TypeChecker(source, library), declarations).of(parse(source), scope).cost;
}

class Estimator {
  readonly #checker: TypeChecker;
  readonly #roots: Declarations;

  constructor(checker: TypeChecker, roots: Declarations) {
    this.#checker = checker;
    this.#roots = roots;
  }

  of(expression: Expression, scope: Scope): Estimate {
    const type = this.#checker.type(expression, scope.type);
    const found = (cost: number, of: { size?: number | undefined; path?: Path | undefined } = {}): Estimate => {
      const { path } = of;
      const size = of.size ?? this.#declaredSize(path) ?? (isScalar(type) ? 1 : UNBOUNDED);
      const itemSize = (path && this.#declaredSize([...path, '@items'])) ?? UNBOUNDED;
      return { cost: Math.min(cost, UNBOUNDED), size: Math.min(size, UNBOUNDED), itemSize, path, type };
    };
    const inner = (part: Expression, where = scope) => this.of(part, where);
    const all = (parts: readonly Expression[]) => parts.reduce((sum, part) => sum + inner(part).cost, 0);
    switch (expression.is) {
      case 'literal': {
        const { value } = expression;
        const size = typeof value === 'string' ? [...value].length : value instanceof Uint8Array ? value.length : 1;
        return { ...found(0, { size }), isExact: true };
      }
      case 'name': {
        const local = scope.local(expression.name);
        if (!local) return found(1, { path: [expression.name] });
        const { path, size } = local;
        return found(1, { path, size: this.#declaredSize(path) ?? size });
      }
      case 'select': {
        const { cost, path = [] } = inner(expression.operand);
        return found(cost + 1, expression.optional ? {} : { path: [...path, expression.field] });
      }
      case 'has':
        return found(inner(expression.operand).cost);
      case 'index': {
        const { cost, path = [], type: from } = inner(expression.operand);
        const step = from.is === 'map' ? '@values' : '@items';
        return found(cost + inner(expression.index).cost + 1, expression.optional ? {} : { path: [...path, step] });
      }
      case 'list': {
        const { items } = expression;
        return found(LIST_COST + all(items.map(({ value }) => value)), { size: items.length });
      }
      case 'map': {
        const { entries } = expression;
        return found(MAP_COST + all(entries.flatMap(({ key, value }) => [key, value])), { size: entries.length });
      }
      case 'message':
        return found(MESSAGE_COST + all(expression.fields.map(({ value }) => value)));
      case 'call':
        return this.#call(expression, scope, found);
      case 'fold': {
        const range = inner(expression.range);
        const turning = foldScope(expression, range, {
          ...scope,
          type: this.#checker.foldScope(expression, scope.type),
        });
        const parts = [expression.filter, expression.body, expression.value].filter(part => part !== undefined);
        const body = parts.reduce((sum, part) => sum + inner(part, turning).cost, 0);
        const { once, turn } = FOLD_COSTS[expression.fold];
        const isTest = expression.fold === 'all' || expression.fold.startsWith('exists');
        return found(range.cost + once + range.size * (body + turn), { size: isTest ? 1 : range.size });
      }
      case 'bind': {
        const value = inner(expression.value);
        const body = inner(expression.body, withLocal(scope, expression.name, value));
        return found(LIST_COST + value.cost + body.cost, { size: body.size });
      }
      case 'optional': {
        // `o.hasValue() ? optional.of(cel.bind(name, o.value(), body)) : optional.none()`
        const { cost, type: from } = inner(expression.operand);
        const value = from.is === 'optional' ? from.of : DYN;
        const local = { path: undefined, size: isScalar(value) ? 1 : UNBOUNDED, type: value };
        const body = inner(expression.body, withLocal(scope, expression.name, local));
        return found(cost + 1 + LIST_COST + cost + 1 + body.cost + (expression.flat ? 0 : 1));
      }
    }
  }

  #call(
    { name, target, args }: Expression & { is: 'call' },
    scope: Scope,
    found: (cost: number, of?: { size?: number | undefined }) => Estimate,
  ): Estimate {
    // Names with dots (`ip.isCanonical`, `optional.of`) have no value before them.
    const receiver = target && isValue(target, scope.type) ? this.of(target, scope) : undefined;
    const given = args.map(arg => this.of(arg, scope));
    const parts = receiver ? [receiver, ...given] : given;
    if (name === '_?_:_') {
      const [condition, ...branches] = parts;
      const cost = condition!.cost + Math.max(...branches.map(one => one.cost));
      return found(cost, { size: Math.max(...branches.map(one => one.size)) });
    }
    const prefix = target && !receiver ? `${dottedName(target)}.` : '';
    const { cost, size } = estimatedCost(prefix + name, parts, receiver);
    return found(
      parts.reduce((sum, part) => sum + part.cost, cost),
      { size },
    );
  }

  /** By the types of the variables; upstream begins at `self` whatever the path begins with. Undefined where no type says anything. */
  #declaredSize(path: Path | undefined): number | undefined {
    if (!path?.length) return undefined;
    const [first, ...steps] = path;
    let type = (first === 'oldSelf' ? undefined : this.#roots(first!)) ?? this.#roots('self');
    for (const step of steps) {
      if (type?.is === 'dyn') return type.max === undefined ? 0 : undefined;
      if (step === '@items' || step === '@values')
        type = type?.is === 'list' || type?.is === 'map' ? type.of : undefined;
      else if (step === '@keys') return type?.is === 'map' ? 0 : undefined;
      else if (type?.is === 'object') type = type.field(step) ?? type.field(unescapedField(step));
      // Entries of maps have no size by their names, unless all of them have the same, as attributes of devices.
      else type = type?.is === 'map' && type.of.is === 'dyn' && type.of.max !== undefined ? type.of : undefined;
    }
    return type && ('max' in type ? type.max : 0);
  }
}

function withLocal(scope: Scope, name: string, value: { path?: Path | undefined; size: number; type: Type }): Scope {
  return {
    type: one => (one === name ? value.type : scope.type(one)),
    local: one => (one === name ? { path: value.path, size: value.size } : scope.local(one)),
  };
}

function foldScope({ names }: Expression & { is: 'fold' }, range: Estimate, scope: Scope): Scope {
  const isList = range.type.is === 'list';
  const steps =
    names.length === 2 ? [isList ? '@indices' : '@keys', isList ? '@items' : '@values'] : [isList ? '@items' : '@keys'];
  return {
    type: scope.type,
    local: name => {
      const at = names.indexOf(name);
      return at < 0 ? scope.local(name) : { path: [...(range.path ?? []), steps[at]!] };
    },
  };
}

function isScalar(type: Type): boolean {
  if (type.is === 'optional') return isScalar(type.of);
  return type.is === 'plain' && SCALARS.has(type.name);
}
const SCALARS = new Set(['bool', 'double', 'duration', 'int', 'timestamp', 'uint']);

/** Not the beginning of a function's dotted name. */
function isValue(expression: Expression, env: Declarations): boolean {
  if (expression.is === 'name') return env(expression.name) !== undefined;
  return expression.is === 'select' ? isValue(expression.operand, env) : true;
}
