/** Formats in the schemas of a definition that nobody checks: told when they are new, and accepted. Pure. */

import { isKnownFormat } from './formats.ts';
import type { CustomResourceDefinition, JSONSchemaProps } from './v1.gen.ts';

export function formatWarnings(object: CustomResourceDefinition, old: CustomResourceDefinition | undefined): string[] {
  const before = old ? unknownFormats(old) : undefined;
  return [...unknownFormats(object)]
    .filter(format => !before?.has(format))
    .map(format => `unrecognized format ${JSON.stringify(format)}`);
}

function unknownFormats({ spec }: CustomResourceDefinition): ReadonlySet<string> {
  const found = new Set<string>();
  for (const { schema } of spec?.versions ?? []) if (schema?.openAPIV3Schema) collect(schema.openAPIV3Schema, found);
  return found;
}

function collect(schema: JSONSchemaProps, found: Set<string>): void {
  const { format, type, items, additionalProperties, additionalItems, not, dependencies } = schema;
  if (format && !isKnownFormat(format, type)) found.add(format);
  const lists = [schema.allOf, schema.anyOf, schema.oneOf, Array.isArray(items) ? items : [items]];
  const maps = [schema.properties, schema.patternProperties, schema.definitions, dependencies];
  const below: unknown[] = [not, additionalProperties, additionalItems, ...lists.flatMap(list => list ?? [])];
  for (const map of maps) below.push(...Object.values(map ?? {}));
  for (const one of below)
    if (typeof one === 'object' && one !== null && !Array.isArray(one)) collect(one as JSONSchemaProps, found);
}
