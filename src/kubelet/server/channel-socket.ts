/**
 * Kubernetes' channels over one WebSocket: the first byte of each message names the channel (in the base64 protocols the
 * first character, and the rest is base64). `v5` adds channel 255, whose one byte names a channel that its sender has
 * ended. Invariant: one full reader stops the whole socket; what no reader wants is dropped, as upstream does.
 */

import { Duplex, Readable, Writable } from 'node:stream';
import type { RawData, WebSocket } from 'ws';
import type { Clock, Timer } from '../../base/clock.ts';
import { IdleTimer } from './idle-timer.ts';

const CLOSE_CHANNEL = 255;
const UNREAD_BYTES_MAX = 256 * 1024;
/** Bytes handed to the socket before a writer has to wait for them to leave. */
const UNSENT_BYTES_MAX = 256 * 1024;
const NORMAL_CLOSURE = 1000;
/** While reading is stopped pings go unanswered; clients give up after 61 s without a pong, so pongs are volunteered. */
const PONG_EVERY_MS = 10_000;

export interface ChannelOptions {
  readonly base64: boolean;
  /** Channel 255 is heeded. */
  readonly halfClose: boolean;
  readonly clock: Clock;
  readonly idleMs: number;
}

export class ChannelSocket {
  /** Resolves when the socket is closed; never rejects. */
  readonly closed: Promise<void>;
  readonly #socket: WebSocket;
  readonly #options: ChannelOptions;
  readonly #readers = new Map<number, Readable>();
  readonly #writers: Writable[] = [];
  readonly #idle: IdleTimer;
  readonly #full = new Set<number>();
  #pong: Timer | undefined;
  #closing = false;

  constructor(socket: WebSocket, options: ChannelOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#idle = new IdleTimer(options.clock, options.idleMs, () => socket.terminate());
    this.closed = new Promise(resolve => socket.once('close', () => resolve()));
    socket.on('error', () => {});
    socket.on('message', (data, isBinary) => this.#receive(data, isBinary));
    socket.once('close', () => this.#teardown());
  }

  /** What the client sends on the channel; ends when it ended the channel, fails when the socket is lost. */
  readable(channel: number): Readable {
    const reader = new Readable({ highWaterMark: UNREAD_BYTES_MAX, read: () => this.#room(channel) });
    reader.on('error', () => {});
    reader.once('close', () => this.#room(channel));
    this.#readers.set(channel, reader);
    return reader;
  }

  writable(channel: number): Writable {
    const writer = new Writable({
      highWaterMark: UNSENT_BYTES_MAX,
      write: (chunk: Buffer, _encoding, done) => this.#send(channel, chunk, done),
    });
    writer.on('error', () => {});
    this.#writers.push(writer);
    return writer;
  }

  /** Both directions of one channel. */
  duplex(channel: number): Duplex {
    const both = { readable: this.readable(channel), writable: this.writable(channel) };
    // Its types do not know this form, which its documentation names.
    return Duplex.from(both as unknown as NodeJS.ReadWriteStream);
  }

  /** As if the client had ended the channel, which in most protocols it cannot say. */
  endReading(channel: number): void {
    const reader = this.#readers.get(channel);
    if (reader && !reader.destroyed && !reader.readableEnded) reader.push(null);
    this.#readers.delete(channel);
  }

  /** An empty message, by which clients notice that the session stands. */
  greet(channel: number): void {
    this.#send(channel, Buffer.alloc(0), () => {});
  }

  /** After everything written: a normal closure. What the client still sends is dropped. */
  close(): void {
    this.#closing = true;
    this.#full.clear();
    this.#flow();
    this.#socket.close(NORMAL_CLOSURE);
  }

  #receive(data: RawData, isBinary: boolean): void {
    this.#idle.touch();
    if (this.#closing) return;
    const bytes = data as Buffer;
    if (bytes.length === 0) return;
    const { base64, halfClose } = this.#options;
    const channel = base64 ? bytes[0]! - 48 : bytes[0]!;
    if (halfClose && isBinary && channel === CLOSE_CHANNEL) {
      this.endReading(bytes[1] ?? -1);
      return;
    }
    const reader = this.#readers.get(channel);
    if (!reader || reader.destroyed) return;
    const payload = base64 ? Buffer.from(bytes.toString('latin1', 1), 'base64') : bytes.subarray(1);
    if (payload.length === 0 || reader.push(payload)) return;
    this.#full.add(channel);
    this.#flow();
  }

  #send(channel: number, chunk: Buffer, done: (error?: Error | null) => void): void {
    if (this.#socket.readyState !== this.#socket.OPEN) {
      done(new Error('connection closed'));
      return;
    }
    this.#idle.touch();
    let message: Buffer | string;
    if (this.#options.base64) message = String.fromCharCode(48 + channel) + chunk.toString('base64');
    else {
      message = Buffer.allocUnsafe(1 + chunk.length);
      message[0] = channel;
      message.set(chunk, 1);
    }
    const binary = !this.#options.base64;
    if (this.#socket.bufferedAmount < UNSENT_BYTES_MAX) {
      this.#socket.send(message, { binary });
      done();
    } else this.#socket.send(message, { binary }, error => done(error));
  }

  #room(channel: number): void {
    if (this.#full.delete(channel)) this.#flow();
  }

  #flow(): void {
    if (this.#full.size === 0) {
      this.#pong?.cancel();
      this.#pong = undefined;
      this.#socket.resume();
    } else if (!this.#socket.isPaused) {
      this.#socket.pause();
      const volunteer = () => {
        if (this.#socket.readyState === this.#socket.OPEN) this.#socket.pong();
        this.#pong = this.#options.clock.after(PONG_EVERY_MS, volunteer, { background: true });
      };
      this.#pong = this.#options.clock.after(PONG_EVERY_MS, volunteer, { background: true });
    }
  }

  #teardown(): void {
    this.#idle.stop();
    this.#pong?.cancel();
    const error = () => new Error('connection closed');
    for (const reader of this.#readers.values()) reader.destroy(error());
    for (const writer of this.#writers) if (!writer.writableFinished) writer.destroy(error());
  }
}
