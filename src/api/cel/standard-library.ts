/** The standard functions of CEL: operators, conversions, times, strings. */

import { compilePattern } from '../apiextensions/patterns.ts';
import { type Overload, overload } from './functions.ts';
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
  NONE,
  Optional,
  parseDuration,
  parseTimestamp,
  Timestamp,
  TypeValue,
  timestampText,
  typeName,
  Uint,
  type Value,
} from './values.ts';

type Fn = Overload['call'];

const integer =
  (of: (a: bigint, b: bigint) => bigint): Fn =>
  ([a, b]) =>
    checkInt(of(a as bigint, b as bigint));
const unsigned =
  (of: (a: bigint, b: bigint) => bigint): Fn =>
  ([a, b]) =>
    new Uint(of((a as Uint).value, (b as Uint).value));
const double =
  (of: (a: number, b: number) => number): Fn =>
  ([a, b]) =>
    of(a as number, b as number);
const nonZero = (of: (a: bigint, b: bigint) => bigint, what: string) => (a: bigint, b: bigint) => {
  if (b === 0n) throw new CelError(what);
  return of(a, b);
};
const divide = nonZero((a, b) => a / b, 'divide by zero');
const modulo = nonZero((a, b) => a % b, 'modulus by zero');
const ns = (value: Value | undefined): bigint => (value as Timestamp | Duration).ns;

const arithmetic: Overload[] = [
  overload(
    '_+_(int, int): int',
    integer((a, b) => a + b),
  ),
  overload(
    '_+_(uint, uint): uint',
    unsigned((a, b) => a + b),
  ),
  overload(
    '_+_(double, double): double',
    double((a, b) => a + b),
  ),
  overload('_+_(string, string): string', ([a, b]) => (a as string) + (b as string)),
  overload('_+_(bytes, bytes): bytes', ([a, b]) => Uint8Array.from(Buffer.concat([a as Uint8Array, b as Uint8Array]))),
  overload('_+_(list, list): list', ([a, b], meter) => concatenate(a as ListValue, b as ListValue, meter)),
  overload('_+_(timestamp, duration): timestamp', ([a, b]) => new Timestamp(ns(a) + ns(b))),
  overload('_+_(duration, timestamp): timestamp', ([a, b]) => new Timestamp(ns(a) + ns(b))),
  overload('_+_(duration, duration): duration', ([a, b]) => new Duration(ns(a) + ns(b))),
  overload(
    '_-_(int, int): int',
    integer((a, b) => a - b),
  ),
  overload(
    '_-_(uint, uint): uint',
    unsigned((a, b) => a - b),
  ),
  overload(
    '_-_(double, double): double',
    double((a, b) => a - b),
  ),
  overload('_-_(timestamp, timestamp): duration', ([a, b]) => new Duration(ns(a) - ns(b))),
  overload('_-_(timestamp, duration): timestamp', ([a, b]) => new Timestamp(ns(a) - ns(b))),
  overload('_-_(duration, duration): duration', ([a, b]) => new Duration(ns(a) - ns(b))),
  overload(
    '_*_(int, int): int',
    integer((a, b) => a * b),
  ),
  overload(
    '_*_(uint, uint): uint',
    unsigned((a, b) => a * b),
  ),
  overload(
    '_*_(double, double): double',
    double((a, b) => a * b),
  ),
  overload('_/_(int, int): int', integer(divide)),
  overload('_/_(uint, uint): uint', unsigned(divide)),
  overload(
    '_/_(double, double): double',
    double((a, b) => a / b),
  ),
  overload('_%_(int, int): int', integer(modulo)),
  overload('_%_(uint, uint): uint', unsigned(modulo)),
  overload('-_(int): int', ([a]) => checkInt(-(a as bigint))),
  overload('-_(double): double', ([a]) => -(a as number)),
  overload('!_(bool): bool', ([a]) => !a),
];

/** A list set or map keeps one of equal items: the right one's place is behind, its value wins. */
function concatenate(a: ListValue, b: ListValue, meter: { spend(cost: number): void }): Value {
  meter.spend((a.size + b.size) / 10);
  const items = [...a];
  if (!a.unordered) return new ArrayList([...items, ...b]);
  const sameItem = (x: Value, y: Value) =>
    a.keys === undefined
      ? equals(x, y)
      : x instanceof MapValue &&
        y instanceof MapValue &&
        a.keys.every(key => equals(x.get(key) ?? null, y.get(key) ?? null));
  for (const item of b) {
    const at = items.findIndex(other => sameItem(other, item));
    if (at < 0) items.push(item);
    else items[at] = item;
  }
  return new ArrayList(items);
}

const ordered = (name: string, test: (order: number) => boolean): Overload =>
  overload(`${name}(dyn, dyn): bool`, ([a, b]) => {
    const order = compare(a!, b!);
    if (order === undefined) {
      if (typeof a === 'number' || typeof b === 'number') return false;
      throw new CelError(`no such overload: ${name}(${typeName(a!)}, ${typeName(b!)})`);
    }
    return test(order);
  });

const sizeOfText = (text: string): number => {
  let size = 0;
  for (const _ of text) size++;
  return size;
};

const relations: Overload[] = [
  overload('_==_(dyn, dyn): bool', ([a, b]) => equals(a!, b!)),
  overload('_!=_(dyn, dyn): bool', ([a, b]) => !equals(a!, b!)),
  ordered('_<_', order => order < 0),
  ordered('_<=_', order => order <= 0),
  ordered('_>_', order => order > 0),
  ordered('_>=_', order => order >= 0),
  overload('@in(dyn, list): bool', ([a, list]) => {
    for (const item of list as ListValue) if (equals(item, a!)) return true;
    return false;
  }),
  overload('@in(dyn, map): bool', ([key, map]) => (map as MapValue).get(key!) !== undefined),
];

const both = (name: string, type: string, call: Fn): Overload[] => [
  overload(`${name}(${type}): int`, call),
  overload(`${type}.${name}(): int`, call),
];

const sizes: Overload[] = [
  ...both('size', 'string', ([a]) => BigInt(sizeOfText(a as string))),
  ...both('size', 'bytes', ([a]) => BigInt((a as Uint8Array).length)),
  ...both('size', 'list', ([a]) => BigInt((a as ListValue).size)),
  ...both('size', 'map', ([a]) => BigInt((a as MapValue).size)),
];

function toInt(value: number | string): bigint {
  if (typeof value === 'string') {
    if (!/^-?\d+$/.test(value))
      throw new CelError(`strconv.ParseInt: parsing ${JSON.stringify(value)}: invalid syntax`);
    return checkInt(BigInt(value));
  }
  if (!Number.isFinite(value) || Math.abs(value) >= 2 ** 63) throw new CelError('integer overflow');
  return BigInt(Math.trunc(value));
}

const same: Fn = ([a]) => a!;

const conversions: Overload[] = [
  overload('int(int): int', same),
  overload('int(uint): int', ([a]) => checkInt((a as Uint).value)),
  overload('int(double): int', ([a]) => toInt(a as number)),
  overload('int(string): int', ([a]) => toInt(a as string)),
  overload('int(timestamp): int', ([a]) => ns(a) / 1_000_000_000n),
  overload('int(duration): int', ([a]) => ns(a)),
  overload('uint(uint): uint', same),
  overload('uint(int): uint', ([a]) => new Uint(a as bigint)),
  overload('uint(double): uint', ([a]) => new Uint(toInt(a as number))),
  overload('uint(string): uint', ([a]) => new Uint(toInt(a as string))),
  overload('double(double): double', same),
  overload('double(int): double', ([a]) => Number(a as bigint)),
  overload('double(uint): double', ([a]) => Number((a as Uint).value)),
  overload('double(string): double', ([a]) => {
    const value = Number(a as string);
    if ((a as string).trim() === '' || (Number.isNaN(value) && a !== 'NaN'))
      throw new CelError(`strconv.ParseFloat: parsing ${JSON.stringify(a)}: invalid syntax`);
    return value;
  }),
  overload('bool(bool): bool', same),
  overload('bool(string): bool', ([a]) => {
    if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(a as string)) return true;
    if (['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(a as string)) return false;
    throw new CelError(`strconv.ParseBool: parsing ${JSON.stringify(a)}: invalid syntax`);
  }),
  overload('string(string): string', same),
  overload('string(int): string', ([a]) => String(a)),
  overload('string(uint): string', ([a]) => String((a as Uint).value)),
  overload('string(double): string', ([a]) => doubleText(a as number)),
  overload('string(bool): string', ([a]) => String(a)),
  overload('string(bytes): string', ([a]) => decoded(a as Uint8Array)),
  overload('string(timestamp): string', ([a]) => timestampText(a as Timestamp)),
  overload('string(duration): string', ([a]) => durationText(a as Duration)),
  overload('bytes(bytes): bytes', same),
  overload('bytes(string): bytes', ([a]) => Uint8Array.from(Buffer.from(a as string))),
  overload('timestamp(timestamp): timestamp', same),
  overload('timestamp(int): timestamp', ([a]) => new Timestamp((a as bigint) * 1_000_000_000n)),
  overload('timestamp(string): timestamp', ([a]) => {
    const parsed = parseTimestamp(a as string);
    if (!parsed) throw new CelError(`parsing time ${JSON.stringify(a)}: invalid timestamp`);
    return parsed;
  }),
  overload('duration(duration): duration', same),
  overload('duration(int): duration', ([a]) => new Duration(a as bigint)),
  overload('duration(string): duration', ([a]) => {
    const parsed = parseDuration(a as string);
    if (!parsed) throw new CelError(`time: invalid duration ${JSON.stringify(a)}`);
    return parsed;
  }),
  overload('dyn(dyn): dyn', same),
  overload('type(dyn): type', ([a]) => new TypeValue(typeName(a!))),
];

function decoded(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new CelError('invalid UTF-8 in bytes, cannot convert to string');
  }
}

export function doubleText(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value > 0 ? '+Inf' : '-Inf';
  return String(value).replace(/e([+-])(\d)$/, 'e$10$2');
}

/** The parts of a time in a zone, `Europe/Berlin` or `+02:00`. */
function partsOf({ ns: at }: Timestamp, zone = 'UTC'): Date {
  const date = new Date(Number(at / 1_000_000n));
  const offset = /^([+-]?)(\d{2}):(\d{2})$/.exec(zone);
  if (offset) {
    const minutes = Number(offset[2]) * 60 + Number(offset[3]);
    return new Date(date.getTime() + (offset[1] === '-' ? -minutes : minutes) * 60_000);
  }
  if (zone === 'UTC' || zone === '') return date;
  try {
    const text = date.toLocaleString('sv-SE', { timeZone: zone, hour12: false });
    return new Date(`${text.replace(' ', 'T')}.${String(date.getUTCMilliseconds()).padStart(3, '0')}Z`);
  } catch {
    throw new CelError(`unknown time zone ${zone}`);
  }
}

const DAY_MS = 86_400_000;
const timePart = (name: string, part: (date: Date) => number): Overload[] => [
  overload(`timestamp.${name}(): int`, ([a]) => BigInt(part(partsOf(a as Timestamp)))),
  overload(`timestamp.${name}(string): int`, ([a, zone]) => BigInt(part(partsOf(a as Timestamp, zone as string)))),
];

const times: Overload[] = [
  ...timePart('getFullYear', date => date.getUTCFullYear()),
  ...timePart('getMonth', date => date.getUTCMonth()),
  ...timePart('getDate', date => date.getUTCDate()),
  ...timePart('getDayOfMonth', date => date.getUTCDate() - 1),
  ...timePart('getDayOfWeek', date => date.getUTCDay()),
  ...timePart('getDayOfYear', date => Math.floor((date.getTime() - Date.UTC(date.getUTCFullYear(), 0, 1)) / DAY_MS)),
  ...timePart('getHours', date => date.getUTCHours()),
  ...timePart('getMinutes', date => date.getUTCMinutes()),
  ...timePart('getSeconds', date => date.getUTCSeconds()),
  ...timePart('getMilliseconds', date => date.getUTCMilliseconds()),
  overload('duration.getHours(): int', ([a]) => ns(a) / 3_600_000_000_000n),
  overload('duration.getMinutes(): int', ([a]) => ns(a) / 60_000_000_000n),
  overload('duration.getSeconds(): int', ([a]) => ns(a) / 1_000_000_000n),
  overload('duration.getMilliseconds(): int', ([a]) => (ns(a) / 1_000_000n) % 1000n),
];

/** Whether the pattern is found in the text. */
export function matchesPattern(text: string, pattern: string): boolean {
  const compiled = compilePattern(pattern);
  if (!compiled) throw new CelError(`error parsing regexp: ${JSON.stringify(pattern)}`);
  return compiled.test(text);
}

const searched =
  (of: (text: string, part: string) => boolean): Fn =>
  ([a, b]) =>
    of(a as string, b as string);

const texts: Overload[] = [
  overload(
    'string.contains(string): bool',
    searched((text, part) => text.includes(part)),
  ),
  overload(
    'string.startsWith(string): bool',
    searched((text, part) => text.startsWith(part)),
  ),
  overload(
    'string.endsWith(string): bool',
    searched((text, part) => text.endsWith(part)),
  ),
  overload('string.matches(string): bool', ([a, b]) => matchesPattern(a as string, b as string)),
  overload('matches(string, string): bool', ([a, b]) => matchesPattern(a as string, b as string)),
];

const optionals: Overload[] = [
  overload('#optional.of(dyn): optional', ([a]) => new Optional(a!)),
  overload('#optional.none(): optional', () => NONE),
  overload('#optional.ofNonZeroValue(dyn): optional', ([a]) => (isZero(a!) ? NONE : new Optional(a!))),
  overload('optional.hasValue(): bool', ([a]) => (a as Optional).value !== undefined),
  overload('optional.value(): dyn', ([a]) => {
    const { value } = a as Optional;
    if (value === undefined) throw new CelError('optional.none() dereference');
    return value;
  }),
  overload('optional.or(optional): optional', ([a, b]) => ((a as Optional).value === undefined ? b! : a!)),
  overload('optional.orValue(dyn): dyn', ([a, b]) => (a as Optional).value ?? b!),
];

function isZero(value: Value): boolean {
  if (value === null || value === false || value === '' || value === 0 || value === 0n) return true;
  if (value instanceof ListValue || value instanceof MapValue) return value.size === 0;
  if (value instanceof Uint) return value.value === 0n;
  if (value instanceof Uint8Array) return value.length === 0;
  if (value instanceof Duration) return value.ns === 0n;
  return false;
}

export const STANDARD: readonly Overload[] = [
  ...arithmetic,
  ...relations,
  ...sizes,
  ...conversions,
  ...times,
  ...texts,
  ...optionals,
];
