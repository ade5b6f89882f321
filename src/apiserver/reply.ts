/** How replies leave: headers that every reply has, warnings, compression of large bodies, Status for failures. */

import { gzip } from 'node:zlib';
import type { Status } from '../base/errors.ts';
import type { Trail } from './audit/trail.ts';
import { type Body, type Exchange, type ReplyHeaders, sizeOf } from './exchange.ts';
import type { Admitted } from './fairness/fairness.ts';
import { encodeBody, formatOfFailure, mediaTypeOf } from './negotiation.ts';

/** Upstream compresses from this size. */
const GZIP_BYTES_MIN = 128 * 1024;

export interface ReplyContext {
  readonly exchange: Exchange;
  /** Status that was sent; 0 before. */
  code: number;
  warnings: string[] | undefined;
  /** Where the request is recorded, if it is. */
  trail: Trail | undefined;
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
  const quoted = context.warnings.map(
    message => `299 - ${JSON.stringify(message.replace(/[\r\n\t]+/g, ' ')).replace(/[^\x20-\x7e]/g, '?')}`,
  );
  return { ...headers, warning: quoted.length === 1 ? quoted[0]! : quoted };
}

export function finish(context: ReplyContext, status: number, headers: ReplyHeaders, body: Body | undefined): void {
  if (context.expired) return;
  context.code = status;
  if (body) context.bytes = Buffer.isBuffer(body) ? body.length : sizeOf(body);
  if (context.admitted) nameFlow(headers, context.admitted);
  headers['cache-control'] ??= 'no-cache, private';
  if (context.trail) headers['audit-id'] = context.trail.auditId;
  context.exchange.reply(status, withWarnings(context, headers), body);
}

function nameFlow(headers: ReplyHeaders, { schemaUid, levelUid }: Admitted): void {
  headers['x-kubernetes-pf-flowschema-uid'] = schemaUid;
  headers['x-kubernetes-pf-prioritylevel-uid'] = levelUid;
}

/** As `finish`, compressed when it is large and the client takes gzip. */
export async function finishLarge(
  context: ReplyContext,
  status: number,
  headers: ReplyHeaders,
  body: readonly Buffer[],
): Promise<void> {
  const size = sizeOf(body);
  if (size >= GZIP_BYTES_MIN) context.admitted?.sending(size, context.exchange.signal);
  if (size < GZIP_BYTES_MIN || !/\bgzip\b/.test(String(context.exchange.headers['accept-encoding'] ?? '')))
    return finish(context, status, headers, body);
  const zipped = await new Promise<Buffer>((resolve, reject) =>
    gzip(Buffer.concat(body), { level: 1 }, (error, result) => (error ? reject(error) : resolve(result))),
  );
  finish(context, status, { ...headers, 'content-encoding': 'gzip', vary: 'Accept-Encoding' }, zipped);
}

export function begin(context: ReplyContext, status: number, headers: ReplyHeaders): void {
  context.code = status;
  if (context.admitted) nameFlow(headers, context.admitted);
  if (context.trail) {
    headers['audit-id'] = context.trail.auditId;
    context.trail.started(status);
  }
  context.exchange.begin(status, withWarnings(context, { 'cache-control': 'no-cache, private', ...headers }));
}

export function sendStatus(context: ReplyContext, status: Status): void | Promise<void> {
  if (context.expired) return;
  context.code = status.code;
  const retry = status.details?.retryAfterSeconds;
  context.trail?.refused(status);
  const format = formatOfFailure(context.exchange.headers.accept);
  const headers = { 'content-type': mediaTypeOf({ format }), ...(retry ? { 'retry-after': String(retry) } : {}) };
  const encoded = encodeBody(status, format);
  if (encoded instanceof Promise) return encoded.then(bytes => finish(context, status.code, headers, bytes));
  finish(context, status.code, headers, encoded);
}

export function text(context: ReplyContext, status: number, body: string, type = 'text/plain; charset=utf-8'): void {
  finish(context, status, { 'content-type': type, 'x-content-type-options': 'nosniff' }, Buffer.from(body));
}
