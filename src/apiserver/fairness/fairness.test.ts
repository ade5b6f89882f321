import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import fc from 'fast-check';
import type { PriorityLevelConfiguration } from '../../api/flowcontrol/v1.gen.ts';
import { VirtualClock } from '../../base/clock.ts';
import type { RequestAttributes } from '../request.ts';
import { MANDATORY_LEVELS, MANDATORY_SCHEMAS, SUGGESTED_LEVELS, SUGGESTED_SCHEMAS } from './bootstrap-objects.ts';
import { compileSchemas } from './classifier.ts';
import { deal, FairQueues, hashOf } from './fair-queues.ts';
import { type Admitted, Fairness, type Work } from './fairness.ts';
import { PriorityLevels } from './priority-levels.ts';
import { Turns } from './turns.ts';
import { estimate } from './work-estimate.ts';

const request = (user: string, groups: string[], more: Partial<RequestAttributes> = {}): RequestAttributes => ({
  user: { name: user, groups: [...groups, 'system:authenticated'] },
  verb: 'get',
  isResource: true,
  group: '',
  version: 'v1',
  resource: 'pods',
  subresource: '',
  namespace: 'default',
  name: 'p',
  path: '',
  ...more,
});

const SCHEMAS = [...MANDATORY_SCHEMAS, ...SUGGESTED_SCHEMAS];
const LEVELS = [...MANDATORY_LEVELS, ...SUGGESTED_LEVELS];
const LIGHT: Work = { width: 1, heavy: false };
const never = () => new AbortController().signal;

test('requests find the schemas that upstream gives them', () => {
  const schemas = compileSchemas(SCHEMAS);
  const schemaOf = (asked: RequestAttributes) => schemas.find(schema => schema.matches(asked))?.name;
  const lease = { group: 'coordination.k8s.io', resource: 'leases', namespace: 'kube-system', verb: 'update' };
  const document = { isResource: false, resource: '', namespace: '', version: '', name: '' };
  const cases: [RequestAttributes, string][] = [
    [request('admin', ['system:masters']), 'exempt'],
    [request('system:anonymous', ['system:unauthenticated'], { ...document, path: '/readyz' }), 'probes'],
    [request('jo', [], { ...document, path: '/version' }), 'global-default'],
    [request('system:kube-scheduler', [], lease), 'system-leader-election'],
    [request('system:serviceaccount:kube-system:a', ['system:serviceaccounts'], lease), 'system-leader-election'],
    [request('system:serviceaccount:other:a', ['system:serviceaccounts'], lease), 'service-accounts'],
    [request('system:kube-controller-manager', [], { resource: 'endpoints' }), 'kube-controller-manager'],
    [request('system:kube-controller-manager', []), 'kube-controller-manager'],
    [request('system:node:a', ['system:nodes']), 'system-nodes'],
    [
      request('system:node:a', ['system:nodes'], { resource: 'nodes', subresource: 'status', namespace: '' }),
      'system-node-high',
    ],
    [request('system:serviceaccount:kube-system:a', ['system:serviceaccounts']), 'kube-system-service-accounts'],
    [request('jo', []), 'global-default'],
  ];
  for (const [asked, schema] of cases) assert.equal(schemaOf(asked), schema);
  const gone = ['endpoint-controller', 'workload-leader-election'];
  assert.deepEqual(
    SUGGESTED_SCHEMAS.filter(({ metadata }) => gone.includes(metadata.name!)),
    [],
    'not since 1.34',
  );
});

test('a hand is always of distinct cards', () => {
  fc.assert(
    fc.property(fc.string(), fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 8 }), (flow, deck, size) => {
      const hand = deal(hashOf(flow), deck, Math.min(size, deck));
      assert.equal(new Set(hand).size, Math.min(size, deck));
      assert.ok(hand.every(card => card >= 0 && card < deck));
    }),
    { numRuns: 200 },
  );
});

test('the flow that was served least is next, whatever another one piles up', () => {
  const queues = new FairQueues<{ width: number; of: string }>({ queues: 64, handSize: 4 });
  const put = (of: string) => queues.add(queues.queueOf(of), { width: 1, of });
  for (let i = 0; i < 100; i++) put('greedy');
  const served: string[] = [];
  const serve = () => {
    const next = queues.peek()!;
    queues.take(next);
    served.push(next.item.of);
    queues.charge(next.queue, 1, 1);
  };
  for (let i = 0; i < 20; i++) serve();
  put('modest');
  for (let i = 0; i < 5; i++) serve();
  // The greedy flow has four queues at most.
  assert.ok(served.slice(20).includes('modest'), served.join());
});

const limited = (name: string, nominal: number, more: Partial<{ lendable: number; borrow: number; reject: true }>) =>
  ({
    metadata: { name },
    spec: {
      type: 'Limited',
      limited: {
        nominalConcurrencyShares: nominal,
        lendablePercent: more.lendable ?? 0,
        ...(more.borrow === undefined ? {} : { borrowingLimitPercent: more.borrow }),
        limitResponse: more.reject
          ? { type: 'Reject' }
          : { type: 'Queue', queuing: { queues: 4, handSize: 2, queueLengthLimit: 3 } },
      },
    },
  }) as PriorityLevelConfiguration;

test('seats: a level borrows what others lend, gives it back, and never takes what another is sure of', async () => {
  const clock = new VirtualClock();
  const levels = new PriorityLevels({ seats: 20, clock });
  levels.configure([
    limited('lender', 10, { lendable: 50 }),
    limited('borrower', 5, {}),
    limited('strict', 5, { borrow: 0, reject: true }),
  ]);
  const acquire = (name: string, width = 1) =>
    levels.acquire(levels.get(name)!, { width, flow: () => name, signal: never });
  const taken = Array.from({ length: 10 }, () => acquire('borrower'));
  assert.ok(taken.every(grant => typeof grant === 'object' && !(grant instanceof Promise)));
  const eleventh = acquire('borrower');
  assert.ok(eleventh instanceof Promise);
  // Own seats of the lender that it did not lend are there at once, the lent ones not.
  for (let i = 0; i < 5; i++) assert.ok(!(acquire('lender') instanceof Promise));
  const back = acquire('lender');
  assert.ok(back instanceof Promise);
  (taken[0] as { release(): void }).release();
  // The lender is first: it is below its own number.
  assert.equal(typeof (await back), 'object');
  (taken[1] as { release(): void }).release();
  assert.equal(typeof (await eleventh), 'object');
  for (let i = 0; i < 5; i++) assert.equal(typeof acquire('strict'), 'object');
  assert.equal(acquire('strict'), 'concurrency-limit');
});

test('seats: queues are bounded, waiting ends in time and with the client', async () => {
  const clock = new VirtualClock();
  const levels = new PriorityLevels({ seats: 1, clock });
  levels.configure([limited('only', 1, {})]);
  const level = levels.get('only')!;
  const acquire = (signal = never()) => levels.acquire(level, { width: 3, flow: () => 'f', signal: () => signal });
  const first = acquire() as { release(): void };
  const client = new AbortController();
  const gone = acquire(client.signal);
  const waiting = Array.from({ length: 5 }, () => acquire());
  assert.equal(acquire(), 'queue-full');
  client.abort();
  assert.equal(await gone, 'cancelled');
  await clock.advance(1000);
  levels.expire(15_000);
  assert.equal(level.waiters.size, 5);
  await clock.advance(15_000);
  levels.expire(15_000);
  assert.deepEqual(await Promise.all(waiting), Array(5).fill('time-out'));
  first.release();
  assert.equal(typeof acquire(), 'object');
});

test('turns: the request of a flow that asks once is answered among those of one that asks a thousand times', async () => {
  const turns = new Turns();
  const order: string[] = [];
  const many = Array.from({ length: 50 }, () => turns.take('greedy').then(() => order.push('greedy')));
  await turns.take('modest').then(() => order.push('modest'));
  assert.ok(order.indexOf('modest') <= 2, order.join());
  await Promise.all(many);
});

test('work: lists by the bytes that they return, large bodies by theirs, all else one seat', () => {
  const of = (more: Partial<RequestAttributes>, query = '', { bodyBytes = 0, count = 5000, each = 500 } = {}) =>
    estimate(request('jo', [], more), {
      query: new URLSearchParams(query),
      bodyBytes,
      stored: () => ({ count, bytes: count * each }),
    });
  const list = { verb: 'list', name: '' };
  const watch = { verb: 'watch', name: '' };
  assert.deepEqual(of({}), LIGHT);
  assert.deepEqual(of(list), { width: 10, heavy: true });
  assert.deepEqual(of(list, '', { each: 20 }), { width: 1, heavy: true }, 'a hundred kilobytes are one seat');
  assert.deepEqual(of(list, '', { count: 250, each: 1000 }), { width: 3, heavy: false });
  assert.deepEqual(of(list, '', { count: 0 }), LIGHT);
  assert.deepEqual(of(list, 'limit=50'), LIGHT);
  assert.deepEqual(of(list, 'limit=50', { each: 10_000 }), { width: 5, heavy: false });
  assert.deepEqual(of(list, 'limit=50&labelSelector=a'), { width: 1, heavy: true }, 'others are looked at, not kept');
  assert.equal(of({ ...list, fieldSelector: 'metadata.name=p' }, 'fieldSelector=metadata.name%3Dp').width, 1);
  assert.deepEqual(of(watch, 'resourceVersion=7'), LIGHT);
  for (const query of ['', 'resourceVersion=0', 'resourceVersion=7&sendInitialEvents=true'])
    assert.deepEqual(of(watch, query), { width: 10, heavy: true }, query);
  assert.deepEqual(of({ verb: 'create', name: '' }, '', { bodyBytes: 3 * 1024 * 1024 }), { width: 10, heavy: true });
});

test('one request takes no more than a part of the seats of its level', () => {
  const levels = new PriorityLevels({ seats: 600, clock: new VirtualClock() });
  levels.configure(LEVELS);
  const widest = (name: string) => levels.get(name)!.widthMax;
  assert.equal(widest('workload-low'), 37, '245 seats, 15 of a hundred');
  assert.equal(widest('leader-election'), 4);
  const few = new PriorityLevels({ seats: 60, clock: new VirtualClock() });
  few.configure(LEVELS);
  assert.equal(few.get('workload-high')!.widthMax, 1, 'ten seats for hands of six');
});

test('watches and replies nobody reads are bounded for each user, but not for the exempt', async () => {
  const fairness = new Fairness({ clock: new VirtualClock() });
  fairness.configure(SCHEMAS, LEVELS);
  const watch = (user: string, groups: string[] = []) =>
    fairness.admit(request(user, groups, { verb: 'watch' }), LIGHT, never) as Admitted;
  const open = Array.from({ length: 5000 }, () => {
    const admitted = watch('jo');
    admitted.release();
    return admitted;
  });
  assert.throws(() => watch('jo'), { code: 429 });
  watch('ann').end();
  watch('admin', ['system:masters']).end();
  open[0]!.end();
  watch('jo').end();

  const reading = new AbortController();
  const heavy: Work = { width: 1, heavy: true };
  const list = () => fairness.admit(request('jo', [], { verb: 'list' }), heavy, never);
  const first = await list();
  first.sending(100 * 1024 * 1024, reading.signal);
  first.end();
  assert.throws(list, { code: 429 });
  reading.abort();
  (await list()).end();
});

test('without objects the mandatory ones apply; a schema whose level is missing is passed over', () => {
  const fairness = new Fairness({ clock: new VirtualClock() });
  const admit = (user: string) => fairness.admit(request(user, []), LIGHT, never) as Admitted;
  assert.equal(admit('jo').levelUid, '');
  const uid = (name: string, uid: string) => ({
    ...LEVELS.find(level => level.metadata.name === name)!,
    metadata: { name, uid },
  });
  fairness.configure(SCHEMAS, [uid('catch-all', 'u1')]);
  assert.equal(admit('jo').levelUid, 'u1');
  fairness.configure(SCHEMAS, [uid('catch-all', 'u1'), uid('global-default', 'u2')]);
  assert.equal(admit('jo').levelUid, 'u2');
  assert.match(fairness.dumpLevels(), /^PriorityLevelName.*\ncatch-all, 0, false/);
});
