/**
 * gRPC over HTTP/2, on unix sockets or whatever the client's `dial` opens: the client of one place and a server; unary calls, and calls
 * answered with a stream. By `node:http2`. Invariant: every unary call ends, by its reply, a GrpcError, or its deadline;
 * a stream ends with its signal.
 * CSI's calls are the default; another service brings a table of its own.
 */

import { rmSync } from 'node:fs';
import type { ClientHttp2Session, Http2Server, ServerHttp2Stream } from 'node:http2';
import { createConnection } from 'node:net';
import type { Duplex } from 'node:stream';
import { http2 } from '../base/lazy-http2.ts';
import { activeSpan } from '../base/tracing/active.ts';
import { traceHeaders } from '../base/tracing/propagation.ts';
import { SCOPES, type Tracer } from '../base/tracing/span.ts';
import { CALLS, type Call, type Reply, type Request } from './calls.ts';
import { decode, encode } from './protobuf.ts';

export const GRPC = {
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
} as const;

/** `DeadlineExceeded`, as Go prints codes. */
export function codeName(code: number): string {
  const [name = 'UNKNOWN'] = Object.entries(GRPC).find(([, number]) => number === code) ?? [];
  return name
    .split('_')
    .map(word => word[0] + word.slice(1).toLowerCase())
    .join('');
}

export class GrpcError extends Error {
  override name = 'GrpcError';
  readonly code: number;
  /** A google.rpc.Status with more about it, as it came. */
  readonly details: Buffer | undefined;
  constructor(code: number, description: string, details?: Buffer) {
    super(`rpc error: code = ${codeName(code)} desc = ${description}`);
    this.code = code;
    this.description = description;
    this.details = details;
  }
  readonly description: string;
}

/** The caller cannot know whether the other side acted: it must ask again, not give up. */
export function isUncertain(error: unknown): boolean {
  return (
    !(error instanceof GrpcError) ||
    (
      [GRPC.CANCELLED, GRPC.DEADLINE_EXCEEDED, GRPC.UNAVAILABLE, GRPC.ABORTED, GRPC.RESOURCE_EXHAUSTED] as number[]
    ).includes(error.code)
  );
}

const HEAD_BYTES = 5;
const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;
/** Upstream's csiTimeout. */
const DEADLINE_MS = 120_000;

function frame(message: Buffer): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}
function unframe(parts: readonly Buffer[]): Buffer {
  const all = Buffer.concat(parts);
  if (all.length < HEAD_BYTES) throw new GrpcError(GRPC.INTERNAL, 'reply without a message');
  if (all[0] !== 0) throw new GrpcError(GRPC.UNIMPLEMENTED, 'compressed messages are not supported');
  return all.subarray(HEAD_BYTES, HEAD_BYTES + all.readUInt32BE(1));
}

/** As gRPC's HTTP/2 mapping has it: bytes that are not printable ASCII, and the percent sign itself. */
function writeDescription(text: string): string {
  return [...Buffer.from(text)]
    .map(byte =>
      byte < 0x20 || byte > 0x7e || byte === 0x25
        ? `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
        : String.fromCharCode(byte),
    )
    .join('');
}
function readDescription(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  readonly deadlineMs?: number;
  /** Metadata of the call. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** A place that is no unix socket: its name in messages, and how a connection to it is opened. */
export interface DialledPlace {
  readonly name: string;
  readonly dial: () => Duplex;
}

export type CallTable = Readonly<Record<string, Call<object, object>>>;

export class GrpcClient<T extends CallTable = typeof CALLS> {
  readonly #socket: string;
  readonly #dial: () => Duplex;
  readonly #calls: CallTable;
  readonly #tracer: Tracer | undefined;
  #session: ClientHttp2Session | undefined;

  /** With a tracer each call is a span, and the other side is told of it. */
  constructor(place: string | DialledPlace, calls?: T, tracer?: Tracer) {
    this.#tracer = tracer;
    this.#socket = typeof place === 'string' ? place : place.name;
    this.#dial = typeof place === 'string' ? () => createConnection(place) : place.dial;
    this.#calls = calls ?? CALLS;
  }
  get socket(): string {
    return this.#socket;
  }

  /** `/csi.v1.Node/NodePublishVolume`. */
  path(name: keyof T & string): string {
    return this.#calls[name]!.path;
  }

  call<N extends keyof T & string>(
    name: N,
    request: Partial<Request<T[N]>>,
    options: CallOptions = {},
  ): Promise<Reply<T[N]>> {
    return this.#tracer ? this.#traced(this.#tracer, name, request, options) : this.#call(name, request, options);
  }
  async #traced<N extends keyof T & string>(
    tracer: Tracer,
    name: N,
    request: Partial<Request<T[N]>>,
    options: CallOptions,
  ): Promise<Reply<T[N]>> {
    const path = this.path(name).slice(1);
    const [service = '', method = ''] = path.split('/');
    const span = tracer.start(path, activeSpan()?.context, {
      kind: 'client',
      scope: SCOPES.grpc,
      attributes: () => ({ 'rpc.system': 'grpc', 'rpc.service': service, 'rpc.method': method }),
    });
    try {
      const reply = await this.#call(name, request, {
        ...options,
        headers: { ...options.headers, ...traceHeaders(span.context) },
      });
      span.set({ 'rpc.grpc.status_code': 0 });
      return reply;
    } catch (error) {
      if (error instanceof GrpcError) {
        span.set({ 'rpc.grpc.status_code': error.code });
        span.fail(error.description);
      } else span.fail((error as Error).message);
      throw error;
    } finally {
      span.end();
    }
  }
  #call<N extends keyof T & string>(
    name: N,
    request: Partial<Request<T[N]>>,
    options: CallOptions,
  ): Promise<Reply<T[N]>> {
    const { path, request: asked, reply } = this.#calls[name]!;
    const { signal, deadlineMs = DEADLINE_MS, headers } = options;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(new GrpcError(GRPC.CANCELLED, 'context canceled'));
      const stream = this.#open().request({
        ':method': 'POST',
        ':path': path,
        'content-type': 'application/grpc',
        'grpc-timeout': `${deadlineMs}m`,
        te: 'trailers',
        ...headers,
      });
      const parts: Buffer[] = [];
      let status: string | undefined;
      let description = '';
      let details: Buffer | undefined;
      const note = (told: Readonly<Record<string, unknown>>) => {
        if (told['grpc-status'] !== undefined) status = String(told['grpc-status']);
        if (told['grpc-message'] !== undefined) description = readDescription(String(told['grpc-message']));
        const more = told['grpc-status-details-bin'];
        if (more !== undefined) details = Buffer.from(String(more), 'base64');
      };
      const end = (error?: GrpcError) => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', aborted);
        if (!error) return;
        stream.close();
        reject(error);
      };
      const aborted = () => end(new GrpcError(GRPC.CANCELLED, 'context canceled'));
      const timer = setTimeout(
        () => end(new GrpcError(GRPC.DEADLINE_EXCEEDED, 'context deadline exceeded')),
        deadlineMs,
      );
      signal?.addEventListener('abort', aborted, { once: true });
      stream.on('response', note);
      stream.on('trailers', note);
      stream.on('data', (part: Buffer) => parts.push(part));
      stream.on('error', error => end(new GrpcError(GRPC.UNAVAILABLE, `${this.#socket}: ${error.message}`)));
      stream.on('close', () => {
        if (status === undefined) return end(new GrpcError(GRPC.UNAVAILABLE, `${this.#socket}: connection closed`));
        if (status !== '0') return end(new GrpcError(Number(status), description, details));
        end();
        try {
          resolve(decode(reply, unframe(parts)) as Reply<T[N]>);
        } catch (error) {
          reject(error);
        }
      });
      stream.end(frame(encode(asked, request)));
    });
  }

  /** Replies one by one, until the other side ends the stream, the connection breaks (throws) or the signal aborts (ends). */
  async *stream<N extends keyof T & string>(
    name: N,
    request: Partial<Request<T[N]>>,
    signal: AbortSignal,
  ): AsyncIterable<Reply<T[N]>> {
    if (signal.aborted) return;
    const { path, request: asked, reply } = this.#calls[name]!;
    const stream = this.#open().request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    let status: string | undefined;
    let description = '';
    const note = (headers: Readonly<Record<string, unknown>>) => {
      if (headers['grpc-status'] !== undefined) status = String(headers['grpc-status']);
      if (headers['grpc-message'] !== undefined) description = readDescription(String(headers['grpc-message']));
    };
    const end = () => stream.destroy();
    signal.addEventListener('abort', end, { once: true });
    stream.on('response', note);
    stream.on('trailers', note);
    stream.end(frame(encode(asked, request)));
    try {
      let left = Buffer.alloc(0);
      for await (const part of stream) {
        left = Buffer.concat([left, part as Buffer]);
        while (left.length >= HEAD_BYTES) {
          const length = left.readUInt32BE(1);
          if (length > MESSAGE_BYTES_MAX) throw new GrpcError(GRPC.RESOURCE_EXHAUSTED, 'message is too large');
          if (left.length < HEAD_BYTES + length) break;
          yield decode(reply, unframe([left.subarray(0, HEAD_BYTES + length)])) as Reply<T[N]>;
          left = left.subarray(HEAD_BYTES + length);
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof GrpcError) throw error;
      throw new GrpcError(GRPC.UNAVAILABLE, `${this.#socket}: ${(error as Error).message}`);
    } finally {
      signal.removeEventListener('abort', end);
      stream.destroy();
    }
    if (signal.aborted || status === '0') return;
    if (status === undefined) throw new GrpcError(GRPC.UNAVAILABLE, `${this.#socket}: connection closed`);
    throw new GrpcError(Number(status), description);
  }

  #open(): ClientHttp2Session {
    if (this.#session && !this.#session.closed && !this.#session.destroyed) return this.#session;
    const session = http2().connect('http://localhost', { createConnection: this.#dial });
    this.#session = session;
    // Streams tell of it.
    session.on('error', () => {});
    session.on('close', () => {
      if (this.#session === session) this.#session = undefined;
    });
    // An idle connection keeps no process alive.
    session.unref();
    return session;
  }
  close(): void {
    this.#session?.destroy();
    this.#session = undefined;
  }
}

/** An iterable of replies answers a call with a stream. */
export type Handlers<T extends CallTable = typeof CALLS> = {
  readonly [N in keyof T]?: (
    request: Request<T[N]>,
  ) => Promise<Partial<Reply<T[N]>>> | Partial<Reply<T[N]>> | AsyncIterable<Partial<Reply<T[N]>>>;
};

export interface GrpcServer {
  /** Of a server on an address. */
  readonly port: number | undefined;
  close(): Promise<void>;
}

/** A unix socket, or an address; port 0 is any free one. */
type Listening = string | { readonly host: string; readonly port: number };

/** Listens on the socket, taking the place of one that a dead process left. Calls without a handler are Unimplemented. */
export function serveGrpc(socket: Listening, handlers: Handlers): Promise<GrpcServer>;
export function serveGrpc<T extends CallTable>(socket: Listening, handlers: Handlers<T>, calls: T): Promise<GrpcServer>;
export async function serveGrpc(
  socket: Listening,
  handlers: Readonly<Record<string, unknown>>,
  calls: CallTable = CALLS,
): Promise<GrpcServer> {
  const byPath = new Map(
    Object.entries(handlers).map(([name, handle]) => [
      calls[name]!.path,
      { call: calls[name]!, handle: handle as Handle },
    ]),
  );
  const server: Http2Server = http2().createServer();
  const sessions = new Set<{ destroy(): void }>();
  server.on('session', session => {
    sessions.add(session);
    session.on('close', () => sessions.delete(session));
    session.on('error', () => {});
  });
  server.on('stream', (stream: ServerHttp2Stream, headers) => {
    const parts: Buffer[] = [];
    let bytes = 0;
    stream.on('error', () => {});
    stream.on('data', (part: Buffer) => {
      bytes += part.length;
      if (bytes > MESSAGE_BYTES_MAX) stream.close();
      else parts.push(part);
    });
    stream.on('end', () => void answer(stream, byPath.get(String(headers[':path'])), parts));
  });
  if (typeof socket === 'string') rmSync(socket, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socket, () => resolve());
  });
  const address = server.address();
  return {
    port: typeof address === 'object' ? address?.port : undefined,
    async close() {
      const closed = new Promise<void>(resolve => server.close(() => resolve()));
      for (const session of sessions) session.destroy();
      await closed;
    },
  };
}

type Handle = (request: object) => Promise<object> | AsyncIterable<object>;

async function answer(
  stream: ServerHttp2Stream,
  found: { readonly call: Call<object, object>; readonly handle: Handle } | undefined,
  parts: readonly Buffer[],
): Promise<void> {
  const head = { ':status': 200, 'content-type': 'application/grpc' };
  let message: Buffer | undefined;
  let trailers: Record<string, string> = { 'grpc-status': '0' };
  try {
    if (!found) throw new GrpcError(GRPC.UNIMPLEMENTED, 'unknown method');
    const result = found.handle(decode(found.call.request, unframe(parts)));
    if (Symbol.asyncIterator in result) return await answerStream(stream, found.call, result);
    message = encode(found.call.reply, await result);
  } catch (error) {
    const code = error instanceof GrpcError ? error.code : GRPC.INTERNAL;
    const description = error instanceof GrpcError ? error.description : (error as Error).message;
    const details = error instanceof GrpcError ? error.details : undefined;
    trailers = {
      'grpc-status': String(code),
      'grpc-message': writeDescription(description),
      ...(details ? { 'grpc-status-details-bin': details.toString('base64') } : {}),
    };
  }
  if (stream.destroyed || stream.closed) return;
  if (!message) {
    stream.respond({ ...head, ...trailers }, { endStream: true });
    return;
  }
  stream.respond(head, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers(trailers));
  stream.end(frame(message));
}

async function answerStream(
  stream: ServerHttp2Stream,
  { reply }: Call<object, object>,
  replies: AsyncIterable<object>,
): Promise<void> {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  let trailers: Record<string, string> = { 'grpc-status': '0' };
  stream.on('wantTrailers', () => stream.sendTrailers(trailers));
  try {
    for await (const one of replies) {
      if (stream.destroyed || stream.closed) return;
      stream.write(frame(encode(reply, one)));
    }
  } catch (error) {
    trailers = { 'grpc-status': String(GRPC.INTERNAL), 'grpc-message': writeDescription((error as Error).message) };
  }
  stream.end();
}
