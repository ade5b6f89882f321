/**
 * Finds what cannot work before an expression runs: names that nothing declares, fields that a schema does not have, functions
 * that take no such arguments. Where a type is not known it is `dyn`, and nothing is said about it.
 */

import { dottedName, shortType, unescapedField } from './evaluator.ts';
import type { Library, Overload } from './functions.ts';
import { CelSyntaxError } from './lexer.ts';
import { type Expression, parse } from './parser.ts';

/** `max`: the most characters or entries, where they are declared. */
export type Type =
  /** Anything; upstream's `any`, where a size is declared. */
  | { readonly is: 'dyn'; readonly max?: number }
  /** `int`, `string`, `quantity` … by their short names. */
  | { readonly is: 'plain'; readonly name: string; readonly max?: number }
  | { readonly is: 'list'; readonly of: Type; readonly max?: number }
  | { readonly is: 'map'; readonly of: Type; readonly max?: number }
  | { readonly is: 'optional'; readonly of: Type }
  | { readonly is: 'object'; readonly field: (name: string) => Type | undefined };

export const DYN: Type = { is: 'dyn' };
export const plain = (name: string): Type => ({ is: 'plain', name });
export const listOf = (of: Type): Type => ({ is: 'list', of });
export const mapOf = (of: Type): Type => ({ is: 'map', of });
export const optionalOf = (of: Type): Type => ({ is: 'optional', of });
const BOOL = plain('bool');

/** Types of variables by name; undefined for what is not declared. */
export type Declarations = (name: string) => Type | undefined;

/** The type of the expression's value. Throws CelSyntaxError with the place of what is wrong. */
export function checkExpression(source: string, library: Library, declarations: Declarations): Type {
  return new TypeChecker(source, library).type(parse(source), declarations);
}

export function typeText(type: Type): string {
  switch (type.is) {
    case 'plain':
      return type.name;
    case 'list':
      return `list(${typeText(type.of)})`;
    case 'map':
      return `map(string, ${typeText(type.of)})`;
    case 'optional':
      return `optional_type(${typeText(type.of)})`;
    default:
      return isAny(type) ? 'any' : type.is;
  }
}

const isAny = (type: Type): boolean => type.is === 'dyn' && type.max !== undefined;

const TYPE_NAMES = new Set('int uint double bool string bytes list map null_type type optional_type'.split(' '));
const NUMBERS = ['int', 'uint', 'double'];

/** Types of the parts of one expression. */
export class TypeChecker {
  readonly #source: string;
  readonly #library: Library;

  constructor(source: string, library: Library) {
    this.#source = source;
    this.#library = library;
  }

  #fail(problem: string, { at }: { readonly at: number }): never {
    throw new CelSyntaxError(problem, this.#source, at);
  }
  #noOverload(name: string, types: readonly Type[], expression: Expression, receiver?: Type): never {
    const args = `(${types.map(typeText).join(', ')})`;
    const applied = receiver ? `${typeText(receiver)}.${args}` : args;
    return this.#fail(`found no matching overload for '${name}' applied to '${applied}'`, expression);
  }

  type(expression: Expression, env: Declarations): Type {
    switch (expression.is) {
      case 'literal':
        return literalType(expression);
      case 'name': {
        const declared = env(expression.name);
        if (declared) return declared;
        if (TYPE_NAMES.has(expression.name)) return plain('type');
        return this.#fail(`undeclared reference to '${expression.name}' (in container '')`, expression);
      }
      case 'select':
        return this.#select(expression, env);
      case 'has':
        this.#field(this.type(expression.operand, env), expression.field, expression);
        return BOOL;
      case 'index':
        return this.#index(expression, env);
      case 'call':
        return this.#call(expression, env);
      case 'list':
        return listOf(
          joined(expression.items.map(({ value, optional }) => unwrapped(this.type(value, env), optional))),
        );
      case 'map':
        for (const { key } of expression.entries) this.type(key, env);
        return mapOf(
          joined(expression.entries.map(({ value, optional }) => unwrapped(this.type(value, env), optional))),
        );
      case 'message':
        for (const { value } of expression.fields) this.type(value, env);
        return DYN;
      case 'fold':
        return this.#fold(expression, env);
      case 'bind': {
        const value = this.type(expression.value, env);
        return this.type(expression.body, declare(env, [[expression.name, value]]));
      }
      case 'optional': {
        const operand = this.type(expression.operand, env);
        const body = this.type(expression.body, declare(env, [[expression.name, inside(operand)]]));
        return expression.flat ? body : optionalOf(body);
      }
    }
  }

  #select(expression: Expression & { is: 'select' }, env: Declarations): Type {
    const name = dottedName(expression);
    if (name === 'google.protobuf.Timestamp' || name === 'google.protobuf.Duration') return plain('type');
    const found = this.#field(this.type(expression.operand, env), expression.field, expression);
    return expression.optional && found.is !== 'optional' ? optionalOf(found) : found;
  }
  #field(operand: Type, name: string, expression: Expression): Type {
    switch (operand.is) {
      case 'dyn':
        return DYN;
      case 'map':
        return operand.of;
      case 'optional':
        return optionalOf(this.#field(operand.of, name, expression));
      case 'object':
        return (
          operand.field(name) ??
          operand.field(unescapedField(name)) ??
          this.#fail(`undefined field '${name}'`, expression)
        );
      default:
        // Libraries have fields of their own: authorizer.requestResource.
        if (operand.is === 'plain' && operand.name.includes('.')) return DYN;
        return this.#fail(`type '${typeText(operand)}' does not support field selection`, expression);
    }
  }

  #index(expression: Expression & { is: 'index' }, env: Declarations): Type {
    const operand = this.type(expression.operand, env);
    const index = this.type(expression.index, env);
    const of = (type: Type): Type => {
      if (type.is === 'list' || type.is === 'map') return type.of;
      if (type.is === 'optional') return optionalOf(of(type.of));
      if (type.is === 'plain') return this.#noOverload('_[_]', [type, index], expression);
      return DYN;
    };
    const found = of(operand);
    return expression.optional && found.is !== 'optional' ? optionalOf(found) : found;
  }

  #call(expression: Expression & { is: 'call' }, env: Declarations): Type {
    const { name, target, args } = expression;
    const qualified = target && dottedName(target);
    const dotted = qualified === undefined ? undefined : this.#library.get(`${qualified}.${name}`);
    if (dotted) {
      const types = args.map(arg => this.type(arg, env));
      if (qualified === 'optional') return name === 'none' ? optionalOf(DYN) : optionalOf(types[0] ?? DYN);
      return this.#resolve(
        dotted.filter(one => !one.receiver),
        { name, types, expression },
      );
    }
    const receiver = target && this.type(target, env);
    const types = args.map(arg => this.type(arg, env));
    const special = this.#special(name, receiver ? [receiver, ...types] : types, expression);
    if (special) return special;
    const known = (this.#library.get(name) ?? []).filter(
      one => (one.receiver !== undefined) === (receiver !== undefined),
    );
    if (known.length === 0) return this.#fail(`undeclared reference to '${name}' (in container '')`, expression);
    return this.#resolve(known, { name, types, expression, ...(receiver ? { receiver } : {}) });
  }

  /** Functions whose result depends on what they are given. */
  #special(name: string, types: readonly Type[], expression: Expression): Type | undefined {
    const [first = DYN, second = DYN, third = DYN] = types;
    const mustBeBool = (...given: readonly Type[]) => {
      if (given.some(type => type.is !== 'dyn' && !(type.is === 'plain' && type.name === 'bool')))
        this.#noOverload(name, given, expression);
    };
    switch (name) {
      case '_||_':
      case '_&&_':
        mustBeBool(first, second);
        return BOOL;
      case '_?_:_':
        mustBeBool(first);
        return joined([second, third]);
      case '_==_':
      case '_!=_':
        if (areDifferent(first, second)) this.#noOverload(name, [first, second], expression);
        return BOOL;
      case '_+_':
        return first.is === 'list' && second.is === 'list' ? listOf(joined([first.of, second.of])) : undefined;
      case 'value':
        return first.is === 'optional' ? first.of : undefined;
      case 'orValue':
        return first.is === 'optional' ? joined([first.of, second]) : undefined;
      case 'or':
        return first.is === 'optional' ? first : undefined;
      case 'dyn':
        return DYN;
      case 'min':
      case 'max':
      case 'sum':
        return first.is === 'list' && types.length === 1 ? first.of : undefined;
      case 'slice':
      case 'distinct':
      case 'sort':
        return first.is === 'list' ? first : undefined;
      default:
        return undefined;
    }
  }

  #resolve(
    overloads: readonly Overload[],
    call: { name: string; types: readonly Type[]; expression: Expression; receiver?: Type },
  ): Type {
    const { name, types, expression, receiver } = call;
    const fitting = overloads.filter(
      one =>
        one.args.length === types.length &&
        (!receiver || one.receiver === undefined || fits(receiver, one.receiver)) &&
        one.args.every((wanted, at) => fits(types[at]!, wanted)),
    );
    if (fitting.length === 0) return this.#noOverload(name, types, expression, receiver);
    const results = new Set(fitting.map(one => one.result));
    return results.size === 1 ? resultType(fitting[0]!.result) : DYN;
  }

  /** What the body of a fold may name. */
  foldScope(expression: Expression & { is: 'fold' }, env: Declarations): Declarations {
    return foldScope(expression.names, this.type(expression.range, env), env);
  }

  #fold(expression: Expression & { is: 'fold' }, env: Declarations): Type {
    const { fold, names } = expression;
    const range = this.type(expression.range, env);
    if (range.is === 'plain' || range.is === 'optional' || isAny(range))
      this.#fail(
        `expression of type '${typeText(range)}' cannot be range of a comprehension (must be list, map, or dynamic)`,
        expression.range,
      );
    const inner = foldScope(names, range, env);
    const test = (part: Expression) => {
      const type = this.type(part, inner);
      if (type.is !== 'dyn' && !(type.is === 'plain' && type.name === 'bool'))
        this.#fail(`expected type 'bool' but found '${typeText(type)}'`, part);
    };
    if (expression.filter) test(expression.filter);
    if (fold === 'all' || fold === 'exists' || fold === 'exists_one') {
      test(expression.body);
      return BOOL;
    }
    if (fold === 'filter') {
      test(expression.body);
      return range.is === 'list' ? range : DYN;
    }
    const body = this.type(expression.body, inner);
    if (fold === 'map' || fold === 'transformList') return listOf(body);
    return fold === 'transformMap' ? mapOf(body) : DYN;
  }
}

function foldScope(names: readonly string[], range: Type, env: Declarations): Declarations {
  const item = range.is === 'list' || range.is === 'map' ? range.of : DYN;
  const key = range.is === 'list' ? plain('int') : range.is === 'dyn' ? DYN : plain('string');
  const types = names.length === 2 ? [key, item] : [range.is === 'list' ? item : key];
  return declare(
    env,
    names.map((name, at) => [name, types[at]!] as const),
  );
}

function declare(env: Declarations, bound: readonly (readonly [string, Type])[]): Declarations {
  return name => bound.find(([one]) => one === name)?.[1] ?? env(name);
}

function literalType({ value, unsigned }: Expression & { is: 'literal' }): Type {
  if (unsigned) return plain('uint');
  if (value === null) return plain('null');
  if (value instanceof Uint8Array) return plain('bytes');
  const names: Readonly<Record<string, string>> = {
    bigint: 'int',
    number: 'double',
    string: 'string',
    boolean: 'bool',
  };
  return plain(names[typeof value]!);
}

const inside = (type: Type): Type => (type.is === 'optional' ? type.of : DYN);
const unwrapped = (type: Type, optional: boolean): Type => (optional ? inside(type) : type);

function joined(types: readonly Type[]): Type {
  const [first, ...others] = types;
  if (!first) return DYN;
  return others.every(other => typeText(other) === typeText(first) && other.is !== 'object') ? first : DYN;
}

/** Whether values of the types can never be equal; what is not sure is not said. */
function areDifferent(a: Type, b: Type): boolean {
  if (a.is === 'dyn' || b.is === 'dyn' || a.is === 'optional' || b.is === 'optional') return false;
  const [left, right] = [kindOf(a), kindOf(b)];
  if (left === right || left === 'null' || right === 'null') return false;
  return !(NUMBERS.includes(left) && NUMBERS.includes(right));
}

function kindOf(type: Type): string {
  return type.is === 'plain' ? type.name : type.is === 'object' ? 'map' : type.is;
}

function fits(type: Type, wanted: string): boolean {
  return wanted === 'dyn' || type.is === 'dyn' || kindOf(type) === wanted;
}

function resultType(result: string): Type {
  const inner = /^list<(\w+)>$/.exec(result);
  if (inner) return listOf(plain(inner[1]!));
  switch (result) {
    case 'dyn':
      return DYN;
    case 'list':
      return listOf(DYN);
    case 'map':
      return mapOf(DYN);
    case 'optional':
      return optionalOf(DYN);
    default:
      return plain(shortType(result));
  }
}
