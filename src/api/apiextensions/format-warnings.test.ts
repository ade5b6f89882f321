import assert from 'node:assert/strict';
import test from 'node:test';
import { formatWarnings } from './format-warnings.ts';
import type { CustomResourceDefinition, JSONSchemaProps } from './v1.gen.ts';

test('formats that nobody checks are told once, when they are new', () => {
  const definition = (properties: Record<string, JSONSchemaProps>): CustomResourceDefinition =>
    ({
      metadata: { name: 'x' },
      spec: { versions: [{ name: 'v1', schema: { openAPIV3Schema: { type: 'object', properties } } }] },
    }) as unknown as CustomResourceDefinition;
  const known = { a: 'date-time', b: 'datetime', c: 'password', d: 'k8s-short-name', e: 'quantity' };
  const fine = definition({
    ...Object.fromEntries(Object.entries(known).map(([name, format]) => [name, { type: 'string', format }])),
    f: { type: 'integer', format: 'int32' },
    g: { type: 'number', format: 'double' },
    h: { type: 'string' },
  });
  assert.deepEqual(formatWarnings(fine, undefined), []);
  const odd: JSONSchemaProps = { type: 'string', format: 'weird' };
  const strange = definition({
    a: odd,
    b: { type: 'array', items: { type: 'object', additionalProperties: { type: 'integer', format: 'int8' } } },
    c: { anyOf: [odd] },
  });
  assert.deepEqual(formatWarnings(strange, fine), ['unrecognized format "weird"', 'unrecognized format "int8"']);
  assert.deepEqual(formatWarnings(strange, definition({ z: odd })), ['unrecognized format "int8"']);
});
