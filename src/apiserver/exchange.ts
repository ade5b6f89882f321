/**
 * One HTTP request and its reply, the same for HTTP/2 streams (`http2/exchange.ts`) and HTTP/1.1 messages. The reply is either one buffer or a
 * stream of chunks; a body is read whole, up to the limit.
 */

import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Writable } from 'node:stream';
import { type ApiError, failure } from '../base/errors.ts';
import { headersOf } from './header-values.ts';
import type { RawRequest, RawResponse } from './http2/raw.ts';

/** Upstream's limit of a request body. */
export const BODY_BYTES_MAX = 3 * 1024 * 1024;

export type ReplyHeaders = Record<string, string | number | readonly string[]>;

/** A whole reply, in one part or several. */
export type Body = Buffer | readonly Buffer[];

export function sizeOf(parts: readonly Buffer[]): number {
  let size = 0;
  for (const part of parts) size += part.length;
  return size;
}

/** Writes the parts as one and ends. */
function endWith(target: Writable, body: Body): void {
  if (Buffer.isBuffer(body)) {
    target.end(body);
    return;
  }
  target.cork();
  for (const part of body) target.write(part);
  target.end();
  target.uncork();
}

export interface Exchange {
  readonly method: string;
  /** Path with query, as sent. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  /** Whom the connection is from, where that is known. */
  readonly remoteAddress: string | undefined;
  /** `HTTP/1.1` or `HTTP/2.0`. */
  readonly protocol: string;
  /** Aborted when the client goes away. */
  readonly signal: AbortSignal;
  readonly started: boolean;
  /** At once when it is here already. */
  body(): Buffer | Promise<Buffer>;
  reply(status: number, headers: ReplyHeaders, body: Body | undefined): void;
  begin(status: number, headers: ReplyHeaders): void;
  /** Resolves when more may be written; rejects never. Only between `begin` and `end`. */
  write(chunk: Buffer): void | Promise<void>;
  end(): void;
  /** The objects that connect handlers take over. */
  raw(): RawExchange;
}

export interface RawExchange {
  readonly req: IncomingMessage | RawRequest;
  readonly res: ServerResponse | RawResponse;
}

interface Readable {
  on(event: 'data', listener: (chunk: Buffer) => void): unknown;
  on(event: 'end' | 'close', listener: () => void): unknown;
}

export function bodyTooLarge(): ApiError {
  return failure(413, 'RequestEntityTooLarge', `Request entity too large: limit is ${BODY_BYTES_MAX}`);
}
export function bodyCutShort(): ApiError {
  return failure(400, 'BadRequest', 'the request ended before its body');
}

function readBody(source: Readable, declared: string | undefined): Promise<Buffer> {
  if (declared !== undefined && Number(declared) > BODY_BYTES_MAX) return Promise.reject(bodyTooLarge());
  return new Promise((resolve, reject) => {
    let first: Buffer | undefined;
    let more: Buffer[] | undefined;
    let size = 0;
    let ended = false;
    source.on('data', chunk => {
      size += chunk.length;
      if (size > BODY_BYTES_MAX) return reject(bodyTooLarge());
      if (!first) first = chunk;
      else (more ??= [first]).push(chunk);
    });
    source.on('end', () => {
      ended = true;
      resolve(more ? Buffer.concat(more, size) : (first ?? Buffer.alloc(0)));
    });
    source.on('close', () => {
      if (!ended) reject(bodyCutShort());
    });
  });
}

const ignoreError = () => {};

/** Gathers small writes of one turn into one frame. */
interface Corkable {
  cork(): void;
  uncork(): void;
  write(chunk: Buffer): boolean;
  once(event: 'drain' | 'close', listener: () => void): unknown;
  removeListener(event: 'drain' | 'close', listener: () => void): unknown;
}

class ChunkWriter {
  readonly #target: Corkable;
  #corked = false;
  constructor(target: Corkable) {
    this.#target = target;
  }
  write(chunk: Buffer): void | Promise<void> {
    if (!this.#corked) {
      this.#corked = true;
      this.#target.cork();
      setImmediate(() => {
        this.#corked = false;
        this.#target.uncork();
      });
    }
    if (this.#target.write(chunk)) return;
    return new Promise(resolve => {
      const done = () => {
        this.#target.removeListener('drain', done);
        this.#target.removeListener('close', done);
        resolve();
      };
      this.#target.once('drain', done);
      this.#target.once('close', done);
    });
  }
}

export class Http1Exchange implements Exchange {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly signal: AbortSignal;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  #writer: ChunkWriter | undefined;

  constructor(request: IncomingMessage, response: ServerResponse) {
    this.#request = request;
    this.#response = response;
    this.method = request.method ?? 'GET';
    this.url = request.url ?? '/';
    this.headers = headersOf(request);
    const abort = new AbortController();
    this.signal = abort.signal;
    response.once('close', () => abort.abort());
    response.on('error', ignoreError);
    request.on('error', ignoreError);
  }
  get started(): boolean {
    return this.#response.headersSent;
  }
  get remoteAddress(): string | undefined {
    return this.#request.socket.remoteAddress;
  }
  get protocol(): string {
    return `HTTP/${this.#request.httpVersion}`;
  }
  body(): Promise<Buffer> {
    return readBody(this.#request, this.headers['content-length']);
  }
  reply(status: number, headers: ReplyHeaders, body: Body | undefined): void {
    if (this.#response.destroyed) return;
    if (body !== undefined) headers['content-length'] = Buffer.isBuffer(body) ? body.length : sizeOf(body);
    this.#response.writeHead(status, headers as Record<string, string | number>);
    if (body === undefined || this.method === 'HEAD') this.#response.end();
    else endWith(this.#response, body);
  }
  begin(status: number, headers: ReplyHeaders): void {
    this.#response.writeHead(status, headers as Record<string, string | number>);
    this.#response.flushHeaders();
  }
  write(chunk: Buffer): void | Promise<void> {
    if (this.#response.destroyed) return;
    this.#writer ??= new ChunkWriter(this.#response as unknown as Corkable);
    return this.#writer.write(chunk);
  }
  end(): void {
    this.#response.end();
  }
  raw(): RawExchange {
    return { req: this.#request, res: this.#response };
  }
}
