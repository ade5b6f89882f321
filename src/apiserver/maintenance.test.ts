import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { VirtualClock } from '../base/clock.ts';
import { CONFIG_MAPS, EVENTS } from '../client/resources.ts';
import { openMemoryStore } from '../store/memory.ts';
import { CompactedError } from '../store/store.ts';
import { LOOPBACK_USER } from './request.ts';
import { ApiServer } from './server.ts';

test('history goes after five minutes, events after an hour', async () => {
  const clock = new VirtualClock();
  const store = openMemoryStore();
  const server = await ApiServer.open({ store, clock });
  const api = server.transport(LOOPBACK_USER);
  const configMap = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' } };
  await api.create({ of: CONFIG_MAPS, namespace: 'default' }, configMap);
  await api.patch(
    { of: CONFIG_MAPS, namespace: 'default', name: 'a' },
    { data: { a: '1' } },
    'application/merge-patch+json',
  );
  const event = {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name: 'e' },
    involvedObject: {},
    reason: 'R',
    message: 'm',
  };
  await api.create({ of: EVENTS, namespace: 'default' }, {
    ...event,
    involvedObject: { namespace: 'default' },
  } as never);
  await clock.advance(4 * 60_000);
  assert.equal((await store.list('/registry/', { at: 1 })).entries.length, 1);
  await clock.advance(4 * 60_000);
  await assert.rejects(store.list('/registry/', { at: 1 }), CompactedError);
  await clock.advance(50 * 60_000);
  assert.equal((await api.list({ of: EVENTS })).items.length, 1);
  await clock.advance(5 * 60_000);
  assert.equal((await api.list({ of: EVENTS })).items.length, 0);
  assert.equal((await api.list({ of: CONFIG_MAPS })).items.length, 1);
  await server.close();
});
