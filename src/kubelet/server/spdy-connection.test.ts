import assert from 'node:assert/strict';
import { type Duplex, duplexPair, Readable } from 'node:stream';
import { test } from 'node:test';
import { constants, createDeflate } from 'node:zlib';
import { type Clock, systemClock, VirtualClock } from '../../base/clock.ts';
import { SpdyConnection, type SpdyStream } from './spdy-connection.ts';
import { type Frame, FrameWriter, headerDictionary, readFrames } from './spdy-frames.ts';

async function until(check: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !check(); i++) await new Promise(resolve => setTimeout(resolve, 2));
  assert.ok(check());
}

test('the dictionary is that of the specification', () => {
  let a = 1;
  let b = 0;
  for (const byte of headerDictionary()) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  assert.equal((b * 65536 + a).toString(16), 'e3c6a7c2');
});

// As spdystream writes them: one deflate stream with the dictionary, flushed after each block.
async function compressedOpens(all: Record<string, string>[]): Promise<Buffer> {
  const deflate = createDeflate({ dictionary: headerDictionary(), level: 9, flush: constants.Z_SYNC_FLUSH });
  let block: Buffer[] = [];
  deflate.on('data', chunk => block.push(chunk));
  const frames: Buffer[] = [];
  for (const [index, headers] of all.entries()) {
    const plain: Buffer[] = [];
    const word = (value: number) => {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32BE(value);
      return bytes;
    };
    plain.push(word(Object.keys(headers).length));
    for (const text of Object.entries(headers).flat()) plain.push(word(text.length), Buffer.from(text));
    block = [];
    await new Promise<void>(resolve => void deflate.write(Buffer.concat(plain), () => setImmediate(resolve)));
    const body = Buffer.concat([word(2 * index + 1), word(0), Buffer.alloc(2), ...block]);
    const head = Buffer.from('8003000100000000', 'hex');
    head.writeUInt32BE(body.length, 4);
    frames.push(head, body);
  }
  return Buffer.concat(frames);
}

test('frames are read whatever way their bytes arrive', async () => {
  const writer = new FrameWriter();
  const bytes = Buffer.concat([
    await compressedOpens([{ Streamtype: 'error' }, { streamtype: 'data', port: '80', requestid: '7' }]),
    writer.data(3, Buffer.from('abc')),
    writer.data(3, Buffer.alloc(0), { fin: true }),
    writer.ping(5),
    writer.reset(1, 5),
    writer.window(3, 99),
  ]);
  for (const size of [1, 7, 1000]) {
    const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
      bytes.subarray(i * size, (i + 1) * size),
    );
    const frames: Frame[] = [];
    for await (const frame of readFrames(Readable.from(chunks))) frames.push(frame);
    const opened = frames.filter(frame => frame.type === 'open');
    assert.deepEqual(
      opened.map(frame => [frame.id, frame.headers]),
      [
        [1, { streamtype: 'error' }],
        [3, { streamtype: 'data', port: '80', requestid: '7' }],
      ],
    );
    const data = frames.filter(frame => frame.type === 'data');
    assert.equal(Buffer.concat(data.map(frame => frame.data)).toString(), 'abc');
    assert.equal(data.at(-1)!.fin, true);
    assert.deepEqual(frames.slice(-3), [
      { type: 'ping', id: 5 },
      { type: 'reset', id: 1, status: 5 },
      { type: 'window', id: 3, delta: 99 },
    ]);
  }
});

test('malformed input ends the reading', async () => {
  const read = async (bytes: Buffer) => {
    for await (const _ of readFrames(Readable.from([bytes])));
  };
  await assert.rejects(read(Buffer.from('8002000100000000', 'hex')), /version 2/);
  await assert.rejects(read(Buffer.from('8003000100ffffff', 'hex')), /control frame of/);
  await assert.rejects(read(Buffer.concat([Buffer.from('8003000100000014', 'hex'), Buffer.alloc(20, 7)])));
});

interface Session {
  readonly client: Duplex;
  readonly writer: FrameWriter;
  readonly connection: SpdyConnection;
  readonly streams: SpdyStream[];
  readonly frames: Frame[];
}

function connect(clock: Clock = systemClock): Session {
  const [client, carrier] = duplexPair();
  const streams: SpdyStream[] = [];
  const frames: Frame[] = [];
  const connection = new SpdyConnection(carrier, {
    clock,
    idleMs: 1000,
    onStream: stream => {
      if (stream.headers['streamtype'] === 'wrong') throw new Error('no');
      streams.push(stream);
    },
  });
  client.on('error', () => {});
  void (async () => {
    for await (const frame of readFrames(client as AsyncIterable<Buffer>)) frames.push(frame);
  })().catch(() => {});
  return { client, writer: new FrameWriter(), connection, streams, frames };
}

const ids = (frames: readonly Frame[], type: Frame['type']) =>
  frames.flatMap(frame => (frame.type === type && 'id' in frame ? [frame.id] : []));
const received = (frames: readonly Frame[]) =>
  Buffer.concat(frames.flatMap(frame => (frame.type === 'data' ? [frame.data] : [])));

test('streams carry data both ways, half-close, reset and refuse', async () => {
  const { client, writer, streams, frames, connection } = connect();
  client.write(writer.open(1, { streamtype: 'data' }));
  client.write(writer.open(3, { streamtype: 'wrong' }));
  client.write(writer.open(5, { streamtype: 'data' }));
  client.write(writer.data(1, Buffer.from('in'), { fin: true }));
  await until(() => streams.length === 2);
  let input = '';
  streams[0]!.on('data', chunk => (input += chunk));
  await new Promise(resolve => streams[0]!.once('end', resolve));
  assert.equal(input, 'in');
  streams[0]!.end('out');
  await until(() => frames.some(frame => frame.type === 'data' && frame.fin));
  assert.deepEqual([ids(frames, 'reply'), ids(frames, 'reset')], [[1, 5], [3]]);
  assert.equal(received(frames).toString(), 'out');
  client.write(writer.reset(5, 5));
  await until(() => streams[1]!.destroyed);
  client.write(writer.ping(9));
  await until(() => ids(frames, 'ping').includes(9));
  client.destroy();
  connection.close();
});

test('a reader that is slow stops the peer; credit is given as it reads', async () => {
  const { client, writer, streams, frames } = connect();
  client.write(writer.open(1, {}));
  await until(() => streams.length === 1);
  let sent = 0;
  for (; sent < 8e6 && !client.writableNeedDrain; sent += 16384) {
    client.write(writer.data(1, Buffer.alloc(16384)));
    await new Promise(resolve => setImmediate(resolve));
  }
  assert.ok(sent < 1e6, `sent ${sent}`);
  const creditOf = (all: readonly Frame[]) =>
    all.reduce((sum, frame) => sum + (frame.type === 'window' && frame.id === 1 ? frame.delta : 0), 0);
  assert.ok(creditOf(frames) < sent);
  streams[0]!.resume();
  await until(() => !client.writableNeedDrain && creditOf(frames) > sent - 65536);
  client.destroy();
});

test('windows are heeded once the peer has shown that it keeps them', async () => {
  const { client, writer, streams, frames } = connect();
  client.write(writer.open(1, {}));
  client.write(writer.window(1, 1));
  // The answer shows that the credit has been read.
  client.write(writer.ping(1));
  await until(() => ids(frames, 'ping').includes(1));
  streams[0]!.write(Buffer.alloc(200_000));
  client.write(writer.ping(3));
  await until(() => ids(frames, 'ping').includes(3));
  assert.equal(received(frames).length, 65_537);
  client.write(writer.window(1, 100_000));
  await until(() => received(frames).length === 165_537);
  client.destroy();
});

test('an idle connection is closed, its streams fail', async () => {
  const clock = new VirtualClock();
  const { client, writer, streams, frames, connection } = connect(clock);
  client.write(writer.open(1, {}));
  await until(() => streams.length === 1);
  const failed = new Promise(resolve => streams[0]!.once('error', resolve));
  await clock.advance(900);
  client.write(writer.ping(1));
  await until(() => ids(frames, 'ping').includes(1));
  await clock.advance(900);
  assert.equal(streams[0]!.destroyed, false);
  await clock.advance(900);
  await connection.closed;
  await failed;
});
