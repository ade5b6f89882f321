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

test('a conversion webhook is told of by the names of its fields inside of upstream', () => {
  const converted = (conversion: object, established?: 'True') => {
    const object = definition(schemaOf(good));
    object.spec.conversion = conversion as CustomResourceDefinition['spec']['conversion'];
    if (established)
      object.status = { conditions: [{ type: 'Established', status: established }] } as unknown as NonNullable<
        CustomResourceDefinition['status']
      >;
    return object;
  };
  const at = 'spec.conversion';
  const client = { url: 'https://example.com' };
  const unwanted = 'should not be set when strategy is not set to Webhook';
  assert.deepEqual(
    shown(converted({ strategy: 'None', webhook: { clientConfig: client, conversionReviewVersions: ['v1'] } })),
    [`${at}.webhookClientConfig: Forbidden: ${unwanted}`, `${at}.conversionReviewVersions: Forbidden: ${unwanted}`],
  );
  assert.deepEqual(shown(converted({ strategy: 'Webhook' })), [
    `${at}.webhookClientConfig: Required value: required when strategy is set to Webhook`,
    `${at}.conversionReviewVersions: Required value`,
  ]);
  const webhook = { clientConfig: client, conversionReviewVersions: ['v2', 'v2', 'V3'] };
  assert.deepEqual(shown(converted({ strategy: 'Webhook', webhook })).slice(0, 1), [
    `${at}.conversionReviewVersions[1]: Invalid value: "v2": duplicate version`,
  ]);
  assert.match(
    shown(converted({ strategy: 'Webhook', webhook })).join('\n'),
    /conversionReviewVersions\[2\]: Invalid value: "V3": a DNS-1035 label[\s\S]*must include at least one of v1, v1beta1/,
  );

  const withBundle = (bundle: string, established?: 'True') => {
    const caBundle = Buffer.from(bundle).toString('base64');
    const clientConfig = { ...client, caBundle };
    return converted({ strategy: 'Webhook', webhook: { clientConfig, conversionReviewVersions: ['v1'] } }, established);
  };
  const problem = 'unable to load root certificates:';
  const broken = '-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----\n';
  assert.deepEqual(shown(withBundle('\n')), [], 'a new definition waits for a better one');
  assert.deepEqual(shown(withBundle('\n'), withBundle('')), [], 'it is not served yet');
  assert.deepEqual(shown(withBundle('\n'), withBundle('\n', 'True')), [], 'it was so before');
  assert.deepEqual(shown(withBundle('\n'), withBundle('', 'True')), [
    `${at}.webhookClientConfig.caBundle: Invalid value: []byte{0xa}: ${problem} unable to parse bytes as PEM block`,
  ]);
  assert.match(
    shown(withBundle(broken), withBundle('', 'True')).join(),
    /root certificates: failed to parse certificate: x509: malformed certificate$/,
  );
  assert.match(
    shown(withBundle(broken.replaceAll('CERTIFICATE', 'RSA PRIVATE KEY')), withBundle('', 'True')).join(),
    /root certificates: no valid certificate authority data seen$/,
  );
});
