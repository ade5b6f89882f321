import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Service } from '../api/core/v1.gen.ts';
import type { KubeObject } from '../api/meta.ts';
import { keyOf } from '../api/meta.ts';
import { VirtualClock } from '../base/clock.ts';
import { silentLogger } from '../base/log.ts';
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
  const [services, slices] = [new HandFed(), new HandFed()];
  const informers = {
    get: (of: ResourceId) => (of.resource === 'services' ? services : slices),
  } as unknown as InformerFactory;
  const backend = new MemoryBackend();
  const clock = new VirtualClock();
  const stop = new AbortController();
  const proxy = new ServiceProxy({ informers, nodeName: 'here', backend, log: silentLogger, clock });
  const running = proxy.run(stop.signal);
  const finish = async () => {
    stop.abort();
    await clock.advance(0);
    await running;
  };
  return { services, slices, backend, clock, finish };
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
  backend.isDamaged = true;
  await clock.advance(5000);
  assert.deepEqual([...backend.programmed.keys()], ['default/a']);
  await finish();
});
