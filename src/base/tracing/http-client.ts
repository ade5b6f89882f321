/** Spans of requests that this process makes of others over HTTP, as otelhttp's transport makes them. */

import { activeSpan } from './active.ts';
import { SCOPES, type Span, type Tracer } from './span.ts';

export interface ClientRequest {
  readonly method: string;
  readonly host: string;
  readonly port: number;
  readonly url: string;
}

const HTTPS_PORT = 443;

/** Undefined where nothing is traced. Without a tracer only work that is traced already goes on so. */
export function clientSpan(request: () => ClientRequest, tracer?: Tracer): Span | undefined {
  const parent = activeSpan();
  const starting = tracer ?? parent?.tracer;
  if (!starting) return undefined;
  const { method, host, port, url } = request();
  return starting.start(`HTTP ${method}`, parent?.context, {
    kind: 'client',
    scope: SCOPES.http,
    attributes: () => ({
      'http.request.method': method,
      'url.full': url,
      'server.address': host,
      ...(port === HTTPS_PORT ? {} : { 'server.port': port }),
    }),
  });
}

/** What was answered; the span goes on until the answer is read. */
export function answeredBy(span: Span, status: number): void {
  const isFailure = status >= 400 || status < 100;
  span.set({ 'http.response.status_code': status, ...(isFailure ? { 'error.type': String(status) } : {}) });
  if (isFailure) span.fail('');
}

/** Nobody answered. */
export function endUnanswered(span: Span, error: Error): void {
  span.set({ 'error.type': (error as NodeJS.ErrnoException).code ?? error.name });
  span.fail(error.message);
  span.end();
}
