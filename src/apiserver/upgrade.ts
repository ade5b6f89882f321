/**
 * HTTP/1.1 upgrades (exec, attach, port-forward, logs, proxied WebSockets, watches): the same steps as any request, then the raw socket
 * goes to the connect handler or carries a watch. A refusal is written to the socket as an ordinary reply.
 */

import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { ApiError, failure, internalError, messageOf, type Status } from '../base/errors.ts';
import type { Tracer } from '../base/tracing/span.ts';
import type { Aggregator } from './aggregation/aggregator.ts';
import type { Trail } from './audit/trail.ts';
import { headersOf } from './header-values.ts';
import type { Arrival, Asking, Routed } from './http-handler.ts';
import type { Credentials, RequestAttributes, UserInfo } from './request.ts';
import { withUser } from './request-path.ts';
import { RequestTrace } from './request-trace.ts';
import type { ResourceHandler } from './resource-handler.ts';
import { isWebSocket, watchExchange } from './streaming/message-replies.ts';

export interface UpgradeSteps {
  readonly authenticate: (exchange: Asking, request: Arrival) => UserInfo | Promise<UserInfo>;
  readonly authorize: (attributes: RequestAttributes, trail?: Trail) => void | Promise<void>;
  readonly resources: ResourceHandler;
  /** Knows the extension servers that upgrades are forwarded to. */
  readonly aggregator: Pick<Aggregator, 'find'> | undefined;
  readonly route: (method: string, url: string) => Routed;
  /** By the monotonic clock. */
  readonly nowMs: () => number;
  readonly auditIdOf: (headers: IncomingHttpHeaders) => string;
  /** Without one nothing is traced. */
  readonly tracer: Tracer | undefined;
}

/** An upgrade as it arrived. */
interface Upgrade {
  readonly request: IncomingMessage;
  readonly socket: Duplex;
  readonly head: Buffer;
  readonly certificate: Credentials['certificate'];
}

const INTERACTIVE = new Set(['exec', 'attach', 'portforward']);

/** Never rejects. */
export function handleUpgrade(upgrade: Upgrade, steps: UpgradeSteps): Promise<void> {
  const { request } = upgrade;
  const headers = headersOf(request);
  const auditId = steps.auditIdOf(headers);
  const { tracer } = steps;
  if (!tracer) return handle(upgrade, steps, { headers, auditId, trace: undefined });
  const { method = 'GET', url = '/', httpVersion, socket } = request;
  const { remoteAddress } = socket;
  const asked = { method, url, headers, remoteAddress, protocol: `HTTP/${httpVersion}` };
  const trace = new RequestTrace(tracer, asked, auditId);
  return trace.run(() => handle(upgrade, steps, { headers, auditId, trace }));
}

async function handle(
  upgrade: Upgrade,
  steps: UpgradeSteps,
  known: { readonly headers: IncomingHttpHeaders; readonly auditId: string; readonly trace: RequestTrace | undefined },
): Promise<void> {
  const { request, socket, head, certificate } = upgrade;
  socket.on('error', () => {});
  const { headers, auditId, trace } = known;
  const context: {
    trail: Trail | undefined;
    readonly trace: RequestTrace | undefined;
    readonly auditId: string;
    readonly receivedMs: number;
  } = { trail: undefined, trace, receivedMs: steps.nowMs(), auditId };
  let code = 101;
  try {
    const { method = 'GET', url = '/' } = request;
    const routed = steps.route(method, url);
    const query = routed.query ?? new URLSearchParams();
    const asking = { url, headers, remoteAddress: request.socket.remoteAddress };
    const attributes = withUser(routed.attributes, await steps.authenticate(asking, { certificate, routed, context }));
    trace?.enter('authorization');
    await steps.authorize(attributes, context.trail);
    const extension = steps.aggregator?.find(routed.path);
    if (extension) {
      if (!extension.upgrade) throw failure(400, 'BadRequest', 'the resource cannot be upgraded to a stream');
      context.trail?.started(code);
      await extension.upgrade({ req: request, socket, head }, attributes.user);
      return;
    }
    const handler = attributes.isResource ? steps.resources.connectHandler(attributes) : undefined;
    if (!handler && attributes.verb === 'watch' && isWebSocket(headers)) {
      const exchange = await watchExchange({ request, socket, head });
      const reply = {
        exchange,
        code: 0,
        warnings: undefined,
        admitted: undefined,
        expired: false,
        bytes: 0,
        ...context,
      };
      await steps.resources.handle(reply, attributes, routed);
      return;
    }
    if (!handler) throw failure(400, 'BadRequest', 'the resource cannot be upgraded to a stream');
    steps.resources.checkConnection(attributes, method);
    // A WebSocket begins as a GET, which may be all that somebody who only reads is allowed.
    if (INTERACTIVE.has(attributes.subresource) && attributes.resource === 'pods' && attributes.verb !== 'create')
      await steps.authorize({ ...attributes, verb: 'create' }, context.trail);
    const { rest } = routed.attributes;
    const admitted = await steps.resources.admitConnect(attributes, { query, rest }, () => {}, context.trail);
    context.trail?.started(code);
    await handler.handle({ attributes, ...admitted, req: request, socket, head });
  } catch (error) {
    const failed = error instanceof ApiError ? error : internalError(messageOf(error));
    code = failed.code;
    context.trail?.refused(failed.status);
    refuse(socket, failed.status, context.auditId);
  } finally {
    context.trail?.complete(code);
    trace?.end(code, 0);
  }
}

function refuse(socket: Duplex, status: Status, auditId: string): void {
  if (socket.destroyed || !socket.writable) return;
  const body = `${JSON.stringify(status)}\n`;
  socket.end(
    `HTTP/1.1 ${status.code} ${STATUS_CODES[status.code] ?? 'Error'}\r\nAudit-Id: ${auditId}\r\nCache-Control: no-cache, private\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
