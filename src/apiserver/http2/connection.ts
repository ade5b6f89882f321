/**
 * One HTTP/2 connection (RFC 9113) over a socket, server side: frames in, frames out, windows, and a bound for everything a
 * client can make it keep. It knows nothing of what requests mean.
 *
 * Bounds: a header block of {@link HEADER_BLOCK_BYTES_MAX}; {@link STREAMS_MAX} streams, and twice as many requests at work with
 * those that the client gave up; bodies that nobody read yet within one window of the connection; a socket that does not drain
 * is neither written to nor read from. What a well-behaved client seldom does (resets before a reply, empty frames, refused
 * streams) is counted against finished requests, and too much of it ends the connection.
 */

import type { Duplex } from 'node:stream';
import { type Clock, systemClock } from '../../base/clock.ts';
import type { ReplyHeaders } from '../exchange.ts';
import {
  CODE,
  ConnectionError,
  FLAG,
  FRAME,
  FRAME_HEAD_BYTES,
  FRAME_PAYLOAD_BYTES_MAX,
  INITIAL_WINDOW_BYTES,
  numbersFrame,
  PREFACE,
  readUint32,
  SETTING,
  settingsFrame,
  WINDOW_BYTES_MAX,
  writeFrameHead,
} from './frame.ts';
import { HeaderDecoder } from './header-decoder.ts';
import { requestHead } from './request-head.ts';
import { Sender } from './sender.ts';
import { ServerStream, type StreamHost } from './stream.ts';
import { atEndOfTurn } from './turn.ts';

/** Streams one connection may have at work: enough for a kubelet's or controller's watches. */
export const STREAMS_MAX = 1000;
/** With those that the client gave up and whose handlers still run: they need a moment. */
const WORK_MAX = 2 * STREAMS_MAX;
/** Bytes of a body that a client may send ahead; a whole body limit would let a few clients hold much memory. */
const STREAM_WINDOW_BYTES = 256 * 1024;
const CONNECTION_WINDOW_BYTES = 1024 * 1024;
/** As they come, and as they stand for; upstream allows a megabyte of the latter. */
const HEADER_BLOCK_BYTES_MAX = 64 * 1024;
const HEADER_LIST_BYTES_MAX = 64 * 1024;
/** Replies to pings and settings come on top: from here on nothing is read either. */
const SOCKET_BYTES_PAUSE = 1024 * 1024;
const PREFACE_TIMEOUT_MS = 10_000;
const GLITCHES_MAX = 1000;

/** Answers a stream; resolves when it is done with it. */
export type StreamHandler = (stream: ServerStream) => void | Promise<void>;

const RESET_HEAD = { type: FRAME.reset, flags: 0 } as const;
const NOTHING = Buffer.alloc(0);

export class ServerConnection implements StreamHost {
  readonly #socket: Duplex;
  readonly #handle: StreamHandler;
  readonly #streams = new Map<number, ServerStream>();
  readonly #decoder = new HeaderDecoder(HEADER_LIST_BYTES_MAX);
  /** Begun by the client and not done with by the handler or the wire. */
  #atWork = 0;
  #lastStream = 0;
  #glitches = 0;
  #prefaced = false;
  #closed = false;
  #closing = false;

  #rest: Buffer = NOTHING;
  /** A header block whose end is still to come. */
  #block: { stream: number; flags: number; parts: Buffer[]; size: number } | undefined;
  /** Streams that came in this turn: they are handled after it, most with their body. */
  #arrived: ServerStream[] = [];
  #answering = false;
  #receiveWindow = CONNECTION_WINDOW_BYTES;
  #uncredited = 0;

  readonly #sender: Sender;

  constructor(socket: Duplex, options: { handle: StreamHandler; clock?: Clock }) {
    this.#socket = socket;
    this.#handle = options.handle;
    this.#sender = new Sender(socket, { sentAll: stream => this.#sentAll(stream) });
    const { clock = systemClock } = options;
    const timer = clock.after(PREFACE_TIMEOUT_MS, () => this.#prefaced || socket.destroy(), { background: true });
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('drain', () => {
      if (socket.isPaused()) socket.resume();
      this.#sender.flush();
    });
    socket.on('end', () => this.#close());
    socket.once('close', () => {
      timer.cancel();
      this.#close();
    });
    this.#sender.write(
      settingsFrame([
        [SETTING.concurrentStreamsMax, STREAMS_MAX],
        [SETTING.initialWindowSize, STREAM_WINDOW_BYTES],
        [SETTING.headerListSizeMax, HEADER_LIST_BYTES_MAX],
      ]),
    );
    this.#sender.write(
      numbersFrame({ type: FRAME.windowUpdate, flags: 0, stream: 0 }, CONNECTION_WINDOW_BYTES - INITIAL_WINDOW_BYTES),
    );
  }

  /** Tells the client to go elsewhere and ends the connection with its streams. */
  close(code: number = CODE.none): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#sender.write(numbersFrame({ type: FRAME.goAway, flags: 0, stream: 0 }, this.#lastStream, code));
    this.#sender.flush();
    this.#socket.end();
    this.#close();
  }

  // Receiving

  #receive(chunk: Buffer): void {
    if (this.#closing || this.#closed) return;
    const bytes = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk;
    try {
      const at = this.#prefaced ? 0 : this.#preface(bytes);
      this.#rest = at < 0 ? bytes : this.#frames(bytes, at);
    } catch (error) {
      this.#fail(error);
    }
    if (this.#arrived.length > 0 && !this.#answering) {
      this.#answering = true;
      atEndOfTurn(this.#answerArrived);
    }
    if (this.#socket.writableLength > SOCKET_BYTES_PAUSE) this.#socket.pause();
  }
  #fail(error: unknown): void {
    this.close(error instanceof ConnectionError ? error.code : CODE.internal);
    // What a client has that broke the protocol is not worth waiting for.
    setImmediate(() => this.#socket.destroy());
  }
  /** Offset behind it, or -1 when it is not whole. */
  #preface(bytes: Buffer): number {
    const length = Math.min(bytes.length, PREFACE.length);
    if (bytes.compare(PREFACE, 0, length, 0, length) !== 0) throw new ConnectionError(CODE.protocol, 'no preface');
    if (length < PREFACE.length) return -1;
    this.#prefaced = true;
    return length;
  }
  /** Handles the whole frames and returns what is left. */
  #frames(bytes: Buffer, from: number): Buffer {
    let at = from;
    while (bytes.length - at >= FRAME_HEAD_BYTES) {
      const length = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
      if (length > FRAME_PAYLOAD_BYTES_MAX) throw new ConnectionError(CODE.frameSize, 'a frame is too large');
      const start = at + FRAME_HEAD_BYTES;
      if (bytes.length - start < length) break;
      const stream = readUint32(bytes, at + 5) & WINDOW_BYTES_MAX;
      this.#frame(bytes[at + 3]!, bytes[at + 4]!, stream, bytes.subarray(start, start + length));
      at = start + length;
    }
    return at === bytes.length ? NOTHING : bytes.subarray(at);
  }

  #frame(type: number, flags: number, stream: number, payload: Buffer): void {
    if (this.#block && (type !== FRAME.continuation || stream !== this.#block.stream))
      throw new ConnectionError(CODE.protocol, 'a header block is interrupted');
    switch (type) {
      case FRAME.data:
        return this.#data(flags, stream, payload);
      case FRAME.headers:
        return this.#headers(flags, stream, payload);
      case FRAME.continuation:
        return this.#continuation(flags, payload);
      case FRAME.priority:
        if (stream === 0) throw new ConnectionError(CODE.protocol, 'PRIORITY without a stream');
        if (payload.length !== 5) throw new ConnectionError(CODE.frameSize, 'PRIORITY');
        return this.#glitch();
      case FRAME.reset:
        return this.#resetByPeer(stream, payload);
      case FRAME.settings:
        return this.#settings(flags, stream, payload);
      case FRAME.ping:
        return this.#ping(flags, stream, payload);
      case FRAME.goAway:
        if (stream !== 0) throw new ConnectionError(CODE.protocol, 'GOAWAY of a stream');
        return;
      case FRAME.windowUpdate:
        return this.#windowUpdate(stream, payload);
      case FRAME.pushPromise:
        throw new ConnectionError(CODE.protocol, 'a client pushes');
    }
  }

  #data(flags: number, id: number, frame: Buffer): void {
    if (id === 0 || id > this.#lastStream) throw new ConnectionError(CODE.protocol, 'DATA of no stream');
    this.#receiveWindow -= frame.length;
    if (this.#receiveWindow < 0) throw new ConnectionError(CODE.flowControl, 'more than the window');
    const stream = this.#streams.get(id);
    // Of a stream that we have done with: on its way before the client knew.
    if (!stream) return this.#creditConnection(frame.length);
    stream.receiveWindow -= frame.length;
    if (stream.received || stream.receiveWindow < 0) {
      this.#creditConnection(frame.length);
      return this.reset(stream, stream.received ? CODE.streamClosed : CODE.flowControl);
    }
    const payload = unpadded(flags, frame);
    const padding = frame.length - payload.length;
    if (padding > 0) this.credit(stream, padding);
    const isEnd = (flags & FLAG.endStream) !== 0;
    if (payload.length > 0) stream.take(payload);
    else if (!isEnd) this.#glitch();
    if (!isEnd || stream.closed) return;
    const declared = stream.headers['content-length'];
    if (declared !== undefined && Number(declared) !== stream.receivedBytes) return this.reset(stream, CODE.protocol);
    this.#ended(stream);
  }

  #headers(flags: number, id: number, frame: Buffer): void {
    if (id === 0 || id % 2 === 0) throw new ConnectionError(CODE.protocol, 'HEADERS of no stream');
    let block = unpadded(flags, frame);
    if (flags & FLAG.priority) {
      if (block.length < 5) throw new ConnectionError(CODE.frameSize, 'HEADERS');
      block = block.subarray(5);
    }
    if (flags & FLAG.endHeaders) this.#request(flags, id, block);
    else this.#block = { stream: id, flags, parts: [block], size: block.length };
  }
  #continuation(flags: number, payload: Buffer): void {
    const block = this.#block;
    if (!block) throw new ConnectionError(CODE.protocol, 'nothing to continue');
    block.parts.push(payload);
    block.size += payload.length;
    if (payload.length === 0) this.#glitch();
    if (block.size > HEADER_BLOCK_BYTES_MAX) throw new ConnectionError(CODE.enhanceYourCalm, 'headers without end');
    if (!(flags & FLAG.endHeaders)) return;
    this.#block = undefined;
    this.#request(block.flags, block.stream, Buffer.concat(block.parts, block.size));
  }
  #request(flags: number, id: number, block: Buffer): void {
    const { fields, tooLarge } = this.#decoder.decode(block);
    if (id <= this.#lastStream) return this.#trailers(flags, id);
    this.#lastStream = id;
    if (this.#streams.size >= STREAMS_MAX || this.#atWork >= WORK_MAX) {
      this.#glitch();
      return this.#sender.write(numbersFrame({ ...RESET_HEAD, stream: id }, CODE.refusedStream));
    }
    const headers = tooLarge ? TOO_LARGE : requestHead(fields);
    if (!headers) {
      this.#glitch();
      return this.#sender.write(numbersFrame({ ...RESET_HEAD, stream: id }, CODE.protocol));
    }
    const stream = new ServerStream(this, {
      id,
      headers,
      sendWindow: this.#sender.streamWindow,
      receiveWindow: STREAM_WINDOW_BYTES,
    });
    this.#streams.set(id, stream);
    this.#atWork++;
    this.#arrived.push(stream);
    if (flags & FLAG.endStream) this.#ended(stream);
  }
  // They say nothing that anybody here wants to know.
  #trailers(flags: number, id: number): void {
    const stream = this.#streams.get(id);
    if (!stream) return this.#glitch();
    if (stream.received || !(flags & FLAG.endStream)) return this.reset(stream, CODE.protocol);
    this.#ended(stream);
  }
  #ended(stream: ServerStream): void {
    stream.takeEnd();
    if (stream.sent) this.#done(stream);
  }
  readonly #answerArrived = () => {
    const arrived = this.#arrived;
    this.#arrived = [];
    this.#answering = false;
    for (const stream of arrived) {
      if (stream.headers === TOO_LARGE) {
        stream.respond(431, {}, { end: true });
        this.#atWork--;
        continue;
      }
      // The same body of requests counts until its handler is through, so that giving up makes no room for more.
      const working = stream.closed ? undefined : this.#handle(stream);
      if (working) working.then(this.#worked, this.#worked);
      else this.#atWork--;
    }
  };
  readonly #worked = () => {
    this.#atWork--;
  };

  #resetByPeer(id: number, payload: Buffer): void {
    if (payload.length !== 4) throw new ConnectionError(CODE.frameSize, 'RST_STREAM');
    if (id === 0 || id > this.#lastStream) throw new ConnectionError(CODE.protocol, 'RST_STREAM of no stream');
    const stream = this.#streams.get(id);
    if (!stream) return this.#glitch();
    if (!stream.headSent) this.#glitch();
    this.#forget(stream);
  }
  #settings(flags: number, stream: number, payload: Buffer): void {
    if (stream !== 0) throw new ConnectionError(CODE.protocol, 'SETTINGS of a stream');
    const isAck = (flags & FLAG.ack) !== 0;
    if (isAck ? payload.length > 0 : payload.length % 6 !== 0) throw new ConnectionError(CODE.frameSize, 'SETTINGS');
    if (isAck) return;
    for (let at = 0; at < payload.length; at += 6) {
      const value = readUint32(payload, at + 2);
      switch (payload.readUInt16BE(at)) {
        case SETTING.headerTableSize:
          this.#sender.tableChanged();
          break;
        case SETTING.enablePush:
          if (value > 1) throw new ConnectionError(CODE.protocol, 'ENABLE_PUSH');
          break;
        case SETTING.initialWindowSize:
          this.#windowsChanged(value);
          break;
        case SETTING.frameSizeMax:
          if (value < FRAME_PAYLOAD_BYTES_MAX || value > 0xffffff)
            throw new ConnectionError(CODE.protocol, 'MAX_FRAME_SIZE');
          break;
      }
    }
    this.#glitch();
    this.#sender.write(numbersFrame({ type: FRAME.settings, flags: FLAG.ack, stream: 0 }));
  }
  #windowsChanged(value: number): void {
    if (value > WINDOW_BYTES_MAX) throw new ConnectionError(CODE.flowControl, 'INITIAL_WINDOW_SIZE');
    const change = value - this.#sender.streamWindow;
    this.#sender.streamWindow = value;
    for (const stream of this.#streams.values()) {
      stream.sendWindow += change;
      if (stream.sendWindow > WINDOW_BYTES_MAX) throw new ConnectionError(CODE.flowControl, 'INITIAL_WINDOW_SIZE');
      this.sendQueued(stream);
    }
  }
  #ping(flags: number, stream: number, payload: Buffer): void {
    if (stream !== 0) throw new ConnectionError(CODE.protocol, 'PING of a stream');
    if (payload.length !== 8) throw new ConnectionError(CODE.frameSize, 'PING');
    if (flags & FLAG.ack) return;
    const pong = Buffer.allocUnsafe(FRAME_HEAD_BYTES + 8);
    payload.copy(pong, writeFrameHead(pong, 0, { length: 8, type: FRAME.ping, flags: FLAG.ack, stream: 0 }));
    this.#sender.write(pong);
  }
  #windowUpdate(id: number, payload: Buffer): void {
    if (payload.length !== 4) throw new ConnectionError(CODE.frameSize, 'WINDOW_UPDATE');
    const more = readUint32(payload, 0) & WINDOW_BYTES_MAX;
    if (id > this.#lastStream) throw new ConnectionError(CODE.protocol, 'WINDOW_UPDATE of no stream');
    const stream = this.#streams.get(id);
    if (more === 0 && id === 0) throw new ConnectionError(CODE.protocol, 'WINDOW_UPDATE by nothing');
    if (id === 0) {
      if (this.#sender.window + more > WINDOW_BYTES_MAX) throw new ConnectionError(CODE.flowControl, 'WINDOW_UPDATE');
      this.#sender.widen(more);
    } else if (stream) {
      stream.sendWindow += more;
      if (more === 0) this.reset(stream, CODE.protocol);
      else if (stream.sendWindow > WINDOW_BYTES_MAX) this.reset(stream, CODE.flowControl);
      else this.sendQueued(stream);
    }
  }
  #glitch(): void {
    if (++this.#glitches > GLITCHES_MAX) throw new ConnectionError(CODE.enhanceYourCalm, 'too much of what is seldom');
  }

  // Windows that we grant

  credit(stream: ServerStream, bytes: number): void {
    this.#creditConnection(bytes);
    stream.uncredited += bytes;
    if (stream.received || stream.uncredited < STREAM_WINDOW_BYTES >> 1) return;
    stream.receiveWindow += stream.uncredited;
    this.#sender.write(numbersFrame({ type: FRAME.windowUpdate, flags: 0, stream: stream.id }, stream.uncredited));
    stream.uncredited = 0;
  }
  #creditConnection(bytes: number): void {
    this.#uncredited += bytes;
    if (this.#uncredited < CONNECTION_WINDOW_BYTES >> 1) return;
    this.#receiveWindow += this.#uncredited;
    this.#sender.write(numbersFrame({ type: FRAME.windowUpdate, flags: 0, stream: 0 }, this.#uncredited));
    this.#uncredited = 0;
  }

  // Sending

  sendHead(stream: ServerStream, status: number, headers: ReplyHeaders, options: { end: boolean }): void {
    this.#sender.sendHead(stream, status, headers, options);
  }
  sendReply(stream: ServerStream, status: number, headers: ReplyHeaders, body: readonly Buffer[]): void {
    this.#sender.sendReply(stream, status, headers, body);
  }
  sendQueued(stream: ServerStream): void {
    this.#sender.sendQueued(stream);
  }
  reset(stream: ServerStream, code: number): void {
    this.#sender.write(numbersFrame({ ...RESET_HEAD, stream: stream.id }, code));
    this.#forget(stream);
  }

  #sentAll(stream: ServerStream): void {
    stream.sent = true;
    if (stream.received) return this.#done(stream);
    // The reply did not need the rest of the request.
    this.reset(stream, CODE.none);
  }
  #done(stream: ServerStream): void {
    if (this.#glitches > 0) this.#glitches--;
    this.#forget(stream);
  }
  #forget(stream: ServerStream): void {
    this.#streams.delete(stream.id);
    this.#sender.forget(stream);
    // What it received and nobody read does not count any more.
    const unread = STREAM_WINDOW_BYTES - stream.receiveWindow - stream.uncredited;
    stream.wasClosed();
    if (unread > 0) this.#creditConnection(unread);
  }
  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#sender.stop();
    for (const stream of this.#streams.values()) stream.wasClosed();
    this.#streams.clear();
    if (!this.#closing) this.#socket.end();
  }
}

const TOO_LARGE = { ':method': 'GET', ':path': '/' };

function unpadded(flags: number, payload: Buffer): Buffer {
  if (!(flags & FLAG.padded)) return payload;
  const end = payload.length - 1 - (payload[0] ?? payload.length);
  if (end < 0) throw new ConnectionError(CODE.protocol, 'more padding than frame');
  return payload.subarray(1, 1 + end);
}
