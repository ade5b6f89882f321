import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { systemClock, VirtualClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import { metrics } from '../../base/metrics.ts';
import { seededRandom } from '../../base/random.ts';
import { type SpanSink, Tracer } from '../../base/tracing/span.ts';
import { GRPC, GrpcError } from '../../csi/grpc.ts';
import { encode } from '../../csi/protobuf.ts';
import { Collector } from './collector-bed.ts';
import { SpanExporter } from './exporter.ts';
import { RETRY_INFO, RETRY_INFO_TYPE, RPC_STATUS, SPAN_KINDS, STATUS_ERROR, TRACE_CALLS } from './messages.ts';
import { openTracing } from './open.ts';

const folder = mkdtempSync(join(tmpdir(), 'cox-traces-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const random = seededRandom(1);
const dropped = (reason: string) =>
  Number(
    new RegExp(`^coxswain_tracing_dropped_spans_total\\{reason="${reason}"\\} (\\d+)$`, 'm').exec(
      metrics.render(),
    )?.[1] ?? 0,
  );
const taken = () => Number(/^coxswain_tracing_exported_spans_total (\d+)$/m.exec(metrics.render())?.[1] ?? 0);

const tracerOf = (sink: SpanSink, clock = systemClock) =>
  new Tracer({ samplingRatePerMillion: 1_000_000, sink, clock, random });

test('a collector gets spans with all that was told of them', async () => {
  const collector = await Collector.open();
  const tracing = openTracing(
    { endpoint: `127.0.0.1:${collector.port}`, samplingRatePerMillion: 1_000_000 },
    { resource: { 'service.name': 'apiserver' }, clock: systemClock, random, log: silentLogger },
  );
  const before = BigInt(Date.now()) * 1_000_000n;
  const remote = { traceId: 'a'.repeat(32), spanId: 'b'.repeat(16), isSampled: false, state: 'x=1' };
  const root = tracing.tracer.start('root', undefined, { kind: 'server', scope: 'here', link: remote });
  const child = tracing.tracer.start('child', root.context, { attributes: { text: '', n: 3, f: 0.5, yes: false } });
  child.set({ list: ['a', 'b'], n: 4 });
  child.event('happened', { size: 0 });
  child.failWith(new TypeError('no'));
  child.end();
  child.end();
  child.event('too late');
  root.end();
  await tracing.close();
  await collector.close();
  assert.deepEqual(collector.batches, [2]);
  const [first, second] = ['root', 'child'].map(name => collector.spans.find(span => span.name === name)!);
  assert.deepEqual(first!.resource, { 'service.name': 'apiserver' });
  assert.deepEqual([first!.scope, first!.kind, first!.parentId], ['here', 2, '']);
  assert.deepEqual(first!.links, [{ traceId: remote.traceId, spanId: remote.spanId }]);
  assert.deepEqual([second!.traceId, second!.parentId], [first!.traceId, first!.spanId]);
  assert.equal(second!.scope, 'k8s.io/component-base/tracing');
  assert.deepEqual(second!.attributes, { text: '', n: 4, f: 0.5, yes: false, list: ['a', 'b'] });
  assert.deepEqual(second!.events, [
    { name: 'happened', attributes: { size: 0 } },
    { name: 'exception', attributes: { 'exception.type': 'TypeError', 'exception.message': 'no' } },
  ]);
  assert.deepEqual([second!.status.code, second!.status.message], [2, 'no']);
  assert.ok(second!.startNano >= before - 5_000_000n && second!.endNano >= second!.startNano, 'times since the epoch');
  assert.ok(first!.startNano <= second!.startNano && second!.endNano <= first!.endNano);
});

test('spans go in batches, those beyond the queue are dropped, and nobody waits', async () => {
  const collector = await Collector.open(join(folder, 'a.sock'));
  const held = Promise.withResolvers<void>();
  collector.answer = async () => {
    await held.promise;
    return {};
  };
  const exporter = new SpanExporter({
    endpoint: { path: join(folder, 'a.sock') },
    resource: {},
    clock: systemClock,
    random,
    log: silentLogger,
  });
  const tracer = tracerOf(exporter);
  const [full, all] = [dropped('queue-full'), taken()];
  // A batch is on its way, the queue fills behind it.
  for (let i = 0; i < 512 + 2048 + 7; i++) tracer.start(`span ${i}`, undefined).end();
  assert.equal(dropped('queue-full') - full, 7);
  held.resolve();
  await exporter.close();
  await collector.close();
  assert.deepEqual(collector.batches, [512, 512, 512, 512, 512]);
  assert.equal(taken() - all, 2560);
  assert.equal(collector.spans.at(-1)!.name, 'span 2559');
  tracer.start('after the end', undefined).end();
  assert.equal(dropped('queue-full') - full, 8);
});

/** Ends a span, lets the clock run, and tells how often it was sent. */
async function attempts(clock: VirtualClock, collector: Collector, socket: string): Promise<number> {
  const exporter = new SpanExporter({ endpoint: { path: socket }, resource: {}, clock, random, log: silentLogger });
  tracerOf(exporter, clock).start('one', undefined).end();
  assert.equal(collector.batches.length, 0);
  for (let i = 0; i < 40 && !exporter.isIdle; i++) {
    await clock.advance(500);
    // The collector answers in real time.
    await new Promise(resolve => setTimeout(resolve, 5));
  }
  assert.ok(exporter.isIdle);
  await exporter.close();
  return collector.batches.length;
}

test('what OTLP calls retryable is tried again, and nothing else', async () => {
  const details = encode(RPC_STATUS, {
    code: GRPC.RESOURCE_EXHAUSTED,
    details: [{ typeUrl: RETRY_INFO_TYPE, value: encode(RETRY_INFO, { retryDelay: { seconds: 1, nanos: 0 } }) }],
  });
  const cases: [string, GrpcError, number][] = [
    ['busy', new GrpcError(GRPC.UNAVAILABLE, 'later'), 2],
    ['told when', new GrpcError(GRPC.RESOURCE_EXHAUSTED, 'slow down', details), 2],
    ['exhausted', new GrpcError(GRPC.RESOURCE_EXHAUSTED, 'slow down'), 1],
    ['not understood', new GrpcError(GRPC.INVALID_ARGUMENT, 'what?'), 1],
  ];
  for (const [name, error, times] of cases) {
    const socket = join(folder, 'retry.sock');
    const collector = await Collector.open(socket);
    let answers = 0;
    collector.answer = () => {
      if (answers++ === 0) throw error;
      return {};
    };
    const refused = dropped('refused');
    assert.equal(await attempts(new VirtualClock(), collector, socket), times, name);
    assert.equal(dropped('refused') - refused, times === 1 ? 1 : 0, name);
    assert.equal(collector.spans.length, times - 1, name);
    await collector.close();
  }
});

test('a collector that stays away costs the batch, one that rejects spans those', async () => {
  const clock = new VirtualClock();
  const nobody = await Collector.open(join(folder, 'b.sock'));
  await nobody.close();
  const lost = dropped('unreachable');
  await attempts(clock, nobody, join(folder, 'b.sock'));
  assert.equal(dropped('unreachable') - lost, 1);
  const collector = await Collector.open(join(folder, 'c.sock'));
  collector.answer = () => ({ partialSuccess: { rejectedSpans: 1, errorMessage: 'too old' } });
  const refused = dropped('refused');
  await attempts(new VirtualClock(), collector, join(folder, 'c.sock'));
  assert.equal(dropped('refused') - refused, 1);
  await collector.close();
});

test('a span on the wire, as opentelemetry-proto has it', () => {
  const span = {
    traceId: Buffer.alloc(16, 0xaa),
    spanId: Buffer.alloc(8, 0xbb),
    name: 'a',
    kind: SPAN_KINDS.server,
    startTimeUnixNano: 1n,
    endTimeUnixNano: 2n,
    attributes: [{ key: 'k', value: { intValue: 0 } }],
    status: { code: STATUS_ERROR, message: 'm' },
    flags: 0x101,
  };
  const inner =
    `0a10${'aa'.repeat(16)}` +
    `1208${'bb'.repeat(8)}` +
    `2a0161${'3002'}390100000000000000${'410200000000000000'}` +
    '4a07' +
    '0a016b' +
    '12021800' +
    '7a05' +
    '12016d' +
    '1802' +
    '850101010000';
  const length = (hex: string) => (hex.length / 2).toString(16).padStart(2, '0');
  const scope = `12${length(inner)}${inner}`;
  const resource = `12${length(scope)}${scope}`;
  const { request } = TRACE_CALLS.export;
  assert.equal(
    encode(request, { resourceSpans: [{ scopeSpans: [{ spans: [span] }] }] }).toString('hex'),
    `0a${length(resource)}${resource}`,
  );
});
