/** How replies leave: headers that every reply has, warnings, compression of large bodies, Status for failures. */

import { gzip } from 'node:zlib';
import type { Status } from '../base/errors.ts';
import { activeSpan } from '../base/tracing/active.ts';
import type { Trail } from './audit/trail.ts';
import { type Body, type Exchange, type RawExchange, type ReplyHeaders, sizeOf } from './exchange.ts';
import type { Admitted } from './fairness/fairness.ts';
import { indentJson } from './indented-json.ts';
import { encodeBody, type Layout, layoutOfFailure, mediaTypeOf } from './negotiation.ts';
import type { RequestTrace } from './request-trace.ts';
import { warningHeaders } from './warnings.ts';

/** Upstream compresses from this size. */
const GZIP_BYTES_MIN = 128 * 1024;
/** A few hundred pods; some ten milliseconds. */
const INDENTED_BYTES_MAX = 1024 * 1024;
const NO_CACHE = 'no-cache, private';
const NEWLINE = Buffer.from('\n');
/** Whoever reads with these is a person. */
const PEOPLE = /^(?:curl|Wget|Mozilla\/5\.0)/;
/** What Go reads as true. */
const TRUE = /^(?:1|t|T|true|TRUE|True)$/;

export interface ReplyContext {
  readonly exchange: Exchange;
  /** Status that was sent; 0 before. */
  code: number;
  warnings: string[] | undefined;
  /** By the monotonic clock. */
  readonly receivedMs: number;
  /** Every reply tells it; the client's own where it sent one. */
  readonly auditId: string;
  /** Where the request is recorded, if it is. */
  trail: Trail | undefined;
  /** The spans of the request, where it is traced. */
  readonly trace?: RequestTrace | undefined;
  /** The seats that the request runs on, if it needs some. */
  admitted: Admitted | undefined;
  /** Of the body that was sent, whole. */
  bytes: number;
  /** Somebody else answered because it took too long: what comes now is thrown away. */
  expired: boolean;
}

export function warn(context: ReplyContext, message: string): void {
  context.warnings ??= [];
  if (!context.warnings.includes(message)) context.warnings.push(message);
}

function withWarnings(context: ReplyContext, headers: ReplyHeaders): ReplyHeaders {
  if (!context.warnings) return headers;
  const all = warningHeaders(context.warnings);
  if (all.length === 0) return headers;
  return { ...headers, warning: all.length === 1 ? all[0]! : all };
}

export function finish(context: ReplyContext, status: number, headers: ReplyHeaders, body: Body | undefined): void {
  if (context.expired) return;
  context.code = status;
  if (body) context.bytes = Buffer.isBuffer(body) ? body.length : sizeOf(body);
  if (context.admitted) nameFlow(headers, context.admitted);
  headers['cache-control'] ??= NO_CACHE;
  headers['audit-id'] = context.auditId;
  const all = withWarnings(context, headers);
  const { exchange, trail } = context;
  const span = context.trace && activeSpan();
  span?.event('About to start writing response', { size: context.bytes });
  if (trail) trail.time('response-write', () => exchange.reply(status, all, body));
  else exchange.reply(status, all, body);
  span?.event('Write call succeeded', { size: context.bytes });
}

/** The headers of every reply, for one that somebody else writes and may overrule. */
export function markRaw({ auditId }: ReplyContext, { res }: Pick<RawExchange, 'res'>): void {
  res.setHeader('audit-id', auditId);
  res.setHeader('cache-control', NO_CACHE);
}

function nameFlow(headers: ReplyHeaders, { schemaUid, levelUid }: Admitted): void {
  headers['x-kubernetes-pf-flowschema-uid'] = schemaUid;
  headers['x-kubernetes-pf-prioritylevel-uid'] = levelUid;
}

/** An object: JSON is indented for people, and a line otherwise. Compressed when it is large and the client takes gzip. */
export function finishObject(
  context: ReplyContext,
  status: number,
  layout: Layout,
  body: readonly Buffer[],
): void | Promise<void> {
  const headers = { 'content-type': mediaTypeOf(layout) };
  return finishLarge(
    context,
    status,
    headers,
    layout.format === 'json' ? laidOut(context.exchange, layout, body) : body,
  );
}

/** JSON as the client wants to see it. What nobody can read is left as it is: laying it out keeps everybody else waiting. */
export function laidOut(exchange: Exchange, layout: Layout, json: readonly Buffer[]): readonly Buffer[] {
  if (isForPeople(exchange, layout) && sizeOf(json) <= INDENTED_BYTES_MAX)
    return [Buffer.from(indentJson(Buffer.concat(json).toString()))];
  return [...json, NEWLINE];
}

function isForPeople({ url, headers }: Exchange, { isPretty }: Layout): boolean {
  if (isPretty) return true;
  const asked = url.includes('pretty') ? new URLSearchParams(url.slice(url.indexOf('?') + 1)).get('pretty') : undefined;
  return asked ? TRUE.test(asked) : PEOPLE.test(headers['user-agent'] ?? '');
}

async function finishZipped(
  context: ReplyContext,
  status: number,
  headers: ReplyHeaders,
  body: readonly Buffer[],
): Promise<void> {
  const zipped = await new Promise<Buffer>((resolve, reject) =>
    gzip(Buffer.concat(body), { level: 1 }, (error, result) => (error ? reject(error) : resolve(result))),
  );
  finish(context, status, { ...headers, 'content-encoding': 'gzip', vary: 'Accept-Encoding' }, zipped);
}

function finishLarge(
  context: ReplyContext,
  status: number,
  headers: ReplyHeaders,
  body: readonly Buffer[],
): void | Promise<void> {
  const size = sizeOf(body);
  if (size >= GZIP_BYTES_MIN) context.admitted?.sending(size, context.exchange.signal);
  if (size < GZIP_BYTES_MIN || !/\bgzip\b/.test(String(context.exchange.headers['accept-encoding'] ?? '')))
    return finish(context, status, headers, body);
  return finishZipped(context, status, headers, body);
}

export function begin(context: ReplyContext, status: number, headers: ReplyHeaders): void {
  context.code = status;
  if (context.admitted) nameFlow(headers, context.admitted);
  headers['audit-id'] = context.auditId;
  context.trail?.started(status);
  context.exchange.begin(status, withWarnings(context, { 'cache-control': NO_CACHE, ...headers }));
}

export function sendStatus(context: ReplyContext, status: Status): void | Promise<void> {
  if (context.expired) return;
  context.code = status.code;
  const retry = status.details?.retryAfterSeconds;
  context.trail?.refused(status);
  const layout = layoutOfFailure(context.exchange.headers.accept);
  const headers = { 'content-type': mediaTypeOf(layout), ...(retry ? { 'retry-after': String(retry) } : {}) };
  const encoded = encodeBody(status, layout.format);
  if (encoded instanceof Promise) return encoded.then(bytes => finish(context, status.code, headers, bytes));
  const body = layout.format === 'json' ? laidOut(context.exchange, layout, [encoded]) : encoded;
  finish(context, status.code, headers, body);
}

export function text(context: ReplyContext, status: number, body: string, type = 'text/plain; charset=utf-8'): void {
  finish(context, status, { 'content-type': type, 'x-content-type-options': 'nosniff' }, Buffer.from(body));
}
