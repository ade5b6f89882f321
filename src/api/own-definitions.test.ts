import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { structuralProblems } from './apiextensions/structural-check.ts';
import { OWN_DEFINITIONS } from './own-definitions.ts';

test('the schemas that validation takes as sound are', () => {
  for (const { metadata, spec } of OWN_DEFINITIONS)
    for (const { name, schema } of spec.versions) {
      const at = `${metadata.name} ${name}`;
      assert.deepEqual(structuralProblems(schema!.openAPIV3Schema!, at), [], at);
    }
});
