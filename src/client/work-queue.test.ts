import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VirtualClock } from '../base/clock.ts';
import { WorkQueue } from './work-queue.ts';

function started(options: { workers: number; process: (key: string) => Promise<void> }) {
  const clock = new VirtualClock();
  const queue = new WorkQueue({ clock });
  const stop = new AbortController();
  const failures: string[] = [];
  const done = queue.run({ ...options, failed: key => failures.push(key) }, stop.signal);
  return {
    clock,
    queue,
    failures,
    stop: async () => {
      stop.abort();
      await done;
    },
  };
}

test('a key added many times before it is processed is processed once', async () => {
  const seen: string[] = [];
  const { queue, clock, stop } = started({ workers: 2, process: async key => void seen.push(key) });
  for (let i = 0; i < 5; i++) queue.add('a');
  queue.add('b');
  await clock.advance(1);
  assert.deepEqual(seen.sort(), ['a', 'b']);
  await stop();
});

test('a key is never processed by two workers at once, and again when added meanwhile', async () => {
  let running = 0;
  let most = 0;
  let runs = 0;
  const { queue, clock, stop } = started({
    workers: 4,
    process: async () => {
      most = Math.max(most, ++running);
      runs++;
      await clock.sleep(10);
      running--;
    },
  });
  queue.add('a');
  await clock.advance(5);
  queue.add('a');
  await clock.advance(30);
  assert.equal(most, 1);
  assert.equal(runs, 2);
  await stop();
});

test('a failed key comes back with growing delay and starts over after success', async () => {
  const times: number[] = [];
  let failuresLeft = 3;
  const clock = new VirtualClock();
  const queue = new WorkQueue({ clock, retryMsMin: 5 });
  const stop = new AbortController();
  const done = queue.run(
    {
      workers: 1,
      process: async () => {
        times.push(clock.monotonic());
        if (failuresLeft-- > 0) throw new Error('not yet');
      },
      failed: () => {},
    },
    stop.signal,
  );
  queue.add('a');
  await clock.advance(100);
  assert.deepEqual(times, [0, 5, 15, 35]);
  stop.abort();
  await done;
});

test('of several delays the earliest wins', async () => {
  const times: number[] = [];
  const { queue, clock, stop } = started({ workers: 1, process: async () => void times.push(clock.monotonic()) });
  queue.addAfter('a', 50);
  queue.addAfter('a', 20);
  queue.addAfter('a', 70);
  await clock.advance(100);
  assert.deepEqual(times, [20]);
  await stop();
});
