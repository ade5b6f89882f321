/** The options of a connection (PodExecOptions and the like) from its query: what admission sees as the object of a CONNECT. */

import type { KubeObject } from '../api/meta.ts';
import type { SubresourceInfo } from '../api/schema.ts';
import { fieldsOf, typeOfKind } from '../api/schema-registry.ts';
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

function parsed(text: string, type: string): unknown {
  // A name without a value says yes.
  if (type === 'bool') return !['0', 'false'].includes(text.toLowerCase());
  if (type !== 'int32') return text;
  if (!/^[+-]?\d+$/.test(text)) throw badRequest(`strconv.ParseInt: parsing ${JSON.stringify(text)}: invalid syntax`);
  return Number(text);
}
