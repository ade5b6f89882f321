/**
 * An applied configuration: whether it fits the schema, and which fields it names. A configuration is what the client
 * wrote, without defaults; naming a field, even with null, is wanting it.
 */

import { isMap, liveElementOf } from './comparison.ts';
import { elementText, type FieldSet, MEMBER, sorted } from './field-set.ts';
import { DEDUCED, elementOf, type FieldTable, fieldsIn, type ListStructure, type Structure } from './structure.ts';

type Fields = Readonly<Record<string, unknown>>;
type Building = Record<string, FieldSet>;

/** The fields an object names; undefined when it names none that can be owned. */
export function fieldsNamed(table: FieldTable, object: object): FieldSet | undefined {
  return namedInStruct(table, object as Fields);
}

function namedInStruct(table: FieldTable, object: Fields): FieldSet | undefined {
  let set: Building | undefined;
  for (const { name, key, structure, stays } of fieldsIn(table, object)) {
    const value = object[name];
    if (value === undefined || (stays && !isMap(value))) continue;
    // A struct is owned through its fields, and by itself only when it has none.
    const whole = value === null || (!stays && isMap(value) && isEmpty(value));
    const below = whole ? MEMBER : named(structure, value);
    if (below !== undefined) (set ??= {})[key] = below;
  }
  return set;
}

function named(structure: Structure, value: unknown): FieldSet | undefined {
  switch (structure.is) {
    case 'struct':
      return structure.atomic || !isMap(value) ? MEMBER : namedInStruct(structure.table(), value);
    case 'map':
      return structure.atomic || !isMap(value) ? MEMBER : namedInMap(structure.element, value);
    case 'deduced':
      return isMap(value) ? namedInMap(DEDUCED, value) : MEMBER;
    case 'list': {
      if (structure.type === 'atomic' || !Array.isArray(value)) return MEMBER;
      let set: Building | undefined;
      for (let i = 0; i < value.length; i++)
        (set ??= {})[liveElementOf(structure, value[i], i)] = asMember(named(structure.element, value[i]));
      return set && sorted(set);
    }
    default:
      return MEMBER;
  }
}

function namedInMap(element: Structure, map: Fields): FieldSet | undefined {
  let set: Building | undefined;
  for (const name in map) if (map[name] !== undefined) (set ??= {})[`f:${name}`] = asMember(named(element, map[name]));
  return set && sorted(set);
}

function asMember(below: FieldSet | undefined): FieldSet {
  return below === undefined || below === MEMBER ? MEMBER : { '.': MEMBER, ...below };
}

/**
 * The set with every struct field that holds members made a member itself, so that a struct whose fields all go is seen
 * to go too.
 */
export function withNamedFields(table: FieldTable, set: FieldSet | undefined): FieldSet | undefined {
  return set && ensureStruct(table, set);
}

function ensureStruct(table: FieldTable, set: FieldSet): FieldSet {
  const result: Building = {};
  for (const element in set) {
    const field = element === '.' ? undefined : table.byName.get(element.slice(2));
    const below = field ? ensure(field.structure, set[element]!) : set[element]!;
    result[element] = field && !field.stays ? asMember(below) : below;
  }
  return result;
}

function ensure(structure: Structure, set: FieldSet): FieldSet {
  if (structure.is === 'struct') return ensureStruct(structure.table(), set);
  if (structure.is !== 'map' && structure.is !== 'list') return set;
  const result: Building = {};
  for (const element in set) result[element] = element === '.' ? MEMBER : ensure(structure.element, set[element]!);
  return result;
}

function isEmpty(map: Fields): boolean {
  for (const _ in map) return false;
  return true;
}

/** Findings as upstream words them, `.spec.foo: field not declared in schema`; empty when the configuration fits. */
export function configurationProblems(table: FieldTable, object: object): string[] {
  const checker = new Checker();
  checker.struct(table, object as Fields, '');
  return checker.problems;
}

class Checker {
  readonly problems: string[] = [];

  struct(table: FieldTable, object: Fields, path: string): void {
    for (const name in object) {
      const field = table.byName.get(name);
      if (field) this.check(field.structure, object[name], `${path}.${name}`);
      else if (!table.isOpen) this.problems.push(`${path}.${name}: field not declared in schema`);
    }
  }

  check(structure: Structure, value: unknown, path: string): void {
    if (value === null || value === undefined) return;
    switch (structure.is) {
      case 'scalar':
        return this.#scalar(structure.expects, value, path);
      case 'struct':
        if (!isMap(value)) this.#expected('map', value, path);
        else this.struct(structure.table(), value, path);
        return;
      case 'map':
        if (!isMap(value)) this.#expected('map', value, path);
        else for (const key in value) this.check(structure.element, value[key], `${path}.${key}`);
        return;
      case 'list':
        if (!Array.isArray(value)) this.#expected('list', value, path);
        else this.#list(structure, value, path);
    }
  }

  #list(list: ListStructure, items: readonly unknown[], path: string): void {
    const seen = new Set<string>();
    for (let i = 0; i < items.length; i++) {
      let text = `[${i}]`;
      if (list.type !== 'atomic') {
        try {
          const element = elementOf(list, items[i]);
          text = elementText(element);
          if (seen.has(element)) {
            this.problems.push(`${path}: duplicate entries for key ${text}`);
            continue;
          }
          seen.add(element);
        } catch (error) {
          this.problems.push(`${path}: element ${i}: ${(error as Error).message}`);
          continue;
        }
      }
      this.check(list.element, items[i], path + text);
    }
  }

  #scalar(expects: string, value: unknown, path: string): void {
    const type = typeof value;
    if (type === 'object') this.problems.push(`${path}: expected scalar, got ${goText(value)}`);
    else if (expects === 'numeric') {
      if (type !== 'number') this.problems.push(`${path}: expected numeric (int or float), got ${goText(value)}`);
    } else if (expects !== 'any' && type !== expects) this.#expected(expects, value, path);
  }

  #expected(what: string, value: unknown, path: string): void {
    this.problems.push(`${path}: expected ${what}, got ${goText(value)}`);
  }
}

// How upstream's message prints a value.
function goText(value: unknown): string {
  return `&value.valueUnstructured{Value:${typeof value === 'string' ? JSON.stringify(value) : goLiteral(value)}}`;
}

function goLiteral(value: unknown): string {
  if (Array.isArray(value)) return `[]interface {}{${value.map(goLiteral).join(', ')}}`;
  if (isMap(value))
    return `map[string]interface {}{${Object.keys(value)
      .sort()
      .map(key => `${JSON.stringify(key)}:${goLiteral(value[key])}`)
      .join(', ')}}`;
  return value === null ? 'interface {}(nil)' : typeof value === 'string' ? JSON.stringify(value) : String(value);
}
