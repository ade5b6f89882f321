import { strict as assert } from 'node:assert';
import { after, before, test } from 'node:test';
import { silentLogger } from '../../base/log.ts';
import { CUSTOM_RESOURCE_DEFINITIONS, VALIDATING_ADMISSION_POLICIES } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import { openMemoryStore } from '../../store/memory.ts';
import { LOOPBACK_USER } from '../request.ts';
import { ApiServer } from '../server.ts';
import { PolicyStatuses } from './policy-statuses.ts';

let server: ApiServer;
let api: Transport;

before(async () => {
  server = await ApiServer.open({ store: openMemoryStore() });
  api = server.transport(LOOPBACK_USER);
  new PolicyStatuses({ reader: () => server.reader, transport: () => api, log: silentLogger }).follow();
});
after(() => server.close());

interface Rule {
  readonly apiGroups: string[];
  readonly apiVersions: string[];
  readonly resources: string[];
}
const DEPLOYMENTS: Rule = { apiGroups: ['apps'], apiVersions: ['v1'], resources: ['deployments'] };

async function warningsOf(
  name: string,
  validations: readonly object[],
  { rules = [DEPLOYMENTS], variables = [] }: { rules?: readonly Rule[]; variables?: readonly object[] } = {},
): Promise<readonly { fieldRef: string; warning: string }[]> {
  const made = await api.create({ of: VALIDATING_ADMISSION_POLICIES }, {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'ValidatingAdmissionPolicy',
    metadata: { name },
    spec: {
      matchConstraints: { resourceRules: rules.map(rule => ({ ...rule, operations: ['CREATE'] })) },
      variables,
      validations,
    },
  } as never);
  for (;;) {
    const { status } = (await api.get({ of: VALIDATING_ADMISSION_POLICIES, name })) as unknown as {
      status?: { observedGeneration?: number; typeChecking?: { expressionWarnings?: [] } };
    };
    if (status?.observedGeneration === made.metadata.generation) return status!.typeChecking!.expressionWarnings ?? [];
    await new Promise(resolve => setImmediate(resolve));
  }
}

test('what fits the kind is not warned about', async () => {
  const expression =
    'object.spec.replicas <= 5 && object.metadata.labels["a"] == "b" && has(object.spec.template.spec.hostname)';
  assert.deepEqual(await warningsOf('fits', [{ expression }]), []);
});

test('fields that a kind does not have, and types that never meet, are told for each kind', async () => {
  const rules = [DEPLOYMENTS, { apiGroups: [''], apiVersions: ['v1'], resources: ['pods'] }];
  const found = await warningsOf(
    'misfits',
    [
      { expression: 'object.spec.replicas > 1', messageExpression: '"a" + object.spec.foo' },
      { expression: 'variables.count == "three"' },
    ],
    { rules, variables: [{ name: 'count', expression: 'size(object.metadata.finalizers)' }] },
  );
  assert.deepEqual(
    found.map(({ fieldRef, warning }) => [fieldRef, warning.match(/^\S+, Kind=\w+/gm)]),
    [
      ['spec.validations[0].expression', ['/v1, Kind=Pod']],
      ['spec.validations[0].messageExpression', ['/v1, Kind=Pod', 'apps/v1, Kind=Deployment']],
      ['spec.validations[1].expression', ['/v1, Kind=Pod', 'apps/v1, Kind=Deployment']],
    ],
  );
  assert.match(found[0]!.warning, /undefined field 'replicas'/);
});

test('wildcards match kinds that nobody knows yet: nothing is said', async () => {
  const rules = [{ ...DEPLOYMENTS, resources: ['*'] }];
  assert.deepEqual(await warningsOf('wild', [{ expression: 'object.anything == 1' }], { rules }), []);
});

test('custom resources are checked by their schema, with all of their metadata', async () => {
  await api.create({ of: CUSTOM_RESOURCE_DEFINITIONS }, {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'things.example.com' },
    spec: {
      group: 'example.com',
      scope: 'Namespaced',
      names: { plural: 'things', singular: 'thing', kind: 'Thing', listKind: 'ThingList' },
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          schema: {
            openAPIV3Schema: {
              type: 'object',
              properties: { spec: { type: 'object', properties: { size: { type: 'integer' } } } },
            },
          },
        },
      ],
    },
  } as never);
  while (!server.table.find('example.com', 'v1', 'things')) await new Promise(resolve => setImmediate(resolve));
  const rules = [{ apiGroups: ['example.com'], apiVersions: ['v1'], resources: ['things'] }];
  const fits = [{ expression: 'object.spec.size < 3 && "a" in object.metadata.annotations' }];
  assert.deepEqual(await warningsOf('thing-fits', fits, { rules }), []);
  const [warning] = await warningsOf('thing-misfits', [{ expression: 'object.spec.colour == "red"' }], { rules });
  assert.match(warning!.warning, /^example.com\/v1, Kind=Thing: .*undefined field 'colour'/s);
});
