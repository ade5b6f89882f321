import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { FakeApi } from '../../test/network/fake-api.ts';
import type { Ingress } from '../api/networking/v1.gen.ts';
import { silentLogger } from '../base/log.ts';
import { InformerFactory } from '../client/informer.ts';
import { INGRESSES } from '../client/resources.ts';
import { IngressSource } from './ingress-source.ts';

test('whoever follows Ingresses hears of all but their status', async () => {
  const api = new FakeApi();
  const stop = new AbortController();
  const informers = new InformerFactory({ transport: api, log: silentLogger });
  const source = new IngressSource({ transport: api, informers, log: silentLogger });
  let calls = 0;
  const ingress = (metadata: object, more: object = {}): Ingress => ({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'Ingress',
    metadata: { name: 'web', namespace: 'default', uid: 'a', generation: 1, annotations: { a: '1' }, ...metadata },
    spec: { ingressClassName: 'x' },
    ...more,
  });
  api.put(INGRESSES, ingress({}));
  source.start(stop.signal);
  informers.start(stop.signal);
  await sleep(20);
  source.onChange(() => calls++);
  const callsAfter = async (change: () => void) => {
    const before = calls;
    change();
    await sleep(20);
    return calls - before;
  };
  const status = { status: { loadBalancer: { ingress: [{ ip: '10.0.0.1' }] } } };
  assert.equal(await callsAfter(() => api.put(INGRESSES, ingress({ labels: { b: '1' } }, status))), 0);
  for (const metadata of [{ generation: 2 }, { annotations: { a: '2' } }, { uid: 'b' }, { deletionTimestamp: 'now' }])
    assert.equal(await callsAfter(() => api.put(INGRESSES, ingress(metadata))), 1, JSON.stringify(metadata));
  assert.equal(await callsAfter(() => api.remove(INGRESSES, 'default/web')), 1);
  stop.abort();
});
