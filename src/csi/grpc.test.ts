import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { systemClock } from '../base/clock.ts';
import { systemRandom } from '../base/random.ts';
import { within } from '../base/tracing/active.ts';
import { type Span, Tracer } from '../base/tracing/span.ts';
import { CALLS, call } from './calls.ts';
import { GRPC, GrpcClient, GrpcError, isUncertain, serveGrpc } from './grpc.ts';
import { CREATE_VOLUME, EMPTY, NODE_USAGE } from './messages.ts';
import { chosen, decode, double, encode, fixed32, fixed64, integer, repeated, schema, text } from './protobuf.ts';

const folder = mkdtempSync(join(tmpdir(), 'cox-grpc-'));
after(() => rmSync(folder, { recursive: true, force: true }));

test('messages as protoc writes them', () => {
  // name = "v", capacity_range { required_bytes = 300 }, parameters { a: b }
  const bytes = Buffer.from('0a0176' + '120308ac02' + '22060a016112016' + '2', 'hex');
  const value = { name: 'v', capacityRange: { requiredBytes: 300 }, parameters: { a: 'b' } };
  assert.deepEqual(encode(CREATE_VOLUME, value), bytes);
  const read = decode(CREATE_VOLUME, bytes);
  assert.equal(read.name, 'v');
  assert.equal(read.capacityRange?.requiredBytes, 300);
  assert.deepEqual(read.parameters, { a: 'b' });
  assert.deepEqual(read.volumeCapabilities, []);
  assert.equal(read.volumeContentSource, undefined);
});

test('large and negative numbers, repeated messages, unknown fields, cut off messages', () => {
  const usage = [
    { total: 2 ** 52, available: -1, used: 0, unit: 1 },
    { total: 5, unit: 2 },
  ];
  const bytes = encode(NODE_USAGE, { usage, volumeCondition: { abnormal: true, message: 'ä' } });
  const unknown = Buffer.from('f83f01' + 'fa3f0261' + '62', 'hex');
  const read = decode(NODE_USAGE, Buffer.concat([unknown, bytes]));
  assert.deepEqual(read.usage[0], usage[0]);
  assert.deepEqual(read.usage[1], { total: 5, unit: 2, available: 0, used: 0 });
  assert.equal(read.volumeCondition?.message, 'ä');
  assert.throws(() => decode(NODE_USAGE, bytes.subarray(0, bytes.length - 1)), /cut off/);
});

test('calls, errors, unknown methods, many at once, a server that comes back', async () => {
  const socket = join(folder, 'a.sock');
  let volumes = 0;
  const handlers = {
    getPluginInfo: () => ({ name: 'a', vendorVersion: '1', manifest: { k: 'v' } }),
    createVolume: async ({ name }: { readonly name: string }) => {
      volumes++;
      return { volume: { volumeId: name, capacityBytes: 1 } };
    },
    deleteVolume: () => {
      throw new GrpcError(GRPC.FAILED_PRECONDITION, 'still in use: 100 % ü');
    },
    probe: () => new Promise<never>(() => {}),
  };
  let server = await serveGrpc(socket, handlers);
  const client = new GrpcClient(socket);
  assert.deepEqual(await client.call('getPluginInfo', {}), { name: 'a', vendorVersion: '1', manifest: { k: 'v' } });
  await assert.rejects(client.call('deleteVolume', { volumeId: 'x' }), {
    message: 'rpc error: code = FailedPrecondition desc = still in use: 100 % ü',
  });
  await assert.rejects(client.call('getCapacity', {}), /Unimplemented/);
  const all = await Promise.all(Array.from({ length: 100 }, (_, i) => client.call('createVolume', { name: `v${i}` })));
  assert.equal(volumes, 100);
  assert.equal(all[42]?.volume?.volumeId, 'v42');
  const late = await client.call('probe', {}, { deadlineMs: 20 }).catch(error => error);
  assert.equal(late.code, GRPC.DEADLINE_EXCEEDED);
  assert.ok(isUncertain(late));
  const cut = client.call('probe', {}).catch(error => error);
  await client.call('getPluginInfo', {});
  await server.close();
  assert.ok(isUncertain(await cut), 'a server that dies leaves it open whether it acted');
  await assert.rejects(client.call('getPluginInfo', {}), /Unavailable/);
  server = await serveGrpc(socket, handlers);
  assert.equal((await client.call('getPluginInfo', {})).name, 'a');
  client.close();
  await server.close();
});

test('a stream of replies, until the server ends it, the reader leaves, or the server dies', async () => {
  const socket = join(folder, 'stream.sock');
  const calls = { list: call('/test.Streams/List', EMPTY, schema({ names: repeated(text(1)) })) } as const;
  async function* list() {
    for (const name of ['a', 'b']) yield { names: [name] };
    await new Promise(() => {});
  }
  let server = await serveGrpc<typeof calls>(socket, { list }, calls);
  const client = new GrpcClient(socket, calls);
  const stop = new AbortController();
  const seen: string[] = [];
  for await (const { names } of client.stream('list', {}, stop.signal)) {
    seen.push(...names);
    if (seen.length === 2) stop.abort();
  }
  assert.deepEqual(seen, ['a', 'b']);
  const cut = (async () => {
    for await (const { names } of client.stream('list', {}, new AbortController().signal))
      if (names[0] === 'b') void server.close();
  })();
  await assert.rejects(cut, /Unavailable/);
  server = await serveGrpc<typeof calls>(
    socket,
    {
      async *list() {
        yield { names: [] };
        throw new Error('no more');
      },
    },
    calls,
  );
  await assert.rejects(
    async () => {
      for await (const _ of client.stream('list', {}, new AbortController().signal));
    },
    { message: 'rpc error: code = Internal desc = no more' },
  );
  client.close();
  await server.close();
});

test('numbers of eight and four bytes, and one of several with its default', () => {
  const SAMPLE = schema({ a: fixed64(1), b: double(2), c: chosen(text(3)), d: fixed32(4), e: chosen(integer(5)) });
  const value = { a: 2n ** 63n + 1n, b: -0.5, c: '', d: 7, e: 0 };
  const bytes = encode(SAMPLE, value);
  assert.equal(bytes.toString('hex'), '090100000000000080' + '11000000000000e0bf' + '1a00' + '2507000000' + '2800');
  assert.deepEqual(decode(SAMPLE, bytes), value);
  assert.deepEqual(decode(SAMPLE, Buffer.alloc(0)), { a: 0n, b: 0, c: undefined, d: 0, e: undefined });
  assert.throws(() => decode(SAMPLE, bytes.subarray(0, 5)), /cut off/);
});

test('a call is a span of the tracer, and of the work that makes it', async () => {
  const socket = join(folder, 'traced.sock');
  const server = await serveGrpc(socket, {
    getPluginInfo: () => ({ name: 'a' }),
    probe: () => {
      throw new GrpcError(GRPC.NOT_FOUND, 'no such thing');
    },
  });
  const spans: Span[] = [];
  const sink = { take: (span: Span) => void spans.push(span) };
  const tracer = new Tracer({ samplingRatePerMillion: 1e6, sink, clock: systemClock, random: systemRandom });
  const client = new GrpcClient(socket, CALLS, tracer);
  const root = tracer.start('root', undefined);
  await within({ span: root }, () => client.call('getPluginInfo', {}));
  await assert.rejects(client.call('probe', {}), /no such thing/);
  client.close();
  await server.close();
  const [info, probe] = spans as [Span, Span];
  assert.deepEqual(
    [info.name, info.kind, info.parentId],
    ['csi.v1.Identity/GetPluginInfo', 'client', root.context.spanId],
  );
  assert.deepEqual(info.attributes, {
    'rpc.system': 'grpc',
    'rpc.service': 'csi.v1.Identity',
    'rpc.method': 'GetPluginInfo',
    'rpc.grpc.status_code': 0,
  });
  assert.deepEqual([probe.parentId, probe.attributes['rpc.grpc.status_code']], [undefined, 5]);
  assert.equal(probe.failure, 'no such thing');
});
