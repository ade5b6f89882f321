/**
 * Values of the Common Expression Language. Ints are bigints and doubles are numbers, strings, booleans and null are
 * themselves; lists and maps are views, so that an object is not copied for a rule that looks at one field of it.
 */

/** What evaluation fails with: `no such key: x`. Absorbed by `||` and `&&` when the other side decides. */
export class CelError extends Error {
  override name = 'CelError';
}

export class Uint {
  readonly value: bigint;
  constructor(value: bigint) {
    if (value < 0n || value >= 2n ** 64n) throw new CelError('unsigned integer overflow');
    this.value = value;
  }
}
/** Nanoseconds since the epoch. */
export class Timestamp {
  readonly ns: bigint;
  constructor(ns: bigint) {
    this.ns = ns;
  }
}
export class Duration {
  readonly ns: bigint;
  constructor(ns: bigint) {
    this.ns = ns;
  }
}
export class Optional {
  /** Undefined: none. */
  readonly value: Value | undefined;
  constructor(value?: Value) {
    this.value = value;
  }
}
export const NONE = new Optional();

/** The name of a type as a value: what `type(x)` gives. */
export class TypeValue {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

/** A value of a library: a quantity, an address, an authorizer. */
export abstract class Opaque {
  abstract readonly type: string;
  /** What `value.name` gives; undefined: it has no such field. */
  field(_name: string): Value | undefined {
    return undefined;
  }
  /** By content. */
  abstract equals(other: Opaque): boolean;
}

export abstract class ListValue {
  abstract readonly size: number;
  abstract at(index: number): Value;
  /** Items in any order: a list whose schema says that it is a set or a map. */
  readonly unordered: boolean = false;
  /** Where a map list, the fields that identify an item. */
  readonly keys: readonly string[] | undefined = undefined;
  *[Symbol.iterator](): IterableIterator<Value> {
    for (let index = 0; index < this.size; index++) yield this.at(index);
  }
}
export abstract class MapValue {
  abstract readonly size: number;
  abstract get(key: Value): Value | undefined;
  abstract keys(): Iterable<Value>;
}

export type Value =
  | bigint
  | number
  | string
  | boolean
  | null
  | Uint
  | Uint8Array
  | Timestamp
  | Duration
  | Optional
  | TypeValue
  | Opaque
  | ListValue
  | MapValue;

export class ArrayList extends ListValue {
  readonly items: readonly Value[];
  constructor(items: readonly Value[]) {
    super();
    this.items = items;
  }
  get size(): number {
    return this.items.length;
  }
  at(index: number): Value {
    return this.items[index]!;
  }
}

/** Keys that are equal as CEL sees them have one text. */
function keyText(key: Value): string {
  if (typeof key === 'string') return `s${key}`;
  if (typeof key === 'bigint') return `n${key}`;
  if (key instanceof Uint) return `n${key.value}`;
  if (typeof key === 'number') return Number.isInteger(key) ? `n${BigInt(key)}` : `d${key}`;
  if (typeof key === 'boolean') return `b${key}`;
  throw new CelError(`unsupported key type: ${typeName(key)}`);
}

export class HashMap extends MapValue {
  readonly #entries = new Map<string, readonly [Value, Value]>();
  constructor(entries: Iterable<readonly [Value, Value]> = []) {
    super();
    for (const [key, value] of entries) {
      const text = keyText(key);
      if (this.#entries.has(text)) throw new CelError(`Failed with repeated key ${String(key)}`);
      this.#entries.set(text, [key, value]);
    }
  }
  get size(): number {
    return this.#entries.size;
  }
  get(key: Value): Value | undefined {
    return this.#entries.get(keyText(key))?.[1];
  }
  *keys(): Iterable<Value> {
    for (const [key] of this.#entries.values()) yield key;
  }
}

class JsonList extends ListValue {
  readonly #items: readonly unknown[];
  constructor(items: readonly unknown[]) {
    super();
    this.#items = items;
  }
  get size(): number {
    return this.#items.length;
  }
  at(index: number): Value {
    return fromJson(this.#items[index]);
  }
}
class JsonMap extends MapValue {
  readonly #fields: Readonly<Record<string, unknown>>;
  constructor(fields: Readonly<Record<string, unknown>>) {
    super();
    this.#fields = fields;
  }
  get size(): number {
    return Object.keys(this.#fields).length;
  }
  get(key: Value): Value | undefined {
    return typeof key === 'string' && Object.hasOwn(this.#fields, key) ? fromJson(this.#fields[key]) : undefined;
  }
  keys(): Iterable<Value> {
    return Object.keys(this.#fields);
  }
}

/** JSON without a schema: whole numbers are ints. */
export function fromJson(value: unknown): Value {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'number':
      return Number.isInteger(value) ? BigInt(value) : value;
    case 'object':
      if (value === null) return null;
      return Array.isArray(value) ? new JsonList(value) : new JsonMap(value as Record<string, unknown>);
    default:
      return null;
  }
}

/** The JSON of a value; throws CelError for what JSON cannot hold. */
export function toJson(value: Value): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (value === null || typeof value !== 'object') return value;
  if (value instanceof Uint) return Number(value.value);
  if (value instanceof ListValue) return [...value].map(toJson);
  if (value instanceof MapValue) {
    const object: Record<string, unknown> = {};
    for (const key of value.keys()) {
      if (typeof key !== 'string') throw new CelError('map keys must be strings');
      Object.defineProperty(object, key, {
        value: toJson(value.get(key)!),
        enumerable: true,
        configurable: true,
        writable: true,
      });
    }
    return object;
  }
  if (value instanceof Timestamp) return timestampText(value);
  if (value instanceof Duration) return durationText(value);
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  if (value instanceof Optional) return value.value === undefined ? null : toJson(value.value);
  throw new CelError(`a value of type ${typeName(value)} cannot be converted to JSON`);
}

export function typeName(value: Value): string {
  switch (typeof value) {
    case 'bigint':
      return 'int';
    case 'number':
      return 'double';
    case 'string':
      return 'string';
    case 'boolean':
      return 'bool';
  }
  if (value === null) return 'null_type';
  if (value instanceof ListValue) return 'list';
  if (value instanceof MapValue) return 'map';
  if (value instanceof Uint) return 'uint';
  if (value instanceof Uint8Array) return 'bytes';
  if (value instanceof Timestamp) return 'google.protobuf.Timestamp';
  if (value instanceof Duration) return 'google.protobuf.Duration';
  if (value instanceof Optional) return 'optional_type';
  if (value instanceof TypeValue) return 'type';
  return value.type;
}

const isNumber = (value: Value): value is bigint | number | Uint =>
  typeof value === 'bigint' || typeof value === 'number' || value instanceof Uint;

const magnitude = (value: bigint | number | Uint): bigint | number => (value instanceof Uint ? value.value : value);

export function equals(a: Value, b: Value): boolean {
  if (a === b) return true;
  if (isNumber(a)) return isNumber(b) && compare(a, b) === 0;
  if (a === null || b === null || typeof a !== 'object' || typeof b !== 'object') return false;
  if (a instanceof ListValue) return b instanceof ListValue && listsEqual(a, b);
  if (a instanceof MapValue) {
    if (!(b instanceof MapValue) || a.size !== b.size) return false;
    for (const key of a.keys()) {
      const other = b.get(key);
      if (other === undefined || !equals(a.get(key)!, other)) return false;
    }
    return true;
  }
  if (a instanceof Uint8Array) return b instanceof Uint8Array && Buffer.compare(a, b) === 0;
  if (a instanceof Timestamp) return b instanceof Timestamp && a.ns === b.ns;
  if (a instanceof Duration) return b instanceof Duration && a.ns === b.ns;
  if (a instanceof TypeValue) return b instanceof TypeValue && a.name === b.name;
  if (a instanceof Optional)
    return (
      b instanceof Optional &&
      (a.value === undefined || b.value === undefined ? a.value === b.value : equals(a.value, b.value))
    );
  return a instanceof Opaque && b instanceof Opaque && a.type === b.type && a.equals(b);
}

function listsEqual(a: ListValue, b: ListValue): boolean {
  if (a.size !== b.size) return false;
  if (a.unordered || b.unordered) {
    const others = [...b];
    return [...a].every(item => others.some(other => equals(item, other)));
  }
  for (let index = 0; index < a.size; index++) if (!equals(a.at(index), b.at(index))) return false;
  return true;
}

/** Negative, zero or positive; undefined when the values have no order. */
export function compare(a: Value, b: Value): number | undefined {
  if (isNumber(a) && isNumber(b)) {
    const [left, right] = [magnitude(a), magnitude(b)];
    // JavaScript orders bigints and numbers by value, as CEL does; nothing is ordered with NaN.
    return left < right ? -1 : left > right ? 1 : left <= right ? 0 : undefined;
  }
  if (typeof a === 'string' && typeof b === 'string') return compareText(a, b);
  if (typeof a === 'boolean' && typeof b === 'boolean') return Number(a) - Number(b);
  if (a instanceof Timestamp && b instanceof Timestamp) return a.ns < b.ns ? -1 : a.ns > b.ns ? 1 : 0;
  if (a instanceof Duration && b instanceof Duration) return a.ns < b.ns ? -1 : a.ns > b.ns ? 1 : 0;
  if (a instanceof Uint8Array && b instanceof Uint8Array) return Buffer.compare(a, b);
  return undefined;
}

/** By code points, as Go compares UTF-8, not by UTF-16 units. */
function compareText(a: string, b: string): number {
  if (a === b) return 0;
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

const SECOND = 1_000_000_000n;

/** `1h30m`, `1.5s`; undefined for what is no duration. */
export function parseDuration(text: string): Duration | undefined {
  const match = /^([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/.exec(text);
  if (!match) return text === '0' ? new Duration(0n) : undefined;
  let ns = 0;
  let whole = 0n;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g)) {
    const size = UNITS[unit!]!;
    if (amount!.includes('.')) ns += Number(amount) * Number(size);
    else whole += BigInt(amount!) * size;
  }
  const total = whole + BigInt(Math.round(ns));
  return new Duration(match[1] === '-' ? -total : total);
}

const UNITS: Readonly<Record<string, bigint>> = {
  ns: 1n,
  us: 1000n,
  µs: 1000n,
  μs: 1000n,
  ms: 1_000_000n,
  s: SECOND,
  m: 60n * SECOND,
  h: 3600n * SECOND,
};

/** RFC 3339; undefined for what is no time. */
export function parseTimestamp(text: string): Timestamp | undefined {
  const match = /^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d+))?(Z|[+-]\d{2}:\d{2})$/i.exec(text);
  if (!match) return undefined;
  const ms = Date.parse(`${match[1]!.toUpperCase()}${match[3]!.toUpperCase()}`);
  if (Number.isNaN(ms)) return undefined;
  return new Timestamp(BigInt(ms) * 1_000_000n + BigInt((match[2] ?? '').slice(0, 9).padEnd(9, '0')));
}

export function timestampText({ ns }: Timestamp): string {
  const seconds = ns >= 0n ? ns / SECOND : -((-ns + SECOND - 1n) / SECOND);
  const fraction = (ns - seconds * SECOND).toString().padStart(9, '0').replace(/0+$/, '');
  const date = new Date(Number(seconds) * 1000);
  if (Number.isNaN(date.getTime())) throw new CelError('range error: timestamp out of range');
  return `${date.toISOString().slice(0, 19)}${fraction ? `.${fraction}` : ''}Z`;
}

/** Seconds, as cel-go prints durations: `5400s`. */
export function durationText({ ns }: Duration): string {
  const sign = ns < 0n ? '-' : '';
  const size = ns < 0n ? -ns : ns;
  const fraction = (size % SECOND).toString().padStart(9, '0').replace(/0+$/, '');
  return `${sign}${size / SECOND}${fraction ? `.${fraction}` : ''}s`;
}

const INT_MIN = -(2n ** 63n);
const INT_MAX = 2n ** 63n - 1n;

/** The int, unless 64 bits cannot hold it. */
export function checkInt(value: bigint): bigint {
  if (value < INT_MIN || value > INT_MAX) throw new CelError('integer overflow');
  return value;
}
