import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ResourceClaim } from '../api/resource/v1.gen.ts';
import { BINDING_MS_MAX, readinessOf } from './device-conditions.ts';

const allocated = '2026-01-01T00:00:00Z';
const nowMs = Date.parse(allocated);
const of = (device: string) => ({ driver: 'd', pool: 'p', device });
const needing = (device: string) => ({
  request: 'r',
  ...of(device),
  bindingConditions: ['attached', 'warm'],
  bindingFailureConditions: ['broken'],
});
const claim = (devices: object[] | undefined, results: object[] = [needing('a')]) =>
  ({
    metadata: { name: 'c' },
    status: { allocation: { allocationTimestamp: allocated, devices: { results } }, ...(devices ? { devices } : {}) },
  }) as ResourceClaim;
const says = (device: string, ...conditions: string[]) => ({
  ...of(device),
  conditions: conditions.map(one => ({ type: one.replace('!', ''), status: one.endsWith('!') ? 'False' : 'True' })),
});

test('ready is what needs nothing, and what has all that it needs', () => {
  assert.equal(readinessOf(claim(undefined, [{ request: 'r', ...of('a') }]), nowMs).is, 'ready');
  assert.equal(readinessOf(claim([says('a', 'attached', 'warm')]), nowMs).is, 'ready');
  for (const devices of [
    undefined,
    [says('a', 'attached')],
    [says('a', 'attached', 'warm!')],
    [says('b', 'attached', 'warm')],
  ])
    assert.deepEqual(readinessOf(claim(devices), nowMs), { is: 'waiting', untilMs: nowMs + BINDING_MS_MAX });
  const two = [needing('a'), needing('b')];
  assert.equal(readinessOf(claim([says('a', 'attached', 'warm')], two), nowMs).is, 'waiting');
  assert.equal(
    readinessOf(claim([says('a', 'attached', 'warm'), says('b', 'warm', 'attached')], two), nowMs).is,
    'ready',
  );
});

test('what cannot be, takes too long, or was taken away fails', () => {
  const why = (from: ResourceClaim, atMs = nowMs) => {
    const readiness = readinessOf(from, atMs);
    return readiness.is === 'failed' ? readiness.why : readiness.is;
  };
  assert.equal(why(claim([says('a', 'attached', 'broken')])), 'claim c binding failed: device d/p/a: broken');
  assert.equal(why(claim([says('a', 'broken!')])), 'waiting');
  // A failure counts before what others are still waiting for.
  assert.match(why(claim([says('b', 'broken')], [needing('a'), needing('b')])), /device d\/p\/b: broken/);
  assert.equal(why(claim(undefined), nowMs + BINDING_MS_MAX), 'claim c: device binding timeout');
  assert.equal(why({ metadata: { name: 'c' } } as ResourceClaim), 'claim c is not allocated any more');
});
