import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import fc from 'fast-check';
import { SortedMap } from './sorted-map.ts';

const keysOf = (map: SortedMap<number>, prefix = '', after?: string): string[] => {
  const keys: string[] = [];
  map.walk(prefix, after, (_, key) => {
    keys.push(key);
    return true;
  });
  return keys;
};

test('a walk is in order whatever was set and deleted before, in whatever numbers', () => {
  const steps = fc.array(
    fc.record({ first: fc.nat(30_000), count: fc.constantFrom(1, 5, 100, 1500), remove: fc.boolean() }),
    { maxLength: 12 },
  );
  fc.assert(
    fc.property(steps, fc.nat(30_000), (all, after) => {
      const map = new SortedMap<number>();
      const expected = new Set<string>();
      for (const { first, count, remove } of all) {
        for (let i = 0; i < count; i++) {
          const key = `k${(first * 31 + i * 7919) % 30_011}`;
          if (remove) assert.equal(map.delete(key), expected.delete(key));
          else map.set(key, expected.add(key).size);
        }
        if (count === 5) assert.deepEqual(keysOf(map), [...expected].sort());
      }
      const sorted = [...expected].sort();
      assert.deepEqual(keysOf(map), sorted);
      assert.deepEqual(
        keysOf(map, 'k1', `k${after}`),
        sorted.filter(key => key.startsWith('k1') && key > `k${after}`),
      );
    }),
    { numRuns: 100 },
  );
});

test('keys beyond what may wait for their place', () => {
  const map = new SortedMap<number>();
  for (let i = 0; i < 20_000; i++) map.set(`k${(i * 7919) % 20_011}`, i);
  assert.equal(map.size, 20_000);
  const keys = keysOf(map);
  assert.equal(keys.length, 20_000);
  assert.deepEqual(keys, [...keys].sort());
});
