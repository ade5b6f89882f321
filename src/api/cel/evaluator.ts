/**
 * A tree compiled to closures, with a budget: what an expression costs is counted while it runs, roughly as cel-go counts,
 * and evaluation ends when the budget does. Invariant: nothing an expression says can hang or crash the server.
 */

import { compilePattern } from '../apiextensions/patterns.ts';
import { actualCost } from './call-cost.ts';
import type { Library, Meter, Overload } from './functions.ts';
import type { Expression } from './parser.ts';
import {
  ArrayList,
  CelError,
  HashMap,
  ListValue,
  MapValue,
  NONE,
  Opaque,
  Optional,
  TypeValue,
  typeName,
  Uint,
  type Value,
} from './values.ts';

/** The budget is used up: not an error that an expression can absorb. */
export class CelBudgetError extends Error {
  override name = 'CelBudgetError';
}

/** Costs of one evaluation, and of all that share it. */
export class Budget implements Meter {
  #left: number;
  constructor(limit: number) {
    this.#left = limit;
  }
  get left(): number {
    return this.#left;
  }
  spend(cost: number): void {
    this.#left -= cost;
    if (this.#left < 0) throw new CelBudgetError('operation cancelled: actual cost limit exceeded');
  }
}

/** Variables by name; undefined when there is none. */
export type Scope = (name: string) => Value | undefined;
export type Program = (scope: Scope, meter: Meter) => Value;

/** Bound variables come before those of the scope. */
interface Frame {
  readonly scope: Scope;
  readonly meter: Meter;
  readonly names: readonly string[];
  readonly values: readonly Value[];
}

type Node = (frame: Frame) => Value;

export function compileExpression(expression: Expression, library: Library): Program {
  const node = new Compiler(library).compile(expression);
  return (scope, meter) => node({ scope, meter, names: [], values: [] });
}

const TYPES: Readonly<Record<string, string>> = {
  int: 'int',
  uint: 'uint',
  double: 'double',
  bool: 'bool',
  string: 'string',
  bytes: 'bytes',
  list: 'list',
  map: 'map',
  null_type: 'null_type',
  type: 'type',
  optional_type: 'optional_type',
};

/** Short names by which signatures know types. */
const SHORT: Readonly<Record<string, string>> = {
  null_type: 'null',
  'google.protobuf.Timestamp': 'timestamp',
  'google.protobuf.Duration': 'duration',
  optional_type: 'optional',
  'kubernetes.Quantity': 'quantity',
  'net.IP': 'ip',
  'net.CIDR': 'cidr',
  'kubernetes.URL': 'url',
  'kubernetes.Semver': 'semver',
  'kubernetes.NamedFormat': 'format',
};

export const shortType = (name: string): string => SHORT[name] ?? name;

class Compiler {
  readonly #library: Library;
  constructor(library: Library) {
    this.#library = library;
  }

  compile(expression: Expression): Node {
    switch (expression.is) {
      case 'literal': {
        const value = expression.unsigned ? new Uint(expression.value as bigint) : expression.value;
        return () => value;
      }
      case 'name':
        return this.#name(expression.name);
      case 'select':
        return this.#select(expression);
      case 'has': {
        const operand = this.compile(expression.operand);
        return frame => {
          frame.meter.spend(1);
          const value = operand(frame);
          return fieldOf(value instanceof Optional ? (value.value ?? EMPTY) : value, expression.field) !== undefined;
        };
      }
      case 'index':
        return this.#index(expression);
      case 'call':
        return this.#call(expression);
      case 'list':
        return this.#list(expression);
      case 'map':
        return this.#map(expression);
      case 'message':
        return this.#message(expression);
      case 'fold':
        return this.#fold(expression);
      case 'bind': {
        const [value, body] = [this.compile(expression.value), this.compile(expression.body)];
        return frame => body(bound(frame, [expression.name], [value(frame)]));
      }
      case 'optional':
        return this.#optional(expression);
    }
  }

  #name(name: string): Node {
    return frame => {
      frame.meter.spend(1);
      for (let at = frame.names.length - 1; at >= 0; at--) if (frame.names[at] === name) return frame.values[at]!;
      const value = frame.scope(name);
      if (value !== undefined) return value;
      if (Object.hasOwn(TYPES, name)) return new TypeValue(TYPES[name]!);
      throw new CelError(`no such attribute(s): ${name}`);
    };
  }

  #select({ operand, field, optional }: Expression & { is: 'select' }): Node {
    const of = this.compile(operand);
    const qualified = dottedName(operand);
    return frame => {
      frame.meter.spend(1);
      // A type such as google.protobuf.Timestamp is a name with dots.
      if (qualified === 'google.protobuf' && (field === 'Timestamp' || field === 'Duration'))
        return new TypeValue(`google.protobuf.${field}`);
      return selected(of(frame), field, optional === true);
    };
  }

  #index({ operand, index, optional }: Expression & { is: 'index' }): Node {
    const [of, at] = [this.compile(operand), this.compile(index)];
    return frame => {
      frame.meter.spend(1);
      const value = of(frame);
      const key = at(frame);
      if (value instanceof Optional) return value.value === undefined ? NONE : optionalOf(itemOf(value.value, key));
      const item = itemOf(value, key);
      if (optional) return optionalOf(item);
      if (item !== undefined) return item;
      if (value instanceof ListValue) throw new CelError(`index out of bounds: ${String(key)}`);
      throw new CelError(`no such key: ${keyShown(key)}`);
    };
  }

  #call(expression: Expression & { is: 'call' }): Node {
    const { target, name, args } = expression;
    switch (name) {
      case '_||_':
        return this.#logic(args, true);
      case '_&&_':
        return this.#logic(args, false);
      case '_?_:_': {
        const [condition, then, otherwise] = args.map(arg => this.compile(arg));
        return frame => (truth(condition!(frame)) ? then!(frame) : otherwise!(frame));
      }
    }
    if (target) {
      const qualified = dottedName(target);
      const dotted = qualified === undefined ? undefined : this.#library.get(`${qualified}.${name}`);
      if (dotted)
        return this.#dispatch(
          dotted.filter(one => !one.receiver),
          args,
          `${qualified}.${name}`,
        );
      const overloads = (this.#library.get(name) ?? []).filter(one => one.receiver !== undefined);
      return this.#dispatch(overloads, [target, ...args], name);
    }
    return this.#dispatch(
      (this.#library.get(name) ?? []).filter(one => one.receiver === undefined),
      args,
      name,
    );
  }

  #dispatch(overloads: readonly Overload[], args: readonly Expression[], name: string): Node {
    const wanted = overloads.filter(one => one.args.length + (one.receiver ? 1 : 0) === args.length);
    const nodes = args.map(arg => this.compile(arg));
    const plans = wanted.map(one => ({
      call: one.call,
      types: [...(one.receiver ? [one.receiver] : []), ...one.args],
    }));
    const pattern = name === 'matches' ? args.at(-1) : undefined;
    if (pattern?.is === 'literal' && typeof pattern.value === 'string' && !compilePattern(pattern.value))
      throw new CelError(`error parsing regexp: ${JSON.stringify(pattern.value)}`);
    const cost = actualCost(name);
    return frame => {
      const values = nodes.map(node => node(frame));
      frame.meter.spend(cost ? cost(values) : 1);
      for (const { call, types } of plans)
        if (types.every((type, at) => isOfType(values[at]!, type))) return call(values, frame.meter);
      throw new CelError(`no such overload: ${name}(${values.map(typeName).join(', ')})`);
    };
  }

  /** `||` and `&&`: a side that decides makes the other's failure not matter. */
  #logic([left, right]: readonly Expression[], decisive: boolean): Node {
    const [first, second] = [this.compile(left!), this.compile(right!)];
    return frame => {
      let failure: unknown;
      try {
        if (truth(first(frame)) === decisive) return decisive;
      } catch (error) {
        if (!(error instanceof CelError)) throw error;
        failure = error;
      }
      if (truth(second(frame)) === decisive) return decisive;
      if (failure) throw failure;
      return !decisive;
    };
  }

  #list({ items }: Expression & { is: 'list' }): Node {
    const nodes = items.map(({ value, optional }) => ({ node: this.compile(value), optional }));
    return frame => {
      frame.meter.spend(10);
      const values: Value[] = [];
      for (const { node, optional } of nodes) {
        const value = node(frame);
        if (!optional) values.push(value);
        else if (!(value instanceof Optional))
          throw new CelError(`cannot initialize optional list element from non-optional value`);
        else if (value.value !== undefined) values.push(value.value);
      }
      return new ArrayList(values);
    };
  }

  #map({ entries }: Expression & { is: 'map' }): Node {
    const nodes = entries.map(({ key, value, optional }) => ({
      key: this.compile(key),
      value: this.compile(value),
      optional,
    }));
    return frame => {
      frame.meter.spend(30);
      const pairs: [Value, Value][] = [];
      for (const { key, value, optional } of nodes) {
        const name = key(frame);
        const given = value(frame);
        if (!optional) pairs.push([name, given]);
        else if (!(given instanceof Optional))
          throw new CelError(`cannot initialize optional entry '${String(name)}' from non-optional value`);
        else if (given.value !== undefined) pairs.push([name, given.value]);
      }
      return new HashMap(pairs);
    };
  }

  #message({ type, fields }: Expression & { is: 'message' }): Node {
    const nodes = fields.map(({ name, value, optional }) => ({ name, value: this.compile(value), optional }));
    return frame => {
      frame.meter.spend(40);
      const pairs: [Value, Value][] = [];
      for (const { name, value, optional } of nodes) {
        const given = value(frame);
        if (!optional) pairs.push([unescapedField(name), given]);
        else if (given instanceof Optional && given.value !== undefined)
          pairs.push([unescapedField(name), given.value]);
      }
      return new Message(type, new HashMap(pairs));
    };
  }

  #fold(expression: Expression & { is: 'fold' }): Node {
    const range = this.compile(expression.range);
    const body = this.compile(expression.body);
    const filter = expression.filter ? this.compile(expression.filter) : undefined;
    const { fold, names } = expression;
    return frame => {
      const over = range(frame);
      const pairs = names.length === 2 ? pairsOf(over) : itemsOf(over).map(item => [item]);
      const each = (values: readonly Value[]) => bound(frame, names, values);
      frame.meter.spend(1);
      switch (fold) {
        case 'all':
        case 'exists':
          return quantified(pairs, fold === 'exists', values => body(each(values)), frame.meter);
        case 'exists_one': {
          let count = 0;
          for (const values of pairs) if (truth(stepped(frame, () => body(each(values))))) count++;
          return count === 1;
        }
        case 'filter':
          if (over instanceof MapValue)
            return new ArrayList(
              pairs.filter(values => truth(stepped(frame, () => body(each(values))))).map(([key]) => key!),
            );
          return new ArrayList(
            pairs.filter(values => truth(stepped(frame, () => body(each(values))))).map(([item]) => item!),
          );
        case 'map':
        case 'transformList':
          return new ArrayList(
            pairs.flatMap(values =>
              filter && !truth(stepped(frame, () => filter(each(values))))
                ? []
                : [stepped(frame, () => body(each(values)))],
            ),
          );
        case 'transformMap':
          return new HashMap(
            pairs.flatMap((values): [Value, Value][] =>
              filter && !truth(stepped(frame, () => filter(each(values))))
                ? []
                : [[values[0]!, stepped(frame, () => body(each(values)))]],
            ),
          );
        default:
          return new HashMap(
            pairs.flatMap((values): [Value, Value][] => {
              if (filter && !truth(stepped(frame, () => filter(each(values))))) return [];
              const made = stepped(frame, () => body(each(values)));
              if (!(made instanceof MapValue)) throw new CelError('transformMapEntry must make a map');
              return [...made.keys()].map(key => [key, made.get(key)!]);
            }),
          );
      }
    };
  }

  #optional({ operand, name, body, flat }: Expression & { is: 'optional' }): Node {
    const [of, then] = [this.compile(operand), this.compile(body)];
    return frame => {
      const value = of(frame);
      if (!(value instanceof Optional)) throw new CelError(`no such overload: optMap on ${typeName(value)}`);
      if (value.value === undefined) return NONE;
      const made = then(bound(frame, [name], [value.value]));
      return flat ? made : new Optional(made);
    };
  }
}

/** A message that an expression makes: `Object.spec{replicas: 3}`. */
export class Message extends Opaque {
  readonly type: string;
  readonly fields: MapValue;
  constructor(type: string, fields: MapValue) {
    super();
    this.type = type;
    this.fields = fields;
  }
  override field(name: string): Value | undefined {
    return this.fields.get(name);
  }
  equals(other: Opaque): boolean {
    return other === this;
  }
}

const EMPTY = new HashMap();

function bound(frame: Frame, names: readonly string[], values: readonly Value[]): Frame {
  return {
    scope: frame.scope,
    meter: frame.meter,
    names: [...frame.names, ...names],
    values: [...frame.values, ...values],
  };
}

function stepped<T>(frame: Frame, run: () => T): T {
  frame.meter.spend(1);
  return run();
}

function quantified(
  all: readonly (readonly Value[])[],
  decisive: boolean,
  test: (values: readonly Value[]) => Value,
  meter: Meter,
): boolean {
  let failure: unknown;
  for (const values of all) {
    meter.spend(1);
    try {
      if (truth(test(values)) === decisive) return decisive;
    } catch (error) {
      if (!(error instanceof CelError)) throw error;
      failure ??= error;
    }
  }
  if (failure) throw failure;
  return !decisive;
}

function itemsOf(value: Value): Value[] {
  if (value instanceof ListValue) return [...value];
  if (value instanceof MapValue) return [...value.keys()];
  throw new CelError(`got '${typeName(value)}', expected iterable type`);
}

function pairsOf(value: Value): Value[][] {
  if (value instanceof ListValue) return [...value].map((item, at) => [BigInt(at), item]);
  if (value instanceof MapValue) return [...value.keys()].map(key => [key, value.get(key)!]);
  throw new CelError(`got '${typeName(value)}', expected iterable type`);
}

function truth(value: Value): boolean {
  if (typeof value !== 'boolean') throw new CelError(`no such overload: expected bool, got ${typeName(value)}`);
  return value;
}

const optionalOf = (value: Value | undefined): Optional => (value === undefined ? NONE : new Optional(value));
const keyShown = (key: Value): string => (typeof key === 'object' ? typeName(key) : String(key));

function fieldOf(value: Value, field: string): Value | undefined {
  if (value instanceof Opaque) return value.field(field);
  if (!(value instanceof MapValue)) throw new CelError(`no such overload: ${typeName(value)}.${field}`);
  const direct = value.get(field);
  if (direct !== undefined || !field.includes('__')) return direct;
  return value.get(unescapedField(field));
}

function selected(value: Value, field: string, optional: boolean): Value {
  if (value instanceof Optional) {
    if (value.value === undefined) return NONE;
    return optionalOf(fieldOf(value.value, field));
  }
  const found = fieldOf(value, field);
  if (optional) return optionalOf(found);
  if (found === undefined) throw new CelError(`no such key: ${field}`);
  return found;
}

function itemOf(value: Value, key: Value): Value | undefined {
  if (value instanceof MapValue) return value.get(key);
  if (!(value instanceof ListValue)) throw new CelError(`no such overload: _[_](${typeName(value)}, ${typeName(key)})`);
  const index = key instanceof Uint ? key.value : key;
  if (typeof index !== 'bigint' && !(typeof index === 'number' && Number.isInteger(index)))
    throw new CelError(`unsupported index type '${typeName(key)}' in list`);
  const at = Number(index);
  return at >= 0 && at < value.size ? value.at(at) : undefined;
}

const ESCAPED: Readonly<Record<string, string>> = {
  __underscores__: '__',
  __dot__: '.',
  __dash__: '-',
  __slash__: '/',
};

/** The property behind a name that CEL could not write: `foo__dash__bar`, `__namespace__`. */
export function unescapedField(name: string): string {
  const keyword = /^__([a-z]+)__$/.exec(name);
  if (keyword && KEYWORDS.has(keyword[1]!)) return keyword[1]!;
  return name.replace(/__(?:underscores|dot|dash|slash)__/g, found => ESCAPED[found]!);
}

const KEYWORDS = new Set(
  'true false null in as break const continue else for function if import let loop package namespace return var void while'.split(
    ' ',
  ),
);

function isOfType(value: Value, type: string): boolean {
  return type === 'dyn' || shortType(typeName(value)) === type;
}

/** `a.b` for a name that is only names. */
export function dottedName(expression: Expression): string | undefined {
  if (expression.is === 'name') return expression.name;
  if (expression.is !== 'select' || expression.optional) return undefined;
  const home = dottedName(expression.operand);
  return home === undefined ? undefined : `${home}.${expression.field}`;
}
