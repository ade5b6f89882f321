import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import type { KubeObject } from '../../api/meta.ts';
import { ApiError } from '../../base/errors.ts';
import { metrics } from '../../base/metrics.ts';
import { CUSTOM_RESOURCE_DEFINITIONS } from '../../client/resources.ts';
import type { Target, Transport } from '../../client/transport.ts';
import { openMemoryStore } from '../../store/memory.ts';
import type { Store } from '../../store/store.ts';
import { LOOPBACK_USER } from '../request.ts';
import { ApiServer } from '../server.ts';

// biome-ignore lint/suspicious/noExplicitAny: tests look into objects freely
type Any = any;

const WIDGETS = { group: 'example.dev', version: 'v1', resource: 'widgets' };

const specSchema = {
  type: 'object',
  required: ['size'],
  properties: {
    size: { type: 'integer', minimum: 1, maximum: 10 },
    color: { type: 'string', default: 'red', enum: ['red', 'blue'] },
    port: { 'x-kubernetes-int-or-string': true },
    replicas: { type: 'integer' },
    parts: {
      type: 'array',
      items: {
        type: 'object',
        required: ['name'],
        properties: { name: { type: 'string' }, weight: { type: 'integer', default: 1 } },
      },
      'x-kubernetes-list-type': 'map',
      'x-kubernetes-list-map-keys': ['name'],
    },
    free: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
  },
};

function definition(change: (object: Any) => void = () => {}): KubeObject {
  const object = {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'widgets.example.dev' },
    spec: {
      group: 'example.dev',
      scope: 'Namespaced',
      names: { plural: 'widgets', singular: 'widget', kind: 'Widget', shortNames: ['wd'], categories: ['all'] },
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          schema: {
            openAPIV3Schema: {
              type: 'object',
              properties: {
                spec: specSchema,
                status: {
                  type: 'object',
                  properties: { ready: { type: 'integer' }, selector: { type: 'string' } },
                },
              },
            },
          },
          subresources: {
            status: {},
            scale: {
              specReplicasPath: '.spec.replicas',
              statusReplicasPath: '.status.ready',
              labelSelectorPath: '.status.selector',
            },
          },
          selectableFields: [{ jsonPath: '.spec.color' }],
          additionalPrinterColumns: [{ name: 'Size', type: 'integer', jsonPath: '.spec.size' }],
        },
      ],
    },
  };
  change(object);
  return object as unknown as KubeObject;
}

async function open(store: Store = openMemoryStore()): Promise<{ server: ApiServer; api: Transport; store: Store }> {
  const server = await ApiServer.open({ store });
  return { server, api: server.transport(LOOPBACK_USER), store };
}

/** Creates a definition and waits until it says that it is established. */
async function define(api: Transport, object: KubeObject = definition()): Promise<Any> {
  const target = { of: CUSTOM_RESOURCE_DEFINITIONS };
  const made = await api.create(target, object);
  const stop = AbortSignal.timeout(5000);
  for await (const batch of api.watch(target, { resourceVersion: made.metadata.resourceVersion! }, stop)) {
    for (const event of batch) {
      const { metadata, status } = event.object as Any;
      if (metadata.name === object.metadata.name && status?.conditions?.some((c: Any) => c.type === 'Established'))
        return event.object;
    }
  }
  throw new Error('not established in time');
}

const widget = (name: string, spec: object = { size: 1 }): KubeObject =>
  ({ apiVersion: 'example.dev/v1', kind: 'Widget', metadata: { name }, spec }) as unknown as KubeObject;
const at = (name?: string, subresource?: string): Target => ({
  of: WIDGETS,
  namespace: 'default',
  ...(name ? { name } : {}),
  ...(subresource ? { subresource } : {}),
});
const status = (code: number, message?: RegExp) => (error: unknown) => {
  assert.ok(error instanceof ApiError, String(error));
  assert.equal(error.code, code, error.message);
  if (message) assert.match(error.message, message);
  return true;
};

async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let wait = 0; wait < 250; wait++) {
    if (await condition()) return;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  assert.fail('not in time');
}

test('a definition is established and its resources are served at once', async () => {
  const { api, server } = await open();
  await assert.rejects(api.list(at()), status(404));
  const made = await define(api);
  assert.deepEqual(
    made.status.conditions.map((condition: Any) => [condition.type, condition.status, condition.reason]),
    [
      ['NamesAccepted', 'True', 'NoConflicts'],
      ['Established', 'True', 'InitialNamesAccepted'],
    ],
  );
  assert.deepEqual(made.status.storedVersions, ['v1']);
  // 1.36 has CRDObservedGenerationTracking switched off.
  assert.deepEqual(
    [made.status, ...made.status.conditions].map(part => part.observedGeneration),
    [undefined, undefined, undefined],
  );
  const first: Any = await api.create(at(), widget('a', { size: 2, unknown: 1, parts: [{ name: 'x', extra: true }] }));
  assert.deepEqual(first.spec, { size: 2, color: 'red', parts: [{ name: 'x', weight: 1 }] });
  assert.equal(first.metadata.generation, 1);
  const listed = await api.list(at());
  assert.equal(listed.kind, 'WidgetList');
  assert.equal(listed.items.length, 1);
  await server.close();
});

test('validation speaks as upstream does', async () => {
  const { api, server } = await open();
  await define(api);
  await assert.rejects(api.create(at(), widget('a', {})), status(422, /spec\.size: Required value/));
  await assert.rejects(
    api.create(at(), widget('a', { size: 11 })),
    status(422, /spec\.size: Invalid value: 11: spec\.size in body should be less than or equal to 10$/),
  );
  await assert.rejects(
    api.create(at(), widget('a', { size: 'x' })),
    status(422, /spec\.size: Invalid value: "string": spec\.size in body must be of type integer: "string"/),
  );
  await assert.rejects(
    api.create(at(), widget('a', { size: 1, color: 'green' })),
    status(422, /spec\.color: Unsupported value: "green": supported values: "red", "blue"/),
  );
  await assert.rejects(
    api.create(at(), widget('a', { size: 1, parts: [{ name: 'x' }, { name: 'x' }] })),
    status(422, /spec\.parts\[1\]: Duplicate value: \{"name":"x"\}/),
  );
  await api.create(at(), widget('a', { size: 1, port: 'http', free: { any: [1, { b: null }] } }));
  await server.close();
});

test('generation, status isolation, scale, selectors', async () => {
  const { api, server } = await open();
  await define(api);
  const made: Any = await api.create(at(), { ...widget('a', { size: 1, replicas: 3 }), status: { ready: 9 } } as Any);
  assert.equal(made.status, undefined);
  const patched: Any = await api.patch(at('a'), { spec: { size: 2 } }, 'application/merge-patch+json');
  assert.equal(patched.metadata.generation, 2);
  const ready: Any = await api.patch(
    at('a', 'status'),
    { status: { ready: 2, selector: 'a=b' }, spec: { size: 9 } },
    'application/merge-patch+json',
  );
  assert.equal(ready.spec.size, 2);
  assert.equal(ready.metadata.generation, 2);
  const scale: Any = await api.get(at('a', 'scale'));
  assert.deepEqual([scale.spec, scale.status], [{ replicas: 3 }, { replicas: 2, selector: 'a=b' }]);
  await api.patch(at('a', 'scale'), { spec: { replicas: 5 } }, 'application/merge-patch+json');
  assert.equal(((await api.get(at('a'))) as Any).spec.replicas, 5);
  assert.equal((await api.list(at(), { fieldSelector: 'spec.color=red' })).items.length, 1);
  assert.equal((await api.list(at(), { fieldSelector: 'spec.color=blue' })).items.length, 0);
  await assert.rejects(api.list(at(), { fieldSelector: 'spec.size=1' }), status(400, /field label not supported/));
  await assert.rejects(
    api.patch(at('a'), {}, 'application/strategic-merge-patch+json'),
    status(415, /application\/merge-patch\+json, application\/apply-patch\+yaml$/),
  );
  const { resourceVersion: _, ...metadata } = patched.metadata;
  await assert.rejects(api.update(at('a'), { ...patched, metadata }), status(422, /must be specified for an update/));
  await server.close();
});

test('server-side apply goes by list types', async () => {
  const { api, server } = await open();
  await define(api);
  const apply = (name: string, spec: object, force = false) =>
    api.patch(at('a'), widget('a', spec), 'application/apply-patch+yaml', {
      fieldManager: name,
      force,
    }) as Promise<Any>;
  await apply('one', { size: 1, parts: [{ name: 'x', weight: 2 }] });
  const both = await apply('two', { size: 1, parts: [{ name: 'y' }], free: { deep: { a: 1 } } });
  assert.deepEqual(both.spec.parts, [
    { name: 'x', weight: 2 },
    { name: 'y', weight: 1 },
  ]);
  await assert.rejects(
    apply('two', { size: 1, parts: [{ name: 'x', weight: 3 }] }),
    status(409, /conflict with "one"/),
  );
  const without = await apply('one', { size: 1 });
  assert.deepEqual(without.spec.parts, [{ name: 'y', weight: 1 }]);
  assert.deepEqual(without.spec.free, { deep: { a: 1 } });
  await server.close();
});

test('names that are taken are refused until they are free', async () => {
  const { api, server } = await open();
  await define(api);
  const gadgets = definition(object => {
    object.metadata.name = 'gadgets.example.dev';
    object.spec.names = { plural: 'gadgets', singular: 'gadget', kind: 'Gadget', shortNames: ['wd'] };
  });
  const refused = await define(api, gadgets);
  const conditions = Object.fromEntries(refused.status.conditions.map((c: Any) => [c.type, c]));
  assert.equal(conditions.NamesAccepted.reason, 'ShortNamesConflict');
  assert.equal(conditions.NamesAccepted.message, '"wd" is already in use');
  assert.equal(conditions.Established.status, 'False');
  const events = api.watch(
    { of: CUSTOM_RESOURCE_DEFINITIONS },
    { resourceVersion: refused.metadata.resourceVersion },
    AbortSignal.timeout(5000),
  );
  await api.delete({ of: CUSTOM_RESOURCE_DEFINITIONS, name: 'widgets.example.dev' });
  let established = false;
  for await (const batch of events) {
    established = batch.some(({ object }: Any) => {
      if (object.metadata?.name !== 'gadgets.example.dev') return false;
      return object.status.conditions.some((c: Any) => c.type === 'Established' && c.status === 'True');
    });
    if (established) break;
  }
  assert.ok(established);
  await api.list({ of: { ...WIDGETS, resource: 'gadgets' } });
  await server.close();
});

test('a definition whose converter has no valid authority is not served until it has one', async () => {
  const { api, server } = await open();
  const withBundle = (caBundle: string) =>
    definition(object => {
      const clientConfig = { url: 'https://127.0.0.1:1/convert', caBundle: btoa(caBundle) };
      object.spec.conversion = { strategy: 'Webhook', webhook: { clientConfig, conversionReviewVersions: ['v1'] } };
    });
  const refused = await define(api, withBundle('none'));
  const established = ({ status }: Any) => status.conditions.find((c: Any) => c.type === 'Established');
  const { status, reason, message } = established(refused);
  assert.deepEqual(
    [status, reason, message],
    ['False', 'InvalidCABundle', 'The conversion webhook CABundle is invalid'],
  );
  await assert.rejects(api.list({ of: WIDGETS }), /could not find the requested resource/);
  const target = { of: CUSTOM_RESOURCE_DEFINITIONS, name: 'widgets.example.dev' };
  await api.patch(
    target,
    { spec: { conversion: { webhook: { clientConfig: { caBundle: null } } } } },
    'application/merge-patch+json',
  );
  while (established(await api.get(target)).status !== 'True') await new Promise(done => setTimeout(done, 5));
  await api.list({ of: WIDGETS });
  await assert.rejects(
    api.patch(
      target,
      { spec: { conversion: { webhook: { clientConfig: { caBundle: 'Cg==' } } } } },
      'application/merge-patch+json',
    ),
    /spec.conversion.webhookClientConfig.caBundle: Invalid value: \[\]byte\{0xa\}: unable to load root certificates/,
  );
  await server.close();
});

test('deleting a definition deletes its objects first, and waits for their finalizers', async () => {
  const { api, server } = await open();
  await define(api);
  await api.create(at(), widget('plain'));
  const held = widget('held');
  held.metadata.finalizers = ['example.dev/hold'];
  await api.create(at(), held);
  const watch = api.watch(at(), { resourceVersion: '0' }, AbortSignal.timeout(5000));
  await api.delete({ of: CUSTOM_RESOURCE_DEFINITIONS, name: 'widgets.example.dev' });
  const left: Any = await api.get({ of: CUSTOM_RESOURCE_DEFINITIONS, name: 'widgets.example.dev' });
  assert.deepEqual(left.metadata.finalizers, ['customresourcecleanup.apiextensions.k8s.io']);
  await assert.rejects(api.create(at(), widget('late')), status(405, /custom resource definition is terminating/));
  await eventually(async () => (await api.get(at('held'))).metadata.deletionTimestamp !== undefined);
  await api.patch(at('held'), { metadata: { finalizers: [] } }, 'application/merge-patch+json');
  for await (const _ of watch);
  await eventually(() => server.table.of(WIDGETS) === undefined);
  await assert.rejects(api.get(at('held')), status(404));
  await assert.rejects(
    api.get({ of: CUSTOM_RESOURCE_DEFINITIONS, name: 'widgets.example.dev' }),
    status(404, /"widgets.example.dev" not found/),
  );
  await server.close();
});

test('a new server serves what is established before anything else', async () => {
  const { api, server, store } = await open();
  await define(api);
  await api.create(at(), widget('a'));
  await server.close();
  const again = await open(store);
  assert.equal((await again.api.list(at())).items.length, 1);
  await again.server.close();
});

test('versions share their objects and show their own defaults', async () => {
  const { api, server } = await open();
  await define(
    api,
    definition(object => {
      const [v1] = object.spec.versions;
      const beta = structuredClone(v1);
      beta.name = 'v1beta1';
      beta.storage = false;
      beta.deprecated = true;
      beta.schema.openAPIV3Schema.properties.spec.properties.color.default = 'blue';
      beta.schema.openAPIV3Schema.properties.spec.properties.legacy = { type: 'string', default: 'yes' };
      object.spec.versions.push(beta);
    }),
  );
  const old = { ...WIDGETS, version: 'v1beta1' };
  await api.create({ of: old, namespace: 'default' }, { ...widget('a'), apiVersion: 'example.dev/v1beta1' });
  const v1: Any = await api.get(at('a'));
  assert.equal(v1.apiVersion, 'example.dev/v1');
  assert.deepEqual(v1.spec, { size: 1, color: 'blue' });
  const beta: Any = await api.get({ of: old, namespace: 'default', name: 'a' });
  assert.equal(beta.apiVersion, 'example.dev/v1beta1');
  assert.equal(beta.spec.legacy, 'yes');
  await server.close();
});

test('a schema that grows stricter forgives what was there', async () => {
  const { api, server } = await open();
  const made = await define(api);
  await api.create(at(), widget('a', { size: 9, parts: [{ name: 'x', weight: 7 }] }));
  const next = structuredClone(made) as Any;
  const { properties } = next.spec.versions[0].schema.openAPIV3Schema.properties.spec;
  properties.size.maximum = 5;
  properties.parts.items.properties.weight.maximum = 5;
  await api.update({ of: CUSTOM_RESOURCE_DEFINITIONS, name: 'widgets.example.dev' }, next);
  await api.patch(at('a'), { spec: { color: 'blue' } }, 'application/merge-patch+json');
  await assert.rejects(
    api.patch(at('a'), { spec: { size: 8 } }, 'application/merge-patch+json'),
    status(422, /spec\.size: Invalid value: 8: .* less than or equal to 5$/),
  );
  await api.patch(at('a'), { spec: { size: 5 } }, 'application/merge-patch+json');
  await server.close();
});

test('a field called __proto__ is a field like any other', async () => {
  const { api, server } = await open();
  await define(api);
  const spec = JSON.parse('{"size":1,"__proto__":{"size":2},"free":{"__proto__":{"polluted":true},"x":1}}');
  const made: Any = await api.create(at(), widget('a', spec));
  assert.equal(({} as Any).polluted, undefined);
  assert.equal(made.spec.size, 1);
  assert.deepEqual(Object.keys(made.spec.free).sort(), ['__proto__', 'x']);
  await server.close();
});

test('rules in CEL', async () => {
  const { api, server } = await open();
  const counted = () =>
    ['compilation', 'evaluation'].map(what =>
      metrics.histogram(`apiserver_cel_${what}_duration_seconds`, '', []).get(),
    );
  const [compiledBefore = 0, evaluatedBefore = 0] = counted();
  const bad = definition(object => {
    const { spec } = object.spec.versions[0].schema.openAPIV3Schema.properties;
    spec['x-kubernetes-validations'] = [{ rule: 'self.size <' }];
  });
  await assert.rejects(
    api.create({ of: CUSTOM_RESOURCE_DEFINITIONS }, bad),
    status(
      422,
      /x-kubernetes-validations\[0\]\.rule: Invalid value: .*compilation failed: ERROR: <input>:1:12: Syntax error/,
    ),
  );
  await define(
    api,
    definition(object => {
      const { spec } = object.spec.versions[0].schema.openAPIV3Schema.properties;
      spec['x-kubernetes-validations'] = [
        { rule: '!has(self.replicas) || self.replicas <= self.size', message: 'no more replicas than size' },
        {
          rule: 'self.parts.all(p, p.weight < 10)',
          messageExpression: "'too heavy: ' + string(self.size)",
          fieldPath: '.parts',
        },
        { rule: '!oldSelf.hasValue() || self.color == oldSelf.value().color || self.size > 5', optionalOldSelf: true },
      ];
      spec.required = ['size', 'parts'];
      spec.properties.size['x-kubernetes-validations'] = [
        { rule: 'self >= oldSelf', message: 'may only grow', reason: 'FieldValueForbidden' },
        { rule: 'self != 7', message: 'unlucky' },
      ];
    }),
  );
  const good = { size: 2, replicas: 2, parts: [{ name: 'x' }] };
  await api.create(at(), widget('a', good));
  await assert.rejects(
    api.create(at(), widget('b', { ...good, replicas: 3 })),
    status(422, /spec: Invalid value: no more replicas than size$/),
  );
  await assert.rejects(
    api.create(at(), widget('b', { ...good, parts: [{ name: 'x', weight: 11 }] })),
    status(422, /spec\.parts: Invalid value: too heavy: 2$/),
  );
  await assert.rejects(
    api.create(at(), widget('b', { ...good, size: 7 })),
    status(422, /spec\.size: Invalid value: 7: unlucky$/),
  );
  const change = (spec: object) => api.patch(at('a'), { spec }, 'application/merge-patch+json');
  await assert.rejects(change({ size: 1, replicas: 1 }), status(422, /spec\.size: Forbidden: may only grow$/));
  await assert.rejects(change({ color: 'blue' }), status(422, /failed rule: !oldSelf.hasValue/));
  await change({ size: 6, color: 'blue' });
  await assert.rejects(
    api.create(at(), widget('b', { size: 'x', parts: [] })),
    status(422, /some validation rules were not checked because the object was invalid/),
  );
  const [compiled = 0, evaluated = 0] = counted();
  assert.ok(compiled - compiledBefore >= 5, 'each rule is compiled');
  assert.ok(evaluated - evaluatedBefore >= 7, 'rules are run for each object');
  await server.close();
});
