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

/** Of what nothing bounds: upstream's largest number, so that products of it are larger than any limit. */
export const UNBOUNDED = 2 ** 64;

/** What is known of an argument. */
export interface Sized {
  readonly type: Type;
  /** The most characters or entries. */
  readonly size: number;
  /** The most characters or entries of an item of a list. */
  readonly itemSize: number;
  /** Of a literal, whose size is known. */
  readonly isExact?: boolean;
}

export interface CallEstimate {
  /** Without that of the arguments. */
  readonly cost: number;
  /** Of the result, where the function tells. */
  readonly size?: number | undefined;
}

const isText = (type: Type | undefined): boolean =>
  type?.is === 'plain' && (type.name === 'string' || type.name === 'bytes');

const maxOf = (part: Sized | undefined): number => part?.size ?? 1;
const plainly = (part: Sized | undefined): string => (part?.type.is === 'plain' ? part.type.name : '');
const sized = (cost: number, size: number): CallEstimate => ({ cost, size });

type Estimated = (args: readonly Sized[], receiver: Sized | undefined) => CallEstimate | undefined;

// `args` begin with the receiver where there is one. Upstream prices parsers of addresses, quantities and versions as methods, which they are not.
const traversed: Estimated = ([a], receiver) => (receiver ? sized(through(maxOf(a)), maxOf(a)) : undefined);
const over: Estimated = ([a], receiver) => {
  if (!receiver) return undefined;
  if (a?.type.is !== 'list') return { cost: through(maxOf(a)) };
  return { cost: a.size * (1 + (isText(a.type.of) ? through(a.itemSize) : 0)) };
};
const selected: Estimated = ([, text], receiver) => (receiver ? { cost: selector(maxOf(text)) } : undefined);
const compared: Estimated = ([a, b]) => {
  if (plainly(a).includes('.'))
    return { cost: plainly(a) === 'kubernetes.NamedFormat' ? through(FORMAT_LENGTH_MAX) : 1 };
  // What is equal is no longer than the shorter one.
  return { cost: through(Math.min(maxOf(a), maxOf(b))) };
};
/** Numbers are ordered at once. */
const ordered: Estimated = (args, receiver) =>
  args.some(({ type }) => isText(type)) ? compared(args, receiver) : { cost: 1 };
const prefixed: Estimated = ([, part]) => ({ cost: through(maxOf(part)) });
const found: Estimated = ([text, pattern]) => sized(searched(maxOf(text), maxOf(pattern)), maxOf(text));

/** The result is longest when the shortest that is sought is replaced as often as it can be. */
const replaced: Estimated = ([text, sought, by]) => {
  const [length, replacement] = [maxOf(text), maxOf(by)];
  const cost = through(length, 2 * TRAVERSAL);
  const least = sought?.isExact ? maxOf(sought) : 0;
  if (least === 0) return sized(cost, (length + 1) * replacement + length);
  return sized(cost, replacement <= least ? length : Math.ceil(length / least) * replacement);
};
const joined: Estimated = ([list, separator]) => {
  const [count, item] = [maxOf(list), list?.itemSize ?? UNBOUNDED];
  const size = count * item + (separator ? maxOf(separator) * Math.max(0, count - 1) : 0);
  return sized(through(Math.min(size, UNBOUNDED)), size);
};
const added: Estimated = ([a, b]) => {
  const size = maxOf(a) + maxOf(b);
  if (isText(a?.type) || isText(b?.type)) return sized(through(size), size);
  return a?.type.is === 'list' || b?.type.is === 'list' ? sized(1, size) : { cost: 1 };
};
const paired =
  (factor: number): Estimated =>
  ([a, b]) => ({ cost: maxOf(a) * maxOf(b) * factor + 1 });
const within =
  (cost: number): Estimated =>
  ([, b]) => ({ cost: cost + (plainly(b) === 'string' ? through(maxOf(b)) : 0) });
/** Of a text as bytes or the other way; other conversions cost one, and tell no size. */
const converted =
  (from: string, factor: number): Estimated =>
  ([a]) =>
    plainly(a) === from ? sized(through(maxOf(a)), maxOf(a) * factor) : { cost: 1 };

const ESTIMATED: Readonly<Record<string, Estimated>> = {
  check: () => ({ cost: 350_000 }),
  fieldSelector: selected,
  labelSelector: selected,
  ...Object.fromEntries(['isSorted', 'sum', 'max', 'min', 'indexOf', 'lastIndexOf'].map(name => [name, over])),
  ...Object.fromEntries(['lowerAscii', 'upperAscii', 'substring', 'trim'].map(name => [name, traversed])),
  ...Object.fromEntries(['_==_', '_!=_'].map(name => [name, compared])),
  ...Object.fromEntries(['_<_', '_<=_', '_>_', '_>=_'].map(name => [name, ordered])),
  dyn: ([a]) => sized(1, maxOf(a)),
  string: converted('bytes', 1),
  bytes: converted('string', 4),
  url: ([a]) => ({ cost: through(maxOf(a)) }),
  'jsonpatch.escapeKey': ([a]) => sized(through(maxOf(a)), maxOf(a)),
  'strings.quote': ([a]) => sized(through(maxOf(a)), 2 * maxOf(a) + 2),
  format: ([a], receiver) => (receiver ? { cost: through(maxOf(a)) } : undefined),
  replace: replaced,
  split: ([a]) => sized(through(maxOf(a), 2 * TRAVERSAL), maxOf(a)),
  join: joined,
  find: found,
  findAll: found,
  matches: ([text, pattern]) => ({ cost: searched(maxOf(text), maxOf(pattern)) }),
  validate: ([, text], receiver) =>
    receiver ? { cost: Math.ceil(through(maxOf(text)) * FORMAT_REGEX_LENGTH * REGEX) } : undefined,
  containsIP: within(through(2 * ADDRESS_BYTES_MAX)),
  containsCIDR: within(through(2 * ADDRESS_BYTES_MAX) + through(ADDRESS_BYTES_MAX) + 1),
  contains: ([text, part]) => (isText(text?.type) ? { cost: through(maxOf(text)) * through(maxOf(part)) } : undefined),
  startsWith: prefixed,
  endsWith: prefixed,
  'sets.contains': paired(1),
  'sets.intersects': paired(1),
  'sets.equivalent': paired(2),
  '_||_': () => ({ cost: 0 }),
  '_&&_': () => ({ cost: 0 }),
  '_+_': added,
  '@in': ([, b]) => ({ cost: b?.type.is === 'list' ? maxOf(b) : 1 }),
};

/** `name` as for `actualCost`; `args` begin with the receiver. */
export function estimatedCost(name: string, args: readonly Sized[], receiver: Sized | undefined): CallEstimate {
  const known = Object.hasOwn(ESTIMATED, name) ? ESTIMATED[name]!(args, receiver) : undefined;
  return known ?? { cost: 1 };
}
