import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod } from '../../api/core/v1.gen.ts';
import { ranked } from './ranking.ts';
import { amountText, shortages } from './signals.ts';

const MIB = 1024 * 1024;
const pod = (
  name: string,
  options: { memory?: string; priority?: number; annotations?: Record<string, string> } = {},
) =>
  ({
    metadata: { name, ...(options.annotations ? { annotations: options.annotations } : {}) },
    spec: {
      priority: options.priority ?? 0,
      containers: [{ name: 'c', resources: { requests: options.memory ? { memory: options.memory } : {} } }],
    },
  }) as unknown as Pod;

test('over the request first, then the lower priority, then the greater excess; critical pods never', () => {
  const order = ranked(
    [
      { pod: pod('within', { memory: '100Mi' }), used: 90 * MIB },
      { pod: pod('over-a-little', { memory: '10Mi' }), used: 20 * MIB },
      { pod: pod('over-much', { memory: '10Mi' }), used: 50 * MIB },
      { pod: pod('over-and-precious', { priority: 1000 }), used: 500 * MIB },
      { pod: pod('critical', { priority: 2_000_001_000 }), used: 900 * MIB },
      { pod: pod('static', { annotations: { 'kubernetes.io/config.source': 'file' } }), used: 900 * MIB },
      { pod: pod('further-within', { memory: '100Mi' }), used: 10 * MIB },
    ],
    'memory',
  );
  assert.deepEqual(
    order.map(one => one.pod.metadata.name),
    ['over-much', 'over-a-little', 'over-and-precious', 'within', 'further-within'],
  );
});

test('thresholds are quantities or percentages; memory is the most urgent', () => {
  const short = shortages(
    [
      { signal: 'nodefs.available', available: 9, capacity: 100 },
      { signal: 'imagefs.available', available: 90, capacity: 100 },
      { signal: 'nodefs.inodesFree', available: 0, capacity: 0 },
      { signal: 'memory.available', available: 50 * MIB, capacity: 1000 * MIB },
      { signal: 'pid.available', available: 1, capacity: 100 },
    ],
    [
      { signal: 'nodefs.available', text: '10%' },
      { signal: 'imagefs.available', text: '15%' },
      { signal: 'nodefs.inodesFree', text: '5%' },
      { signal: 'memory.available', text: '100Mi' },
    ],
  );
  assert.deepEqual(
    short.map(one => [one.signal, one.pressure, amountText(one.threshold, one.resource)]),
    [
      ['memory.available', 'MemoryPressure', '100Mi'],
      ['nodefs.available', 'DiskPressure', '10'],
    ],
  );
});

test('a threshold once crossed stays so until its minimum is reclaimed', () => {
  const threshold = { signal: 'nodefs.available', text: '10%', reclaim: '5%' } as const;
  const at = (available: number) => [{ signal: 'nodefs.available' as const, available, capacity: 100 }];
  assert.equal(shortages(at(9), [threshold]).length, 1);
  assert.equal(shortages(at(12), [threshold]).length, 0);
  assert.equal(shortages(at(12), [threshold], new Set([threshold])).length, 1);
  assert.equal(shortages(at(15), [threshold], new Set([threshold])).length, 0);
});
