/**
 * What differs between two states of an object, as sets of fields. It runs on every write, so it walks both states once,
 * skips parts that are shared, and makes nothing where nothing differs.
 */

import { type FieldSet, MEMBER, sorted } from './field-set.ts';
import { DEDUCED, elementOf, type FieldTable, fieldsIn, type ListStructure, type Structure } from './structure.ts';

export interface Comparison {
  /** Fields that were added or have another value. */
  readonly changed?: FieldSet | undefined;
  readonly removed?: FieldSet | undefined;
}

type Fields = Readonly<Record<string, unknown>>;
type Building = Record<string, FieldSet>;

const LEAF_CHANGED: Comparison = { changed: MEMBER };

/** Undefined when nothing differs. The states may hold duplicate items in lists that should have none. */
export function compareObjects(table: FieldTable, before: object, after: object): Comparison | undefined {
  return compareStruct(table, before as Fields, after as Fields);
}

class Differences {
  changed: Building | undefined;
  removed: Building | undefined;

  add(element: string, difference: Comparison): void {
    if (difference.changed !== undefined) (this.changed ??= {})[element] = difference.changed;
    if (difference.removed !== undefined) (this.removed ??= {})[element] = difference.removed;
  }
  done(): Comparison | undefined {
    return this.changed === undefined && this.removed === undefined ? undefined : this;
  }
  sort(): Comparison | undefined {
    if (this.changed) this.changed = sorted(this.changed) as Building;
    if (this.removed) this.removed = sorted(this.removed) as Building;
    return this.done();
  }
}

function compareStruct(table: FieldTable, before: Fields, after: Fields): Comparison | undefined {
  const differences = new Differences();
  for (const { name, key, structure, nullable } of fieldsIn(table, before, after)) {
    let a = before[name];
    let b = after[name];
    if (a === b) continue;
    if (nullable) {
      a ??= Array.isArray(b) ? [] : {};
      b ??= Array.isArray(a) ? [] : {};
    }
    const difference = compare(structure, a, b);
    if (difference !== undefined) differences.add(key, difference);
  }
  return differences.done();
}

function compareMap(element: Structure, before: Fields, after: Fields): Comparison | undefined {
  const differences = new Differences();
  for (const name in after) {
    const a = before[name];
    const b = after[name];
    if (a === b) continue;
    const difference = compare(element, a, b);
    if (difference !== undefined) differences.add(`f:${name}`, difference);
  }
  // A key may be called `constructor`.
  for (const name in before)
    if (after[name] === undefined || !Object.hasOwn(after, name))
      differences.add(`f:${name}`, { removed: wholeOf(element, before[name]) });
  return differences.sort();
}

function compareList(list: ListStructure, before: readonly unknown[], after: readonly unknown[]) {
  const differences = new Differences();
  const old = index(list, before);
  const now = index(list, after);
  for (const [element, b] of now) {
    const a = old.get(element);
    const duplicate = a instanceof Duplicates || b instanceof Duplicates;
    const difference = duplicate
      ? isEqual(itemsOf(a), itemsOf(b))
        ? undefined
        : LEAF_CHANGED
      : compare(list.element, a, b);
    if (difference !== undefined) differences.add(element, difference);
  }
  for (const [element, a] of old)
    if (!now.has(element))
      differences.add(element, { removed: a instanceof Duplicates ? MEMBER : wholeOf(list.element, a) });
  return differences.sort();
}

function compare(structure: Structure, a: unknown, b: unknown): Comparison | undefined {
  if (a === undefined) return b === undefined ? undefined : { changed: wholeOf(structure, b) };
  if (b === undefined) return { removed: wholeOf(structure, a) };
  switch (structure.is) {
    case 'struct':
      if (structure.atomic || !isMap(a) || !isMap(b)) break;
      return compareStruct(structure.table(), a, b);
    case 'map':
      if (structure.atomic || !isMap(a) || !isMap(b)) break;
      return compareMap(structure.element, a, b);
    case 'list':
      if (structure.type === 'atomic' || !Array.isArray(a) || !Array.isArray(b)) break;
      return compareList(structure, a, b);
    case 'deduced':
      if (!isMap(a) || !isMap(b)) break;
      return compareMap(DEDUCED, a, b);
  }
  return isEqual(a, b) ? undefined : LEAF_CHANGED;
}

/** The set of a value that came or went whole: every node of it is a member. */
export function wholeOf(structure: Structure, value: unknown): FieldSet {
  switch (structure.is) {
    case 'struct': {
      if (structure.atomic || !isMap(value)) return MEMBER;
      let set: Building | undefined;
      for (const field of fieldsIn(structure.table(), value)) {
        const part = value[field.name];
        if (part !== undefined) (set ??= { '.': MEMBER })[field.key] = wholeOf(field.structure, part);
      }
      return set ?? MEMBER;
    }
    case 'map':
      return structure.atomic || !isMap(value) ? MEMBER : wholeMap(structure.element, value);
    case 'deduced':
      return isMap(value) ? wholeMap(DEDUCED, value) : MEMBER;
    case 'list': {
      if (structure.type === 'atomic' || !Array.isArray(value) || value.length === 0) return MEMBER;
      const set: Building = { '.': MEMBER };
      for (const [element, item] of index(structure, value))
        set[element] = item instanceof Duplicates ? MEMBER : wholeOf(structure.element, item);
      return sorted(set);
    }
    default:
      return MEMBER;
  }
}

function wholeMap(element: Structure, map: Fields): FieldSet {
  let set: Building | undefined;
  for (const name in map)
    if (map[name] !== undefined) (set ??= { '.': MEMBER })[`f:${name}`] = wholeOf(element, map[name]);
  return set === undefined ? MEMBER : sorted(set);
}

/** Items that claim one identity. */
class Duplicates {
  readonly items: unknown[];
  constructor(first: unknown) {
    this.items = [first];
  }
}

function itemsOf(item: unknown): readonly unknown[] {
  if (item instanceof Duplicates) return item.items;
  return item === undefined ? [] : [item];
}

function index(list: ListStructure, items: readonly unknown[]): Map<string, unknown> {
  const found = new Map<string, unknown>();
  for (let i = 0; i < items.length; i++) {
    const element = liveElementOf(list, items[i], i);
    const first = found.get(element);
    if (first === undefined) found.set(element, items[i]);
    else if (first instanceof Duplicates) first.items.push(items[i]);
    else {
      const both = new Duplicates(first);
      both.items.push(items[i]);
      found.set(element, both);
    }
  }
  return found;
}

/** As `elementOf`; what has no identity goes by its index, because a stored object cannot be refused. */
export function liveElementOf(list: ListStructure, item: unknown, at: number): string {
  try {
    return elementOf(list, item);
  } catch {
    return `i:${at}`;
  }
}

export function isMap(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Equality of JSON values; absent and undefined fields are the same, null is a value. */
export function isEqual(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (Array.isArray(a)) {
    if (!Array.isArray(b) || a.length !== b.length) return false;
    for (let i = 0; i < a.length; i++) if (!isEqual(a[i], b[i])) return false;
    return true;
  }
  if (!isMap(a) || !isMap(b)) return false;
  for (const name in a) if (!isEqual(a[name], b[name])) return false;
  for (const name in b) if (b[name] !== undefined && a[name] === undefined) return false;
  return true;
}
