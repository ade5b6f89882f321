/** The extension libraries of strings, lists and sets, as Kubernetes enables them. */

import { compilePattern, type Pattern } from '../apiextensions/patterns.ts';
import { type Meter, type Overload, overload } from './functions.ts';
import { doubleText } from './standard-library.ts';
import {
  ArrayList,
  CelError,
  checkInt,
  compare,
  Duration,
  durationText,
  equals,
  ListValue,
  MapValue,
  Optional,
  Timestamp,
  TypeValue,
  timestampText,
  typeName,
  Uint,
  type Value,
} from './values.ts';

type Fn = Overload['call'];

/** Nobody needs a longer text or list out of a rule; the budget alone counts too late. */
const LENGTH_MAX = 5_000_000;

const letters = (text: Value | undefined): string[] => [...(text as string)];
const list = (value: Value | undefined): Value[] => [...(value as ListValue)];
const textOf =
  (of: (text: string) => string): Fn =>
  ([a]) =>
    of(a as string);
/** Places are counted in letters, not in the halves of some. */
const find =
  (from: 'start' | 'end'): Fn =>
  ([a, b, at]) => {
    const [text, part] = [a as string, b as string];
    const size = at === undefined ? 0 : letters(text).length;
    if (at !== undefined && ((at as bigint) < 0n || (at as bigint) > BigInt(size)))
      throw new CelError(`index out of range: ${at}`);
    const begin = at === undefined ? undefined : letters(text).slice(0, Number(at)).join('').length;
    const index = from === 'start' ? text.indexOf(part, begin ?? 0) : text.lastIndexOf(part, begin ?? text.length);
    return index < 0 ? -1n : BigInt(letters(text.slice(0, index)).length);
  };

function part(text: readonly string[], from: bigint, to: bigint): string {
  if (from < 0n || to > BigInt(text.length) || from > to)
    throw new CelError(`index out of range: ${from < 0n || from > to ? from : to}`);
  return text.slice(Number(from), Number(to)).join('');
}

const replace: Fn = ([text, old, next, count]) => {
  const [source, from, to] = [text as string, old as string, next as string];
  const parts = from === '' ? ['', ...letters(source), ''] : source.split(from);
  const limit =
    count === undefined || (count as bigint) < 0n ? parts.length - 1 : Math.min(Number(count), parts.length - 1);
  if (source.length + limit * to.length > LENGTH_MAX) throw new CelError('the result of replace is too long');
  return (
    parts.slice(0, limit + 1).join(to) + (limit + 1 < parts.length ? from + parts.slice(limit + 1).join(from) : '')
  );
};

const split: Fn = ([text, separator, limit]) => {
  const parts = separator === '' ? letters(text) : (text as string).split(separator as string);
  const most = limit === undefined || (limit as bigint) < 0n ? parts.length : Number(limit);
  if (most === 0) return new ArrayList([]);
  if (parts.length <= most) return new ArrayList(parts);
  return new ArrayList([...parts.slice(0, most - 1), parts.slice(most - 1).join(separator as string)]);
};

const join: Fn = ([items, separator], meter) => {
  const texts = list(items).map(item => {
    if (typeof item !== 'string') throw new CelError(`join: expected string, got ${typeName(item)}`);
    return item;
  });
  const joined = texts.join((separator as string | undefined) ?? '');
  meter.spend(Math.ceil(joined.length / 5));
  return joined;
};

const strings: Overload[] = [
  overload('string.charAt(int): string', ([a, at]) => {
    const text = letters(a);
    if ((at as bigint) < 0n || (at as bigint) > BigInt(text.length)) throw new CelError(`index out of range: ${at}`);
    return text[Number(at)] ?? '';
  }),
  overload('string.indexOf(string): int', find('start')),
  overload('string.indexOf(string, int): int', find('start')),
  overload('string.lastIndexOf(string): int', find('end')),
  overload('string.lastIndexOf(string, int): int', find('end')),
  overload(
    'string.lowerAscii(): string',
    textOf(text => text.replace(/[A-Z]+/g, upper => upper.toLowerCase())),
  ),
  overload(
    'string.upperAscii(): string',
    textOf(text => text.replace(/[a-z]+/g, lower => lower.toUpperCase())),
  ),
  overload(
    'string.trim(): string',
    textOf(text => text.trim()),
  ),
  overload(
    'string.reverse(): string',
    textOf(text => [...text].reverse().join('')),
  ),
  overload('string.replace(string, string): string', replace),
  overload('string.replace(string, string, int): string', replace),
  overload('string.split(string): list<string>', split),
  overload('string.split(string, int): list<string>', split),
  overload('list.join(): string', join),
  overload('list.join(string): string', join),
  overload('string.substring(int): string', ([a, from]) => {
    const text = letters(a);
    return part(text, from as bigint, BigInt(text.length));
  }),
  overload('string.substring(int, int): string', ([a, from, to]) => part(letters(a), from as bigint, to as bigint)),
  overload(
    '#strings.quote(string): string',
    textOf(text => JSON.stringify(text)),
  ),
  overload('string.format(list): string', ([text, args], meter) => formatted(text as string, list(args), meter)),
  overload(
    'string.find(string): string',
    ([text, pattern]) => patternOf(pattern as string).first(text as string) ?? '',
  ),
  overload('string.findAll(string): list<string>', ([text, pattern]) => findAll(text as string, pattern as string, -1)),
  overload('string.findAll(string, int): list<string>', ([text, pattern, limit]) =>
    findAll(text as string, pattern as string, Number(limit)),
  ),
];

function patternOf(pattern: string): Pattern {
  const compiled = compilePattern(pattern);
  if (!compiled) throw new CelError(`Illegal regex: error parsing regexp: ${JSON.stringify(pattern)}`);
  return compiled;
}

function findAll(text: string, pattern: string, limit: number): Value {
  const found = patternOf(pattern).all(text);
  return new ArrayList(limit >= 0 ? found.slice(0, limit) : found);
}

/** `%s`, `%d`, `%f`, `%e`, `%b`, `%x`, `%X`, `%o` with a precision. */
function formatted(template: string, args: readonly Value[], meter: Meter): string {
  let next = 0;
  const result = template.replace(/%(?:\.(\d+))?([a-zA-Z%])/g, (_, precision: string | undefined, verb: string) => {
    if (verb === '%') return '%';
    if (next >= args.length) throw new CelError(`index ${next} out of range`);
    return formattedOne(verb, args[next++]!, precision === undefined ? undefined : Math.min(Number(precision), 100));
  });
  if (result.length > LENGTH_MAX) throw new CelError('the result of format is too long');
  meter.spend(result.length / 10);
  return result;
}

function formattedOne(verb: string, value: Value, precision: number | undefined): string {
  const whole = value instanceof Uint ? value.value : value;
  switch (verb) {
    case 's':
      return shown(value);
    case 'd':
      if (typeof whole === 'bigint') return String(whole);
      if (typeof whole === 'number' && !Number.isFinite(whole)) return shown(whole);
      break;
    case 'f':
      if (typeof whole === 'number' || typeof whole === 'bigint')
        return Number.isFinite(Number(whole)) ? Number(whole).toFixed(precision ?? 6) : shown(value);
      break;
    case 'e':
      if (typeof whole === 'number' || typeof whole === 'bigint')
        return Number(whole)
          .toExponential(precision ?? 6)
          .replace(/e([+-])(\d)$/, 'e$10$2');
      break;
    case 'b':
      if (typeof whole === 'bigint') return whole.toString(2);
      if (typeof whole === 'boolean') return whole ? '1' : '0';
      break;
    case 'x':
    case 'X': {
      const hex =
        typeof whole === 'bigint'
          ? whole.toString(16)
          : typeof whole === 'string'
            ? Buffer.from(whole).toString('hex')
            : whole instanceof Uint8Array
              ? Buffer.from(whole).toString('hex')
              : undefined;
      if (hex !== undefined) return verb === 'X' ? hex.toUpperCase() : hex;
      break;
    }
    case 'o':
      if (typeof whole === 'bigint') return whole.toString(8);
      break;
    default:
      throw new CelError(`unrecognized formatting clause "${verb}"`);
  }
  throw new CelError(`formatting clause %${verb} cannot be used on ${typeName(value)}`);
}

/** A value as `%s` writes it. */
function shown(value: Value): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'number') return doubleText(value).replace('+Inf', 'Infinity').replace('-Inf', '-Infinity');
  if (value === null || typeof value !== 'object') return String(value);
  if (value instanceof ListValue) return `[${[...value].map(shown).join(', ')}]`;
  if (value instanceof MapValue)
    return `{${[...value.keys()]
      .map(key => `${shown(key)}: ${shown(value.get(key)!)}`)
      .sort()
      .join(', ')}}`;
  if (value instanceof Uint) return String(value.value);
  if (value instanceof Timestamp) return timestampText(value);
  if (value instanceof Duration) return durationText(value);
  if (value instanceof TypeValue) return value.name;
  if (value instanceof Uint8Array) return Buffer.from(value).toString();
  if (value instanceof Optional)
    return value.value === undefined ? 'optional.none()' : `optional.of(${shown(value.value)})`;
  throw new CelError(`no string form of ${typeName(value)}`);
}

function order(a: Value, b: Value): number {
  const result = compare(a, b);
  if (result === undefined) throw new CelError(`no such overload: ${typeName(a)} and ${typeName(b)} have no order`);
  return result;
}

function extreme(items: readonly Value[], name: string, wins: (order: number) => boolean): Value {
  const [first, ...others] = items;
  if (first === undefined) throw new CelError(`${name} called on empty list`);
  return others.reduce((best, item) => (wins(order(item, best)) ? item : best), first);
}

function sum(items: readonly Value[]): Value {
  const [first] = items;
  if (first === undefined) return 0n;
  if (typeof first === 'bigint') return items.reduce<bigint>((total, item) => checkInt(total + (item as bigint)), 0n);
  if (typeof first === 'number') return items.reduce<number>((total, item) => total + Number(item), 0);
  if (first instanceof Uint) return new Uint(items.reduce<bigint>((total, item) => total + (item as Uint).value, 0n));
  if (first instanceof Duration)
    return new Duration(items.reduce<bigint>((total, item) => total + (item as Duration).ns, 0n));
  throw new CelError(`no such overload: sum of ${typeName(first)}`);
}

const counted =
  (of: (items: Value[], ...args: readonly Value[]) => Value): Fn =>
  ([items, ...args]) =>
    of(list(items), ...args);

const lists: Overload[] = [
  overload(
    'list.isSorted(): bool',
    counted(items => items.every((item, at) => at === 0 || order(items[at - 1]!, item) <= 0)),
  ),
  overload(
    'list.sum(): dyn',
    counted(items => sum(items)),
  ),
  overload(
    'list.min(): dyn',
    counted(items => extreme(items, 'min', result => result < 0)),
  ),
  overload(
    'list.max(): dyn',
    counted(items => extreme(items, 'max', result => result > 0)),
  ),
  overload(
    'list.indexOf(dyn): int',
    counted((items, one) => BigInt(items.findIndex(item => equals(item, one!)))),
  ),
  overload(
    'list.lastIndexOf(dyn): int',
    counted((items, one) => BigInt(items.findLastIndex(item => equals(item, one!)))),
  ),
  overload(
    'list.slice(int, int): list',
    counted((items, from, to) => {
      const [start, end] = [from as bigint, to as bigint];
      if (start < 0n || end < start || end > BigInt(items.length))
        throw new CelError(`cannot slice(${start}, ${end}), list is length ${items.length}`);
      return new ArrayList(items.slice(Number(start), Number(end)));
    }),
  ),
  overload(
    'list.flatten(): list',
    counted(items => new ArrayList(flattened(items, 1))),
  ),
  overload(
    'list.flatten(int): list',
    counted((items, depth) => new ArrayList(flattened(items, Number(depth)))),
  ),
  overload('list.distinct(): list', ([items], meter) => {
    const seen: Value[] = [];
    for (const item of items as ListValue) {
      meter.spend(seen.length);
      if (!seen.some(other => equals(other, item))) seen.push(item);
    }
    return new ArrayList(seen);
  }),
  overload(
    'list.reverse(): list',
    counted(items => new ArrayList(items.reverse())),
  ),
  overload(
    'list.sort(): list',
    counted(items => new ArrayList(items.sort(order))),
  ),
  overload('#lists.range(int): list<int>', ([count], meter) => {
    if ((count as bigint) > 1_000_000n) throw new CelError('range is too long');
    meter.spend(Number(count));
    return new ArrayList(Array.from({ length: Math.max(0, Number(count)) }, (_, at) => BigInt(at)));
  }),
];

function flattened(items: readonly Value[], depth: number): Value[] {
  if (depth < 0) throw new CelError('level must be non-negative');
  return items.flatMap(item => (item instanceof ListValue && depth > 0 ? flattened([...item], depth - 1) : [item]));
}

const paired =
  (of: (a: Value[], b: Value[]) => boolean): Fn =>
  ([a, b], meter) => {
    const [left, right] = [list(a), list(b)];
    meter.spend(left.length * right.length);
    return of(left, right);
  };
const has = (items: readonly Value[], one: Value): boolean => items.some(item => equals(item, one));

const sets: Overload[] = [
  overload(
    '#sets.contains(list, list): bool',
    paired((a, b) => b.every(item => has(a, item))),
  ),
  overload(
    '#sets.equivalent(list, list): bool',
    paired((a, b) => a.every(item => has(b, item)) && b.every(item => has(a, item))),
  ),
  overload(
    '#sets.intersects(list, list): bool',
    paired((a, b) => a.some(item => has(b, item))),
  ),
];

export const EXTENSIONS: readonly Overload[] = [...strings, ...lists, ...sets];
