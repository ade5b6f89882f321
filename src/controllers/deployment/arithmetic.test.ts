import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Deployment, ReplicaSet } from '../../api/apps/v1.gen.ts';
import {
  activeSets,
  maxSurge,
  maxUnavailable,
  newSetSize,
  proportionalSizes,
  replicasOf,
  setName,
  shrinkOldSets,
  sum,
} from './arithmetic.ts';

const deployment = (replicas: number, surge: number | string, unavailable: number | string): Deployment =>
  ({
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'd' },
    spec: {
      replicas,
      selector: {},
      template: {},
      strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: surge, maxUnavailable: unavailable } },
    },
  }) as Deployment;
const set = (name: string, replicas: number, available: number, max?: number): ReplicaSet =>
  ({
    apiVersion: 'apps/v1',
    kind: 'ReplicaSet',
    metadata: {
      name,
      uid: name,
      creationTimestamp: `2026-01-01T00:00:0${name}Z`,
      annotations: max === undefined ? {} : { 'deployment.kubernetes.io/max-replicas': String(max) },
    },
    spec: { replicas, selector: {} },
    status: { replicas, availableReplicas: available },
  }) as ReplicaSet;

const bound = fc.oneof(
  fc.integer({ min: 0, max: 8 }),
  fc.integer({ min: 0, max: 100 }).map(percent => `${percent}%`),
);
const world = fc.record({ replicas: fc.integer({ min: 0, max: 30 }), surge: bound, unavailable: bound });

/** Plays a rollout to its end: pods of the new set become available at once, the old ones are. */
function roll(
  target: Deployment,
  start: number,
): { steps: number; most: number; leastAvailable: number; end: [number, number] } {
  let old = start;
  let fresh = 0;
  let most = old;
  let leastAvailable = old;
  for (let steps = 0; steps < 500; steps++) {
    const sets = [set('1', old, old), set('2', fresh, fresh)];
    const size = newSetSize(target, sets, fresh);
    if (size !== fresh) fresh = size;
    else {
      const shrinking = shrinkOldSets(target, sets, activeSets([sets[0]!]), sets[1]!);
      if (shrinking.length === 0) return { steps, most, leastAvailable, end: [old, fresh] };
      for (const { to } of shrinking) old = to;
    }
    most = Math.max(most, old + fresh);
    leastAvailable = Math.min(leastAvailable, old + fresh);
  }
  return { steps: 500, most, leastAvailable, end: [old, fresh] };
}

test('a rollout ends, and stays between replicas - maxUnavailable and replicas + maxSurge', () => {
  fc.assert(
    fc.property(world, ({ replicas, surge, unavailable }) => {
      const target = deployment(replicas, surge, unavailable);
      const { most, leastAvailable, end } = roll(target, replicas);
      assert.deepEqual(end, [0, replicas]);
      assert.ok(most <= replicas + maxSurge(target));
      assert.ok(leastAvailable >= replicas - maxUnavailable(target));
    }),
    { seed: 7, numRuns: 300 },
  );
});

test('broken new pods never cost more than maxUnavailable', () => {
  fc.assert(
    fc.property(world, ({ replicas, surge, unavailable }) => {
      const target = deployment(replicas, surge, unavailable);
      const fresh = newSetSize(target, [set('1', replicas, replicas), set('2', 0, 0)], 0);
      const sets = [set('1', replicas, replicas), set('2', fresh, 0)];
      let left = replicas;
      for (const { to } of shrinkOldSets(target, sets, activeSets([sets[0]!]), sets[1]!)) left = to;
      assert.ok(left >= replicas - maxUnavailable(target));
    }),
    { seed: 7, numRuns: 300 },
  );
});

test('a scale in the middle of a rollout adds up to replicas + maxSurge, and no set turns negative', () => {
  fc.assert(
    fc.property(
      world,
      fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 2, maxLength: 4 }),
      ({ replicas, surge, unavailable }, sizes) => {
        const target = deployment(replicas, surge, unavailable);
        const total = sizes.reduce((a, b) => a + b, 0);
        const next = proportionalSizes(
          target,
          sizes.map((size, i) => set(String(i), size, size, total)),
        );
        assert.ok(next.every(({ to }) => to >= 0));
        if (replicas >= total)
          assert.equal(
            next.reduce((a, { to }) => a + to, 0),
            replicas + maxSurge(target),
          );
      },
    ),
    { seed: 7, numRuns: 300 },
  );
});

test('upstream examples of proportional scaling', () => {
  const target = deployment(10, 0, 1);
  const sizes = proportionalSizes(target, [set('2', 2, 2, 5), set('1', 3, 3, 5)]);
  assert.deepEqual(
    sizes.map(({ set: of, to }) => [of.metadata.name, to]),
    [
      ['1', 6],
      ['2', 4],
    ],
  );
  assert.equal(sum([set('1', 3, 0)], replicasOf), 3);
});

test('a name leaves room for the hash, and stays a name', () => {
  assert.equal(setName('web', '5d4f8'), 'web-5d4f8');
  const long = `${'a'.repeat(246)}.${'b'.repeat(6)}`;
  assert.equal(setName(long, '5d4f8'), `${'a'.repeat(246)}-5d4f8`);
  assert.equal(setName('c'.repeat(253), '5d4f8').length, 253);
});
