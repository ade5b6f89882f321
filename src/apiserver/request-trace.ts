/**
 * The spans of one request: upstream's of its filters, each within the one before, and that of the request itself, which comes after
 * authentication. Invariant: only who is trusted goes on with a trace of its own; of all others a new one begins, which names theirs.
 */

import type { IncomingHttpHeaders } from 'node:http';
import { type Scope, within } from '../base/tracing/active.ts';
import { baggageOf, remoteParent } from '../base/tracing/propagation.ts';
import { type Attributes, SCOPES, type Span, type SpanContext, type Tracer } from '../base/tracing/span.ts';
import type { UserInfo } from './request.ts';
import type { PathAttributes } from './request-path.ts';

/** Of a request, what spans tell. */
export interface Traceable {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly remoteAddress: string | undefined;
  /** `HTTP/2.0`. */
  readonly protocol: string;
}

/** Members may say what is traced. */
const TRUSTED = ['system:masters', 'system:monitoring'];
const AUDIT_ID_LENGTH_MAX = 64;
const USER_AGENT_LENGTH_MAX = 1024;
const HTTPS_PORT = 443;

export class RequestTrace {
  readonly #tracer: Tracer;
  readonly #request: Traceable;
  readonly auditId: string;
  readonly #scope: Scope;
  readonly #open: Span[];
  #server: Span | undefined;

  constructor(tracer: Tracer, request: Traceable, auditId: string) {
    this.#tracer = tracer;
    this.#request = request;
    this.auditId = auditId;
    const span = tracer.start('authentication', undefined, { scope: SCOPES.filters });
    this.#scope = { span };
    this.#open = [span];
  }

  run<T>(work: () => T): T {
    return within(this.#scope, work);
  }

  /** It is known who asks: before, nobody could be believed that the request belongs to a trace. */
  authenticated(user: UserInfo, attributes: PathAttributes): void {
    const { headers, method } = this.#request;
    const remote = remoteParent(headers);
    const isTrusted = user.groups.some(group => TRUSTED.includes(group));
    const parent = isTrusted ? (remote ?? this.#withBaggage(this.#scope.span.context)) : undefined;
    this.#server = this.#push(
      this.#tracer.start(spanName(method, attributes), parent, {
        kind: 'server',
        scope: SCOPES.http,
        link: isTrusted ? undefined : remote,
        attributes: () => this.#attributes(),
      }),
    );
    this.enter('audit');
  }
  #withBaggage(context: SpanContext): SpanContext {
    const baggage = baggageOf(this.#request.headers);
    return baggage ? { ...context, baggage } : context;
  }

  /** The request came to the next filter, which it leaves when it ends. */
  enter(filter: string): void {
    this.#push(this.#tracer.start(filter, this.#scope.span.context, { scope: SCOPES.filters }));
  }
  #push(span: Span): Span {
    this.#open.push(span);
    this.#scope.span = span;
    return span;
  }

  end(code: number, bytes: number): void {
    const size = Number(this.#request.headers['content-length'] ?? 0);
    this.#server?.set({
      ...(size > 0 ? { 'http.request.body.size': size } : {}),
      ...(bytes > 0 ? { 'http.response.body.size': bytes } : {}),
      ...(code > 0 ? { 'http.response.status_code': code } : {}),
    });
    if (code >= 500) this.#server?.fail('');
    for (const span of this.#open.reverse()) span.end();
  }

  #attributes(): Attributes {
    const { method, url, headers, remoteAddress, protocol } = this.#request;
    const { host, port } = addressOf(headers.host ?? String(headers[':authority'] ?? ''));
    const peer = remoteAddress ?? '';
    const agent = headers['user-agent'];
    const client = first(headers['x-forwarded-for']) || peer;
    return {
      'server.address': host,
      'http.request.method': method,
      'url.scheme': 'https',
      ...(port && port !== HTTPS_PORT ? { 'server.port': port } : {}),
      ...(peer ? { 'network.peer.address': peer } : {}),
      ...(agent ? { 'user_agent.original': agent } : {}),
      ...(client ? { 'client.address': client } : {}),
      'url.path': pathOf(url),
      'network.protocol.version': protocol.slice(protocol.indexOf('/') + 1),
      'http.target': url,
      'audit-id': truncatedAuditId(this.auditId),
    };
  }
}

/** What upstream tells of a request at the spans of its handlers. */
export function handlerAttributes(
  { url, headers, remoteAddress, protocol }: Traceable,
  of: { readonly auditId: string; readonly resource: string; readonly scope: string; readonly verb: string },
): Attributes {
  const agent = headers['user-agent'] ?? '';
  return {
    accept: headers.accept ?? '',
    'audit-id': truncatedAuditId(of.auditId),
    client: first(headers['x-forwarded-for']) || first(headers['x-real-ip']) || remoteAddress || 'unknown',
    protocol,
    resource: of.resource,
    scope: of.scope,
    url: pathOf(url),
    'user-agent': agent.length > USER_AGENT_LENGTH_MAX ? `${agent.slice(0, USER_AGENT_LENGTH_MAX)}...TRUNCATED` : agent,
    verb: of.verb,
  };
}

export const truncatedAuditId = (id: string): string => id.slice(0, AUDIT_ID_LENGTH_MAX);

/** `GET /api/v1/namespaces/{:namespace}/pods/{:name}`: the same for all objects of a kind. */
export function spanName(
  method: string,
  attributes: Pick<
    PathAttributes,
    'isResource' | 'group' | 'version' | 'namespace' | 'resource' | 'name' | 'subresource'
  >,
): string {
  const { isResource, group, version, namespace, resource, name, subresource } = attributes;
  if (!isResource) return method;
  let path = group ? `/apis/${group}/${version}` : `/api/${version}`;
  if (namespace) path += '/namespaces/{:namespace}';
  path += `/${resource}`;
  if (name) path += '/{:name}';
  if (subresource) path += `/${subresource}`;
  return `${method} ${path}`;
}

export function pathOf(url: string): string {
  const mark = url.indexOf('?');
  return mark < 0 ? url : url.slice(0, mark);
}

const first = (value: string | readonly string[] | undefined): string =>
  String(value ?? '')
    .split(',', 1)[0]!
    .trim();

function addressOf(authority: string): { readonly host: string; readonly port: number } {
  const [, six, name = '', port = ''] = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?$/.exec(authority) ?? [];
  return { host: six ?? name, port: Number(port) };
}
