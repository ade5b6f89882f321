/**
 * The options of a connection (PodExecOptions and the like): made of its query, they are what admission sees as the object of a CONNECT,
 * and what admission makes of them is what the connection is opened with.
 */

import type { KubeObject } from '../api/meta.ts';
import type { SubresourceInfo } from '../api/schema.ts';
import { fieldsOf, typeOfKind } from '../api/schema-registry.ts';
import { normalize } from '../api/structural.ts';
import { badRequest } from '../base/errors.ts';

type OptionsKind = NonNullable<SubresourceInfo['kind']>;

/** `rest` is the path behind `/proxy`. They have no metadata. Undefined where the subresource takes none (logs). Throws BadRequest. */
export function connectOptions(
  kind: OptionsKind | undefined,
  query: URLSearchParams,
  rest: string,
): KubeObject | undefined {
  if (!kind) return undefined;
  const options: Record<string, unknown> = {
    kind: kind.kind,
    apiVersion: kind.group ? `${kind.group}/${kind.version}` : kind.version,
  };
  for (const [name, field] of fieldsOf(typeOfKind(kind.group, kind.version, kind.kind)!)) {
    const texts = name === 'path' ? (rest ? [rest] : []) : query.getAll(name);
    if (field.number === 0 || texts.length === 0) continue;
    options[name] = field.type.startsWith('[]')
      ? texts.map(text => parsed(text, field.type.slice(2)))
      : parsed(texts[0]!, field.type);
  }
  return options as unknown as KubeObject;
}

/** The options as a webhook or policy gave them back: without fields that there are not. */
export function settledOptions(kind: OptionsKind, options: KubeObject): KubeObject {
  return normalize(typeOfKind(kind.group, kind.version, kind.kind)!, options);
}

/** A connection's query and path with other options. What is not an option stays, such as the query of a proxied request. */
export function withOptions(
  kind: OptionsKind,
  options: KubeObject,
  { query, rest }: { readonly query: URLSearchParams; readonly rest: string },
): { readonly query: URLSearchParams; readonly rest: string } {
  const values = options as unknown as Readonly<Record<string, unknown>>;
  const next = new URLSearchParams(query);
  let path = rest;
  for (const [name, field] of fieldsOf(typeOfKind(kind.group, kind.version, kind.kind)!)) {
    const value = values[name];
    if (name === 'path') path = typeof value === 'string' ? value : '';
    else if (field.number !== 0) {
      next.delete(name);
      for (const one of Array.isArray(value) ? value : value === undefined ? [] : [value])
        next.append(name, String(one));
    }
  }
  return { query: next, rest: path };
}

function parsed(text: string, type: string): unknown {
  // A name without a value says yes.
  if (type === 'bool') return !['0', 'false'].includes(text.toLowerCase());
  if (type !== 'int32') return text;
  if (!/^[+-]?\d+$/.test(text)) throw badRequest(`strconv.ParseInt: parsing ${JSON.stringify(text)}: invalid syntax`);
  return Number(text);
}
