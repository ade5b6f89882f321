/**
 * One HTTP request from its first byte to its reply: who is it, may they, what do they want, in which form. Every failure
 * becomes a Status. It knows no resource: those are the dispatcher's, and everything else is a document of its own.
 */

import { apiGroupOrder } from '../api/resources.ts';
import type { Clock } from '../base/clock.ts';
import { BUILD_COMMIT, KUBERNETES_VERSION } from '../base/cluster-defaults.ts';
import { ApiError, failure, internalError, unauthorized } from '../base/errors.ts';
import { healthMetrics } from '../base/health-metrics.ts';
import type { Logger } from '../base/log.ts';
import { metrics } from '../base/metrics.ts';
import type { Random } from '../base/random.ts';
import type { Tracer } from '../base/tracing/span.ts';
import type { Aggregator } from './aggregation/aggregator.ts';
import type { Auditor } from './audit/auditor.ts';
import type { Trail } from './audit/trail.ts';
import type { ServiceAccountTokens } from './authn/service-account-tokens.ts';
import type { Note } from './authn/token-authenticator.ts';
import type { Discovery } from './discovery.ts';
import type { Exchange } from './exchange.ts';
import type { Admitted, Fairness } from './fairness/fairness.ts';
import { TooManyRequests } from './fairness/fairness.ts';
import { estimate, type Stored } from './fairness/work-estimate.ts';
import { isKnown } from './header-values.ts';
import type { Health } from './health.ts';
import { impersonate, wantedUser } from './impersonation.ts';
import { checkRoute, encodeBody, mediaTypeOf, negotiate } from './negotiation.ts';
import { type OpenapiService, plainBytes, V2_PROTOBUF, V2_PROTOBUF_TYPE } from './openapi-service.ts';
import { finish, laidOut, type ReplyContext, sendStatus, text, warn } from './reply.ts';
import type { Authenticator, Credentials, RequestAttributes, UserInfo } from './request.ts';
import { allowedMsOf, type Deadline, RequestDeadlines } from './request-deadlines.ts';
import { authentications, countRequest, countTermination, countUser } from './request-metrics.ts';
import { type PathAttributes, parsePath, withUser } from './request-path.ts';
import { RequestTrace } from './request-trace.ts';
import type { ResourceHandler } from './resource-handler.ts';
import { notAllowed, unknownResource } from './routes.ts';
import { ZPages } from './z-pages.ts';

const VERSION = {
  major: KUBERNETES_VERSION.major,
  minor: KUBERNETES_VERSION.minor,
  emulationMajor: KUBERNETES_VERSION.major,
  emulationMinor: KUBERNETES_VERSION.minor,
  minCompatibilityMajor: KUBERNETES_VERSION.major,
  minCompatibilityMinor: String(Number(KUBERNETES_VERSION.minor) - 1),
  gitVersion: KUBERNETES_VERSION.git,
  gitCommit: BUILD_COMMIT,
  gitTreeState: 'clean',
  buildDate: '1970-01-01T00:00:00Z',
  goVersion: 'none',
  compiler: 'node',
  platform: `linux/${process.arch === 'x64' ? 'amd64' : process.arch}`,
};

const ROUTED_DOCUMENTS = new Set(['/version', '/api', '/api/v1']);
const OPENID_DOCUMENTS = new Set(['/.well-known/openid-configuration', '/openid/v1/jwks']);

export interface HttpHandlerOptions {
  readonly authenticators: readonly Authenticator[];
  readonly authorize: (attributes: RequestAttributes, trail?: Trail) => void | Promise<void>;
  /** Without one nothing is recorded. */
  readonly auditor?: Auditor | undefined;
  /** Without one nothing is traced. */
  readonly tracer?: Tracer | undefined;
  /** Without one every request runs at once. */
  readonly fairness?: Fairness | undefined;
  /** How many objects a resource has. */
  readonly stored: (of: RequestAttributes) => Stored;
  /** Whether there is a resource, and subresource, of these names. */
  readonly knows: (attributes: PathAttributes) => boolean;
  readonly resources: ResourceHandler;
  readonly discovery: Discovery;
  /** Knows the extension servers that requests are forwarded to. */
  readonly aggregator?: Aggregator | undefined;
  readonly openapi: OpenapiService;
  readonly health: Health;
  /** Documents by which others verify service account tokens. */
  readonly openid: ServiceAccountTokens['discovery'] | undefined;
  /** What `/flagz` shows. */
  readonly flags: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** What authentication looks at. */
export type Asking = Pick<Exchange, 'url' | 'headers' | 'remoteAddress'>;

/** A request that nobody has answered for yet; its trail begins once its user is known. */
export interface Arrival {
  readonly certificate: Credentials['certificate'];
  readonly routed: Routed;
  readonly context: Pick<ReplyContext, 'trail' | 'trace' | 'auditId' | 'receivedMs'>;
  /** Of the credentials, for the audit log. */
  notes?: Note[];
  /** Tells whoever asks something, where the reply has a place for it. */
  readonly warn?: (message: string) => void;
}

/** A request split into what routing needs. */
export interface Routed {
  readonly path: string;
  readonly query: URLSearchParams | undefined;
  readonly attributes: PathAttributes;
}

export class HttpHandler {
  readonly #options: HttpHandlerOptions;
  readonly #deadlines: RequestDeadlines;
  readonly #zPages: ZPages;

  constructor(options: HttpHandlerOptions) {
    this.#options = options;
    this.#deadlines = new RequestDeadlines(options.clock);
    this.#zPages = new ZPages({
      component: 'kube-apiserver',
      clock: options.clock,
      flags: options.flags,
      paths: () => this.#paths(),
    });
  }

  /** Answers the exchange; never rejects. */
  handle(exchange: Exchange, certificate: Credentials['certificate']): Promise<void> {
    const { tracer } = this.#options;
    if (!tracer) return this.#handle(exchange, certificate, undefined);
    const trace = new RequestTrace(tracer, exchange, this.auditIdOf(exchange.headers));
    return trace.run(() => this.#handle(exchange, certificate, trace));
  }
  async #handle(
    exchange: Exchange,
    certificate: Credentials['certificate'],
    trace: RequestTrace | undefined,
  ): Promise<void> {
    const startMs = this.#options.clock.monotonic();
    const routed = route(exchange.method, exchange.url);
    const context: ReplyContext = {
      exchange,
      code: 0,
      warnings: undefined,
      auditId: trace?.auditId ?? this.auditIdOf(exchange.headers),
      trail: undefined,
      trace,
      receivedMs: startMs,
      admitted: undefined,
      expired: false,
      bytes: 0,
    };
    let deadline: Deadline | undefined;
    const isLong = runsLong(routed.attributes);
    const counting = {
      method: exchange.method,
      attributes: routed.attributes,
      isKnown: routed.attributes.isResource && this.#options.knows(routed.attributes),
      query: routed.query,
      contentType: exchange.headers['content-type'],
      isLong,
    };
    const counted = countRequest(counting);
    let waitedMs = 0;
    try {
      const warned = (message: string) => warn(context, message);
      const known = this.authenticate(exchange, { certificate, routed, context, warn: warned });
      const user = known instanceof Promise ? await known : known;
      const { attributes } = routed;
      const request = withUser(attributes, user);
      trace?.enter('priorityandfairness');
      const admitting = isLong && attributes.verb !== 'watch' ? undefined : this.#admit(exchange, request, routed);
      if (admitting instanceof Promise) {
        const fromMs = this.#options.clock.monotonic();
        context.admitted = await admitting;
        waitedMs = this.#options.clock.monotonic() - fromMs;
        context.trail?.spent('apf-queue-wait', waitedMs);
      } else if (admitting) context.admitted = admitting;
      const allowedMs = isLong ? 0 : allowedMsOf(routed.query);
      const { trail } = context;
      trace?.enter('authorization');
      const waiting = trail
        ? trail.time('authorization', () => this.#options.authorize(request, trail))
        : this.#options.authorize(request);
      if (waiting) await waiting;
      const extension = this.#options.aggregator?.find(routed.path);
      const answering = extension
        ? extension.forward(context, user)
        : attributes.isResource
          ? this.#options.resources.handle(context, request, routed)
          : this.#document(context, routed);
      if (answering) {
        if (!isLong)
          deadline = this.#deadlines.add(startMs, allowedMs, () => {
            countTermination(counting, 504);
            this.#expire(context);
          });
        await answering;
      }
    } catch (error) {
      if (error instanceof TooManyRequests) countTermination(counting, 429);
      const telling = this.fail(context, error);
      if (telling) await telling;
    } finally {
      if (deadline) this.#deadlines.remove(deadline);
      context.admitted?.end();
      context.trail?.complete(context.code);
      trace?.end(context.code, context.bytes);
      const durationMs = this.#options.clock.monotonic() - startMs;
      counted({ code: context.code, durationMs, waitedMs, bytes: context.bytes });
    }
  }

  /** Upstream's order: who asks is known, what they may do is not yet. */
  #admit(exchange: Exchange, request: RequestAttributes, routed: Routed): Admitted | Promise<Admitted> | undefined {
    const { fairness, stored } = this.#options;
    if (!fairness) return undefined;
    const work = estimate(request, {
      query: routed.query,
      bodyBytes: Number(exchange.headers['content-length'] ?? 0),
      stored: () => stored(request),
    });
    return fairness.admit(request, work, () => exchange.signal);
  }
  #expire(context: ReplyContext): void {
    if (context.code !== 0 || context.exchange.started) return;
    void sendStatus(
      context,
      failure(504, 'Timeout', 'Timeout: request did not complete within the allotted timeout').status,
    );
    context.expired = true;
  }

  /** What the client calls its request, or a name of our own. */
  auditIdOf(headers: Exchange['headers']): string {
    const given = headers['audit-id'];
    return typeof given === 'string' && given !== '' ? given : this.#options.random.uuid();
  }

  /** The user that the request acts as. Throws Unauthorized. Answers at once where the authenticators do. */
  authenticate(exchange: Asking, request: Arrival): UserInfo | Promise<UserInfo> {
    const { certificate, routed } = request;
    const { headers } = exchange;
    const { path } = routed;
    let credentials: Credentials = certificate ? { headers, certificate, path } : { headers, path };
    if (request.warn) credentials = { ...credentials, warn: request.warn };
    if (this.#options.auditor) credentials = { ...credentials, note: note => void (request.notes ??= []).push(note) };
    let found: UserInfo | Promise<UserInfo>;
    try {
      found = this.identify(credentials);
    } catch (error) {
      throw this.#unknown(error, exchange, request);
    }
    if (found instanceof Promise)
      return found.then(
        user => this.#acting(user, exchange, request),
        error => {
          throw this.#unknown(error, exchange, request);
        },
      );
    return this.#acting(found, exchange, request);
  }
  #unknown(error: unknown, exchange: Asking, request: Arrival): unknown {
    authentications.add(1, 'failure');
    this.#record(undefined, exchange, request);
    return error;
  }
  #record(
    user: UserInfo | undefined,
    { url: uri, headers, remoteAddress }: Asking,
    { context, routed }: Arrival,
  ): void {
    const { auditor } = this.#options;
    if (!auditor) return;
    const { auditId, receivedMs } = context;
    const { attributes } = routed;
    context.trail = auditor.begin({ receivedMs, auditId, attributes, user, uri, headers, remoteAddress });
    context.trail?.spent('authentication', this.#options.clock.monotonic() - receivedMs);
    if (user) context.trail?.received();
  }
  /** Who shows the credentials. Throws Unauthorized. */
  identify(credentials: Credentials): UserInfo | Promise<UserInfo> {
    return this.#identify(credentials, 0);
  }
  #identify(credentials: Credentials, from: number): UserInfo | Promise<UserInfo> {
    const { authenticators } = this.#options;
    for (let at = from; at < authenticators.length; at++) {
      const found = authenticators[at]!.authenticate(credentials);
      if (found instanceof Promise) return found.then(user => user ?? this.#identify(credentials, at + 1));
      if (found) return found;
    }
    throw unauthorized();
  }
  #acting(user: UserInfo, exchange: Asking, request: Arrival): UserInfo | Promise<UserInfo> {
    const { trace } = request.context;
    trace?.authenticated(user, request.routed.attributes);
    this.#record(user, exchange, request);
    for (const [key, value] of request.notes ?? []) request.context.trail?.annotate(key, value);
    countUser(user.name);
    trace?.enter('impersonation');
    const wanted = wantedUser(exchange.headers);
    if (!wanted) return user;
    const asked = withUser(request.routed.attributes, user);
    const impersonating = () => impersonate(wanted, asked, this.#options.authorize);
    const { trail } = request.context;
    return (trail ? trail.time('impersonation', impersonating) : impersonating()).then(
      ({ user: other, constraint }) => {
        trail?.impersonates(other, constraint);
        return other;
      },
    );
  }

  fail(context: ReplyContext, error: unknown): void | Promise<void> {
    let known: ApiError;
    if (error instanceof ApiError) known = error;
    else {
      this.#options.log.error('request failed', { path: context.exchange.url, error });
      known = internalError(error instanceof Error ? error.message : String(error));
    }
    if (context.exchange.started) {
      context.exchange.end();
      return;
    }
    if (error instanceof TooManyRequests)
      return finish(
        context,
        429,
        {
          'content-type': 'text/plain; charset=utf-8',
          'x-content-type-options': 'nosniff',
          'retry-after': String(known.status.details?.retryAfterSeconds),
        },
        Buffer.from(`${known.message}\n`),
      );
    return sendStatus(context, known.status);
  }

  async #document(context: ReplyContext, { path, query }: Routed): Promise<void> {
    const { exchange } = context;
    const healthy = this.#options.health.answer(path, query);
    if (healthy) return text(context, healthy.status, healthy.text);
    const clean = path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
    if (exchange.method !== 'GET' && this.#isRouted(clean)) throw notAllowed();
    switch (clean) {
      case '/version':
        checkRoute(exchange.headers.accept, ['application/json']);
        return indented(context, VERSION);
      case '/debug/api_priority_and_fairness/dump_priority_levels':
        if (this.#options.fairness) return text(context, 200, this.#options.fairness.dumpLevels());
        break;
      case '/metrics':
        return text(context, 200, metrics.render(), 'text/plain; version=0.0.4; charset=utf-8');
      case '/metrics/slis':
        return text(context, 200, healthMetrics.render(), 'text/plain; version=0.0.4; charset=utf-8');
      case '/.well-known/openid-configuration':
      case '/openid/v1/jwks': {
        const documents = this.#options.openid?.();
        if (!documents) break;
        const isKeys = clean === '/openid/v1/jwks';
        const body = Buffer.from(JSON.stringify(isKeys ? documents.keys : documents.configuration));
        return finish(
          context,
          200,
          {
            'content-type': isKeys ? 'application/jwk-set+json' : 'application/json',
            'cache-control': `public, max-age=${documents.ageSecondsMax}`,
          },
          body,
        );
      }
      case '/':
      case '/index.html':
        return indented(context, { paths: this.#paths() });
    }
    const page = this.#zPages.find(clean, exchange.headers.accept);
    if (page) return finish(context, 200, page.headers, await page.bytes);
    if (clean.startsWith('/openapi/')) return this.#openapi(context, clean, query);
    if (clean.startsWith('/api')) {
      // Of groups as such, upstream's router knows nothing.
      const wanted = negotiate(exchange.headers.accept, 'builtin', { isRouted: !/^\/apis(\/[^/]+)?$/.test(clean) });
      const aggregated = wanted.as === 'APIGroupDiscoveryList' && (clean === '/api' || clean === '/apis');
      const document = this.#options.discovery.find(clean, aggregated);
      if (document) {
        const headers: Record<string, string> = { vary: 'Accept', etag: document.etag };
        if (exchange.headers['if-none-match'] === document.etag) return finish(context, 304, headers, undefined);
        const as = aggregated ? ';g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList' : '';
        headers['content-type'] = mediaTypeOf(wanted) + as;
        if (wanted.format !== 'json')
          return finish(context, 200, headers, await encodeBody(document.value, wanted.format));
        return finish(context, 200, headers, laidOut(exchange, wanted, [document.bytes]));
      }
    }
    if (clean.startsWith('/api/')) throw unknownResource();
    text(context, 404, '404 page not found\n');
  }

  // Whether upstream's router of resources answers: the handlers of all other documents look at no method.
  #isRouted(path: string): boolean {
    if (ROUTED_DOCUMENTS.has(path)) return true;
    if (OPENID_DOCUMENTS.has(path)) return this.#options.openid !== undefined;
    const group = /^\/apis\/([^/]+)\/[^/]+$/.exec(path)?.[1];
    return (
      apiGroupOrder.some(known => known.group === group) && this.#options.discovery.find(path, false) !== undefined
    );
  }

  async #openapi(context: ReplyContext, path: string, query: URLSearchParams | undefined): Promise<void> {
    const { headers: asked } = context.exchange;
    const extensions = this.#options.aggregator?.openapi();
    if (extensions) this.#options.openapi.merge(await extensions);
    // kubectl asks for v2 only as protobuf.
    const isProtobuf = path === '/openapi/v2' && /proto-openapi\.spec\.v2[.@]v1\.0\+protobuf/.test(asked.accept ?? '');
    const served = await this.#options.openapi.find(isProtobuf ? V2_PROTOBUF : path);
    if (!served) return void text(context, 404, '404 page not found\n');
    const headers: Record<string, string> = {
      vary: 'Accept-Encoding, Accept',
      etag: served.etag,
      'content-type': isProtobuf ? V2_PROTOBUF_TYPE : 'application/json',
    };
    const hash = query?.get('hash');
    if (hash) {
      if (`"${hash}"` !== served.etag)
        return void finish(context, 301, { location: `${path}?hash=${served.etag.slice(1, -1)}` }, Buffer.alloc(0));
      headers['cache-control'] = 'public, immutable';
      headers['expires'] = new Date(this.#options.clock.now() + IMMUTABLE_MS).toUTCString();
    }
    if (isKnown(served.etag, asked)) return void finish(context, 304, headers, undefined);
    if (/\bgzip\b/.test(String(asked['accept-encoding'] ?? '')))
      return void finish(context, 200, { ...headers, 'content-encoding': 'gzip' }, served.gzipped);
    finish(context, 200, headers, await plainBytes(served));
  }

  #paths(): string[] {
    const others = [
      '/flagz',
      '/healthz',
      '/livez',
      '/metrics',
      '/metrics/slis',
      '/openapi/v2',
      '/openapi/v3',
      '/readyz',
      '/statusz',
      '/version',
    ];
    return [...this.#options.discovery.paths(), ...others].sort();
  }
}

/** Documents of no kind are JSON whatever is accepted, and for people. */
function indented(context: ReplyContext, value: unknown): void {
  finish(context, 200, { 'content-type': 'application/json' }, Buffer.from(JSON.stringify(value, null, 2)));
}

/** Splits a URL; the query is parsed only when there is one. */
export function route(method: string, url: string): Routed {
  const mark = url.indexOf('?');
  const path = mark < 0 ? url : url.slice(0, mark);
  const query = mark < 0 ? undefined : new URLSearchParams(url.slice(mark + 1));
  return { path, query, attributes: parsePath(method, path, query ?? NO_QUERY) };
}

/** A year: what is asked for by its hash never changes. */
const IMMUTABLE_MS = 365 * 24 * 3600 * 1000;
const NO_QUERY = new URLSearchParams();

const LONG_SUBRESOURCES = new Set(['attach', 'exec', 'log', 'portforward', 'proxy']);

/** Requests that end when somebody wants them to: nothing bounds their time. */
function runsLong({ verb, subresource }: PathAttributes): boolean {
  return verb === 'watch' || verb === 'proxy' || LONG_SUBRESOURCES.has(subresource);
}
