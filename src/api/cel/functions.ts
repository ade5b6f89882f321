/**
 * How functions are declared: a name, the types it takes and gives, and what it does. Overloads are tried in order; types
 * are those of `typeName`, shortened, and `dyn` takes everything.
 */

import type { Value } from './values.ts';

/** Counts what evaluation costs; throws when there is no budget left. */
export interface Meter {
  spend(cost: number): void;
}

export interface Overload {
  readonly name: string;
  /** Type of the receiver; absent for plain functions. */
  readonly receiver?: string;
  readonly args: readonly string[];
  /** `list<string>` and the like say what is inside, for checking. */
  readonly result: string;
  readonly call: (args: readonly Value[], meter: Meter) => Value;
}

/** By name; receivers and plain functions share it. */
export type Library = ReadonlyMap<string, readonly Overload[]>;

/**
 * `string.startsWith(string): bool` with what it does. The receiver is the first argument of the function. A name with a
 * `#` before it is a plain function whose name has dots: `#optional.of(dyn): optional`.
 */
export function overload(signature: string, call: Overload['call']): Overload {
  const match = /^(?:#([\w.]+)|(?:(\w+)\.)?([\w@!?:+*/%<>=&|-]+))\(([^)]*)\): ([\w<>,. ]+)$/.exec(signature);
  if (!match) throw new Error(`bad signature ${signature}`);
  const [, dotted, receiver, plain, args, result] = match;
  const name = dotted ?? plain;
  return {
    name: name!,
    ...(receiver ? { receiver } : {}),
    args: args ? args.split(', ') : [],
    result: result!,
    call,
  };
}

export function library(...overloads: readonly (readonly Overload[])[]): Library {
  const byName = new Map<string, Overload[]>();
  for (const one of overloads.flat()) {
    const same = byName.get(one.name);
    if (same) same.push(one);
    else byName.set(one.name, [one]);
  }
  return byName;
}
