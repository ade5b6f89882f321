import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { CustomResourceDefinition } from '../../src/api/apiextensions/v1.gen.ts';
import { GATEWAY_DEFINITIONS } from '../../src/api/gateway/definitions.ts';
import { CLUSTER_POLICY_DEFINITIONS } from '../../src/api/networkpolicy/definitions.ts';
import { systemClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { seededRandom } from '../../src/base/random.ts';
import { keepDefinition } from '../../src/client/definitions.ts';
import { CUSTOM_RESOURCE_DEFINITIONS } from '../../src/client/resources.ts';
import { clusterNetworkPolicy } from '../../src/controllers/clusternetworkpolicy/controller.ts';
import { startControllers } from '../../src/controllers/start.ts';
import { GatewayController } from '../../src/ingress/gateway/gateway-controller.ts';
import { openCluster, type TestCluster } from './cluster.ts';

const BUNDLE = 'gateway.networking.k8s.io/bundle-version';
const manager = 'gateway-controller';
let cluster: TestCluster;
before(async () => {
  cluster = await openCluster({ controllers: false, scheduler: false });
});
after(() => cluster.close());

const definitions = () => cluster.of<CustomResourceDefinition>(CUSTOM_RESOURCE_DEFINITIONS);
const read = (name: string) => definitions().get('', name);
const ours = (plural: string) =>
  [...GATEWAY_DEFINITIONS, ...CLUSTER_POLICY_DEFINITIONS].find(({ spec }) => spec.names.plural === plural)!;

/** As an earlier version had it: without a field, a column and a short name. */
function older(of: CustomResourceDefinition, bundle = 'v1.4.0'): CustomResourceDefinition {
  const old = structuredClone(of) as unknown as { metadata: { annotations?: Record<string, string> }; spec: Old };
  if (old.metadata.annotations?.[BUNDLE]) old.metadata.annotations[BUNDLE] = bundle;
  for (const version of old.spec.versions) {
    delete version.schema.openAPIV3Schema.properties.status;
    version.additionalPrinterColumns = [];
  }
  delete old.spec.names.shortNames;
  return old as unknown as CustomResourceDefinition;
}
interface Old {
  readonly names: { shortNames?: string[] };
  readonly versions: {
    readonly schema: { readonly openAPIV3Schema: { readonly properties: { status?: object } } };
    additionalPrinterColumns: object[];
  }[];
}

async function isOurs(plural: string): Promise<void> {
  const wanted = ours(plural);
  const { spec, metadata } = await read(wanted.metadata.name);
  assert.deepEqual(spec.versions, wanted.spec.versions);
  assert.deepEqual(spec.names.shortNames, wanted.spec.names.shortNames);
  assert.equal(metadata.annotations?.[BUNDLE], wanted.metadata.annotations?.[BUNDLE]);
}

test('what an earlier version of ours wrote becomes what this one has, and is not written again', async () => {
  const wanted = ours('gateways');
  await definitions().create(older(wanted), { fieldManager: manager });
  // Of its metadata anybody may write.
  await definitions().patch('', wanted.metadata.name, { metadata: { annotations: { team: 'edge' } } }, undefined, {
    fieldManager: 'kubectl-annotate',
  });
  assert.equal(await keepDefinition(cluster.client, wanted, { manager }), false);
  await isOurs('gateways');
  const { metadata } = await read(wanted.metadata.name);
  assert.equal(metadata.annotations?.team, 'edge');
  await keepDefinition(cluster.client, wanted, { manager });
  assert.equal((await read(wanted.metadata.name)).metadata.generation, metadata.generation);
});

test('another version of a kind becomes the stored one', async () => {
  const wanted = ours('referencegrants');
  const old = structuredClone(wanted) as unknown as { spec: { versions: { name: string; storage: boolean }[] } };
  for (const version of old.spec.versions) version.storage = version.name === 'v1';
  await definitions().create(old as unknown as CustomResourceDefinition, { fieldManager: manager });
  await keepDefinition(cluster.client, wanted, { manager });
  await isOurs('referencegrants');
  assert.deepEqual((await read(wanted.metadata.name)).status?.storedVersions, ['v1', 'v1beta1']);
});

test('what somebody else installed or changed stays', async () => {
  for (const [plural, by] of [
    ['grpcroutes', 'kubectl-client-side-apply'],
    ['tlsroutes', manager],
  ] as const) {
    const wanted = ours(plural);
    const { name } = wanted.metadata;
    await definitions().create(older(wanted), { fieldManager: by });
    if (by === manager) {
      const { versions } = (await read(name)).spec;
      const changed = versions.map(version => ({ ...version, additionalPrinterColumns: [] as object[] }));
      changed[0]!.additionalPrinterColumns = [{ name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' }];
      await definitions().patch('', name, { spec: { versions: changed } }, undefined, { fieldManager: 'kubectl-edit' });
    }
    const { resourceVersion } = (await read(name)).metadata;
    await keepDefinition(cluster.client, wanted, { manager });
    const { metadata } = await read(name);
    assert.deepEqual([metadata.resourceVersion, metadata.annotations?.[BUNDLE]], [resourceVersion, 'v1.4.0'], plural);
  }
});

test('what a newer version of ours wrote stays', async () => {
  const wanted = ours('tcproutes');
  await definitions().create(older(wanted, 'v1.10.0'), { fieldManager: manager });
  await keepDefinition(cluster.client, wanted, { manager });
  const { metadata, spec } = await read(wanted.metadata.name);
  assert.equal(metadata.annotations?.[BUNDLE], 'v1.10.0');
  assert.deepEqual(spec.versions[0]?.additionalPrinterColumns ?? [], []);
});

test('a start brings them up to date: those of gateways and of cluster policies', async () => {
  const stop = new AbortController();
  const own = await openCluster({ controllers: false, scheduler: false });
  const stored = own.of<CustomResourceDefinition>(CUSTOM_RESOURCE_DEFINITIONS);
  const both = [
    [ours('httproutes'), manager],
    [ours('clusternetworkpolicies'), 'kube-controller-manager'],
  ] as const;
  try {
    for (const [wanted, fieldManager] of both) await stored.create(older(wanted), { fieldManager });
    const common = {
      transport: own.api,
      informers: own.informers,
      log: createLogger('test', { level: 'warn' }),
      clock: systemClock,
    };
    void new GatewayController({
      ...common,
      events: { event: () => undefined },
      prepare: () => Promise.resolve(),
    } as never).run(stop.signal);
    startControllers({
      ...common,
      definitions: [clusterNetworkPolicy],
      random: seededRandom(1),
      signal: stop.signal,
      caPem: 'CA',
    });
    for (const [{ metadata, spec }] of both)
      await own.until(`${metadata.name} is up to date`, async () => {
        const [version] = (await stored.get('', metadata.name)).spec.versions;
        return version?.additionalPrinterColumns?.length === spec.versions[0]?.additionalPrinterColumns?.length;
      });
  } finally {
    stop.abort();
    await own.close();
  }
});
