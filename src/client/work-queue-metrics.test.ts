import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { VirtualClock } from '../base/clock.ts';
import { metrics } from '../base/metrics.ts';
import { WorkQueue } from './work-queue.ts';

test('a queue with a name tells of its keys', async () => {
  const clock = new VirtualClock();
  const queue = new WorkQueue({ clock, name: 'told' });
  queue.add('a');
  queue.add('a');
  queue.add('b');
  const stop = new AbortController();
  let failures = 0;
  const done = queue.run(
    {
      workers: 1,
      process: key => (key === 'b' && failures === 0 ? Promise.reject(new Error('no')) : Promise.resolve()),
      failed: () => failures++,
    },
    stop.signal,
  );
  await clock.advance(1000);
  const other = new WorkQueue({ clock, name: 'slow' });
  for (const key of ['x', 'y']) other.add(key);
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const slow = other.run({ workers: 2, process: () => released, failed: () => {} }, stop.signal);
  await clock.advance(2000);
  const busy = metrics.render({ prefixes: ['workqueue_'] });
  assert.ok(busy.includes('workqueue_unfinished_work_seconds{name="slow"} 4'), busy);
  assert.ok(busy.includes('workqueue_longest_running_processor_seconds{name="slow"} 2'), busy);
  release();
  await clock.advance(1);
  assert.ok(metrics.render().includes('workqueue_unfinished_work_seconds{name="slow"} 0'));
  stop.abort();
  await slow;
  await done;
  const page = metrics.render({ prefixes: ['workqueue_'] });
  for (const line of [
    'workqueue_adds_total{name="told"} 3',
    'workqueue_retries_total{name="told"} 1',
    'workqueue_depth{name="told"} 0',
    'workqueue_work_duration_seconds_count{name="told"} 3',
    'workqueue_queue_duration_seconds_count{name="told"} 3',
  ])
    assert.ok(page.includes(line), `${line}\n${page}`);
});
