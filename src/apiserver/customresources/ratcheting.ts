/**
 * Ratcheting: an update may leave wrong what was wrong before. A finding about a value that the update did not touch becomes
 * no obstacle; one about a value that it changed stands.
 */

import { isDeepStrictEqual } from 'node:util';
import { isObject, type JsonObject, type SchemaNode } from '../../api/apiextensions/structural-schema.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { FieldError } from '../../base/errors.ts';

export function ratcheted(
  schema: SchemaNode,
  { object, old }: { object: KubeObject; old: KubeObject },
  problemsOf: (schema: SchemaNode, object: KubeObject) => readonly FieldError[],
): FieldError[] {
  const errors = problemsOf(schema, object);
  if (errors.length === 0) return [];
  const before = problemsOf(schema, old);
  return errors.filter(error => {
    const known = before.some(other => other.field === error.field && other.message === error.message);
    if (!known) return !isUntouched(schema, { object, old }, error.field);
    // Combinators have no path; being wrong in the same words about unchanged parts is being unchanged.
    if (error.field === '<nil>') return !isDeepStrictEqual(withoutMetadata(object), withoutMetadata(old));
    return !isUntouched(schema, { object, old }, error.field);
  });
}

function withoutMetadata({ metadata: _, ...rest }: KubeObject): object {
  return rest;
}

/** Whether the value at the path, or the object around a missing one, is as it was. Items of list maps are found by their keys. */
function isUntouched(schema: SchemaNode, { object, old }: { object: unknown; old: unknown }, path: string): boolean {
  let node: SchemaNode | undefined = schema;
  let [now, then] = [object, old];
  for (const step of stepsOf(path)) {
    if (typeof step === 'number') {
      if (!Array.isArray(now) || !Array.isArray(then)) return false;
      const item: unknown = now[step];
      const list: SchemaNode | undefined = node;
      // Items of other lists cannot be told from each other, so the list is touched as a whole.
      if (list?.listType !== 'map') return isDeepStrictEqual(now, then);
      const found: unknown = then.find(other => isSameItem(list.listKeys, item, other));
      if (found === undefined) return false;
      [now, then] = [item, found];
      node = list.items;
    } else {
      if (!isObject(now) || !isObject(then)) return false;
      // A field that is missing is a fault of the object around it.
      if (!Object.hasOwn(now, step)) return !Object.hasOwn(then, step) && isDeepStrictEqual(rest(now), rest(then));
      if (!Object.hasOwn(then, step)) return false;
      const known: SchemaNode | true | undefined = node?.properties.get(step) ?? node?.additional;
      node = known === true ? undefined : known;
      [now, then] = [now[step], then[step]];
    }
  }
  return isDeepStrictEqual(now, then);
}

function rest(object: JsonObject): JsonObject {
  const { metadata: _, ...others } = object;
  return others;
}

function isSameItem(keys: readonly string[], a: unknown, b: unknown): boolean {
  return isObject(a) && isObject(b) && keys.every(key => isDeepStrictEqual(a[key], b[key]));
}

/** `spec.items[0].name`; names with dots in them lead nowhere, and then nothing is forgiven. */
function stepsOf(path: string): (string | number)[] {
  return [...path.matchAll(/([^.[\]]+)|\[(\d+)\]/g)].map(([, name, index]) =>
    index === undefined ? name! : Number(index),
  );
}
