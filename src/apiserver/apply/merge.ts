/**
 * Putting an applied configuration into a live object, and taking fields out again. Both return new objects that share
 * unchanged parts with what they were given, and change neither.
 */

import { isMap, liveElementOf } from './comparison.ts';
import { type FieldSet, isMember } from './field-set.ts';
import { DEDUCED, type FieldTable, type ListStructure, type Structure } from './structure.ts';

type Fields = Record<string, unknown>;

/** `live` with everything that `applied` names; other fields, items and keys of `live` stay. */
export function mergeConfiguration<T extends object>(table: FieldTable, live: T, applied: object): T {
  return mergeStruct(table, live as Fields, applied as Fields) as T;
}

function mergeStruct(table: FieldTable, live: Fields, applied: Fields): Fields {
  const merged: Fields = { ...live };
  for (const name in applied)
    merged[name] = merge(table.byName.get(name)?.structure ?? DEDUCED, live[name], applied[name]);
  return merged;
}

function mergeMap(element: Structure, live: Fields, applied: Fields): Fields {
  const merged: Fields = { ...live };
  for (const name in applied) {
    const value = merge(element, live[name], applied[name]);
    // A key of a ConfigMap, say; assigning it would set the prototype.
    if (name === '__proto__')
      Object.defineProperty(merged, name, { value, enumerable: true, configurable: true, writable: true });
    else merged[name] = value;
  }
  return merged;
}

function merge(structure: Structure, live: unknown, applied: unknown): unknown {
  if (applied === undefined) return live;
  if (live === undefined) return applied;
  switch (structure.is) {
    case 'struct':
      if (structure.atomic || !isMap(live)) return applied;
      return isMap(applied) ? mergeStruct(structure.table(), live, applied) : live;
    case 'map':
      if (structure.atomic || !isMap(live)) return applied;
      return isMap(applied) ? mergeMap(structure.element, live, applied) : live;
    case 'deduced':
      return isMap(live) && isMap(applied) ? mergeMap(DEDUCED, live, applied) : applied;
    case 'list':
      if (structure.type === 'atomic' || !Array.isArray(live)) return applied;
      return Array.isArray(applied) ? mergeList(structure, live, applied) : live;
    default:
      return applied;
  }
}

/**
 * Items of both lists come in the order of the configuration; items that only the live list has keep their place relative to
 * their neighbours.
 */
function mergeList(list: ListStructure, live: readonly unknown[], applied: readonly unknown[]): unknown[] {
  const ours = live.map((item, i) => liveElementOf(list, item, i));
  const theirs = applied.map((item, i) => liveElementOf(list, item, i));
  const liveBy = new Map<string, unknown>();
  // Of duplicates none is merged into.
  for (const [i, element] of ours.entries()) liveBy.set(element, liveBy.has(element) ? undefined : live[i]);
  const wanted = new Set(theirs);
  const shared = theirs.filter(element => liveBy.has(element));
  const done = new Set<string>();
  const merged: unknown[] = [];
  let next = 0;
  const take = (at: number) => {
    const element = theirs[at]!;
    done.add(element);
    merged.push(merge(list.element, liveBy.get(element), applied[at]));
    if (shared[next] === element) next++;
  };
  let l = 0;
  let r = 0;
  while (l < ours.length || r < theirs.length) {
    const element = ours[l];
    if (element !== undefined && r < theirs.length) {
      if (element === theirs[r]) {
        take(r);
        l++;
        r++;
        continue;
      }
      // It comes later, where the configuration has it.
      if (wanted.has(element) && next < shared.length && shared[next] !== element) {
        l++;
        continue;
      }
    }
    if (element !== undefined) {
      if (!wanted.has(element)) {
        merged.push(live[l]);
        l++;
        continue;
      }
      if (done.has(element)) l++;
    }
    if (r < theirs.length) {
      take(r);
      r++;
    }
  }
  return merged;
}

/** The object without the members of the set. Containers that become empty stay, unless they are members themselves. */
export function removeFields<T extends object>(table: FieldTable, object: T, set: FieldSet | undefined): T {
  return set === undefined ? object : (removeStruct(table, object as Fields, set) as T);
}

function removeStruct(table: FieldTable, object: Fields, set: FieldSet): Fields {
  return removeEach(object, set, name => table.byName.get(name)?.structure ?? DEDUCED);
}

function removeEach(object: Fields, set: FieldSet, structureOf: (name: string) => Structure): Fields {
  const rest: Fields = { ...object };
  for (const element in set) {
    const name = element.slice(2);
    if (element[0] !== 'f' || rest[name] === undefined) continue;
    if (isMember(set[element]!)) delete rest[name];
    else rest[name] = remove(structureOf(name), rest[name], set[element]!);
  }
  return rest;
}

function remove(structure: Structure, value: unknown, set: FieldSet): unknown {
  switch (structure.is) {
    case 'struct':
      return structure.atomic || !isMap(value) ? value : removeStruct(structure.table(), value, set);
    case 'map':
      return structure.atomic || !isMap(value) ? value : removeEach(value, set, () => structure.element);
    case 'deduced':
      return isMap(value) ? removeEach(value, set, () => DEDUCED) : value;
    case 'list':
      if (structure.type === 'atomic' || !Array.isArray(value)) return value;
      return value.flatMap((item, i) => {
        const below = set[liveElementOf(structure, item, i)];
        if (below === undefined) return [item];
        return isMember(below) ? [] : [remove(structure.element, item, below)];
      });
    default:
      return value;
  }
}
