import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { keepPlaces } from './endpoint-order.ts';
import type { Endpoint } from './model.ts';

const endpoints = (ids: readonly number[]): Endpoint[] =>
  ids.map(id => ({ ip: `10.0.0.${id}`, port: 80, local: false }));
const places = fc.uniqueArray(fc.integer({ min: 0, max: 40 }), { maxLength: 40 });

test('the same endpoints, nobody who stays within the new length moves, and a second time changes nothing', () => {
  fc.assert(
    fc.property(places, places, (before, after) => {
      const former = endpoints(before);
      const wanted = endpoints([...after].sort((a, b) => a - b));
      const placed = keepPlaces(wanted, former);
      const names = (list: readonly Endpoint[]) => list.map(({ ip }) => ip);
      assert.deepEqual(names(placed).sort(), names(wanted).sort());
      former.slice(0, placed.length).forEach((endpoint, i) => {
        if (after.includes(Number(endpoint.ip.split('.')[3]))) assert.equal(placed[i]!.ip, endpoint.ip);
      });
      assert.deepEqual(names(keepPlaces(wanted, placed)), names(placed));
    }),
    { seed: 5, numRuns: 300 },
  );
});

test('one endpoint that goes moves one other', () => {
  assert.deepEqual(
    keepPlaces(endpoints([1, 3, 4, 5]), endpoints([1, 2, 3, 4, 5])).map(({ ip }) => ip.slice(7)),
    ['1', '5', '3', '4'],
  );
});
