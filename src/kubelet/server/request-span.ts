/**
 * The span of a request to the kubelet's port, named by upstream's route. Whoever asks may not say what is traced: a new trace begins with
 * each request, which names theirs.
 */

import type { IncomingMessage } from 'node:http';
import { remoteParent } from '../../base/tracing/propagation.ts';
import type { Span, Tracer } from '../../base/tracing/span.ts';

const SCOPE = 'go.opentelemetry.io/contrib/instrumentation/github.com/emicklei/go-restful/otelrestful';

/** What follows the first segment of a path. */
const ROUTES: Readonly<Record<string, string>> = {
  attach: '/{podNamespace}/{podID}/{containerName}',
  containerLogs: '/{podNamespace}/{podID}/{containerName}',
  exec: '/{podNamespace}/{podID}/{containerName}',
  logs: '/{logpath:*}',
  portForward: '/{podNamespace}/{podID}',
};

export function requestSpan(tracer: Tracer, request: IncomingMessage, url: URL): Span {
  const [, first = ''] = url.pathname.split('/');
  const route = Object.hasOwn(ROUTES, first) ? `/${first}${ROUTES[first]}` : url.pathname;
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
      'server.address': (headers.host ?? '').replace(/:\d+$/, ''),
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
