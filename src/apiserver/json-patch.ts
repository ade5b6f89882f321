/**
 * JSON patch as upstream's server applies it, which is RFC 6902 with liberties that clients rely on: `replace` of a key that is not there
 * adds it, negative indexes count from the end, `test` for null is true where there is nothing. Pure: the object given is never changed.
 */

import { isDeepStrictEqual } from 'node:util';
import { badRequest, failure } from '../base/errors.ts';
import { put, thaw } from './entry.ts';

type JsonObject = Record<string, unknown>;
type Container = JsonObject | unknown[];

const OPERATIONS_MAX = 10_000;

/** Throws 400 for what is no patch, 422 for one that does not fit the object, 413 for too many operations. */
export function jsonPatch<T>(object: T, patch: unknown): T {
  if (patch === null) return thaw(object);
  if (!Array.isArray(patch)) throw unreadable(patch, 'Patch');
  for (const operation of patch)
    if (operation !== null && !isObject(operation)) throw unreadable(operation, 'Operation');
  if (patch.length > OPERATIONS_MAX)
    throw failure(
      413,
      'RequestEntityTooLarge',
      `The allowed maximum operations in a JSON patch is ${OPERATIONS_MAX}, got ${patch.length}`,
    );
  const root: JsonObject = { '': thaw(object) };
  try {
    for (const operation of patch as (JsonObject | null)[]) apply(root, operation ?? {});
  } catch (error) {
    if (error instanceof Unfit)
      throw failure(422, 'Invalid', 'the server rejected our request due to an error in our request', {});
    throw error;
  }
  return root[''] as T;
}

/** A patch that does not fit; nobody is told why, as with upstream. */
class Unfit extends Error {}

const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function unreadable(value: unknown, type: string): Error {
  const is = Array.isArray(value) ? 'array' : typeof value === 'boolean' ? 'bool' : typeof value;
  return badRequest(`json: cannot unmarshal ${is} into Go value of type jsonpatch.${type}`);
}

/** `root`: the document under the key ''. */
function apply(root: JsonObject, operation: JsonObject): void {
  const { value = null } = operation;
  const place = () => find(root, textOf(operation, 'path'));
  switch (operation['op']) {
    case 'add':
      return add(place(), thaw(value));
    case 'remove':
      return remove(place());
    case 'replace':
      return replace(root, operation);
    case 'test': {
      const at = operation['path'] === '' ? { container: root, key: '' } : place();
      if (isDeepStrictEqual(get(at) ?? null, value)) return;
      throw new Unfit();
    }
    case 'move': {
      const from = find(root, textOf(operation, 'from'));
      const moved = get(from);
      remove(from);
      return add(place(), moved);
    }
    case 'copy':
      return add(place(), thaw(get(find(root, textOf(operation, 'from'))) ?? null));
    default:
      throw new Unfit();
  }
}

interface Place {
  readonly container: Container;
  readonly key: string;
}

function textOf(operation: JsonObject, field: 'path' | 'from'): string {
  const text = operation[field];
  if (typeof text !== 'string') throw new Unfit();
  return text;
}

/** What stands before the first slash is not looked at. */
function find(root: JsonObject, path: string): Place {
  const parts = path
    .split('/')
    .slice(1)
    .map(part => part.replaceAll('~1', '/').replaceAll('~0', '~'));
  const key = parts.pop();
  if (key === undefined) throw new Unfit();
  let container = root[''];
  for (const part of parts) container = get({ container: containerOf(container), key: part });
  return { container: containerOf(container), key };
}

function containerOf(value: unknown): Container {
  if (Array.isArray(value) || isObject(value)) return value;
  throw new Unfit();
}

/** Undefined for a key that an object does not have. */
function get({ container, key }: Place): unknown {
  if (Array.isArray(container)) return container[indexIn(container.length, key)];
  return Object.hasOwn(container, key) ? container[key] : undefined;
}

function add({ container, key }: Place, value: unknown): void {
  if (!Array.isArray(container)) put(container, key, value);
  else container.splice(key === '-' ? container.length : indexIn(container.length + 1, key), 0, value);
}

function remove({ container, key }: Place): void {
  if (Array.isArray(container)) container.splice(indexIn(container.length, key), 1);
  else if (Object.hasOwn(container, key)) delete container[key];
  else throw new Unfit();
}

function replace(root: JsonObject, operation: JsonObject): void {
  const { path, value = null } = operation;
  if (path === '') {
    root[''] = thaw(containerOf(value));
    return;
  }
  const { container, key } = find(root, textOf(operation, 'path'));
  if (Array.isArray(container)) container[indexIn(container.length, key)] = thaw(value);
  else put(container, key, thaw(value));
}

function indexIn(length: number, key: string): number {
  if (!/^[+-]?\d+$/.test(key)) throw new Unfit();
  const given = Number(key);
  const index = given < 0 ? given + length : given;
  if (index < 0 || index >= length) throw new Unfit();
  return index;
}
