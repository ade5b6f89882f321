import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VirtualClock } from '../clock.ts';
import { seededRandom } from '../random.ts';
import { activeSpan, traced, within } from './active.ts';
import { tracingEndpoint, tracingProblems } from './configuration.ts';
import { remoteParent, traceHeaders } from './propagation.ts';
import { type Span, Tracer } from './span.ts';

function bed(samplingRatePerMillion: number) {
  const ended: Span[] = [];
  const clock = new VirtualClock();
  const sink = { take: (span: Span) => void ended.push(span) };
  return { ended, clock, tracer: new Tracer({ samplingRatePerMillion, sink, clock, random: seededRandom(7) }) };
}

test('of new traces that part is sampled, of others what their beginning says', () => {
  const sampled = (rate: number) => {
    const { tracer } = bed(rate);
    return Array.from({ length: 4000 }, () => tracer.start('a', undefined)).filter(span => span.context.isSampled);
  };
  assert.equal(sampled(0).length, 0);
  assert.equal(sampled(1_000_000).length, 4000);
  const quarter = sampled(250_000);
  assert.ok(Math.abs(quarter.length - 1000) < 150, String(quarter.length));
  assert.equal(new Set(quarter.map(span => span.context.traceId)).size, quarter.length);
  // Whoever samples a part has all that others with a smaller part have.
  const half = new Set(sampled(500_000).map(span => span.context.traceId));
  assert.ok(quarter.every(({ context }) => half.has(context.traceId)));
  for (const rate of [0, 1_000_000])
    for (const isSampled of [true, false]) {
      const parent = { traceId: '1'.repeat(32), spanId: '2'.repeat(16), isSampled, isRemote: true };
      const span = bed(rate).tracer.start('b', parent);
      assert.deepEqual([span.context.isSampled, span.context.traceId], [isSampled, parent.traceId]);
      assert.deepEqual([span.parentId, span.hasRemoteParent, span.context.isRemote], [parent.spanId, true, false]);
    }
});

test('a span that is not sampled costs nothing and hands itself on', () => {
  const { tracer, ended } = bed(0);
  const span = tracer.start('a', undefined, { attributes: () => assert.fail('nobody may ask') });
  span.set({ a: 1 });
  span.event('b');
  span.end();
  assert.deepEqual([span.attributes, span.events, ended], [{}, [], []]);
  assert.match(traceHeaders(span.context)['traceparent']!, /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
});

test('times have the monotonic clock’s fractions and follow the wall clock', async () => {
  let [wall, monotonic] = [1_000_000, 0.25];
  const clock = Object.assign(new VirtualClock(), { now: () => wall, monotonic: () => monotonic });
  const tracer = new Tracer({ samplingRatePerMillion: 0, sink: { take: () => {} }, clock, random: seededRandom(1) });
  [wall, monotonic] = [1_000_001, 1.75];
  assert.equal(tracer.timeMs(), 1_000_001.5);
  [wall, monotonic] = [2_000_000, 2];
  assert.equal(tracer.timeMs(), 2_000_000);
  const span = tracer.start('a', { traceId: '1'.repeat(32), spanId: '2'.repeat(16), isSampled: true });
  [wall, monotonic] = [1_500_000, 3];
  span.end();
  assert.deepEqual([span.startMs, span.endMs], [2_000_000, 2_000_000]);
});

test('limits of a span', () => {
  const { tracer } = bed(1_000_000);
  const span = tracer.start('a', undefined);
  for (let i = 0; i < 130; i++) {
    span.set({ [`k${i}`]: i });
    span.event(`e${i}`);
  }
  span.set({ k0: 'changed' });
  assert.deepEqual([Object.keys(span.attributes).length, span.droppedAttributes], [128, 2]);
  assert.deepEqual([span.events.length, span.droppedEvents, span.events[0]!.name], [128, 2, 'e2']);
  assert.equal(span.attributes['k0'], 'changed');
});

test('work knows the span that it is part of', async () => {
  const { tracer, ended } = bed(1_000_000);
  assert.equal(activeSpan(), undefined);
  assert.equal(await traced('nothing', undefined, async () => activeSpan()), undefined);
  const root = tracer.start('root', undefined);
  let late: Promise<Span | undefined> | undefined;
  await within({ span: root }, async () => {
    await Promise.all(
      ['a', 'b'].map(name =>
        traced(name, { of: name }, async () => {
          await new Promise(setImmediate);
          assert.equal(activeSpan()!.name, name);
          late = new Promise(resolve => setTimeout(() => resolve(activeSpan()), 5));
        }),
      ),
    );
    assert.equal(activeSpan(), root);
    assert.throws(() =>
      traced('c', undefined, () => {
        throw new Error('no');
      }),
    );
    await assert.rejects(traced('d', undefined, () => Promise.reject(new Error('no'))));
  });
  assert.deepEqual(ended.map(({ name }) => name).sort(), ['a', 'b', 'c', 'd']);
  assert.ok(ended.every(span => span.parentId === root.context.spanId));
  assert.equal(await late, undefined, 'what goes on after its span is nobody’s');
});

test('traceparent as the W3C has it', () => {
  const trace = '0af7651916cd43dd8448eb211c80319c';
  const span = 'b7ad6b7169203331';
  const given = { traceparent: `00-${trace}-${span}-01`, tracestate: 'a=1,b=2', baggage: 'user=me' };
  const parent = remoteParent(given)!;
  assert.deepEqual(traceHeaders(parent), given);
  assert.equal(remoteParent({ traceparent: `00-${trace}-${span}-02` })?.isSampled, false);
  assert.equal(remoteParent({ traceparent: `cc-${trace}-${span}-01-later` })?.isSampled, true);
  for (const traceparent of [
    undefined,
    '',
    `00-${trace}-${span}-01-more`,
    `ff-${trace}-${span}-01`,
    `00-${'0'.repeat(32)}-${span}-01`,
    `00-${trace}-${'0'.repeat(16)}-01`,
    `00-${trace.toUpperCase()}-${span}-01`,
    `00-${trace}-${span}-01, 00-${trace}-${span}-01`,
  ])
    assert.equal(remoteParent({ traceparent }), undefined, String(traceparent));
  assert.equal(remoteParent({ ...given, baggage: 'x'.repeat(8193) })?.baggage, undefined);
});

test('endpoints and rates as upstream judges them', () => {
  const told = (settings: object) => tracingProblems(settings).map(({ field, detail }) => `${field}: ${detail}`);
  for (const endpoint of [
    'localhost',
    'localhost:4317',
    '[::1]:4317',
    'dns:///collector.example:4317',
    'unix:///run/otel.sock',
    'unix-abstract:///otel',
  ])
    assert.deepEqual(told({ endpoint, samplingRatePerMillion: 0 }), [], endpoint);
  assert.deepEqual(told({ samplingRatePerMillion: -1 }), ['samplingRatePerMillion: sampling rate must be positive']);
  assert.deepEqual(told({ samplingRatePerMillion: 1_000_001 }), [
    'samplingRatePerMillion: sampling rate per million must be less than or equal to one million',
  ]);
  const scheme =
    'Options are none, dns, unix, or unix-abstract.  See https://github.com/grpc/grpc/blob/master/doc/naming.md';
  assert.deepEqual(told({ endpoint: 'http://localhost:4317' }), [`endpoint: unsupported scheme: http.  ${scheme}`]);
  assert.deepEqual(told({ endpoint: 'host:port' }), [
    'endpoint: parse "dns://host:port": invalid port ":port" after host',
  ]);
  assert.deepEqual(tracingEndpoint({}), { host: 'localhost', port: 4317 });
  assert.deepEqual(tracingEndpoint({ endpoint: 'collector' }), { host: 'collector', port: 443 });
  assert.deepEqual(tracingEndpoint({ endpoint: 'dns:///[fd00::1]:55680' }), { host: 'fd00::1', port: 55680 });
  assert.deepEqual(tracingEndpoint({ endpoint: 'unix:///run/otel.sock' }), { path: '/run/otel.sock' });
  assert.deepEqual(tracingEndpoint({ endpoint: 'unix-abstract:///otel' }), { path: '\0/otel' });
});
