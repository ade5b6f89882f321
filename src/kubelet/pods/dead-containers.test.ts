import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ContainerState } from '../runtime.ts';
import { DEAD_CONTAINERS_DEFAULT, type DeadContainerPolicy, keptOfEach, surplus } from './dead-containers.ts';

const NOW = 1_000_000;
/** `pod/name#attempt`, running when it ends in `+`; each a second younger than the one before. */
const containersOf = (...texts: string[]) =>
  texts.map((text, i) => {
    const [, podUid, name, attempt, mark] = /^(\w+)\/(\w+)#(\d)([+*]?)$/.exec(text)!;
    const state = mark === '+' ? 'running' : mark === '*' ? 'created' : 'exited';
    const createdMs = NOW - (texts.length - i) * 1000;
    return { id: text, podUid, name, attempt: Number(attempt), state, createdMs } as ContainerState;
  });
const going = (policy: Partial<DeadContainerPolicy>, ...texts: string[]) =>
  surplus(containersOf(...texts), {
    policy: { ...DEAD_CONTAINERS_DEFAULT, ...policy },
    nowMs: NOW,
    isOver: uid => (uid === 'stranger' ? undefined : uid.startsWith('over')),
  })
    .map(({ id }) => id)
    .sort();

test('by default the last dead one of each container stays', () => {
  assert.deepEqual(going({}, 'a/c#0', 'a/c#1', 'a/c#2+', 'a/d#0', 'over/c#0'), ['a/c#0']);
  assert.deepEqual(going({}, 'stranger/c#0', 'stranger/c#1'), []);
});

test('per container: more, none, whatever there is', () => {
  const all = ['a/c#0', 'a/c#1', 'a/c#2', 'a/c#3+'];
  assert.deepEqual(going({ perContainerMax: 2 }, ...all), ['a/c#0']);
  assert.deepEqual(going({ perContainerMax: -1 }, ...all), []);
  assert.deepEqual(going({ perContainerMax: 0 }, ...all, 'over/c#0'), ['a/c#0', 'a/c#1', 'a/c#2', 'over/c#0']);
  assert.deepEqual(
    [-1, 0, 1, 3].map(perContainerMax => keptOfEach({ ...DEAD_CONTAINERS_DEFAULT, perContainerMax })),
    [1, 1, 1, 3],
  );
});

test('what tells that a container has run stays while its pod goes on; what is being made too', () => {
  assert.deepEqual(going({ perContainerMax: 0, max: 0 }, 'a/init#0', 'a/c#0', 'a/c#1*', 'over/c#0'), [
    'a/c#0',
    'over/c#0',
  ]);
});

test('of the node: fewer of each, then the oldest', () => {
  const all = ['over1/c#0', 'over1/c#1', 'over2/c#0', 'over3/c#0', 'over3/c#1'];
  const policy = { perContainerMax: 5 };
  assert.deepEqual(going({ ...policy, max: 5 }, ...all), []);
  assert.deepEqual(going({ ...policy, max: 4 }, ...all), ['over1/c#0', 'over3/c#0']);
  assert.deepEqual(going({ ...policy, max: 2 }, ...all), ['over1/c#0', 'over1/c#1', 'over3/c#0']);
  assert.deepEqual(going({ ...policy, max: 0 }, ...all), all);
});

test('the young are left alone', () => {
  assert.deepEqual(going({ ageMsMin: 2500 }, 'a/c#0', 'a/c#1', 'a/c#2', 'a/c#3+'), ['a/c#0']);
});
