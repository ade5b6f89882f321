/**
 * A Transport over HTTPS to any Kubernetes API server, on one HTTP/2 connection that is re-made when it breaks.
 * Requests that never reached the server fail with ServiceUnavailable; nothing is retried here, callers own their retries.
 */

import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2';
import type { KubeList, KubeObject, WatchEvent } from '../api/meta.ts';
import { systemClock } from '../base/clock.ts';
import { ApiError, messageOf, type Status, type StatusReason, serviceUnavailable } from '../base/errors.ts';
import { http2 } from '../base/lazy-http2.ts';
import { metrics } from '../base/metrics.ts';
import { answeredBy, clientSpan, endUnanswered } from '../base/tracing/http-client.ts';
import { traceHeaders } from '../base/tracing/propagation.ts';
import type { Span, Tracer } from '../base/tracing/span.ts';
import {
  type DeleteOptions,
  type ListOptions,
  type PatchType,
  pathOf,
  type Target,
  type Transport,
  type WatchOptions,
  type WriteOptions,
} from './transport.ts';

export interface HttpsTransportOptions {
  /** `https://host:port`. */
  readonly server: string;
  readonly ca: string | Buffer;
  /** Client certificate and key, or a bearer token. */
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
  readonly token?: () => string;
  /** The name that the server's certificate must have, where it is not the URL's. */
  readonly servername?: string;
  /** Takes any certificate, as `insecure-skip-tls-verify` asks. */
  readonly insecure?: boolean;
  readonly userAgent?: string;
  /** Longest wait for the head of a reply; watches are exempt after their head. */
  readonly timeoutMs?: number;
  /** Each request is a span of it, which the server is told of. */
  readonly tracer?: Tracer;
}

const DEFAULT_TIMEOUT_MS = 30_000;
// A connection to a dead peer is noticed by an unanswered ping, as client-go's ReadIdleTimeout does.
const PING_EVERY_MS = 15_000;
const PING_TIMEOUT_MS = 10_000;

const requests = metrics.counter(
  'rest_client_requests_total',
  'Number of HTTP requests, partitioned by status code, method, and host.',
  ['code', 'method', 'host'],
);
const requestDurations = metrics.histogram(
  'rest_client_request_duration_seconds',
  'Request latency in seconds. Broken down by verb, and host.',
  [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60],
  ['verb', 'host'],
);
/** Upstream's for a request that nobody answered. */
const NO_ANSWER = '<error>';

export class HttpsTransport implements Transport {
  readonly #options: HttpsTransportOptions;
  readonly #host: string;
  #identity: Pick<HttpsTransportOptions, 'cert' | 'key'>;
  #session: ClientHttp2Session | undefined;
  /** The present one, and those before it that still have requests under way. */
  readonly #sessions = new Set<ClientHttp2Session>();

  constructor(options: HttpsTransportOptions) {
    this.#options = options;
    this.#host = new URL(options.server).host;
    this.#identity = options;
  }

  /** Further requests are made by another certificate; those under way, watches among them, go on by the one before. */
  renew(identity: { readonly cert: string; readonly key: string }): void {
    this.#identity = identity;
    this.#session?.close();
    this.#session = undefined;
  }

  get(target: Target): Promise<KubeObject> {
    return this.#call('GET', pathOf(target)) as Promise<KubeObject>;
  }
  async list(target: Target, options: ListOptions = {}): Promise<KubeList> {
    const list = (await this.#call('GET', pathOf(target) + query(options))) as KubeList;
    // Items of a list carry no kind of their own on the wire; every consumer here wants them whole.
    const kind = list.kind.replace(/List$/, '');
    for (const item of list.items) {
      item.apiVersion ??= list.apiVersion;
      item.kind ??= kind;
    }
    return list;
  }
  create(target: Target, object: KubeObject, options?: WriteOptions): Promise<KubeObject> {
    return this.#call('POST', pathOf(target) + query(writeQuery(options)), object) as Promise<KubeObject>;
  }
  update(target: Target, object: KubeObject, options?: WriteOptions): Promise<KubeObject> {
    return this.#call('PUT', pathOf(target) + query(writeQuery(options)), object) as Promise<KubeObject>;
  }
  patch(target: Target, patch: unknown, type: PatchType, options?: WriteOptions): Promise<KubeObject> {
    return this.#call(
      'PATCH',
      pathOf(target) + query({ ...writeQuery(options), ...(options?.force ? { force: true } : {}) }),
      patch,
      type,
    ) as Promise<KubeObject>;
  }
  delete(target: Target, options?: DeleteOptions): Promise<KubeObject | Status> {
    return this.#call('DELETE', pathOf(target), deleteBody(options)) as Promise<KubeObject | Status>;
  }
  async deleteCollection(target: Target, options: DeleteOptions & ListOptions = {}): Promise<void> {
    const { labelSelector, fieldSelector } = options;
    await this.#call('DELETE', pathOf(target) + query({ labelSelector, fieldSelector }), deleteBody(options));
  }

  async *watch(target: Target, options: WatchOptions, signal: AbortSignal): AsyncIterable<readonly WatchEvent[]> {
    const stream = this.#open('GET', pathOf(target) + query({ ...options, watch: true }));
    const abort = () => stream.close(http2().constants.NGHTTP2_CANCEL);
    signal.addEventListener('abort', abort, { once: true });
    try {
      const status = await this.#head(stream, 'GET');
      if (status >= 300) throw errorFrom(status, await textOf(stream));
      for await (const lines of linesOf(stream)) yield lines.map(line => JSON.parse(line) as WatchEvent);
    } catch (error) {
      if (signal.aborted) return;
      throw error instanceof ApiError ? error : serviceUnavailable(messageOf(error));
    } finally {
      signal.removeEventListener('abort', abort);
      abort();
    }
  }

  /** Any path, for what has no typed form (`/version`, proxies). Rejects with ApiError on a status of 300 or more. */
  async raw(method: string, rawPath: string, body?: unknown): Promise<string> {
    const stream = this.#open(method, rawPath, body === undefined ? undefined : 'application/json', body);
    try {
      const status = await this.#head(stream, method);
      const text = await textOf(stream);
      if (status >= 300) throw errorFrom(status, text);
      return text;
    } catch (error) {
      throw error instanceof ApiError ? error : serviceUnavailable(messageOf(error));
    }
  }

  close(): void {
    for (const session of this.#sessions) session.destroy();
    this.#session = undefined;
  }

  async #call(method: string, rawPath: string, body?: unknown, contentType = 'application/json'): Promise<unknown> {
    const stream = this.#open(method, rawPath, body === undefined ? undefined : contentType, body);
    try {
      const status = await this.#head(stream, method);
      const text = await textOf(stream);
      if (status >= 300) throw errorFrom(status, text);
      return JSON.parse(text);
    } catch (error) {
      stream.close(http2().constants.NGHTTP2_CANCEL);
      throw error instanceof ApiError ? error : serviceUnavailable(messageOf(error));
    }
  }

  /** As client-go counts: until the head of the answer is there. */
  async #head(stream: ClientHttp2Stream, method: string): Promise<number> {
    const startMs = systemClock.monotonic();
    let code = NO_ANSWER;
    try {
      const status = await headOf(stream, this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
      code = String(status);
      return status;
    } finally {
      requests.add(1, code, method, this.#host);
      requestDurations.observe((systemClock.monotonic() - startMs) / 1000, method, this.#host);
    }
  }

  #open(method: string, rawPath: string, contentType?: string, body?: unknown): ClientHttp2Stream {
    const session = this.#connection();
    const { token, userAgent = 'coxswain', tracer } = this.#options;
    const span = tracer && this.#span(tracer, method, rawPath);
    const stream = session.request(
      {
        ':method': method,
        ':path': rawPath,
        accept: 'application/json',
        'user-agent': userAgent,
        ...(contentType ? { 'content-type': contentType } : {}),
        ...(token ? { authorization: `Bearer ${token()}` } : {}),
        ...(span ? traceHeaders(span.context) : {}),
      },
      { endStream: body === undefined },
    );
    // Errors surface through the 'response' wait or the body iteration; without a listener they would be uncaught.
    stream.on('error', () => {});
    if (span) follow(span, stream);
    if (body !== undefined) stream.end(typeof body === 'string' ? body : JSON.stringify(body));
    return stream;
  }

  #span(tracer: Tracer, method: string, rawPath: string): Span | undefined {
    const { hostname: host, port } = new URL(this.#options.server);
    const request = { method, host, port: Number(port || 443), url: `${this.#options.server}${rawPath}` };
    return clientSpan(() => request, tracer);
  }

  #connection(): ClientHttp2Session {
    if (this.#session && !this.#session.closed && !this.#session.destroyed) return this.#session;
    const { server, ca, servername, insecure } = this.#options;
    const { cert, key } = this.#identity;
    const session = http2().connect(server, {
      ca,
      ...(cert ? { cert } : {}),
      ...(key ? { key } : {}),
      ...(servername ? { servername } : {}),
      ...(insecure ? { rejectUnauthorized: false } : {}),
      settings: { initialWindowSize: 4 * 1024 * 1024, enablePush: false },
    });
    session.on('connect', () => session.setLocalWindowSize(16 * 1024 * 1024));
    const forget = () => {
      if (this.#session === session) this.#session = undefined;
    };
    session.on('error', forget);
    session.on('goaway', forget);
    const pinger = setInterval(() => ping(session), PING_EVERY_MS).unref();
    session.on('close', () => {
      forget();
      clearInterval(pinger);
      this.#sessions.delete(session);
    });
    this.#sessions.add(session);
    this.#session = session;
    return session;
  }
}

/** The span lasts until the answer has been read. */
function follow(span: Span, stream: ClientHttp2Stream): void {
  stream.once('response', headers => answeredBy(span, Number(headers[':status'])));
  stream.once('error', error => endUnanswered(span, error));
  stream.once('close', () => span.end());
}

function ping(session: ClientHttp2Session): void {
  if (session.destroyed || session.closed || session.connecting) return;
  const deadline = setTimeout(() => session.destroy(new Error('peer does not answer pings')), PING_TIMEOUT_MS).unref();
  session.ping(() => clearTimeout(deadline));
}

function query(options: object): string {
  const parameters = new URLSearchParams();
  for (const [key, value] of Object.entries(options))
    if (value !== undefined && value !== '') parameters.set(key, String(value));
  const text = parameters.toString();
  return text && `?${text}`;
}

function writeQuery(options: WriteOptions = {}): Record<string, unknown> {
  return { ...(options.dryRun ? { dryRun: 'All' } : {}), fieldManager: options.fieldManager };
}

function deleteBody(options: DeleteOptions = {}): unknown {
  const { gracePeriodSeconds, propagationPolicy, preconditions } = options;
  return { apiVersion: 'v1', kind: 'DeleteOptions', gracePeriodSeconds, propagationPolicy, preconditions };
}

function headOf(stream: ClientHttp2Stream, timeoutMs: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const deadline = setTimeout(() => {
      stream.close(http2().constants.NGHTTP2_CANCEL);
      reject(new Error(`no reply within ${timeoutMs} ms`));
    }, timeoutMs);
    const settle = (act: () => void) => {
      clearTimeout(deadline);
      act();
    };
    stream.once('response', headers => settle(() => resolve(Number(headers[':status']))));
    stream.once('error', error => settle(() => reject(error)));
    stream.once('close', () => settle(() => reject(new Error('connection closed before the reply'))));
  });
}

async function textOf(stream: ClientHttp2Stream): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

/** Whole lines, those together that a chunk ended. */
async function* linesOf(stream: ClientHttp2Stream): AsyncIterable<readonly string[]> {
  let rest: Buffer[] = [];
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    const lines: string[] = [];
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      rest.push(chunk.subarray(start, end));
      const line = rest.length === 1 ? rest[0]! : Buffer.concat(rest);
      rest = [];
      start = end + 1;
      if (line.length > 0) lines.push(line.toString('utf8'));
    }
    if (start < chunk.length) rest.push(chunk.subarray(start));
    if (lines.length > 0) yield lines;
  }
}

/** As client-go understands an answer that is no Status: a stock server says `404 page not found` of a group it does not serve. */
const REASONS: Readonly<Record<number, string>> = {
  400: 'BadRequest',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'NotFound',
  405: 'MethodNotAllowed',
  410: 'Gone',
  429: 'TooManyRequests',
  503: 'ServiceUnavailable',
  504: 'Timeout',
};

function errorFrom(code: number, text: string): ApiError {
  try {
    const status = JSON.parse(text) as Status;
    if (status.kind === 'Status') return new ApiError(status);
  } catch {
    // Not a Status: a proxy or a broken server answered. Its text goes into the message.
  }
  return new ApiError({
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    code,
    message: text.slice(0, 500).trim() || `HTTP status ${code}`,
    ...(REASONS[code] ? { reason: REASONS[code] as StatusReason } : {}),
  });
}
