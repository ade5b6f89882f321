/**
 * JSON merge patch (RFC 7386) and strategic merge patch, whose list semantics come from the schema (`patchStrategy`,
 * `patchMergeKey`). Pure: the object given is never changed. Apply patches are refused by the caller; they need field ownership.
 */

import type { BuiltinField } from '../api/schema-registry.ts';
import { elementType, fieldOf, hasType } from '../api/schema-registry.ts';
import { badRequest } from '../base/errors.ts';
import { own, put, thaw } from './entry.ts';

type Json = unknown;
type JsonObject = Record<string, unknown>;

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function mergePatch(target: Json, patch: Json): Json {
  if (!isObject(patch)) return isObject(target) ? thaw(patch) : withoutNulls(patch);
  const next: JsonObject = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete next[key];
    else put(next, key, mergePatch(own(next, key), value));
  }
  return next;
}

/** Upstream's liberty: lists lose theirs too, and what is in them. */
function withoutNulls(value: Json): Json {
  if (Array.isArray(value)) return value.filter(item => item !== null).map(withoutNulls);
  return isObject(value) ? mergePatch({}, value) : value;
}

/** `type` is the short schema name of the object's kind. Shares unchanged parts with the object given. */
export function strategicMergePatch<T>(object: T, patch: unknown, type: string): T {
  if (!isObject(patch)) throw badRequest('the strategic merge patch is not an object');
  return mergeObject(object as JsonObject, patch, type) as T;
}

const PATCH = '$patch';
const RETAIN_KEYS = '$retainKeys';
const DELETE_PRIMITIVES = '$deleteFromPrimitiveList/';
const SET_ORDER = '$setElementOrder/';

/** Rules of the field, or none for maps and untyped parts. */
function rulesOf(type: string | undefined, name: string): BuiltinField | undefined {
  return type !== undefined && hasType(type) ? fieldOf(type, name) : undefined;
}

// The type of what a field or a map holds.
function typeUnder(type: string | undefined, name: string): string | undefined {
  if (type === undefined) return undefined;
  if (type.startsWith('map[string]')) return type.slice('map[string]'.length);
  return rulesOf(type, name)?.type;
}

function mergeObject(original: JsonObject, patch: JsonObject, type: string | undefined): JsonObject {
  const directive = patch[PATCH];
  if (directive === 'replace') {
    const { [PATCH]: _, ...rest } = patch;
    return thaw(rest);
  }
  if (directive === 'delete') return {};
  if (directive !== undefined && directive !== 'merge')
    throw badRequest(`unknown patch type: ${JSON.stringify(directive)}`);
  const next: JsonObject = { ...original };
  retainKeys(next, patch);
  const order = new Map<string, readonly Json[]>();
  for (const [key, value] of Object.entries(patch)) {
    if (key === PATCH || key === RETAIN_KEYS) continue;
    if (key.startsWith(DELETE_PRIMITIVES)) {
      deletePrimitives(next, key.slice(DELETE_PRIMITIVES.length), value);
      continue;
    }
    if (key.startsWith(SET_ORDER)) {
      if (Array.isArray(value)) order.set(key.slice(SET_ORDER.length), value);
      continue;
    }
    if (value === null) {
      delete next[key];
      continue;
    }
    const rules = rulesOf(type, key);
    const under = typeUnder(type, key);
    const replaces = rules?.patchStrategy?.includes('replace') ?? false;
    const current = own(next, key);
    if (isObject(value)) {
      if (value[PATCH] === 'delete') delete next[key];
      else put(next, key, mergeObject(!replaces && isObject(current) ? current : {}, value, under));
    } else if (Array.isArray(value)) {
      const merges = rules?.patchStrategy?.includes('merge') ?? false;
      const merged = () =>
        mergeList(Array.isArray(current) ? current : [], value, {
          key: rules!.patchMergeKey,
          type: elementType(under!),
        });
      put(next, key, merges ? merged() : clean(value));
    } else put(next, key, value);
  }
  for (const [key, wanted] of order) {
    const list = next[key];
    const mergeKey = rulesOf(type, key)?.patchMergeKey;
    if (Array.isArray(list)) {
      const server = Array.isArray(original[key]) ? (original[key] as Json[]) : [];
      next[key] = inOrder(list, { wanted, server, mergeKey });
    }
  }
  return next;
}

function retainKeys(next: JsonObject, patch: JsonObject): void {
  const retained = patch[RETAIN_KEYS];
  if (!Array.isArray(retained)) return;
  for (const key of Object.keys(patch))
    if (!key.startsWith('$') && patch[key] !== null && !retained.includes(key))
      throw badRequest('retainKeys directive must contain all fields that are in the patch');
  for (const key of Object.keys(next)) if (!retained.includes(key)) delete next[key];
}

function deletePrimitives(next: JsonObject, key: string, values: Json): void {
  const list = next[key];
  if (Array.isArray(list) && Array.isArray(values)) next[key] = list.filter(item => !values.includes(item));
}

interface ListRules {
  readonly key: string | undefined;
  readonly type: string;
}

function mergeList(original: readonly Json[], patch: readonly Json[], { key, type }: ListRules): Json[] {
  if (key === undefined) {
    const merged = [
      ...original,
      ...patch.filter((item, index) => !original.includes(item) && patch.indexOf(item) === index),
    ];
    return inOrder(merged, { wanted: patch, server: original, mergeKey: undefined });
  }
  const plain: JsonObject[] = [];
  let kept: Json[] = [...original];
  let replaced = false;
  for (const item of patch) {
    if (!isObject(item)) throw badRequest(`the patch of a list of objects holds a ${typeof item}`);
    const directive = item[PATCH];
    if (directive === 'replace') replaced = true;
    else if (directive === 'delete') {
      if (item[key] === undefined) throw badRequest(`delete patch type with no merge key defined`);
      kept = kept.filter(other => !isObject(other) || other[key] !== item[key]);
    } else if (directive !== undefined && directive !== 'merge')
      throw badRequest(`unknown patch type: ${JSON.stringify(directive)}`);
    else plain.push(item);
  }
  if (replaced) return plain.map(item => clean(item));
  for (const item of plain) {
    if (item[key] === undefined)
      throw badRequest(`map: ${JSON.stringify(item)} does not contain declared merge key: ${key}`);
    const at = kept.findIndex(other => isObject(other) && other[key] === item[key]);
    if (at < 0) kept.push(mergeObject({}, item, type));
    else kept[at] = mergeObject(kept[at] as JsonObject, item, type);
  }
  return inOrder(kept, { wanted: plain, server: original, mergeKey: key });
}

/** Elements that the patch names come in its order, others stay where the server had them relative to those. */
function inOrder(
  list: readonly Json[],
  options: { wanted: readonly Json[]; server: readonly Json[]; mergeKey: string | undefined },
): Json[] {
  const { wanted, server, mergeKey } = options;
  const idOf = (item: Json) => (mergeKey !== undefined && isObject(item) ? item[mergeKey] : item);
  const wantedIds = wanted.map(idOf);
  const serverIds = server.map(idOf);
  const named = list
    .filter(item => wantedIds.includes(idOf(item)))
    .sort((a, b) => wantedIds.indexOf(idOf(a)) - wantedIds.indexOf(idOf(b)));
  const others = list
    .filter(item => !wantedIds.includes(idOf(item)))
    .sort((a, b) => serverIds.indexOf(idOf(a)) - serverIds.indexOf(idOf(b)));
  const merged: Json[] = [];
  let at = 0;
  for (const item of named) {
    const position = serverIds.indexOf(idOf(item));
    while (position >= 0 && at < others.length && serverIds.indexOf(idOf(others[at])) < position)
      merged.push(others[at++]!);
    merged.push(item);
  }
  return [...merged, ...others.slice(at)];
}

// A part of a patch that becomes a value: without nulls and directives.
function clean(value: Json): Json {
  if (Array.isArray(value)) return value.map(clean);
  if (!isObject(value)) return value;
  const next: JsonObject = {};
  for (const [key, item] of Object.entries(value))
    if (item !== null && !key.startsWith('$')) put(next, key, clean(item));
  return next;
}
