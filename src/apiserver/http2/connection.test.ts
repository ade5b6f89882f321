import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { systemClock } from '../../base/clock.ts';
import { ServerConnection, STREAMS_MAX } from './connection.ts';
import { Http2Exchange } from './exchange.ts';
import { CODE, FLAG, FRAME, numbersFrame, PREFACE, settingsFrame, writeFrameHead } from './frame.ts';

/** Tries until it holds. */
async function eventually(holds: () => void): Promise<void> {
  for (let left = 2000; ; left--)
    try {
      return holds();
    } catch (error) {
      if (left === 0) throw error;
      await systemClock.sleep(10);
    }
}

let server: Server;
let port: number;
let atWork = 0;
const sockets = new Set<Socket>();
const LARGE = Buffer.alloc(4 * 1024 * 1024, 'large');

/** `/echo` answers with the body, `/large` with much, `/hang` never, `/lines` a line at a time until the client leaves, others at once. */
async function answer(exchange: Http2Exchange): Promise<void> {
  atWork++;
  try {
    switch (exchange.url) {
      case '/echo':
        return exchange.reply(200, { 'content-type': 'x' }, await exchange.body());
      case '/large':
        return exchange.reply(200, {}, [LARGE.subarray(0, 1000), LARGE.subarray(1000)]);
      case '/hang':
        return await new Promise(resolve => exchange.signal.addEventListener('abort', () => resolve()));
      case '/stubborn':
        return await new Promise(() => {});
      case '/lines':
        exchange.begin(200, {});
        while (!exchange.signal.aborted) await (exchange.write(LARGE.subarray(0, 10_000)) ?? undefined);
        return;
      case '/one-line':
        exchange.begin(200, {});
        await exchange.write(Buffer.from('line\n'));
        return await new Promise(resolve => exchange.signal.addEventListener('abort', () => resolve()));
      default:
        return exchange.reply(200, {}, Buffer.from(exchange.url));
    }
  } catch {
    exchange.reply(500, {}, undefined);
  } finally {
    atWork--;
  }
}

before(async () => {
  server = createServer(socket => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    new ServerConnection(socket, { handle: stream => answer(new Http2Exchange(stream)) });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  ({ port } = server.address() as AddressInfo);
});
after(() => {
  for (const socket of sockets) socket.destroy();
  server.close();
});

const client = () => connectHttp2(`http://127.0.0.1:${port}`, { maxSessionMemory: 200 });

async function ask(
  session: ClientHttp2Session,
  path: string,
  body?: Buffer,
): Promise<{ status: number; body: Buffer }> {
  const stream = session.request({ ':path': path, ':method': body ? 'POST' : 'GET' }, { endStream: !body });
  if (body) stream.end(body);
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  const ended = once(stream, 'end');
  const [headers] = (await once(stream, 'response')) as [{ ':status': number }];
  await ended;
  return { status: headers[':status'], body: Buffer.concat(chunks) };
}

/** A client that may send anything, and sees each frame. */
class Raw {
  readonly socket: Socket;
  readonly frames: { type: number; flags: number; stream: number; payload: Buffer }[] = [];
  closed = false;
  #rest: Buffer = Buffer.alloc(0);

  constructor({ preface = true, settings = [] as [number, number][] } = {}) {
    this.socket = connect(port, '127.0.0.1');
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.closed = true;
    });
    this.socket.on('data', (chunk: unknown) => {
      let bytes: Buffer = Buffer.concat([this.#rest, chunk as Buffer]);
      while (bytes.length >= 9 && bytes.length >= 9 + bytes.readUIntBE(0, 3)) {
        const end = 9 + bytes.readUIntBE(0, 3);
        this.frames.push({
          type: bytes[3]!,
          flags: bytes[4]!,
          stream: bytes.readUInt32BE(5),
          payload: bytes.subarray(9, end),
        });
        bytes = bytes.subarray(end);
      }
      this.#rest = bytes;
    });
    if (preface) this.socket.write(Buffer.concat([PREFACE, settingsFrame(settings)]));
  }
  send(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): void {
    this.socket.write(frame(type, flags, stream, payload));
  }
  request(stream: number, path: string, { end = true, more = Buffer.alloc(0) as Buffer } = {}): void {
    this.send(FRAME.headers, FLAG.endHeaders | (end ? FLAG.endStream : 0), stream, Buffer.concat([head(path), more]));
  }
  of(type: number, stream?: number) {
    return this.frames.filter(one => one.type === type && (stream === undefined || one.stream === stream));
  }
  dataBytes(stream: number): number {
    return this.of(FRAME.data, stream).reduce((sum, { payload }) => sum + payload.length, 0);
  }
  seen(what: () => boolean): Promise<void> {
    return eventually(() => assert.ok(what()));
  }
  /** The code of the GOAWAY that ends the connection. */
  async goneWith(): Promise<number> {
    await this.seen(() => this.of(FRAME.goAway).length > 0 && this.closed);
    return this.of(FRAME.goAway)[0]!.payload.readUInt32BE(4);
  }
  async resetWith(stream: number): Promise<number> {
    await this.seen(() => this.of(FRAME.reset, stream).length > 0);
    return this.of(FRAME.reset, stream)[0]!.payload.readUInt32BE(0);
  }
}

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const bytes = Buffer.alloc(9 + payload.length);
  payload.copy(bytes, writeFrameHead(bytes, 0, { length: payload.length, type, flags, stream }));
  return bytes;
}
function field(name: string, value: string): Buffer {
  return Buffer.concat([
    Buffer.from([0, name.length]),
    Buffer.from(name),
    Buffer.from([value.length]),
    Buffer.from(value),
  ]);
}
function head(path: string): Buffer {
  return Buffer.concat([field(':method', 'POST'), field(':scheme', 'http'), field(':path', path)]);
}

test('many requests at once, with bodies of all sizes, come back whole', async () => {
  const session = client();
  const sizes = [0, 1, 16_383, 16_384, 16_385, 70_000, 300_000, 3 * 1024 * 1024];
  const asked = Array.from({ length: 64 }, (_, i) => Buffer.alloc(sizes[i % sizes.length]!, String(i)));
  const answers = await Promise.all(asked.map(body => ask(session, '/echo', body)));
  for (const [i, { status, body }] of answers.entries()) {
    assert.equal(status, 200);
    assert.ok(body.equals(asked[i]!), `body ${i}`);
  }
  const [large, small] = await Promise.all([ask(session, '/large'), ask(session, '/small')]);
  assert.ok(large.body.equals(LARGE));
  assert.equal(small.body.toString(), '/small');
  assert.equal((await ask(session, '/echo', Buffer.alloc(3 * 1024 * 1024 + 1))).status, 500);
  session.close();
});

test('a client reads as fast as it wants: windows hold back what it has not asked for', async () => {
  const raw = new Raw({ settings: [[4, 20_000]] });
  raw.request(1, '/large');
  await raw.seen(() => raw.dataBytes(1) === 20_000);
  raw.socket.write(settingsFrame([[4, 30_000]]));
  await raw.seen(() => raw.dataBytes(1) === 30_000);
  raw.socket.write(numbersFrame({ type: FRAME.windowUpdate, flags: 0, stream: 1 }, 2 ** 30));
  // The connection's own window is what stops it now.
  await raw.seen(() => raw.dataBytes(1) === 65_535);
  raw.request(3, '/small');
  raw.socket.write(numbersFrame({ type: FRAME.windowUpdate, flags: 0, stream: 0 }, LARGE.length));
  await raw.seen(() => raw.dataBytes(1) === LARGE.length && raw.dataBytes(3) === '/small'.length);
  assert.ok(raw.of(FRAME.data, 1).every(({ payload }) => payload.length <= 16_384));
  raw.socket.destroy();
});

test('a writer waits for a client that does not read, and goes when it goes', async () => {
  const raw = new Raw();
  raw.request(1, '/lines');
  await raw.seen(() => raw.dataBytes(1) === 65_535);
  assert.equal(atWork, 1);
  raw.socket.write(numbersFrame({ type: FRAME.reset, flags: 0, stream: 1 }, CODE.cancel));
  await raw.seen(() => atWork === 0);
  raw.request(3, '/after');
  await raw.seen(() => raw.of(FRAME.headers, 3).length === 1);
  raw.socket.destroy();
});

test('a thousand watches on one connection', async () => {
  const session = client();
  session.setMaxListeners(0);
  let lines = 0;
  const streams = Array.from({ length: STREAMS_MAX }, () => {
    const stream = session.request({ ':path': '/one-line' });
    stream.on('data', () => lines++);
    stream.on('error', () => {});
    return stream;
  });
  await eventually(() => assert.equal(lines, STREAMS_MAX));
  // This client counts by itself; one that does not is refused.
  const waiting = ask(session, '/afterwards');
  const raw = new Raw();
  for (let i = 0; i <= STREAMS_MAX; i++) raw.request(2 * i + 1, '/one-line');
  assert.equal(await raw.resetWith(2 * STREAMS_MAX + 1), CODE.refusedStream);
  raw.socket.destroy();
  for (const stream of streams) stream.close(CODE.cancel);
  await eventually(() => assert.equal(atWork, 0));
  assert.equal((await waiting).status, 200);
  session.close();
});

test('requests given up count until their handlers are through', async () => {
  const raw = new Raw();
  for (let i = 0; i <= STREAMS_MAX; i++) {
    raw.request(2 * i + 1, '/stubborn');
    raw.socket.write(numbersFrame({ type: FRAME.reset, flags: 0, stream: 2 * i + 1 }, CODE.cancel));
  }
  assert.equal(await raw.goneWith(), CODE.enhanceYourCalm);
  assert.ok(atWork <= 2 * STREAMS_MAX);
  atWork = 0;
});

test('floods end the connection', async () => {
  const floods: ((raw: Raw, i: number) => void)[] = [
    (raw, i) => raw.send(FRAME.headers, 0, 1, i === 0 ? head('/') : Buffer.alloc(0)),
    (raw, i) => (i === 0 ? raw.send(FRAME.headers, 0, 1, head('/')) : raw.send(FRAME.continuation, 0, 1)),
    (raw, i) => (i === 0 ? raw.request(1, '/echo', { end: false }) : raw.send(FRAME.data, 0, 1)),
    raw => raw.socket.write(settingsFrame([[4, 70_000]])),
    raw => raw.send(FRAME.priority, 0, 1, Buffer.alloc(5)),
  ];
  for (const flood of floods) {
    const raw = new Raw();
    for (let i = 0; i < 1200; i++) flood(raw, i);
    assert.ok([CODE.enhanceYourCalm, CODE.protocol].includes((await raw.goneWith()) as 11));
  }
  const endless = new Raw();
  endless.send(FRAME.headers, 0, 1, head('/'));
  for (let i = 0; i < 8; i++) endless.send(FRAME.continuation, 0, 1, Buffer.alloc(16_384));
  assert.equal(await endless.goneWith(), CODE.enhanceYourCalm);
});

test('pings that nobody hears the answers of are not read without end', async () => {
  const known = new Set(sockets);
  const raw = new Raw();
  await raw.seen(() => raw.frames.length > 0);
  const [served] = [...sockets].filter(socket => !known.has(socket));
  raw.socket.pause();
  const pings = Buffer.concat(Array.from({ length: 4096 }, () => frame(FRAME.ping, 0, 0, Buffer.alloc(8))));
  for (let i = 0; i < 400; i++) raw.socket.write(pings);
  await eventually(() => assert.equal(served!.isPaused(), true));
  assert.ok(served!.writableLength < 3 * 1024 * 1024, `${served!.writableLength} bytes wait`);
  raw.socket.destroy();
});

test('what breaks the protocol ends the stream or the connection', async () => {
  const fatal: [code: number, (raw: Raw) => void][] = [
    [CODE.protocol, raw => raw.send(FRAME.data, 0, 1)],
    [CODE.protocol, raw => raw.send(FRAME.headers, FLAG.endHeaders, 2, head('/'))],
    [CODE.protocol, raw => raw.send(FRAME.continuation, FLAG.endHeaders, 1, head('/'))],
    [CODE.protocol, raw => raw.send(FRAME.pushPromise, 0, 1)],
    [CODE.protocol, raw => raw.send(FRAME.reset, 0, 1, Buffer.alloc(4))],
    [CODE.frameSize, raw => raw.send(FRAME.ping, 0, 0, Buffer.alloc(7))],
    [CODE.frameSize, raw => raw.send(FRAME.settings, 0, 0, Buffer.alloc(5))],
    [CODE.frameSize, raw => raw.send(FRAME.data, 0, 1, Buffer.alloc(16_385))],
    [CODE.compression, raw => raw.send(FRAME.headers, FLAG.endHeaders, 1, Buffer.from([0x80]))],
    [CODE.flowControl, raw => raw.socket.write(settingsFrame([[4, 2 ** 31]]))],
  ];
  for (const [code, act] of fatal) {
    const raw = new Raw();
    act(raw);
    const got = await raw.goneWith().catch(error => error);
    assert.equal(got, code, act.toString());
  }
  const raw = new Raw({ preface: false });
  raw.socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  assert.equal(await raw.goneWith(), CODE.protocol);

  const ofStream = new Raw();
  ofStream.send(FRAME.headers, FLAG.endHeaders | FLAG.endStream, 1, field(':path', '/'));
  assert.equal(await ofStream.resetWith(1), CODE.protocol);
  ofStream.request(3, '/echo', { end: false, more: field('content-length', '5') });
  ofStream.send(FRAME.data, FLAG.endStream, 3, Buffer.from('four'));
  assert.equal(await ofStream.resetWith(3), CODE.protocol);
  ofStream.request(5, '/small', { end: false });
  assert.equal(await ofStream.resetWith(5), CODE.none);
  ofStream.send(FRAME.data, FLAG.endStream, 5, Buffer.from('too late'));
  ofStream.request(9, '/hang', { end: false });
  for (let i = 0; i < 17; i++) ofStream.send(FRAME.data, 0, 9, Buffer.alloc(16_384));
  assert.equal(await ofStream.resetWith(9), CODE.flowControl);
  const large = Array.from({ length: 80 }, (_, i) => field(`x-${i}`, 'x'.repeat(120)));
  ofStream.request(11, '/', { more: Buffer.concat(large) });
  await ofStream.seen(() => ofStream.of(FRAME.headers, 11).length === 1);
  ofStream.socket.destroy();
});

test('padding, trailers, priorities, unknown frames and settings are taken as they are', async () => {
  const raw = new Raw({
    settings: [
      [1, 0],
      [99, 1],
    ],
  });
  const padded = Buffer.concat([Buffer.from([3]), Buffer.alloc(5), head('/echo'), Buffer.alloc(3)]);
  raw.send(FRAME.headers, FLAG.endHeaders | FLAG.padded | FLAG.priority, 1, padded);
  raw.send(FRAME.data, FLAG.padded, 1, Buffer.from([2, 0x61, 0x62, 0, 0]));
  raw.send(99, 255, 1, Buffer.alloc(3));
  raw.send(FRAME.headers, FLAG.endHeaders | FLAG.endStream, 1, field('trailer', 'x'));
  await raw.seen(() => raw.of(FRAME.data, 1).length > 0);
  assert.equal(raw.of(FRAME.data, 1)[0]!.payload.toString(), 'ab');
  raw.request(3, '/echo', { end: false, more: field('expect', '100-continue') });
  await raw.seen(() => raw.of(FRAME.headers, 3).length === 1);
  raw.send(FRAME.data, FLAG.endStream, 3, Buffer.from('go on'));
  await raw.seen(() => raw.of(FRAME.headers, 3).length === 2);
  // Whatever comes in whatever pieces.
  const bytes = Buffer.concat([
    frame(FRAME.headers, 0, 5, head('/echo').subarray(0, 5)),
    frame(FRAME.continuation, FLAG.endHeaders, 5, head('/echo').subarray(5)),
    frame(FRAME.data, FLAG.endStream, 5, Buffer.from('slowly')),
  ]);
  raw.socket.setNoDelay(true);
  for (const byte of bytes) {
    raw.socket.write(Buffer.from([byte]));
    await new Promise(resolve => setImmediate(resolve));
  }
  await raw.seen(() => raw.dataBytes(5) === 'slowly'.length);
  raw.socket.destroy();
});

test('frames of any kind neither crash nor hang the server', async () => {
  const payload = fc.oneof(
    fc.uint8Array({ maxLength: 64 }),
    fc.constantFrom(
      new Uint8Array(head('/echo')),
      new Uint8Array(head('/large')),
      new Uint8Array(4),
      new Uint8Array(8),
    ),
  );
  const frames = fc.array(
    fc.tuple(
      fc.integer({ min: 0, max: 10 }),
      fc.constantFrom(0, 1, 4, 5, 8, 12, 13, 0x20, 0x25, 0x2d, 255),
      fc.constantFrom(0, 1, 1, 3, 3, 5, 2, 7, 2 ** 31 - 1),
      payload,
    ),
    { maxLength: 30 },
  );
  await fc.assert(
    fc.asyncProperty(frames, async list => {
      const raw = new Raw();
      for (const [type, flags, stream, bytes] of list) raw.send(type, flags, stream, Buffer.from(bytes));
      raw.socket.end();
      await Promise.race([once(raw.socket, 'close'), systemClock.sleep(20)]);
      raw.socket.destroy();
    }),
    { numRuns: 300 },
  );
  const session = client();
  assert.equal((await ask(session, '/still-here')).body.toString(), '/still-here');
  session.close();
  await eventually(() => assert.equal(atWork, 0));
});
