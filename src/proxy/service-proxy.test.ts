import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Service } from '../api/core/v1.gen.ts';
import type { KubeObject } from '../api/meta.ts';
import { keyOf } from '../api/meta.ts';
import { VirtualClock } from '../base/clock.ts';
import { silentLogger } from '../base/log.ts';
import type { EventRecorder } from '../client/event-recorder.ts';
import type { Handler, InformerFactory } from '../client/informer.ts';
import type { ResourceId } from '../client/transport.ts';
import { MemoryBackend } from './memory-backend.ts';
import { ServiceProxy } from './service-proxy.ts';

/** Informers fed by hand. */
class HandFed {
  readonly objects = new Map<string, KubeObject>();
  readonly handlers: Handler<KubeObject>[] = [];
  release!: () => void;
  readonly synced = new Promise<void>(resolve => {
    this.release = resolve;
  });
  get(key: string) {
    return this.objects.get(key);
  }
  values() {
    return this.objects.values();
  }
  onChange(handler: Handler<KubeObject>) {
    this.handlers.push(handler);
  }
  addIndex() {}
  byIndex(_: string, key: string) {
    return [...this.objects.values()].filter(
      object => `${object.metadata.namespace}/${object.metadata.labels?.['kubernetes.io/service-name']}` === key,
    );
  }
  put(object: KubeObject) {
    const old = this.objects.get(keyOf(object));
    this.objects.set(keyOf(object), object);
    for (const handler of this.handlers) handler({ object, old, deleted: false });
  }
  remove(key: string) {
    const old = this.objects.get(key)!;
    this.objects.delete(key);
    for (const handler of this.handlers) handler({ object: undefined, old, deleted: true });
  }
}

function setUp() {
  const [services, slices, nodes, serviceCidrs] = [new HandFed(), new HandFed(), new HandFed(), new HandFed()];
  nodes.release();
  serviceCidrs.release();
  const informers = {
    get: (of: ResourceId) =>
      ({ services, endpointslices: slices, nodes, servicecidrs: serviceCidrs })[of.resource as 'nodes'],
  } as unknown as InformerFactory;
  const told: string[] = [];
  const events: EventRecorder = {
    event: (about, _type, reason, message) => told.push(`${about.metadata.name} ${reason} ${message}`),
  };
  const backend = new MemoryBackend();
  const clock = new VirtualClock();
  const stop = new AbortController();
  const proxy = new ServiceProxy({
    informers,
    nodeName: 'here',
    backend,
    podRanges: ['10.244.0.0/16'],
    serviceRanges: ['10.96.0.0/16'],
    events,
    log: silentLogger,
    clock,
  });
  const running = proxy.run(stop.signal);
  const finish = async () => {
    stop.abort();
    await clock.advance(0);
    await running;
  };
  return { proxy, services, slices, nodes, backend, clock, told, finish };
}

const service = (name: string, port = 80): Service => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace: 'default' },
  spec: { clusterIP: `10.96.1.${name.length}`, ports: [{ port, protocol: 'TCP' }] },
});

test('nothing is programmed before both lists are in, and then all at once', async () => {
  const { services, slices, backend, clock, finish } = setUp();
  services.put(service('a'));
  services.put(service('bb'));
  services.release();
  await clock.advance(1000);
  assert.deepEqual(backend.calls, []);
  slices.release();
  await clock.advance(0);
  assert.deepEqual(backend.calls, [2]);
  await finish();
});

test('the first change goes at once, those right after it together, what changes nothing not at all', async () => {
  const { services, slices, backend, clock, finish } = setUp();
  services.release();
  slices.release();
  await clock.advance(100);
  services.put(service('a'));
  await clock.advance(0);
  assert.deepEqual(backend.calls, [0, 1]);
  for (const name of ['bb', 'ccc', 'dddd']) services.put(service(name));
  await clock.advance(0);
  assert.deepEqual(backend.calls, [0, 1]);
  await clock.advance(20);
  assert.deepEqual(backend.calls, [0, 1, 3]);
  services.put(service('a'));
  await clock.advance(100);
  assert.deepEqual(backend.calls, [0, 1, 3]);
  services.remove('default/a');
  await clock.advance(100);
  assert.deepEqual([...backend.programmed.keys()], ['default/bb', 'default/ccc', 'default/dddd']);
  await finish();
});

test('a failure is retried with everything, leftovers are pruned, damage is repaired', async () => {
  const { services, slices, backend, clock, finish } = setUp();
  backend.programmed.set('default/old', { key: 'default/old', frontends: [], clusterIps: [] });
  services.release();
  slices.release();
  backend.failing = new Error('no');
  services.put(service('a'));
  await clock.advance(50);
  assert.ok(backend.programmed.has('default/old'));
  backend.failing = undefined;
  await clock.advance(1000);
  assert.deepEqual([...backend.programmed.keys()], ['default/a']);
  backend.programmed.clear();
  backend.damage();
  await clock.advance(0);
  assert.deepEqual([...backend.programmed.keys()], ['default/a']);
  await finish();
});

test('an address of a node, a pod or a Service is not to be taken; what changes is told and followed', async () => {
  const { services, slices, nodes, backend, clock, told, finish } = setUp();
  const taken = (key: string) =>
    backend.programmed.get(key)!.frontends.flatMap(({ kind, address }) => (kind === 'external-ip' ? [address] : []));
  services.release();
  slices.release();
  await clock.advance(100);
  const greedy = service('greedy');
  greedy.spec.externalIPs = ['10.96.3.3', '10.244.1.1', '172.30.0.2', '192.0.2.1'];
  services.put(greedy);
  await clock.advance(100);
  assert.deepEqual(taken('default/greedy'), ['172.30.0.2', '192.0.2.1']);
  assert.deepEqual(
    told.map(text => text.slice(0, 50)),
    ['greedy AddressNotGiven spec.externalIPs: 10.96.3.3', 'greedy AddressNotGiven spec.externalIPs: 10.244.1.'],
  );
  nodes.put({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'here' },
    status: { addresses: [{ type: 'InternalIP', address: '172.30.0.2' }] },
  } as KubeObject);
  await clock.advance(100);
  assert.deepEqual(taken('default/greedy'), ['192.0.2.1']);
  assert.match(told.at(-1)!, /172\.30\.0\.2 is an address of a node/);
  await finish();
});

test('the node’s zone decides which endpoints are near', async () => {
  const { services, slices, nodes, backend, clock, finish } = setUp();
  services.release();
  slices.release();
  const node = (zone: string): KubeObject => ({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'here', labels: { 'topology.kubernetes.io/zone': zone } },
  });
  nodes.put(node('a'));
  services.put(service('s'));
  slices.put({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    addressType: 'IPv4',
    metadata: { name: 's-1', namespace: 'default', labels: { 'kubernetes.io/service-name': 's' } },
    endpoints: ['a', 'b'].map((zone, i) => ({ addresses: [`10.0.0.${i}`], hints: { forZones: [{ name: zone }] } })),
    ports: [{ port: 80, protocol: 'TCP' }],
  } as KubeObject);
  const ips = () => backend.programmed.get('default/s')!.frontends[0]!.endpoints.map(({ ip }) => ip);
  await clock.advance(100);
  assert.deepEqual(ips(), ['10.0.0.0']);
  nodes.put(node('b'));
  await clock.advance(100);
  assert.deepEqual(ips(), ['10.0.0.1']);
  await finish();
});

test('healthy until a change has waited for a minute; a node that goes is not eligible', async () => {
  const { proxy, services, slices, nodes, backend, clock, finish } = setUp();
  services.release();
  slices.release();
  await clock.advance(100);
  assert.deepEqual([proxy.health().healthy, proxy.health().nodeEligible], [true, false]);
  nodes.put({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'here' } });
  assert.equal(proxy.health().nodeEligible, true);
  backend.failing = new Error('no');
  services.put(service('a'));
  await clock.advance(59_000);
  assert.equal(proxy.health().healthy, true);
  await clock.advance(2000);
  assert.equal(proxy.health().healthy, false);
  backend.failing = undefined;
  await clock.advance(10_000);
  assert.equal(proxy.health().healthy, true);
  await finish();
});
