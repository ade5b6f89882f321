/** A request on an HTTP/2 stream as the handlers of requests see it. */

import type { IncomingHttpHeaders } from 'node:http';
import {
  BODY_BYTES_MAX,
  type Body,
  bodyCutShort,
  bodyTooLarge,
  type Exchange,
  type RawExchange,
  type ReplyHeaders,
  sizeOf,
} from '../exchange.ts';
import { RawRequest, RawResponse } from './raw.ts';
import type { ServerStream } from './stream.ts';

const EMPTY = Buffer.alloc(0);
const NO_PARTS: readonly Buffer[] = [];

export class Http2Exchange implements Exchange {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly remoteAddress: string | undefined;
  readonly protocol = 'HTTP/2.0';
  readonly #stream: ServerStream;
  #abort: AbortController | undefined;

  constructor(stream: ServerStream, remoteAddress?: string) {
    this.#stream = stream;
    this.remoteAddress = remoteAddress;
    this.headers = stream.headers;
    this.method = stream.headers[':method'] as string;
    this.url = stream.headers[':path'] as string;
  }
  get signal(): AbortSignal {
    if (!this.#abort) {
      const abort = new AbortController();
      this.#abort = abort;
      this.#stream.onClose(() => abort.abort());
    }
    return this.#abort.signal;
  }
  get started(): boolean {
    return this.#stream.headSent;
  }
  body(): Buffer | Promise<Buffer> {
    if (Number(this.headers['content-length'] ?? 0) > BODY_BYTES_MAX) throw bodyTooLarge();
    const stream = this.#stream;
    const whole = stream.takeBody();
    if (whole) return whole.length === 0 ? EMPTY : whole.length === 1 ? whole[0]! : Buffer.concat(whole);
    return new Promise((resolve, reject) => {
      const parts: Buffer[] = [];
      let size = 0;
      stream.onClose(() => reject(bodyCutShort()));
      stream.read({
        data: chunk => {
          size += chunk.length;
          if (size > BODY_BYTES_MAX) return reject(bodyTooLarge());
          parts.push(chunk);
          stream.credit(chunk.length);
        },
        end: () => resolve(parts.length === 1 ? parts[0]! : Buffer.concat(parts, size)),
      });
    });
  }
  reply(status: number, headers: ReplyHeaders, body: Body | undefined): void {
    if (body === undefined) return this.#stream.respond(status, headers, { end: true });
    const parts = Buffer.isBuffer(body) ? [body] : body;
    const size = sizeOf(parts);
    headers['content-length'] = size;
    if (this.method === 'HEAD') return this.#stream.respond(status, headers, { end: true });
    this.#stream.reply(status, headers, size === 0 ? NO_PARTS : parts);
  }
  begin(status: number, headers: ReplyHeaders): void {
    this.#stream.respond(status, headers, { end: false });
  }
  write(chunk: Buffer): void | Promise<void> {
    if (this.#stream.send(chunk)) return;
    return new Promise(resolve => this.#stream.drained(resolve));
  }
  end(): void {
    this.#stream.end();
  }
  raw(): RawExchange {
    return { req: new RawRequest(this.#stream), res: new RawResponse(this.#stream) };
  }
}
