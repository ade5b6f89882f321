import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import type { Lease } from '../api/coordination/v1.gen.ts';
import { VirtualClock } from '../base/clock.ts';
import { silentLogger } from '../base/log.ts';
import { LEASES } from '../client/resources.ts';
import { openMemoryStore } from '../store/memory.ts';
import { holdIdentity, identityOf } from './identity-lease.ts';
import { LOOPBACK_USER } from './request.ts';
import { ApiServer } from './server.ts';

test('the lease of this server is there and renewed; those of servers long gone are removed', async () => {
  // As upstream names a server on a host of this name.
  assert.match(identityOf('h'), /^apiserver-[a-z2-7]{26}$/);
  assert.equal(identityOf('h'), identityOf('h'));
  const clock = new VirtualClock();
  const server = await ApiServer.open({ store: openMemoryStore(), clock });
  const transport = server.transport(LOOPBACK_USER);
  const namespace = 'kube-system';
  await transport
    .create(
      { of: { group: '', version: 'v1', resource: 'namespaces' } },
      {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: namespace },
      },
    )
    .catch(() => {});
  const old = (name: string, labels: Record<string, string>) =>
    transport.create({ of: LEASES, namespace }, {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name, namespace, labels },
      spec: { holderIdentity: 'gone', leaseDurationSeconds: 1, renewTime: '2000-01-01T00:00:00.000000Z' },
    } as Lease);
  await old('apiserver-old', { 'apiserver.kubernetes.io/identity': 'kube-apiserver' });
  await old('other', {});
  const stop = new AbortController();
  const holding = holdIdentity({ transport, hostname: 'h', clock, log: silentLogger }, stop.signal);
  const names = async () =>
    (await transport.list({ of: LEASES, namespace })).items.map(({ metadata }) => metadata.name).sort();
  const until = async (check: () => Promise<boolean>) => {
    for (let i = 0; i < 2000 && !(await check()); i++) await new Promise(resolve => setTimeout(resolve, 5));
  };
  await until(async () => (await names()).join() === [identityOf('h'), 'other'].join());
  assert.deepEqual(await names(), [identityOf('h'), 'other']);
  const lease = async () => (await transport.get({ of: LEASES, namespace, name: identityOf('h') })) as Lease;
  const first = await lease();
  assert.deepEqual(first.metadata.labels, {
    'apiserver.kubernetes.io/identity': 'kube-apiserver',
    'kubernetes.io/hostname': 'h',
  });
  assert.equal(first.spec?.leaseDurationSeconds, 3600);
  await clock.advance(10_000);
  await until(async () => (await lease()).spec?.renewTime !== first.spec?.renewTime);
  const second = await lease();
  assert.notEqual(second.spec?.renewTime, first.spec?.renewTime);
  assert.equal(second.spec?.holderIdentity, first.spec?.holderIdentity);
  stop.abort();
  await holding;
  await server.close();
});
