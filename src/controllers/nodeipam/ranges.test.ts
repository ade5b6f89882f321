import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SubnetAllocator } from './ranges.ts';

test('subnets in order, occupied ones skipped, exhaustion, reuse', () => {
  const allocator = new SubnetAllocator('10.244.0.0/22', 24);
  allocator.occupy('10.244.1.0/24');
  assert.deepEqual(
    [allocator.allocate(), allocator.allocate(), allocator.allocate(), allocator.allocate()],
    ['10.244.0.0/24', '10.244.2.0/24', '10.244.3.0/24', undefined],
  );
  allocator.release('10.244.2.0/24');
  assert.equal(allocator.allocate(), '10.244.2.0/24');
});

test('IPv6', () => {
  const allocator = new SubnetAllocator('fd00:10:244::/56', 64);
  assert.deepEqual([allocator.allocate(), allocator.allocate()], ['fd00:10:244::/64', 'fd00:10:244:1::/64']);
});
