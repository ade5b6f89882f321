/** A cloud's machines and routes through the real API server and a real socket: what a provider says becomes of Nodes. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Node, NodeAddress } from '../../src/api/core/v1.gen.ts';
import type { LoadBalancerProvider } from '../../src/api/loadbalancer/v1beta1.ts';
import { isReason } from '../../src/base/errors.ts';
import { LOAD_BALANCER_PROVIDERS, NODES } from '../../src/client/resources.ts';
import { INSTANCE_CALLS } from '../../src/controllers/cloudnode/instances.ts';
import { planRoutes, ROUTE_CALLS, type Route } from '../../src/controllers/cloudroute/routes.ts';
import { GRPC, GrpcError, serveGrpc } from '../../src/csi/grpc.ts';
import { openCluster, type TestCluster } from './cluster.ts';

const UNINITIALIZED = { key: 'node.cloudprovider.kubernetes.io/uninitialized', value: 'true', effect: 'NoSchedule' };
const OTHER = { key: 'example.com/keep', effect: 'NoSchedule' };

interface Machine {
  isOff?: boolean;
  addresses: NodeAddress[];
}

const folder = mkdtempSync(join(tmpdir(), 'cox-cloud-nodes-'));
const socket = join(folder, 'cloud.sock');
const machines = new Map<string, Machine>();
const routes: Route[] = [];
let refusesRoutes = false;
let cluster: TestCluster;
let provider: Awaited<ReturnType<typeof serveGrpc>>;

const nameOf = ({ nodeJson }: { nodeJson: string }): string => (JSON.parse(nodeJson) as Node).metadata.name;
const nodes = () => cluster.of<Node>(NODES);
const read = (name: string): Promise<Node> => nodes().get('', name);
const isGone = async (name: string): Promise<boolean> => {
  try {
    await read(name);
    return false;
  } catch (error) {
    if (!isReason(error, 'NotFound')) throw error;
    return true;
  }
};

before(async () => {
  cluster = await openCluster({ scheduler: false });
  provider = await serveGrpc(
    socket,
    {
      instanceExists: request => ({ yes: machines.has(nameOf(request)) }),
      instanceShutdown: request => ({ yes: machines.get(nameOf(request))?.isOff ?? false }),
      instanceMetadata: request => {
        const name = nameOf(request);
        const machine = machines.get(name);
        if (!machine) throw new GrpcError(GRPC.NOT_FOUND, 'instance not found');
        return {
          providerId: `test://${name}`,
          instanceType: 'c1.small',
          zone: 'us-test-1a',
          region: 'us-test-1',
          addresses: machine.addresses,
          additionalLabels: { 'example.com/rack': 'r7', 'node.kubernetes.io/mine': 'no' },
        };
      },
      listRoutes: () => ({ routes }),
      createRoute: ({ nameHint, route }) => {
        if (refusesRoutes) throw new GrpcError(GRPC.RESOURCE_EXHAUSTED, 'the route table is full');
        routes.push({ ...route!, name: nameHint });
        return {};
      },
      deleteRoute: ({ route }) => {
        const at = routes.findIndex(one => one.name === route!.name && one.destinationCidr === route!.destinationCidr);
        if (at >= 0) routes.splice(at, 1);
        return {};
      },
    },
    { ...INSTANCE_CALLS, ...ROUTE_CALLS },
  );
});
after(async () => {
  await cluster.close();
  await provider.close();
  rmSync(folder, { recursive: true, force: true });
});

test('a node that registered with the taint gets what its cloud knows, then the taint goes', async () => {
  await cluster.until('the definitions', async () =>
    cluster
      .of<LoadBalancerProvider>(LOAD_BALANCER_PROVIDERS)
      .create({
        apiVersion: 'loadbalancer.coxswain.dev/v1beta1',
        kind: 'LoadBalancerProvider',
        metadata: { name: 'cloud' },
        spec: { socket, serves: ['Instances', 'Routes'] },
      })
      .then(
        () => true,
        () => false,
      ),
  );
  await cluster.addNode('m1', { taints: [UNINITIALIZED, OTHER] });
  await nodes().patchStatus('', 'm1', { status: { addresses: [{ type: 'Hostname', address: 'm1' }] } });
  await cluster.until('what is missing is told', async () =>
    (await cluster.events()).find(
      ({ reason, message }) => reason === 'NotInitialized' && message.includes('instance not found'),
    ),
  );
  assert.ok((await read('m1')).spec?.taints?.some(({ key }) => key === UNINITIALIZED.key));
  machines.set('m1', {
    addresses: [
      { type: 'InternalIP', address: '10.0.0.1' },
      { type: 'ExternalIP', address: '192.0.2.1' },
    ],
  });
  const node = await cluster.until('it is initialized', async () => {
    const now = await read('m1');
    return now.spec?.providerID !== undefined && now;
  });
  assert.deepEqual(
    node.spec?.taints?.map(({ key }) => key).filter(key => !key.startsWith('node.kubernetes.io/')),
    [OTHER.key],
  );
  assert.equal(node.spec?.providerID, 'test://m1');
  assert.deepEqual(node.status?.addresses, [
    { type: 'InternalIP', address: '10.0.0.1' },
    { type: 'ExternalIP', address: '192.0.2.1' },
    { type: 'Hostname', address: 'm1' },
  ]);
  const { labels = {} } = node.metadata;
  for (const [name, value] of Object.entries({
    'node.kubernetes.io/instance-type': 'c1.small',
    'beta.kubernetes.io/instance-type': 'c1.small',
    'topology.kubernetes.io/zone': 'us-test-1a',
    'failure-domain.beta.kubernetes.io/zone': 'us-test-1a',
    'topology.kubernetes.io/region': 'us-test-1',
    'example.com/rack': 'r7',
    'kubernetes.io/hostname': 'm1',
  }))
    assert.equal(labels[name], value, name);
  assert.equal(labels['node.kubernetes.io/mine'], undefined, "labels of Kubernetes are not the cloud's to give");
});

test('an address that the kubelet was told to use must be one that the cloud knows', async () => {
  machines.set('m2', { addresses: [{ type: 'InternalIP', address: '10.0.0.9' }] });
  await nodes().create({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'm2', annotations: { 'alpha.kubernetes.io/provided-node-ip': '10.0.0.2' } },
    spec: { taints: [UNINITIALIZED] },
    status: { conditions: [{ type: 'Ready', status: 'True' }] },
  } as Node);
  await cluster.until('it is told', async () =>
    (await cluster.events()).find(({ message }) => message.includes('failed to find kubelet node IP')),
  );
  machines.set('m2', {
    addresses: ['10.0.0.9', '10.0.0.2', 'fd00::2'].map(address => ({ type: 'InternalIP', address })),
  });
  const node = await cluster.until('it is initialized', async () => {
    const now = await read('m2');
    return now.spec?.providerID !== undefined && now;
  });
  assert.deepEqual(
    node.status?.addresses?.map(({ address }) => address),
    ['10.0.0.2', 'fd00::2'],
  );
});

test('each pod range has a route; what leads elsewhere in the ranges goes, what is outside them stays', async () => {
  const outside = { name: 'vpn', targetNode: 'm1', destinationCidr: '192.0.2.0/24' };
  routes.push(outside, { name: 'old', targetNode: 'gone', destinationCidr: '10.244.200.0/24' });
  machines.set('m3', { addresses: [] });
  await cluster.addNode('m3');
  const cidr = await cluster.until('its range', async () => (await read('m3')).spec?.podCIDRs?.[0]);
  await cluster.until('its route', () =>
    routes.some(({ targetNode, destinationCidr }) => targetNode === 'm3' && destinationCidr === cidr),
  );
  await cluster.until('the old one is gone', () => !routes.some(({ name }) => name === 'old'));
  assert.ok(routes.includes(outside));
  const condition = (name: string, reason: string) =>
    cluster.until(`${name} is told ${reason}`, async () =>
      (await read(name)).status?.conditions?.some(one => one.type === 'NetworkUnavailable' && one.reason === reason),
    );
  await condition('m3', 'RouteCreated');
  refusesRoutes = true;
  machines.set('m4', { addresses: [] });
  await cluster.addNode('m4');
  await condition('m4', 'NoRouteCreated');
  assert.ok(
    (await cluster.events()).some(({ reason, message }) => reason === 'FailedToCreateRoute' && /full/.test(message)),
  );
  refusesRoutes = false;
  machines.set('m5', { addresses: [] });
  await cluster.addNode('m5');
  await condition('m4', 'RouteCreated');
});

test('a node that is not ready: switched off it is tainted, gone it is deleted; a ready one is not asked about', async () => {
  const SHUTDOWN = 'node.cloudprovider.kubernetes.io/shutdown';
  const ready = (name: string, status: string) =>
    nodes().patchStatus(
      '',
      name,
      { status: { conditions: [{ type: 'Ready', status, reason: 'Test', message: '' }] } },
      'application/strategic-merge-patch+json',
    );
  const isTainted = async () => (await read('m3')).spec?.taints?.some(({ key }) => key === SHUTDOWN) ?? false;
  machines.set('m3', { addresses: [], isOff: true });
  machines.delete('m1');
  await ready('m3', 'False');
  await cluster.until('the taint', isTainted);
  await ready('m3', 'True');
  await cluster.until('no taint', async () => !(await isTainted()));
  assert.ok(!(await isGone('m1')), 'it is ready, whatever the cloud says');
  await ready('m1', 'False');
  await cluster.until('m1 is gone', () => isGone('m1'));
  const { reason } = (await cluster.events()).find(({ message }) => /Deleting node m1 because/.test(message))!;
  assert.equal(reason, 'DeletingNode');
});

test('a route whose addresses are not those of its node is made anew, where the cloud looks at them', () => {
  const node = {
    metadata: { name: 'a' },
    spec: { podCIDRs: ['10.244.1.0/24'] },
    status: { addresses: [{ type: 'InternalIP', address: '10.0.0.1' }] },
  } as Node;
  const plan = (route: Route) => {
    const { create, remove } = planRoutes([node], [route], ['10.244.0.0/16']);
    return [create.length, remove.length];
  };
  const route = { targetNode: 'a', destinationCidr: '10.244.1.0/24' };
  const told = (address: string) => ({
    enableNodeAddresses: true,
    targetNodeAddresses: [{ type: 'InternalIP', address }],
  });
  assert.deepEqual(plan(route), [0, 0]);
  assert.deepEqual(plan({ ...route, ...told('10.0.0.1') }), [0, 0]);
  assert.deepEqual(plan({ ...route, ...told('10.0.0.2') }), [1, 1]);
  assert.deepEqual(plan({ ...route, blackhole: true }), [1, 1]);
  assert.deepEqual(plan({ ...route, targetNode: 'b' }), [1, 1]);
  assert.deepEqual(plan({ ...route, destinationCidr: 'nonsense' }), [1, 0]);
});
