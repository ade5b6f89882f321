import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { structuralProblems } from './apiextensions/structural-check.ts';
import type { JSONSchemaProps } from './apiextensions/v1.gen.ts';
import { OWN_DEFINITIONS } from './own-definitions.ts';
import { describedSchema, ownDescriptions } from './own-descriptions.ts';

test('the schemas that validation takes as sound are', () => {
  for (const { metadata, spec } of OWN_DEFINITIONS)
    for (const { name, schema } of spec.versions) {
      const at = `${metadata.name} ${name}`;
      assert.deepEqual(structuralProblems(schema!.openAPIV3Schema!, at), [], at);
    }
});

test('every field has a text, and every text a field', () => {
  const texts = ownDescriptions();
  const used = new Set<string>();
  const noted = new Map([...texts].map(([end]) => [end, end]));
  const without: string[] = [];
  const look = (schema: JSONSchemaProps, path: string): void => {
    if (schema.description === undefined) without.push(path);
    else used.add(schema.description);
    for (const [name, part] of Object.entries(schema.properties ?? {})) look(part, `${path}.${name}`);
    if (schema.items) look(schema.items as JSONSchemaProps, path);
  };
  for (const { spec } of OWN_DEFINITIONS)
    for (const { name, schema } of spec.versions)
      look(describedSchema(spec.names.kind, schema!.openAPIV3Schema!, noted), `${spec.names.kind} ${name}`);
  assert.deepEqual(without, []);
  assert.deepEqual(
    [...texts.keys()].filter(end => !used.has(end)),
    [],
  );
});
