/**
 * The values of headers that may come several times. Joined by commas, as Node hands them over, they cannot be told apart from one
 * value with commas in it, such as a group `cn=admins,dc=example`: what says who somebody is, is read from here.
 */

import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';

const REPEATED = Symbol('values of repeated headers');
type Repeated = Readonly<Record<string, readonly string[] | undefined>>;

/** The headers with the values of those that came more than once. */
export function withRepeated<Headers extends object>(headers: Headers, repeated: Repeated): Headers {
  return Object.assign(headers, { [REPEATED]: repeated });
}

/** The headers of a request by HTTP/1.1, with their values apart. */
export function headersOf(request: IncomingMessage): IncomingHttpHeaders {
  const { headers } = request;
  return REPEATED in headers ? headers : withRepeated(headers, request.headersDistinct as Repeated);
}

/** Each value of the header, in order; `name` in small letters. */
export function headerValues(headers: IncomingHttpHeaders, name: string): readonly string[] {
  const repeated = (headers as { [REPEATED]?: Repeated })[REPEATED];
  const values = repeated && Object.hasOwn(repeated, name) ? repeated[name] : undefined;
  if (values) return values;
  const value = Object.hasOwn(headers, name) ? headers[name] : undefined;
  return value === undefined ? [] : Array.isArray(value) ? value : [value];
}

/** Whether `If-None-Match` names what the client would get: one of a list, weakly compared, or `*` (RFC 9110, 13.1.2). */
export function isKnown(etag: string, { 'if-none-match': known }: IncomingHttpHeaders): boolean {
  return known?.trim() === '*' || [...(known ?? '').matchAll(/"[^"]*"/g)].some(([one]) => one === etag);
}
