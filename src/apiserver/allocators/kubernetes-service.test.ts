import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VirtualClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import { ENDPOINTS, SERVICES } from '../../client/resources.ts';
import { FakeReader } from '../fake-reader.ts';
import { ensureKubernetesService, keepKubernetesService } from './kubernetes-service.ts';

test('the Service kubernetes comes back when it is deleted', async () => {
  const reader = new FakeReader();
  const clock = new VirtualClock();
  const options = {
    reader: () => reader,
    transport: () => reader,
    clock,
    log: silentLogger,
    cidrs: ['10.96.0.0/12'],
    advertise: { address: '172.30.0.1', port: 6443 },
  };
  await ensureKubernetesService(options);
  keepKubernetesService(options);
  const { clusterIP } = reader.get(SERVICES, 'default', 'kubernetes') as unknown as { clusterIP?: string };
  reader.remove(SERVICES, 'default', 'kubernetes');
  reader.remove(ENDPOINTS, 'default', 'kubernetes');
  await clock.advance(1000);
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  const made = reader.get(SERVICES, 'default', 'kubernetes') as unknown as { clusterIP?: string } | undefined;
  assert.ok(made);
  assert.equal(made.clusterIP, clusterIP);
  assert.ok(reader.get(ENDPOINTS, 'default', 'kubernetes'));
});
