import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IPAddress, ServiceCIDR } from '../../api/networking/v1.gen.ts';
import { isFree } from './controller.ts';

const range = (name: string, ...cidrs: string[]) => ({ metadata: { name }, spec: { cidrs } }) as ServiceCIDR;
const address = (name: string, by = 'ipallocator.k8s.io') =>
  ({ metadata: { name, labels: { 'ipaddress.kubernetes.io/managed-by': by } } }) as unknown as IPAddress;

test('a range is needed while an address lies in it alone', () => {
  const own = range('own', '10.0.0.0/24', 'fd00::/112');
  const inUse = [address('10.0.0.9'), address('fd00::9')];
  const free = (others: ServiceCIDR[], addresses: IPAddress[]) => isFree(own, { ranges: [own, ...others], addresses });
  assert.ok(free([], []));
  assert.ok(!free([], inUse));
  assert.ok(free([], [address('10.0.1.9'), address('10.0.0.9', 'somebody.else')]));
  // One that covers it, two that cover a half each, and one that has only one of the addresses.
  assert.ok(free([range('all', '10.0.0.0/16', 'fd00::/64')], inUse));
  assert.ok(free([range('low', '10.0.0.0/25'), range('six', 'fd00::/112')], inUse));
  assert.ok(!free([range('low', '10.0.0.0/25')], inUse));
  assert.ok(!free([range('high', '10.0.0.128/25', 'fd00::/112')], inUse));
});
