import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff } from './backoff.ts';
import { formatMicroTime, formatTime, VirtualClock } from './clock.ts';
import { conflict, fieldErrors, invalid, notFound } from './errors.ts';
import { createLogger } from './log.ts';
import { MetricsRegistry } from './metrics.ts';
import { Pace } from './pace.ts';
import { BoundedQueue } from './queue.ts';
import { randomSuffix, seededRandom } from './random.ts';

test('status messages are those of kube-apiserver', () => {
  assert.equal(notFound({ group: 'apps', resource: 'deployments' }, 'web').message, 'deployments.apps "web" not found');
  assert.equal(
    conflict({ group: '', resource: 'pods' }, 'a', 'why').message,
    'Operation cannot be fulfilled on pods "a": why',
  );
  const error = invalid({ group: 'apps', kind: 'Deployment' }, 'web', [
    fieldErrors.required('spec.selector'),
    fieldErrors.invalid('spec.replicas', -1, 'must be greater than or equal to 0'),
  ]);
  assert.equal(
    error.message,
    'Deployment.apps "web" is invalid: [spec.selector: Required value, spec.replicas: Invalid value: -1: must be greater than or equal to 0]',
  );
  assert.equal(error.code, 422);
  assert.deepEqual(error.status.details?.causes?.[0], {
    reason: 'FieldValueRequired',
    message: 'Required value',
    field: 'spec.selector',
  });
});

test('a virtual clock runs timers in order and wakes sleepers early on abort', async () => {
  const clock = new VirtualClock();
  const seen: string[] = [];
  clock.after(20, () => seen.push('b'));
  clock.after(10, () => seen.push('a')).cancel();
  const stop = new AbortController();
  void clock.sleep(1000, stop.signal).then(() => seen.push('woken'));
  await clock.advance(30);
  stop.abort();
  await clock.advance(0);
  assert.deepEqual(seen, ['b', 'woken']);
});

test('back-off doubles to its limit and forgets after quiet', async () => {
  const clock = new VirtualClock();
  const backoff = new Backoff({ initialMs: 10, maxMs: 40, clock });
  assert.deepEqual(
    [1, 2, 3, 4].map(() => backoff.next('a')),
    [10, 20, 40, 40],
  );
  await clock.advance(81);
  assert.equal(backoff.next('a'), 10);
});

test('a full queue refuses, a closed one ends or throws', async () => {
  const queue = new BoundedQueue<number>(2);
  assert.deepEqual([queue.push(1), queue.push(2), queue.push(3)], [true, true, false]);
  queue.close(new Error('too slow'));
  const seen: number[] = [];
  await assert.rejects(async () => {
    for await (const item of queue) seen.push(item);
  }, /too slow/);
  assert.deepEqual(seen, [1, 2]);
});

test('times, names, logs and metrics have their fixed forms', () => {
  assert.equal(formatTime(0), '1970-01-01T00:00:00Z');
  assert.equal(formatMicroTime(1), '1970-01-01T00:00:00.001000Z');
  assert.match(randomSuffix(seededRandom(1)), /^[bcdfghjklmnpqrstvwxz2456789]{5}$/);
  let line = '';
  createLogger('x', {
    level: 'info',
    write: text => {
      line += text;
    },
  })
    .with({ a: 1 })
    .warn('thing happened', { b: 'two words' });
  assert.match(line, /^\S+Z WARN {2}x: thing happened a=1 b="two words"\n$/);
  const registry = new MetricsRegistry();
  registry.counter('c_total', 'help', ['verb']).add(2, 'get');
  registry.histogram('h', 'help', [1, 5]).observe(3);
  assert.equal(
    registry.render(),
    '# HELP c_total help\n# TYPE c_total counter\nc_total{verb="get"} 2\n# HELP h help\n# TYPE h histogram\nh_bucket{le="1"} 0\nh_bucket{le="5"} 1\nh_bucket{le="+Inf"} 1\nh_sum 3\nh_count 1\n',
  );
});

test('a pace: some at once, then one in a while; what it did not use it may do later', async () => {
  const clock = new VirtualClock();
  const pace = new Pace({ atOnce: 3, everyMs: 1000, clock });
  const atOnce = () => {
    let count = 0;
    for (; pace.mayNow; count++) pace.took();
    return count;
  };
  assert.equal(atOnce(), 3);
  await clock.advance(999);
  assert.equal(atOnce(), 0);
  await clock.advance(1);
  assert.equal(pace.nextMs, clock.monotonic());
  assert.equal(atOnce(), 1);
  await clock.advance(2000);
  assert.equal(atOnce(), 2);
  await clock.advance(60_000);
  assert.equal(atOnce(), 3);
  pace.took();
  assert.equal(pace.nextMs, clock.monotonic() + 2000);
});
