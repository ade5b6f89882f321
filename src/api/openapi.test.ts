import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { type CustomResource, openapiV2Document, openapiV3Documents, openapiV3Index } from './openapi.ts';
import type { JsonSchema } from './openapi-schema.ts';

type Schemas = Record<string, JsonSchema & { properties: Record<string, JsonSchema> }>;

interface V3 {
  readonly paths: Record<string, Record<string, JsonSchema>>;
  readonly components: { readonly schemas: Schemas };
}

const options = { release: 'v1.36.0' };
const documentAt = (path: string, custom: readonly CustomResource[] = []) =>
  openapiV3Documents({ ...options, custom })
    .find(document => document.path === path)!
    .build() as unknown as V3;

const widgets: CustomResource = {
  info: {
    group: 'shop.example.com',
    version: 'v1',
    resource: 'widgets',
    singular: 'widget',
    kind: 'Widget',
    listKind: 'WidgetList',
    namespaced: true,
    shortNames: [],
    categories: [],
    verbs: ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'],
    type: '',
    subresources: [{ name: 'status', verbs: ['get', 'patch', 'update'] }],
  },
  schema: {
    type: 'object',
    properties: {
      spec: {
        type: 'object',
        properties: {
          size: {
            'x-kubernetes-int-or-string': true,
            type: 'string',
            anyOf: [{ type: 'integer' }, { type: 'string' }],
          },
          colour: { type: 'string', default: 'red', nullable: true },
          more: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true, properties: { a: { type: 'string' } } },
        },
      },
    },
  },
};

/** Every `$ref` of a document, by walking it. */
function references(value: unknown, found = new Set<string>()): Set<string> {
  if (typeof value === 'object' && value !== null) {
    for (const [key, inner] of Object.entries(value)) {
      if (key === '$ref' && typeof inner === 'string') found.add(inner);
      else references(inner, found);
    }
  }
  return found;
}

test('every reference of every document leads to a definition, and no definition is unused', () => {
  for (const { path, build } of openapiV3Documents({ ...options, custom: [widgets] })) {
    const document = build() as unknown as V3;
    const schemas = Object.keys(document.components.schemas).map(name => `#/components/schemas/${name}`);
    assert.deepEqual([...references(document)].sort(), schemas.sort(), path);
  }
  const v2 = openapiV2Document({ ...options, custom: [widgets] });
  const definitions = Object.keys(v2['definitions'] as object).map(name => `#/definitions/${name}`);
  assert.deepEqual([...references(v2)].sort(), definitions.sort());
});

test('v3 schemas carry defaults, enums and merge facts', () => {
  const { schemas } = documentAt('api/v1').components;
  const port = schemas['io.k8s.api.core.v1.ServicePort']!;
  assert.match(port['description'] as string, /port of a Service/);
  assert.deepEqual(port.properties['protocol'], {
    description: 'Transport protocol: TCP, UDP or SCTP.',
    type: 'string',
    enum: ['SCTP', 'TCP', 'UDP'],
    default: 'TCP',
  });
  assert.deepEqual(port.properties['port'], {
    description: "Number of the Service's port.",
    type: 'integer',
    format: 'int32',
    default: 0,
  });
  assert.deepEqual(port['required'], ['port']);
  const container = schemas['io.k8s.api.core.v1.Container']!;
  assert.deepEqual(container.properties['env'], {
    description: 'Environment variables.',
    type: 'array',
    items: { allOf: [{ $ref: '#/components/schemas/io.k8s.api.core.v1.EnvVar' }], default: {} },
    'x-kubernetes-list-map-keys': ['name'],
    'x-kubernetes-list-type': 'map',
    'x-kubernetes-patch-merge-key': 'name',
    'x-kubernetes-patch-strategy': 'merge',
  });
  const pod = schemas['io.k8s.api.core.v1.Pod']!;
  assert.deepEqual(pod['x-kubernetes-group-version-kind'], [{ group: '', version: 'v1', kind: 'Pod' }]);
});

test('kubectl finds fieldValidation on the patch operation of a kind', () => {
  const item = documentAt('apis/apps/v1').paths['/apis/apps/v1/namespaces/{namespace}/deployments/{name}']!;
  const patch = item['patch']!;
  assert.deepEqual(patch['x-kubernetes-group-version-kind'], { group: 'apps', version: 'v1', kind: 'Deployment' });
  const names = (patch['parameters'] as { name: string }[]).map(({ name }) => name);
  assert.deepEqual(names, ['dryRun', 'fieldManager', 'fieldValidation', 'force']);
});

test('custom resources have documents of their own and a place in v2', () => {
  const v3 = documentAt('apis/shop.example.com/v1', [widgets]);
  const schema = v3.components.schemas['com.example.shop.v1.Widget']!;
  assert.equal(Object.keys(schema.properties).join(), 'spec,apiVersion,kind,metadata');
  assert.ok(v3.paths['/apis/shop.example.com/v1/namespaces/{namespace}/widgets/{name}/status']);
  const definitions = openapiV2Document({ ...options, custom: [widgets] })['definitions'] as Schemas;
  const spec = definitions['com.example.shop.v1.Widget']!.properties['spec'] as (typeof definitions)[string];
  assert.deepEqual(spec.properties, {
    size: { 'x-kubernetes-int-or-string': true },
    colour: {},
    more: { 'x-kubernetes-preserve-unknown-fields': true },
  });
  for (const { properties } of [schema, definitions['com.example.shop.v1.Widget']!])
    assert.match(
      String((properties['metadata'] as { description?: string }).description),
      /^Standard object's metadata/,
    );
});

test('the index names each document, and hashes change with the release and the custom schema', () => {
  const documents = openapiV3Documents({ ...options, custom: [widgets] });
  const index = openapiV3Index(documents) as { paths: Record<string, { serverRelativeURL: string }> };
  const url = index.paths['apis/apps/v1']!.serverRelativeURL;
  assert.match(url, /^\/openapi\/v3\/apis\/apps\/v1\?hash=[0-9A-F]{128}$/);
  const hashes = (documents: readonly { hash: string }[]) => new Set(documents.map(({ hash }) => hash));
  assert.equal(hashes(documents).size, documents.length);
  const later = openapiV3Documents({ release: 'v1.36.1', custom: [widgets] });
  assert.equal(hashes([...documents, ...later]).size, 2 * documents.length);
  const changed = openapiV3Documents({ ...options, custom: [{ ...widgets, schema: { type: 'object' } }] });
  assert.equal(hashes([...documents, ...changed]).size, documents.length + 1);
});

test('v2 names no field of a custom resource that may have any, so that its clients refuse none', () => {
  const schema = {
    type: 'object',
    'x-kubernetes-preserve-unknown-fields': true,
    properties: { spec: { type: 'object' } },
  };
  const build = (custom: CustomResource) =>
    (openapiV2Document({ ...options, custom: [custom] }) as unknown as { definitions: Schemas }).definitions[
      'com.example.shop.v1.Widget'
    ];
  const open = {
    type: 'object',
    'x-kubernetes-group-version-kind': [{ group: 'shop.example.com', kind: 'Widget', version: 'v1' }],
  };
  assert.deepEqual(build({ ...widgets, schema }), open);
  assert.deepEqual(build({ info: widgets.info }), open);
  const v3 = documentAt('apis/shop.example.com/v1', [{ ...widgets, schema }]);
  assert.equal(v3.components.schemas['com.example.shop.v1.Widget']!['x-kubernetes-preserve-unknown-fields'], true);
});
