/** An HTTP/2 stream as the two objects of `node:http` that connect handlers pipe into and out of. Only what these use. */

import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http';
import { Readable, Writable } from 'node:stream';
import type { ReplyHeaders } from '../exchange.ts';
import { CODE } from './frame.ts';
import type { ServerStream } from './stream.ts';

export class RawRequest extends Readable {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly #stream: ServerStream;
  #reading = false;

  constructor(stream: ServerStream) {
    super();
    this.#stream = stream;
    this.headers = stream.headers;
    this.method = stream.headers[':method'] as string;
    this.url = stream.headers[':path'] as string;
    stream.onClose(() => {
      if (!stream.received) this.destroy(new Error('the client went away'));
    });
    // Whoever does not listen learns it from the response, which closes.
    this.on('error', () => {});
  }
  override _read(): void {
    if (this.#reading) return;
    this.#reading = true;
    const stream = this.#stream;
    stream.read({
      // The client's window is the bound of what a slow backend leaves here.
      data: chunk => {
        if (this.push(chunk)) stream.credit(chunk.length);
        else this.#owed += chunk.length;
      },
      end: () => this.push(null),
    });
  }
  #owed = 0;
  override read(size?: number): unknown {
    const chunk = super.read(size);
    if (this.#owed > 0 && this.readableLength < this.readableHighWaterMark) {
      this.#stream.credit(this.#owed);
      this.#owed = 0;
    }
    return chunk;
  }
}

export class RawResponse extends Writable {
  statusCode = 200;
  readonly #stream: ServerStream;
  readonly #headers: Record<string, string | number | readonly string[]> = {};

  constructor(stream: ServerStream) {
    super({ autoDestroy: true });
    this.#stream = stream;
    this.on('error', () => {});
    stream.onClose(() => this.destroy());
  }
  get headersSent(): boolean {
    return this.#stream.headSent;
  }
  setHeader(name: string, value: string | number | readonly string[]): this {
    this.#headers[name.toLowerCase()] = value;
    return this;
  }
  writeHead(statusCode: number, headers: OutgoingHttpHeaders = {}): this {
    this.statusCode = statusCode;
    for (const [name, value] of Object.entries(headers)) if (value !== undefined) this.setHeader(name, value);
    return this;
  }
  flushHeaders(): void {
    this.#stream.respond(this.statusCode, this.#headers as ReplyHeaders, { end: false });
  }
  override _write(chunk: Buffer | string, encoding: BufferEncoding, then: () => void): void {
    this.flushHeaders();
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk;
    if (this.#stream.send(bytes)) then();
    else this.#stream.drained(then);
  }
  override _final(then: () => void): void {
    this.flushHeaders();
    this.#stream.end();
    then();
  }
  override _destroy(error: Error | null, then: (error: Error | null) => void): void {
    // Cutting it short is the only way to say that what was sent is not whole.
    if (!this.#stream.closed && !this.#stream.ending) this.#stream.reset(CODE.internal);
    then(error);
  }
}
