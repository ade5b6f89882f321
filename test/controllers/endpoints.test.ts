/** EndpointSlices of both families, over a hundred endpoints, under churn; mirrors of Endpoints written by hand; refusals. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Endpoints, Pod, Service } from '../../src/api/core/v1.gen.ts';
import type { EndpointSlice } from '../../src/api/discovery/v1.gen.ts';
import { metrics } from '../../src/base/metrics.ts';
import { ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES } from '../../src/client/resources.ts';
import { openCluster, type TestCluster } from './cluster.ts';

let cluster: TestCluster;

before(async () => {
  cluster = await openCluster({ scheduler: false });
  await cluster.addNode('n1', { labels: { 'topology.kubernetes.io/zone': 'east' } });
});
after(() => cluster.close());

const slicesOf = async (name: string) =>
  (
    await cluster
      .of<EndpointSlice>(ENDPOINT_SLICES)
      .list('default', { labelSelector: `kubernetes.io/service-name=${name}` })
  ).items;
const addresses = (slices: readonly EndpointSlice[]) =>
  slices.flatMap(({ endpoints }) => (endpoints ?? []).flatMap(endpoint => endpoint.addresses)).sort();
const service = (name: string, spec: Partial<Service['spec']>): Service => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace: 'default' },
  spec: {
    clusterIP: 'None',
    clusterIPs: ['None'],
    ipFamilies: ['IPv4'],
    ports: [{ port: 80, protocol: 'TCP', targetPort: 8080 }],
    ...spec,
  },
});
// A pod that runs elsewhere than on the stand-in of a kubelet: only what is written here happens to it.
async function pod(
  name: string,
  options: { labels: Record<string, string>; ips: string[]; port?: number; ready?: boolean },
) {
  const { labels, ips, port, ready = true } = options;
  cluster.frozen.add(name);
  const container = {
    name: 'c',
    image: 'i',
    ...(port ? { ports: [{ name: 'web', containerPort: port, protocol: 'TCP' }] } : {}),
  };
  await cluster.of<Pod>(PODS).create({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels },
    spec: { nodeName: 'n1', containers: [container], terminationGracePeriodSeconds: 30 },
  } as unknown as Pod);
  return cluster.of<Pod>(PODS).patchStatus('default', name, {
    status: {
      phase: 'Running',
      podIP: ips[0]!,
      podIPs: ips.map(ip => ({ ip })),
      conditions: [{ type: 'Ready', status: ready ? 'True' : 'False', lastTransitionTime: '2026-01-01T00:00:00Z' }],
    },
  });
}

test('a slice for each family of the Service, with zone, trigger time and nothing for families it has not', async () => {
  await pod('dual', { labels: { app: 'dual' }, ips: ['10.0.0.1', 'fd00::1'] });
  await cluster.of<Service>(SERVICES).create(
    service('dual', {
      selector: { app: 'dual' },
      ipFamilies: ['IPv6', 'IPv4'],
      ipFamilyPolicy: 'RequireDualStack',
      trafficDistribution: 'PreferSameNode',
    }),
  );
  const slices = await cluster.until('two slices', async () => {
    const found = await slicesOf('dual');
    return found.length === 2 && addresses(found).length === 2 && found;
  });
  const byType = Object.fromEntries(slices.map(slice => [slice.addressType, slice]));
  assert.deepEqual(addresses([byType['IPv4']!]), ['10.0.0.1']);
  assert.deepEqual(addresses([byType['IPv6']!]), ['fd00::1']);
  const told = (line: string) =>
    assert.ok(
      metrics.render().split('\n').includes(`endpoint_slice_controller_${line}`),
      `${line}\n${metrics.render({ prefixes: ['endpoint_slice_'] })}`,
    );
  told('endpoints_desired 2');
  told('num_endpoint_slices 2');
  told('desired_endpoint_slices 2');
  told('services_count_by_traffic_distribution{traffic_distribution="PreferSameNode"} 1');
  told('endpoints_added_per_sync_sum 2');
  assert.match(metrics.render(), /^endpoint_slice_controller_changes\{operation="create"\} 2$/m);
  const [endpoint] = byType['IPv6']!.endpoints!;
  assert.equal(endpoint!.zone, 'east');
  assert.deepEqual(endpoint!.hints, { forZones: [{ name: 'east' }], forNodes: [{ name: 'n1' }] });
  assert.match(
    byType['IPv4']!.metadata.annotations!['endpoints.kubernetes.io/last-change-trigger-time']!,
    /^20\d\d-.*Z$/,
  );
  await cluster.of<Service>(SERVICES).patch('default', 'dual', {
    spec: { ipFamilies: ['IPv6'], ipFamilyPolicy: 'SingleStack' },
  });
  await cluster.until('one slice', async () => {
    const found = await slicesOf('dual');
    return found.length === 1 && found[0]!.addressType === 'IPv6';
  });
  await cluster.until('the slices of one family are counted', () =>
    metrics.render().includes('endpoint_slice_controller_num_endpoint_slices 1\n'),
  );
});

test('pods that give a named port different numbers are in different slices', async () => {
  await pod('old', { labels: { app: 'named' }, ips: ['10.0.1.1'], port: 8080 });
  await pod('new', { labels: { app: 'named' }, ips: ['10.0.1.2'], port: 9090 });
  await cluster.of<Service>(SERVICES).create(
    service('named', {
      selector: { app: 'named' },
      ports: [{ name: 'x', port: 80, protocol: 'TCP', targetPort: 'web' }],
    }),
  );
  const slices = await cluster.until('two slices', async () => {
    const found = await slicesOf('named');
    return found.length === 2 && found;
  });
  assert.deepEqual(slices.map(slice => `${slice.ports![0]!.port} ${addresses([slice])}`).sort(), [
    '8080 10.0.1.1',
    '9090 10.0.1.2',
  ]);
});

test('230 endpoints are three slices; one more or less is one write', async () => {
  const many = Array.from({ length: 230 }, (_, i) => i);
  await Promise.all(
    many.map(i => pod(`many-${i}`, { labels: { app: 'many' }, ips: [`10.1.${i >> 7}.${(i & 127) + 1}`] })),
  );
  await cluster.of<Service>(SERVICES).create(service('many', { selector: { app: 'many' } }));
  const versions = (slices: readonly EndpointSlice[]) =>
    new Map(slices.map(({ metadata }) => [metadata.name, metadata.resourceVersion]));
  const full = await cluster.until('all are there', async () => {
    const found = await slicesOf('many');
    return addresses(found).length === 230 && found;
  });
  assert.deepEqual(full.map(({ endpoints }) => endpoints!.length).sort(), [100, 100, 30]);
  await cluster.of(PODS).delete('default', 'many-0', { gracePeriodSeconds: 0 });
  const after = await cluster.until('one is gone', async () => {
    const found = await slicesOf('many');
    return addresses(found).length === 229 && found;
  });
  const before = versions(full);
  assert.equal(after.filter(({ metadata }) => before.get(metadata.name) !== metadata.resourceVersion).length, 1);
  await pod('many-new', { labels: { app: 'many' }, ips: ['10.1.9.9'] });
  const filled = await cluster.until('one more', async () => {
    const found = await slicesOf('many');
    return addresses(found).includes('10.1.9.9') && found;
  });
  assert.equal(filled.length, 3);
});

test('Endpoints written by hand are mirrored, followed, and let go', async () => {
  await cluster.of<Service>(SERVICES).create(service('outer', {}));
  const address = (n: number) => ({ ip: n < 10 ? `192.0.2.${n}` : `2001:db8::${n}` });
  const made = await cluster.of<Endpoints>(ENDPOINTS).create({
    apiVersion: 'v1',
    kind: 'Endpoints',
    metadata: {
      name: 'outer',
      namespace: 'default',
      labels: { team: 'blue' },
      annotations: { note: 'kept', 'kubectl.kubernetes.io/last-applied-configuration': '{}' },
    },
    subsets: [
      {
        addresses: [address(1), address(10)],
        notReadyAddresses: [address(2)],
        ports: [{ name: 'x', port: 5432, protocol: 'TCP' }],
      },
    ],
  } as Endpoints);
  const slices = await cluster.until('two slices', async () => {
    const found = await slicesOf('outer');
    return found.length === 2 && found;
  });
  const v4 = slices.find(({ addressType }) => addressType === 'IPv4')!;
  assert.deepEqual(
    v4.endpoints!.map(({ addresses: [ip], conditions }) => [ip, conditions!.ready]),
    [
      ['192.0.2.1', true],
      ['192.0.2.2', false],
    ],
  );
  assert.deepEqual(v4.ports, [{ name: 'x', port: 5432, protocol: 'TCP' }]);
  assert.equal(
    v4.metadata.labels!['endpointslice.kubernetes.io/managed-by'],
    'endpointslicemirroring-controller.k8s.io',
  );
  assert.equal(v4.metadata.labels!['team'], 'blue');
  assert.deepEqual(v4.metadata.annotations, { note: 'kept' });
  assert.equal(v4.metadata.ownerReferences![0]!.kind, 'Endpoints');
  assert.match(v4.metadata.name, /^outer-[a-z0-9]{5}$/);

  await cluster
    .of<Endpoints>(ENDPOINTS)
    .update({ ...made, subsets: [{ addresses: [address(3)], ports: [{ name: 'x', port: 5432, protocol: 'TCP' }] }] });
  await cluster.until('it follows', async () => addresses(await slicesOf('outer')).join() === '192.0.2.3');
  assert.equal((await slicesOf('outer'))[0]!.metadata.name, v4.metadata.name);
  await cluster
    .of<Endpoints>(ENDPOINTS)
    .patch('default', 'outer', { metadata: { labels: { 'endpointslice.kubernetes.io/skip-mirror': 'true' } } });
  await cluster.until('it is let go', async () => (await slicesOf('outer')).length === 0);
  await cluster
    .of<Endpoints>(ENDPOINTS)
    .patch('default', 'outer', { metadata: { labels: { 'endpointslice.kubernetes.io/skip-mirror': null } } });
  await cluster.until('it is mirrored again', async () => (await slicesOf('outer')).length === 1);
  await cluster.of(SERVICES).delete('default', 'outer');
  await cluster.until('no Service, no mirror', async () => (await slicesOf('outer')).length === 0);
});

test('more than a thousand addresses of a subset are skipped, and told', async () => {
  await cluster.of<Service>(SERVICES).create(service('crowd', {}));
  await cluster.of<Endpoints>(ENDPOINTS).create({
    apiVersion: 'v1',
    kind: 'Endpoints',
    metadata: { name: 'crowd', namespace: 'default' },
    subsets: [
      {
        addresses: Array.from({ length: 1003 }, (_, i) => ({ ip: `192.1.${i >> 8}.${i & 255}` })),
        ports: [{ port: 80, protocol: 'TCP' }],
      },
    ],
  } as Endpoints);
  const [slice] = await cluster.until('the slice', async () => {
    const found = await slicesOf('crowd');
    return found.length === 1 && found;
  });
  assert.equal(slice!.endpoints!.length, 1000);
  await cluster.until('the event', async () =>
    (await cluster.events()).some(
      ({ reason, message }) => reason === 'TooManyAddressesToMirror' && message.includes('3 addresses were skipped'),
    ),
  );
});

test('addresses that mean another machine on each node are refused, in Endpoints and slices', async () => {
  for (const ip of ['127.0.0.1', '169.254.1.1', '224.0.0.1', '0.0.0.0', '::1', 'fe80::1', 'ff02::1', '::']) {
    const endpoints = {
      apiVersion: 'v1',
      kind: 'Endpoints',
      metadata: { name: 'bad', namespace: 'default' },
      subsets: [{ addresses: [{ ip }], ports: [{ port: 80, protocol: 'TCP' }] }],
    } as Endpoints;
    await assert.rejects(cluster.of<Endpoints>(ENDPOINTS).create(endpoints), /may not be/, ip);
    const slice = {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: 'bad', namespace: 'default' },
      addressType: ip.includes(':') ? 'IPv6' : 'IPv4',
      endpoints: [{ addresses: [ip] }],
      ports: [],
    } as unknown as EndpointSlice;
    await assert.rejects(cluster.of<EndpointSlice>(ENDPOINT_SLICES).create(slice), /may not be/, ip);
  }
});
