/**
 * What one call costs, by upstream's table (its `CostEstimator` and cel-go's tracker): most cost one, those that go through a text cost
 * with its length. `actualCost` is for values while an expression runs, `estimatedCost` for the most that declarations allow. Functions
 * that are not here cost one, and what they spend themselves.
 */

import type { Type } from './checker.ts';
import { ListValue, MapValue, Opaque, type Value } from './values.ts';

/** Of going through a text, for each character. */
export const TRAVERSAL = 0.1;
/** A part of a pattern is taken to have four characters. */
const REGEX = 0.25;
const FORMAT_REGEX_LENGTH = 128;
const FORMAT_LENGTH_MAX = 64;
const ADDRESS_BYTES_MAX = 16;
const LIST_COST = 10;
const STRUCT_COST = 40;

const through = (size: number, factor = TRAVERSAL): number => Math.ceil(size * factor);
const searched = (text: number, pattern: number): number => through(text + 1) * through(pattern, REGEX);
/** A list of requirements, each a structure with a list of values; the shortest has two characters. */
const selector = (length: number): number =>
  LIST_COST + through(length) + through(length, 0.5) * (LIST_COST + STRUCT_COST);

function sizeOf(value: Value | undefined): number {
  if (typeof value === 'string' || value instanceof Uint8Array) return value.length;
  if (value instanceof ListValue || value instanceof MapValue) return value.size;
  return 1;
}

/** Of everything in a value. */
function traversal(value: Value): number {
  if (typeof value === 'string') return Math.floor(value.length * TRAVERSAL);
  if (!(value instanceof ListValue)) return 1;
  let cost = 0;
  for (const item of value) cost += traversal(item);
  return cost;
}

function scalars(value: Value): number {
  if (typeof value === 'string') return 1 + value.length * TRAVERSAL;
  let count = 1;
  if (value instanceof ListValue) for (const item of value) count += scalars(item);
  else if (value instanceof MapValue) for (const key of value.keys()) count += scalars(value.get(key)!);
  return count;
}

type Actual = (args: readonly Value[]) => number;
const first =
  (factor: number): Actual =>
  ([a]) =>
    through(sizeOf(a), factor);
const second: Actual = ([, b]) => through(sizeOf(b));
/** Lists and maps are compared item by item, unless they differ in size. */
const smaller: Actual = ([a, b]) => {
  if (a instanceof Opaque) return 1;
  const isNested = a instanceof ListValue || a instanceof MapValue;
  return isNested && sizeOf(a) === sizeOf(b) ? through(scalars(a)) || 1 : through(Math.min(sizeOf(a), sizeOf(b)));
};
const gone: Actual = ([a]) => (a instanceof ListValue ? a.size : through(sizeOf(a)));
const whole: Actual = ([a]) => traversal(a!);

const ACTUAL: Readonly<Record<string, Actual>> = {
  fieldSelector: ([, text]) => selector(sizeOf(text)),
  labelSelector: ([, text]) => selector(sizeOf(text)),
  ...Object.fromEntries(['isSorted', 'sum', 'max', 'min', 'indexOf', 'lastIndexOf'].map(name => [name, whole])),
  ...Object.fromEntries(
    [
      ...['url', 'isURL', 'lowerAscii', 'upperAscii', 'substring', 'trim', 'jsonpatch.escapeKey', 'strings.quote'],
      ...['cidr', 'isIP', 'isCIDR', 'ip', 'quantity', 'isQuantity', 'semver', 'isSemver'],
    ].map(name => [name, first(TRAVERSAL)]),
  ),
  ...Object.fromEntries(['replace', 'split', 'ip.isCanonical'].map(name => [name, first(2 * TRAVERSAL)])),
  ...Object.fromEntries(['_==_', '_!=_', '_<_', '_<=_', '_>_', '_>=_'].map(name => [name, smaller])),
  ...Object.fromEntries(['slice', 'flatten', 'reverse', 'sort'].map(name => [name, gone])),
  // It spends itself what its result is long.
  join: () => 0,
  containsIP: ([, b]) => through(2 * ADDRESS_BYTES_MAX) + (typeof b === 'string' ? through(b.length) : 0),
  containsCIDR: ([, b]) =>
    through(2 * ADDRESS_BYTES_MAX) + through(ADDRESS_BYTES_MAX) + 1 + (typeof b === 'string' ? through(b.length) : 0),
  find: ([text, pattern]) => searched(sizeOf(text), sizeOf(pattern)),
  findAll: ([text, pattern]) => searched(sizeOf(text), sizeOf(pattern)),
  matches: ([text, pattern]) => searched(sizeOf(text), sizeOf(pattern)),
  validate: ([, text]) => searched(sizeOf(text), FORMAT_REGEX_LENGTH),
  contains: ([text, part]) => through(sizeOf(text)) * through(sizeOf(part)),
  startsWith: second,
  endsWith: second,
  '_+_': ([a, b]) => (typeof a === 'string' || a instanceof Uint8Array ? through(sizeOf(a) + sizeOf(b)) : 1),
  '@in': ([, b]) => (b instanceof ListValue ? b.size : 1),
};

/** `name` with what comes before its dot, where that is no value: `ip.isCanonical`. */
export function actualCost(name: string): Actual | undefined {
  return Object.hasOwn(ACTUAL, name) ? ACTUAL[name] : undefined;
}

/** What is known of an argument. Undefined sizes count as one: nothing is refused for what is not known. */
export interface Sized {
  readonly type: Type;
  /** The most characters or entries. */
  readonly size: number | undefined;
  /** Of a literal, whose size is known. */
  readonly isExact?: boolean;
}

export interface CallEstimate {
  /** Without that of the arguments. */
  readonly cost: number;
  /** Of the result. */
  readonly size?: number | undefined;
}

export const isText = (part: Sized | undefined): boolean =>
  part?.type.is === 'plain' && (part.type.name === 'string' || part.type.name === 'bytes');

const maxOf = (part: Sized | undefined): number => part?.size ?? 1;
const plainly = (part: Sized | undefined): string => (part?.type.is === 'plain' ? part.type.name : '');
/** With the size of what it was made from, when that is known. */
const sized = (cost: number, size: number | undefined): CallEstimate => ({ cost, size });
const sum = (a: Sized | undefined, b: Sized | undefined): number | undefined =>
  a?.size === undefined || b?.size === undefined ? undefined : a.size + b.size;

type Estimated = (args: readonly Sized[], receiver: Sized | undefined) => CallEstimate | undefined;

// `args` begin with the receiver where there is one. Upstream prices parsers of addresses, quantities and versions as methods, which they are not.
const traversed: Estimated = ([a], receiver) => (receiver ? sized(through(maxOf(a)), a?.size) : undefined);
const over: Estimated = ([a], receiver) => {
  if (!receiver) return undefined;
  if (a?.type.is !== 'list') return { cost: through(maxOf(a)) };
  const { of } = a.type;
  const item = { type: of, size: 'max' in of ? of.max : undefined };
  return { cost: maxOf(a) * (1 + (isText(item) ? through(maxOf(item)) : 0)) };
};
const selected: Estimated = ([, text], receiver) => (receiver ? { cost: selector(maxOf(text)) } : undefined);
const compared: Estimated = ([a, b]) => {
  if (plainly(a).includes('.'))
    return { cost: plainly(a) === 'kubernetes.NamedFormat' ? through(FORMAT_LENGTH_MAX) : 1 };
  const known = [a?.size, b?.size].filter(size => size !== undefined);
  // What is equal is no longer than the shorter one.
  return { cost: through(known.length ? Math.min(...known) : 1) };
};
const prefixed: Estimated = ([, part]) => ({ cost: through(maxOf(part)) });
const found: Estimated = ([text, pattern]) => sized(searched(maxOf(text), maxOf(pattern)), text?.size);

/** The result is longest when the shortest that is sought is replaced as often as it can be. */
const replaced: Estimated = ([text, sought, by]) => {
  const cost = through(maxOf(text), 2 * TRAVERSAL);
  if (text?.size === undefined || by?.size === undefined) return { cost };
  const least = sought?.isExact ? maxOf(sought) : 0;
  if (least === 0) return sized(cost, (text.size + 1) * by.size + text.size);
  return sized(cost, by.size <= least ? text.size : Math.ceil(text.size / least) * by.size);
};
const joined: Estimated = ([list, separator]) => {
  const item = list?.type.is === 'list' && 'max' in list.type.of ? list.type.of.max : undefined;
  if (list?.size === undefined || item === undefined) return { cost: 1 };
  const size = list.size * item + (separator ? maxOf(separator) * Math.max(0, list.size - 1) : 0);
  return sized(through(size), size);
};
const paired =
  (factor: number): Estimated =>
  ([a, b]) => ({ cost: maxOf(a) * maxOf(b) * factor + 1 });
const within =
  (cost: number): Estimated =>
  ([, b]) => ({ cost: cost + (plainly(b) === 'string' ? through(maxOf(b)) : 0) });

const ESTIMATED: Readonly<Record<string, Estimated>> = {
  check: () => ({ cost: 350_000 }),
  fieldSelector: selected,
  labelSelector: selected,
  ...Object.fromEntries(['isSorted', 'sum', 'max', 'min', 'indexOf', 'lastIndexOf'].map(name => [name, over])),
  ...Object.fromEntries(['lowerAscii', 'upperAscii', 'substring', 'trim'].map(name => [name, traversed])),
  ...Object.fromEntries(['_==_', '_!=_', '_<_', '_<=_', '_>_', '_>=_'].map(name => [name, compared])),
  url: ([a]) => sized(through(maxOf(a)), a?.size),
  'jsonpatch.escapeKey': ([a]) => sized(through(maxOf(a)), a?.size),
  'strings.quote': ([a]) => sized(through(maxOf(a)), a?.size === undefined ? undefined : 2 * a.size + 2),
  format: ([a], receiver) => (receiver ? { cost: through(maxOf(a)) } : undefined),
  replace: replaced,
  split: ([a]) => sized(through(maxOf(a), 2 * TRAVERSAL), a?.size),
  join: joined,
  find: found,
  findAll: found,
  matches: ([text, pattern]) => ({ cost: searched(maxOf(text), maxOf(pattern)) }),
  validate: ([, text], receiver) =>
    receiver ? { cost: Math.ceil(through(maxOf(text)) * FORMAT_REGEX_LENGTH * REGEX) } : undefined,
  containsIP: within(through(2 * ADDRESS_BYTES_MAX)),
  containsCIDR: within(through(2 * ADDRESS_BYTES_MAX) + through(ADDRESS_BYTES_MAX) + 1),
  contains: ([text, part]) => (isText(text) ? { cost: through(maxOf(text)) * through(maxOf(part)) } : undefined),
  startsWith: prefixed,
  endsWith: prefixed,
  'sets.contains': paired(1),
  'sets.intersects': paired(1),
  'sets.equivalent': paired(2),
  '_||_': () => ({ cost: 0 }),
  '_&&_': () => ({ cost: 0 }),
  '_+_': ([a, b]) =>
    isText(a)
      ? sized(through(maxOf(a) + maxOf(b)), sum(a, b))
      : sized(1, a?.type.is === 'list' ? sum(a, b) : undefined),
  '@in': ([, b]) => ({ cost: b?.type.is === 'list' ? maxOf(b) : 1 }),
};

/** `name` as for `actualCost`; `args` begin with the receiver. */
export function estimatedCost(name: string, args: readonly Sized[], receiver: Sized | undefined): CallEstimate {
  const known = Object.hasOwn(ESTIMATED, name) ? ESTIMATED[name]!(args, receiver) : undefined;
  return known ?? sized(1, isText(args[0]) ? args[0]?.size : undefined);
}
