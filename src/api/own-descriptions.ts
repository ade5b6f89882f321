/**
 * Descriptions of the fields of our own definitions, from `own-descriptions.txt`: for OpenAPI only, so that the definitions themselves,
 * which every cluster stores, stay small. What a schema says itself stays.
 */

import { readFileSync } from 'node:fs';
import { assert } from '../base/assert.ts';
import type { JSONSchemaProps } from './apiextensions/v1.gen.ts';

/** Text by the end of a path: `listeners.tls.mode`. */
export type OwnDescriptions = ReadonlyMap<string, string>;

/** Read when somebody asks; nothing of it is kept. */
export function ownDescriptions(): OwnDescriptions {
  const found = new Map<string, string>();
  for (const line of readFileSync(new URL('./own-descriptions.txt', import.meta.url), 'utf8').split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const colon = line.indexOf(': ');
    assert(colon > 0, 'a line of own-descriptions.txt has no colon');
    found.set(line.slice(0, colon), line.slice(colon + 2));
  }
  return found;
}

/** The schema of a kind with a text at every field that has none. */
export function describedSchema(kind: string, schema: JSONSchemaProps, texts: OwnDescriptions): JSONSchemaProps {
  return described([kind], schema, texts);
}

function described(path: readonly string[], schema: JSONSchemaProps, texts: OwnDescriptions): JSONSchemaProps {
  const text = schema.description ?? textOf(path, texts);
  const { properties, items, additionalProperties } = schema;
  const inner = (part: JSONSchemaProps): JSONSchemaProps => described(path, part, texts);
  return {
    ...(text === undefined ? {} : { description: text }),
    ...schema,
    ...(properties
      ? {
          properties: Object.fromEntries(
            Object.entries(properties).map(([name, part]) => [name, described([...path, name], part, texts)]),
          ),
        }
      : {}),
    ...(items && !Array.isArray(items) ? { items: inner(items as JSONSchemaProps) } : {}),
    ...(additionalProperties && typeof additionalProperties === 'object'
      ? { additionalProperties: inner(additionalProperties as JSONSchemaProps) }
      : {}),
  };
}

function textOf(path: readonly string[], texts: OwnDescriptions): string | undefined {
  for (let from = 0; from < path.length; from++) {
    const end = path.slice(from);
    const found = texts.get(end.join('.')) ?? (from === 0 ? texts.get(['*', ...end.slice(1)].join('.')) : undefined);
    if (found !== undefined) return found;
  }
  return undefined;
}
