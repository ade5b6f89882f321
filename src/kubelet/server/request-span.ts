/**
 * The span of a request to the kubelet's port that was let in, named by upstream's route. Whoever asks may not say what is traced: a new trace
 * begins with each request, which names theirs.
 */

import type { IncomingMessage } from 'node:http';
import { remoteParent } from '../../base/tracing/propagation.ts';
import type { Span, Tracer } from '../../base/tracing/span.ts';

const SCOPE = 'go.opentelemetry.io/contrib/instrumentation/github.com/emicklei/go-restful/otelrestful';

const POD = '/{podNamespace}/{podID}';
/** What follows the first segment of a path; a uid may stand before the last part of those of sessions. */
const ROUTES: Readonly<Record<string, readonly string[]>> = {
  attach: [POD, '/{containerName}'],
  containerLogs: [POD, '/{containerName}'],
  exec: [POD, '/{containerName}'],
  logs: ['/{logpath:*}'],
  portForward: [POD],
};
const SESSION = /^\/(attach|exec|portForward)\//;

/** The same for all that is asked in one way. */
function routeOf({ pathname }: URL): string {
  const [first = '', ...rest] = pathname.split('/').slice(1);
  const parts = Object.hasOwn(ROUTES, first) ? ROUTES[first]! : undefined;
  if (!parts) return pathname;
  const names = parts.join('').split('/').length - 1;
  const uid = SESSION.test(pathname) && rest.filter(Boolean).length > names ? '/{uid}' : '';
  return `/${first}${parts[0]}${uid}${parts[1] ?? ''}`;
}

export function requestSpan(tracer: Tracer, request: IncomingMessage, url: URL): Span {
  const route = routeOf(url);
  const { method = 'GET', headers, socket } = request;
  const peer = socket.remoteAddress;
  return tracer.start(route, undefined, {
    kind: 'server',
    scope: SCOPE,
    link: remoteParent(headers),
    attributes: () => ({
      'http.request.method': method,
      'http.route': route,
      'network.protocol.version': request.httpVersion,
      'server.address': 'kubelet',
      'url.path': url.pathname,
      'url.scheme': 'https',
      ...(peer ? { 'client.address': peer, 'network.peer.address': peer } : {}),
      ...(headers['user-agent'] ? { 'user_agent.original': headers['user-agent'] } : {}),
    }),
  });
}

export function endAnswered(span: Span, code: number): void {
  span.set({ 'http.response.status_code': code });
  if (code >= 500) span.fail('');
  span.end();
}
