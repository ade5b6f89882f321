import assert from 'node:assert/strict';
import test from 'node:test';
import { validateDefinition } from './definition-validation.ts';
import type { CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps } from './v1.gen.ts';

type Version = Partial<CustomResourceDefinitionVersion>;

const schemaOf = (spec: JSONSchemaProps): Version => ({
  schema: { openAPIV3Schema: { type: 'object', properties: { spec } } },
});
function definition(...versions: Version[]): CustomResourceDefinition {
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'things.example.org' },
    spec: {
      group: 'example.org',
      scope: 'Namespaced',
      names: { plural: 'things', singular: 'thing', kind: 'Thing', listKind: 'ThingList' },
      versions: versions.map((version, index) => ({
        name: `v${index + 1}`,
        served: true,
        storage: index === 0,
        ...version,
      })),
      conversion: { strategy: 'None' },
    },
  };
}
const shown = (object: CustomResourceDefinition, old?: CustomResourceDefinition): string[] =>
  validateDefinition(object, old).map(({ field, message }) => `${field}: ${message}`);

const good: JSONSchemaProps = { type: 'object' };
const bad: JSONSchemaProps = {};
const scale = { subresources: { scale: { specReplicasPath: '', statusReplicasPath: '.status.n' } } };

test('errors in what all versions have alike are said once, of the definition itself', () => {
  const missing = 'type: Required value: must not be empty for specified object fields';
  const hoisted = `spec.validation.openAPIV3Schema.properties[spec].${missing}`;
  assert.deepEqual(shown(definition(schemaOf(good))), []);
  assert.deepEqual(shown(definition(schemaOf(bad))), [hoisted]);
  assert.deepEqual(shown(definition(schemaOf(bad), schemaOf(bad))), [hoisted]);
  assert.deepEqual(shown(definition(schemaOf(good), schemaOf(bad))), [
    `spec.versions[1].schema.openAPIV3Schema.properties[spec].${missing}`,
  ]);
  assert.deepEqual(shown(definition({ ...schemaOf(good), ...scale })), [
    'spec.subresources.scale.specReplicasPath: Required value',
  ]);
  assert.deepEqual(shown(definition({ ...schemaOf(good), ...scale }, schemaOf(good))), [
    'spec.versions[0].subresources.scale.specReplicasPath: Required value',
  ]);
  const columns = { additionalPrinterColumns: [{ name: 'A', type: 'string', jsonPath: '' }] };
  assert.deepEqual(shown(definition({ ...schemaOf(good), ...columns })), [
    'spec.additionalPrinterColumns[0].jsonPath: Required value',
  ]);
});

test('keywords that are not supported are not so below a combinator either', () => {
  const at = 'spec.validation.openAPIV3Schema.properties[spec]';
  assert.deepEqual(shown(definition(schemaOf({ ...good, not: { $ref: 'x' }, anyOf: [{ uniqueItems: true }] }))), [
    `${at}.anyOf[0].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic`,
    `${at}.not.$ref: Forbidden: $ref is not supported`,
  ]);
});

test('the name of a definition is asked after when it is made', () => {
  const old = definition(schemaOf(good));
  const renamed = { ...old, spec: { ...old.spec, names: { ...old.spec.names, plural: 'others' } } };
  assert.match(shown(renamed)[0]!, /^metadata.name: .*must be spec.names.plural/);
  assert.ok(!shown(renamed, old).some(error => error.startsWith('metadata.name')));
});
