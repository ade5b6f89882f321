import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONFIGURATION_DEFAULT } from '../configuration.ts';
import { readCapacity, swapOf } from './machine.ts';

test('memory set aside as huge pages is told by size and is none of the allocatable memory', () => {
  const page = { size: '2Mi', kernelSize: '2MB', pageBytes: 2 ** 21 };
  const large = { size: '1Gi', kernelSize: '1GB', pageBytes: 2 ** 30, count: 0 };
  const none = readCapacity('/', CONFIGURATION_DEFAULT, [large, { ...page, count: 0 }]);
  assert.equal(none.capacity['hugepages-2Mi'], '0');
  const some = readCapacity('/', CONFIGURATION_DEFAULT, [large, { ...page, count: 8 }]);
  assert.deepEqual([some.capacity['hugepages-2Mi'], some.allocatable['hugepages-2Mi']], ['16Mi', '16Mi']);
  assert.equal(some.capacity['hugepages-1Gi'], '0');
  assert.deepEqual(some.resources.hugePages, { 'hugepages-1Gi': 0, 'hugepages-2Mi': 16 << 20 });
  assert.equal(none.resources.memoryBytes - some.resources.memoryBytes, 16 << 20);
  assert.equal(some.capacity['memory'], none.capacity['memory']);

  const all = readCapacity('/', CONFIGURATION_DEFAULT, [{ ...large, count: 1 << 20 }]);
  assert.deepEqual([all.allocatable['memory'], all.capacity['hugepages-1Gi']], ['0Ki', '1Pi']);
});

test('swap space is told where there is some', () => {
  assert.deepEqual(swapOf('MemTotal:  8 kB\nSwapTotal:    2048 kB\nSwapFree: 0 kB\n'), { swap: { capacity: 2 << 20 } });
  assert.deepEqual(swapOf('MemTotal:  8 kB\nSwapTotal:       0 kB\n'), {});
});
