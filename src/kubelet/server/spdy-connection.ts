/**
 * One end of a SPDY/3.1 connection: streams, each a Duplex, over any byte stream (a TLS socket after its upgrade, or a WebSocket
 * that tunnels). The server's end takes streams that the peer opens, the client's opens them. Invariant: at most one window
 * of unread bytes is held for a stream; then reading stops for the whole connection.
 *
 * Flow control: credit is always given to the peer, but sending heeds windows only once the peer has shown that it gives
 * credit itself. The stock clients never do; they rely on the byte stream below to push back.
 */

import { Duplex } from 'node:stream';
import type { Clock, Timer } from '../../base/clock.ts';
import { IdleTimer } from './idle-timer.ts';
import { FrameWriter, type Headers, RESET, readFrames } from './spdy-frames.ts';

/** SPDY's default window. */
const WINDOW_BYTES = 64 * 1024;
/** Unread bytes held for a stream; room for several windows keeps a fast sender busy. */
const UNREAD_BYTES_MAX = 4 * WINDOW_BYTES;
const CREDIT_BYTES_MIN = WINDOW_BYTES / 2;
const FRAME_BYTES_MAX = 32 * 1024;
const STREAMS_MAX = 4096;
/** A connection that does not read may have died: only writing shows it. */
const PROBE_EVERY_MS = 10_000;
/** How long the peer may take to hang up after our goodbye, while what it still sends is dropped. */
const LINGER_MS = 5_000;

export interface SpdyOptions {
  readonly clock: Clock;
  readonly idleMs: number;
  /** Called for each stream of the client; throwing refuses it. The reply is sent after it returns. Absent at the client's end. */
  onStream?(stream: SpdyStream): void;
}

/** Ends when the peer has; destroying it resets it for the peer, unless both sides are done. */
export class SpdyStream extends Duplex {
  readonly id: number;
  readonly headers: Headers;
  readonly #link: StreamLink;

  constructor(id: number, headers: Headers, link: StreamLink) {
    super({ readableHighWaterMark: UNREAD_BYTES_MAX, writableHighWaterMark: UNREAD_BYTES_MAX, allowHalfOpen: true });
    this.id = id;
    this.headers = headers;
    this.#link = link;
    // A reset or a lost connection is an error of the stream; who uses it may listen, nobody must.
    this.on('error', () => {});
  }
  override _read(): void {
    this.#link.room();
  }
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#link.send(chunk).then(() => done(), done);
  }
  override _final(done: (error?: Error | null) => void): void {
    this.#link.finish();
    done();
  }
  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#link.gone();
    done(error);
  }
}

interface StreamLink {
  room(): void;
  send(data: Buffer): Promise<void>;
  finish(): void;
  gone(): void;
}

interface StreamState {
  readonly stream: SpdyStream;
  peerDone: boolean;
  ownDone: boolean;
  /** Bytes that the peer lets us send, and those it has sent since its last credit. */
  windowBytes: number;
  owedBytes: number;
}

export class SpdyConnection {
  /** Resolves when the byte stream below is closed; never rejects. */
  readonly closed: Promise<void>;
  readonly #carrier: Duplex;
  readonly #options: SpdyOptions;
  readonly #frames = new FrameWriter();
  readonly #streams = new Map<number, StreamState>();
  readonly #idle: IdleTimer;
  #lastId = 0;
  #nextId = 1;
  #pingId: number;
  #closing = false;
  #heedsWindows = false;
  #heedsConnectionWindow = false;
  #initialWindowBytes = WINDOW_BYTES;
  #windowBytes = WINDOW_BYTES;
  #owedBytes = 0;
  #waiting: (() => void)[] = [];

  constructor(carrier: Duplex, options: SpdyOptions) {
    this.#carrier = carrier;
    this.#options = options;
    this.#pingId = options.onStream ? 2 : 1;
    this.#idle = new IdleTimer(options.clock, options.idleMs, () => carrier.destroy());
    this.closed = new Promise(resolve => carrier.once('close', resolve));
    carrier.on('error', () => {});
    carrier.on('drain', () => this.#wake());
    carrier.once('close', () => this.#teardown());
    void this.#serve();
  }

  /** Resets what is open, says goodbye and hangs up once all is sent. */
  close(): void {
    if (this.#closing) return;
    for (const { stream } of [...this.#streams.values()]) stream.destroy();
    this.#closing = true;
    this.#wake();
    if (this.#carrier.destroyed) return;
    this.#carrier.end(this.#frames.goaway(this.#lastId));
    const timer = this.#options.clock.after(LINGER_MS, () => this.#carrier.destroy(), { background: true });
    this.#carrier.once('close', () => timer.cancel());
  }

  async #serve(): Promise<void> {
    try {
      for await (const frame of readFrames(this.#carrier as AsyncIterable<Buffer>)) {
        this.#idle.touch();
        switch (frame.type) {
          case 'open':
            this.#open(frame.id, frame.fin, frame.headers);
            break;
          case 'data':
            await this.#receive(frame.id, frame.data, frame.fin);
            break;
          case 'reply':
          case 'headers':
            if (frame.fin) await this.#receive(frame.id, Buffer.alloc(0), true);
            break;
          case 'reset': {
            const state = this.#streams.get(frame.id);
            if (!state) break;
            state.peerDone = true;
            state.ownDone = true;
            // Some peers end a stream so right behind what they had to say: it is heard first.
            setImmediate(() => state.stream.destroy(new Error('stream was reset by the peer')));
            break;
          }
          case 'settings':
            if (frame.initialWindowBytes === undefined) break;
            for (const state of this.#streams.values())
              state.windowBytes += frame.initialWindowBytes - this.#initialWindowBytes;
            this.#initialWindowBytes = frame.initialWindowBytes;
            this.#heedsWindows = true;
            this.#wake();
            break;
          case 'window': {
            this.#heedsWindows = true;
            const state = this.#streams.get(frame.id);
            if (frame.id === 0) {
              this.#heedsConnectionWindow = true;
              this.#windowBytes += frame.delta;
            } else if (state) state.windowBytes += frame.delta;
            this.#wake();
            break;
          }
          case 'ping':
            // Whose number it is not has asked.
            if (frame.id % 2 !== this.#pingId % 2) this.#write(this.#frames.ping(frame.id));
            break;
          case 'goaway':
            break;
        }
      }
    } catch {
      // Malformed input or a broken connection: either way it ends here.
    }
    this.#carrier.destroy();
  }

  #teardown(): void {
    this.#closing = true;
    this.#idle.stop();
    for (const state of [...this.#streams.values()]) {
      if (state.peerDone && state.ownDone) continue;
      state.peerDone = true;
      state.ownDone = true;
      state.stream.destroy(new Error('connection closed'));
    }
    this.#wake();
  }

  /** At the client's end: a stream of its own. Sent at once, not waiting for the reply. */
  open(headers: Headers): SpdyStream {
    const id = this.#nextId;
    this.#nextId += 2;
    const stream = this.#track(id, headers, { peerDone: false });
    this.#write(this.#frames.open(id, headers));
    return stream;
  }

  #open(id: number, fin: boolean, headers: Headers): void {
    if (this.#closing) return;
    const { onStream } = this.#options;
    const isForeign = id % 2 === 0 || id <= this.#lastId;
    if (isForeign || !onStream || this.#streams.size >= STREAMS_MAX) {
      this.#write(this.#frames.reset(id, isForeign ? RESET.protocolError : RESET.refusedStream));
      return;
    }
    this.#lastId = id;
    const stream = this.#track(id, headers, { peerDone: fin });
    try {
      onStream(stream);
    } catch {
      stream.destroy();
      return;
    }
    this.#write(this.#frames.reply(id, {}));
    if (fin) stream.push(null);
  }

  #track(id: number, headers: Headers, { peerDone }: { readonly peerDone: boolean }): SpdyStream {
    const stream = new SpdyStream(id, headers, {
      room: () => this.#wake(),
      send: data => this.#send(state, data),
      finish: () => {
        if (state.ownDone) return;
        state.ownDone = true;
        this.#write(this.#frames.data(id, Buffer.alloc(0), { fin: true }));
      },
      gone: () => {
        if (!(state.ownDone && state.peerDone)) this.#write(this.#frames.reset(id, RESET.cancel));
        this.#streams.delete(id);
        this.#wake();
      },
    });
    const state: StreamState = {
      stream,
      peerDone,
      ownDone: false,
      windowBytes: this.#initialWindowBytes,
      owedBytes: 0,
    };
    this.#streams.set(id, state);
    return stream;
  }

  async #receive(id: number, data: Buffer, fin: boolean): Promise<void> {
    const state = this.#streams.get(id);
    this.#credit(0, data.length);
    if (!state || state.peerDone) return;
    const { stream } = state;
    if (fin) state.peerDone = true;
    const isFull = data.length > 0 && !stream.push(data);
    if (fin) stream.push(null);
    else if (isFull) {
      let probe: Timer | undefined;
      const ask = () => {
        this.#write(this.#frames.ping((this.#pingId += 2)));
        probe = this.#options.clock.after(PROBE_EVERY_MS, ask, { background: true });
      };
      probe = this.#options.clock.after(PROBE_EVERY_MS, ask, { background: true });
      while (!this.#closing && !stream.destroyed && stream.readableLength >= UNREAD_BYTES_MAX) await this.#change();
      probe.cancel();
    }
    if (!fin) this.#credit(id, data.length);
  }

  // Called once there is room for as much again. Servers never look at it, and one that hangs up before it has read it takes what it
  // said last with it (the kernel resets the connection): a client gives none.
  #credit(id: number, bytes: number): void {
    if (!this.#options.onStream) return;
    const state = id === 0 ? undefined : this.#streams.get(id);
    if (id !== 0 && !state) return;
    const owed = (state ? state.owedBytes : this.#owedBytes) + bytes;
    if (owed >= CREDIT_BYTES_MIN) this.#write(this.#frames.window(id, owed));
    if (state) state.owedBytes = owed >= CREDIT_BYTES_MIN ? 0 : owed;
    else this.#owedBytes = owed >= CREDIT_BYTES_MIN ? 0 : owed;
  }

  async #send(state: StreamState, data: Buffer): Promise<void> {
    for (let at = 0; at < data.length; ) {
      if (state.ownDone || this.#carrier.destroyed || this.#closing) throw new Error('stream is closed');
      const window = this.#heedsWindows
        ? Math.min(state.windowBytes, this.#heedsConnectionWindow ? this.#windowBytes : Infinity)
        : Infinity;
      if (window <= 0 || this.#carrier.writableNeedDrain) {
        await this.#change();
        continue;
      }
      const piece = data.subarray(at, at + Math.min(FRAME_BYTES_MAX, window));
      at += piece.length;
      state.windowBytes -= piece.length;
      this.#windowBytes -= piece.length;
      this.#idle.touch();
      this.#write(this.#frames.data(state.stream.id, piece));
    }
  }

  #write(frame: Buffer): void {
    if (!this.#carrier.destroyed && !this.#carrier.writableEnded) this.#carrier.write(frame);
  }

  // Until something moved: room in a stream, the carrier drained, credit came, a stream or the connection ended.
  #change(): Promise<void> {
    return new Promise(resolve => this.#waiting.push(resolve));
  }
  #wake(): void {
    const waiting = this.#waiting;
    if (waiting.length === 0) return;
    this.#waiting = [];
    for (const resume of waiting) resume();
  }
}
