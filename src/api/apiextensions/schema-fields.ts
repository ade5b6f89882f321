/**
 * What a structural schema makes of an object before anybody judges it: unknown fields are dropped, defaults filled in. Both
 * return new objects that share unchanged parts with the one given, and the object itself when nothing changes.
 */

import { fieldNode, isObject, type JsonObject, type SchemaNode, setField } from './structural-schema.ts';

/** Fields of every object and of embedded ones, which their own rules take care of. */
const OBJECT_FIELDS: ReadonlySet<string> = new Set(['apiVersion', 'kind', 'metadata']);

type Path = (string | number)[];

/** The object without fields that the schema does not know. `drop` is told the path of each. */
export function pruneUnknown<T>(root: SchemaNode, object: T, drop?: (path: Readonly<Path>) => void): T {
  return new Pruner(drop).object(root, object as JsonObject, true) as T;
}

class Pruner {
  readonly #drop: ((path: Readonly<Path>) => void) | undefined;
  readonly #path: Path = [];

  constructor(drop: ((path: Readonly<Path>) => void) | undefined) {
    this.#drop = drop;
  }

  object(node: SchemaNode | undefined, object: JsonObject, isResource: boolean): JsonObject {
    let result: JsonObject | undefined;
    const names = Object.keys(object);
    for (let at = 0; at < names.length; at++) {
      const name = names[at]!;
      const value = object[name];
      let kept = value;
      let drops = false;
      if (!(isResource && OBJECT_FIELDS.has(name))) {
        const field = node && fieldNode(node, name);
        this.#path.push(name);
        if (field) kept = this.#value(field === true ? undefined : field, value);
        else if (!node?.preserves) {
          drops = true;
          this.#drop?.(this.#path);
        }
        this.#path.pop();
      }
      if (result === undefined && (drops || kept !== value)) {
        result = {};
        for (let before = 0; before < at; before++) setField(result, names[before]!, object[names[before]!]);
      }
      if (result !== undefined && !drops) setField(result, name, kept);
    }
    return result ?? object;
  }

  #value(node: SchemaNode | undefined, value: unknown): unknown {
    if (Array.isArray(value)) {
      // Whoever preserves unknown fields says nothing about items without a schema.
      if (node?.preserves && !node.items) return value;
      let result: unknown[] | undefined;
      for (let at = 0; at < value.length; at++) {
        this.#path.push(at);
        const item = this.#value(node?.items, value[at]);
        this.#path.pop();
        if (item !== value[at]) (result ??= [...value])[at] = item;
      }
      return result ?? value;
    }
    return isObject(value) ? this.object(node, value, node?.embedded === true) : value;
  }
}

/** The object with defaults where fields are missing, and without nulls where the schema allows none. */
export function withDefaults<T>(root: SchemaNode, object: T): T {
  return defaulted(root, object, true) as T;
}

const isRefusedNull = (value: unknown, node: SchemaNode): boolean => value === null && !node.nullable;

function defaulted(node: SchemaNode, value: unknown, isResource: boolean): unknown {
  if (Array.isArray(value)) {
    const { items } = node;
    if (!items) return value;
    let result: unknown[] | undefined;
    for (let at = 0; at < value.length; at++) {
      const old = value[at];
      const start = isRefusedNull(old, items) && items.default !== undefined ? copy(items.default) : old;
      const item = defaulted(items, start, items.embedded);
      if (item !== old) (result ??= [...value])[at] = item;
    }
    return result ?? value;
  }
  if (!isObject(value)) return value;
  let result: JsonObject | undefined;
  const change = () => {
    if (result === undefined) {
      result = {};
      for (const name of Object.keys(value)) setField(result, name, value[name]);
    }
    return result;
  };
  for (const [name, field] of node.properties) {
    if (isResource && OBJECT_FIELDS.has(name)) continue;
    const present = Object.hasOwn(value, name);
    if (field.default !== undefined) {
      if (!present || isRefusedNull(value[name], field))
        setField(change(), name, defaulted(field, copy(field.default), field.embedded));
    } else if (present && isRefusedNull(value[name], field)) delete change()[name];
  }
  for (const name of Object.keys(value)) {
    if (isResource && OBJECT_FIELDS.has(name)) continue;
    const known = fieldNode(node, name);
    const field = known === true ? undefined : known;
    if (!field || (field.properties.size === 0 && !field.items && !field.additional)) continue;
    const old = value[name];
    if (typeof old !== 'object' || old === null) continue;
    const next = defaulted(field, old, field.embedded);
    if (next !== old) setField(change(), name, next);
  }
  return result ?? value;
}

function copy<T>(value: T): T {
  return typeof value === 'object' && value !== null ? structuredClone(value) : value;
}
