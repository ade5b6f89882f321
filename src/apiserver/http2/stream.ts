/**
 * One request and its reply on a connection: what was received and not yet read, what is to be sent and not yet allowed to.
 * The connection moves the bytes; whoever answers the request sees only this. Received bytes are bounded by the window that
 * we grant, bytes to be sent by whoever waits for `drained`.
 */

import type { IncomingHttpHeaders } from 'node:http2';
import type { ReplyHeaders } from '../exchange.ts';
import { CODE } from './frame.ts';

/** Bytes to be sent beyond which `send` asks its caller to wait. */
const QUEUED_BYTES_MAX = 64 * 1024;

/** Takes a request's body. */
export interface BodyReader {
  data(chunk: Buffer): void;
  end(): void;
}

/** What the connection does for its streams. */
export interface StreamHost {
  sendHead(stream: ServerStream, status: number, headers: ReplyHeaders, options: { end: boolean }): void;
  /** A whole reply. */
  sendReply(stream: ServerStream, status: number, headers: ReplyHeaders, body: readonly Buffer[]): void;
  /** There is something in the queue, or its end. */
  sendQueued(stream: ServerStream): void;
  /** The body's bytes are out of our memory: the client may send as many more. */
  credit(stream: ServerStream, bytes: number): void;
  reset(stream: ServerStream, code: number): void;
}

export class ServerStream {
  readonly id: number;
  readonly headers: IncomingHttpHeaders;
  readonly #host: StreamHost;

  /** Received and not read. */
  #chunks: Buffer[] = [];
  #reader: BodyReader | undefined;
  receivedBytes = 0;
  received = false;
  /** How much more the client may send before it is credited. */
  receiveWindow: number;
  uncredited = 0;

  readonly queue: Buffer[] = [];
  /** Bytes of the first in the queue that are sent. */
  queueOffset = 0;
  queuedBytes = 0;
  sendWindow: number;
  #headSent = false;
  /** No more comes into the queue. */
  ending = false;
  sent = false;

  #closed = false;
  #onClose: (() => void)[] | undefined;
  #onDrain: (() => void)[] | undefined;

  constructor(
    host: StreamHost,
    options: { id: number; headers: IncomingHttpHeaders; sendWindow: number; receiveWindow: number },
  ) {
    this.#host = host;
    this.id = options.id;
    this.headers = options.headers;
    this.sendWindow = options.sendWindow;
    this.receiveWindow = options.receiveWindow;
  }
  /** Through, in one way or the other: nothing more is received or sent. */
  get closed(): boolean {
    return this.#closed;
  }
  get headSent(): boolean {
    return this.#headSent;
  }

  /** Bytes received so far go to the reader at once. Each must be given back with `credit`. */
  read(reader: BodyReader): void {
    const chunks = this.#chunks;
    this.#chunks = [];
    this.#reader = reader;
    if (this.headers.expect === '100-continue' && !this.received && !this.#headSent && !this.#closed)
      this.#host.sendHead(this, 100, {}, { end: false });
    for (const chunk of chunks) reader.data(chunk);
    if (this.received) reader.end();
  }
  credit(bytes: number): void {
    if (!this.#closed) this.#host.credit(this, bytes);
  }

  /** The whole body, when it is here already and nobody reads it. */
  takeBody(): readonly Buffer[] | undefined {
    if (!this.received || this.#reader) return undefined;
    const chunks = this.#chunks;
    this.#chunks = [];
    this.credit(this.receivedBytes);
    return chunks;
  }

  respond(status: number, headers: ReplyHeaders, options: { end: boolean }): void {
    if (this.#closed || this.#headSent) return;
    this.#headSent = true;
    if (options.end) this.ending = true;
    this.#host.sendHead(this, status, headers, options);
  }
  /** A whole reply at once. */
  reply(status: number, headers: ReplyHeaders, body: readonly Buffer[]): void {
    if (this.#closed || this.#headSent) return;
    this.#headSent = true;
    this.ending = true;
    this.#host.sendReply(this, status, headers, body);
  }
  /** False: wait for `drained` before sending more. After `respond`. */
  send(chunk: Buffer): boolean {
    if (this.#closed || this.ending) return true;
    if (chunk.length > 0) {
      this.queue.push(chunk);
      this.queuedBytes += chunk.length;
      this.#host.sendQueued(this);
    }
    return this.queuedBytes <= QUEUED_BYTES_MAX;
  }
  end(): void {
    if (this.#closed || this.ending) return;
    this.ending = true;
    this.#host.sendQueued(this);
  }
  /** Calls back once there is room in the queue, or when the stream is closed. */
  drained(then: () => void): void {
    if (this.#closed || this.queuedBytes <= QUEUED_BYTES_MAX) return then();
    (this.#onDrain ??= []).push(then);
  }
  onClose(then: () => void): void {
    if (this.#closed) return then();
    (this.#onClose ??= []).push(then);
  }
  reset(code: number = CODE.internal): void {
    if (!this.#closed) this.#host.reset(this, code);
  }

  /** For the connection: bytes of the body came. */
  take(chunk: Buffer): void {
    this.receivedBytes += chunk.length;
    if (this.#reader) this.#reader.data(chunk);
    else this.#chunks.push(chunk);
  }
  takeEnd(): void {
    this.received = true;
    this.#reader?.end();
  }
  /** For the connection: the bytes at the front of the queue are sent. */
  wasSent(bytes: number): void {
    this.queuedBytes -= bytes;
    let rest = bytes + this.queueOffset;
    let count = 0;
    while (count < this.queue.length && rest >= this.queue[count]!.length) rest -= this.queue[count++]!.length;
    if (count > 0) this.queue.splice(0, count);
    this.queueOffset = rest;
    if (this.#onDrain && this.queuedBytes <= QUEUED_BYTES_MAX) this.#wake();
  }
  wasClosed(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#chunks = [];
    this.queue.length = 0;
    this.queuedBytes = 0;
    this.#wake();
    const listeners = this.#onClose;
    this.#onClose = undefined;
    if (listeners) for (const listener of listeners) listener();
  }
  #wake(): void {
    const waiting = this.#onDrain;
    this.#onDrain = undefined;
    if (waiting) for (const then of waiting) then();
  }
}
