/**
 * Requests for resources over HTTP: query and body to a dispatcher's verb, outcome to bytes in the form the client asked
 * for. The stored bytes of an object go out as they are; only other forms are encoded anew.
 */

import type { KubeObject, ListMeta } from '../api/meta.ts';
import type { Clock } from '../base/clock.ts';
import { failure, fieldErrors, invalid, messageOf, type Status } from '../base/errors.ts';
import { activeSpan, traced } from '../base/tracing/active.ts';
import type { Attributes, Span } from '../base/tracing/span.ts';
import type { PatchType } from '../client/transport.ts';
import type { Layer, Trail } from './audit/trail.ts';
import { joinBytes } from './cache.ts';
import { connectOptions, settledOptions, withOptions } from './connect-options.ts';
import type { Deletion } from './deletion.ts';
import { type Dispatcher, isShownAsStored, outcomeObject, shownObject } from './dispatcher.ts';
import { Entry } from './entry.ts';
import type { Routed } from './http-handler.ts';
import { isStatus } from './in-process-transport.ts';
import type { ListResult } from './list.ts';
import { parseResourceVersion } from './list.ts';
import {
  type Body,
  CUSTOM_OBJECT_TYPES,
  decodeBody,
  encodeBody,
  mediaTypeOf,
  negotiate,
  negotiateWatch,
  OBJECT_TYPES,
  type Representation,
  type Serving,
} from './negotiation.ts';
import type { Operation, Outcome } from './registry.ts';
import { finishObject, markRaw, type ReplyContext, text, warn } from './reply.ts';
import type { ConnectContext, ConnectHandler, RequestAttributes } from './request.ts';
import { countBody, deprecatedUse, scopeOf, verbOf } from './request-metrics.ts';
import {
  checkDeletion,
  decodeDeletion,
  deletionOf,
  includeObjectOf,
  isTrue,
  listQuery,
  NO_QUERY,
  numberOf,
  operationOf,
  selectors,
} from './request-options.ts';
import { handlerAttributes, pathOf, truncatedAuditId } from './request-trace.ts';
import { apiVersionOf, groupResource, type ResourceTable, type Served, storeKey } from './resource-table.ts';
import { missingRoute, notAllowed, unknownResource } from './routes.ts';
import { partialOf, SCALE_COLUMNS, tableOf } from './table.ts';
import { serveWatch } from './watch-stream.ts';

const PATCH_TYPES: readonly PatchType[] = [
  'application/json-patch+json',
  'application/merge-patch+json',
  'application/strategic-merge-patch+json',
  'application/apply-patch+yaml',
];

export interface ResourceHandlerOptions {
  readonly dispatcher: Dispatcher;
  readonly table: ResourceTable;
  readonly connectHandlers: readonly ConnectHandler[];
  readonly clock: Clock;
}

/** One resource request on its way through the handler. */
interface Request {
  readonly context: ReplyContext;
  readonly operation: Operation;
  readonly query: URLSearchParams;
  readonly routed: Routed;
}

export class ResourceHandler {
  readonly #options: ResourceHandlerOptions;

  constructor(options: ResourceHandlerOptions) {
    this.#options = options;
  }

  /** Answers at once where it can. */
  handle(context: ReplyContext, attributes: RequestAttributes, routed: Routed): void | Promise<void> {
    const served = this.#options.table.find(attributes.group, attributes.version, attributes.resource);
    if (!served) {
      const { group } = attributes;
      if (this.#options.table.builtin.some(info => info.group === group)) throw unknownResource();
      return text(context, 404, '404 page not found\n');
    }
    const connect = this.connectHandler(attributes);
    const { method } = context.exchange;
    const missing = missingRoute(served, attributes, { method, isConnection: connect !== undefined });
    if (missing) throw missing;
    // The query of a connection is its own, or that of the server behind a proxy.
    const query = (connect ? undefined : routed.query) ?? NO_QUERY;
    const request: Request = {
      context,
      routed,
      query,
      operation: operationOf(message => warn(context, message), {
        attributes,
        served,
        query,
        userAgent: context.exchange.headers['user-agent'],
        trail: context.trail,
      }),
    };
    if (served.kind?.deprecation) {
      warn(context, served.kind.deprecation);
      const { group, version, resource, subresource } = attributes;
      deprecatedUse.set(1, group, version, resource, subresource, '');
      context.trail?.annotate('k8s.io/deprecated', 'true');
    }
    if (connect) return this.#connect(connect, request);
    // Who cannot read the answer must not have changed anything.
    const isList = attributes.verb === 'list';
    if (attributes.verb !== 'watch')
      negotiate(context.exchange.headers.accept, servingOf(request.operation), { isList });
    const name = SPAN_NAMES[attributes.verb];
    return name && activeSpan()
      ? traced(
          name,
          () => spanAttributes(request),
          () => this.#answer(request),
        )
      : this.#answer(request);
  }

  #answer(request: Request): void | Promise<void> {
    switch (request.operation.attributes.verb) {
      case 'get':
        return this.#get(request);
      case 'list':
        return this.#list(request);
      case 'watch':
        return this.#watch(request);
      case 'create':
        return this.#create(request);
      case 'update':
        return this.#update(request);
      case 'patch':
        return this.#patch(request);
      case 'delete':
        return this.#delete(request);
      case 'deletecollection':
        return this.#deleteCollection(request);
      default:
        throw notAllowed();
    }
  }

  connectHandler({ group, version, resource, subresource }: RequestAttributes): ConnectHandler | undefined {
    if (!subresource) return undefined;
    return this.#options.connectHandlers.find(
      handler =>
        handler.subresource === subresource &&
        handler.of.resource === resource &&
        handler.of.group === group &&
        handler.of.version === version,
    );
  }
  /** Throws where no route is for the connection. */
  checkConnection(attributes: RequestAttributes, method: string): void {
    const served = this.#options.table.find(attributes.group, attributes.version, attributes.resource);
    const missing = served ? missingRoute(served, attributes, { method, isConnection: true }) : unknownResource();
    if (missing) throw missing;
  }
  /** Admission of a raw connection. Plug-ins see its options as the object; returns the connection as they left it. */
  async admitConnect(
    attributes: RequestAttributes,
    asked: { readonly query: URLSearchParams; readonly rest: string },
    warnings: (message: string) => void,
    trail?: Trail,
  ): Promise<{ readonly query: URLSearchParams; readonly rest: string }> {
    const { query, rest } = asked;
    const served = this.#options.table.find(attributes.group, attributes.version, attributes.resource);
    if (!served) throw unknownResource();
    const kind = served.info.subresources.find(({ name }) => name === attributes.subresource)?.kind;
    const object = connectOptions(kind, query, rest);
    const before = JSON.stringify(object);
    await this.#options.dispatcher.registry.admit(
      operationOf(warnings, { attributes, served, query: NO_QUERY, trail }),
      'CONNECT',
      { object, kind, settle: kind && (options => settledOptions(kind, options)) },
    );
    return kind && object && JSON.stringify(object) !== before ? withOptions(kind, object, asked) : asked;
  }

  async #connect(handler: ConnectHandler, { context, routed, operation }: Request): Promise<void> {
    const { rest } = routed.attributes;
    const query = routed.query ?? NO_QUERY;
    const admitted = await this.admitConnect(operation.attributes, { query, rest }, operation.warn, context.trail);
    const raw = context.exchange.raw();
    markRaw(context, raw);
    const connection: ConnectContext = {
      attributes: operation.attributes,
      ...admitted,
      ...raw,
    };
    context.code = 200;
    context.trail?.started(200);
    await handler.handle(connection);
  }

  #get(request: Request): void | Promise<void> {
    if (request.query.has('resourceVersion')) return this.#getFresh(request);
    return this.#getNow(request);
  }
  async #getFresh(request: Request): Promise<void> {
    await this.#options.dispatcher.fresh(parseResourceVersion(request.query.get('resourceVersion')!));
    await this.#getNow(request);
  }
  #getNow(request: Request): void | Promise<void> {
    const found = activeSpan() ? this.#tracedGet(request) : this.#options.dispatcher.get(request.operation);
    if (found instanceof Promise) return found.then(outcome => this.#send(request, 200, outcome));
    return this.#send(request, 200, found);
  }

  #tracedGet(request: Request): Outcome | Promise<Outcome> {
    activeSpan()?.event('About to Get from storage');
    const { dispatcher } = this.#options;
    const { served } = request.operation;
    const attributes = () => ({
      'audit-id': truncatedAuditId(request.context.auditId),
      key: storeKey(served, dispatcher.registry.keyOf(request.operation)),
      'resource-version': request.query.get('resourceVersion') ?? '',
    });
    return traced('cacher.Get', attributes, () => dispatcher.get(request.operation));
  }

  async #list(request: Request): Promise<void> {
    const { operation, query } = request;
    const span = activeSpan();
    span?.event('About to List from storage');
    const listing = () => this.#options.dispatcher.list(operation, listQuery(query));
    const result = await (span ? tracedList(request, listing) : listing());
    span?.event('Listing from storage done');
    await this.#sendList(request, result);
    span?.event('Writing http response done', { count: result.entries.length });
  }

  async #watch({ context, operation, query, routed }: Request): Promise<void> {
    const initial = query.get('sendInitialEvents');
    const isList = isTrue(initial) && isTrue(query.get('allowWatchBookmarks'));
    const wanted = negotiateWatch(context.exchange.headers.accept, servingOf(operation), { isList });
    await serveWatch(context, {
      attributes: routed.attributes,
      served: operation.served,
      wanted,
      includeObject: includeObjectOf(query),
      clock: this.#options.clock,
      timeoutSeconds: numberOf(query, 'timeoutSeconds'),
      start: signal =>
        this.#options.dispatcher.watch(
          operation,
          {
            ...selectors(query),
            resourceVersion: query.get('resourceVersion') ?? '',
            resourceVersionMatch: query.get('resourceVersionMatch') ?? '',
            allowWatchBookmarks: isTrue(query.get('allowWatchBookmarks')),
            sendInitialEvents: initial === null ? undefined : isTrue(initial),
          },
          signal,
        ),
    });
  }

  async #create(request: Request): Promise<void> {
    const { operation, query } = request;
    const decoding = this.#body(request);
    const body = decoding instanceof Promise ? await decoding : decoding;
    const { dispatcher } = this.#options;
    const outcome = await stored(() => dispatcher.create(withText(operation, body), body.value as KubeObject, query));
    const sending = this.#send(request, 201, outcome);
    if (sending) await sending;
  }

  async #update(request: Request): Promise<void> {
    const body = await this.#body(request);
    const { dispatcher } = this.#options;
    const { outcome, created } = await stored(() =>
      dispatcher.update(withText(request.operation, body), body.value as KubeObject),
    );
    await this.#send(request, created ? 201 : 200, outcome);
  }

  async #patch(request: Request): Promise<void> {
    const { exchange, trail } = request.context;
    const bytes = await exchange.body();
    const span = activeSpan();
    span?.event('limitedReadBody succeeded', { len: bytes.length });
    const { operation, query } = request;
    countBody(operation.attributes, bytes.length);
    const type = (exchange.headers['content-type'] ?? 'none').split(';', 1)[0]!.trim() as PatchType;
    // Upstream's router says it, except for custom resources.
    if (servingOf(operation) !== 'custom' && !PATCH_TYPES.includes(type))
      throw failure(415, 'UnsupportedMediaType', '415: Unsupported Media Type', {});
    const body = await decodeBody(bytes, type, PATCH_TYPES);
    trail?.requested(body.value);
    span?.event('Recorded the audit event');
    span?.event('About to apply patch');
    if (type !== 'application/apply-patch+yaml') {
      if (query.has('force'))
        throw invalid({ group: 'meta.k8s.io', kind: 'PatchOptions' }, '', [
          fieldErrors.forbidden('force', 'may not be specified for non-apply patch'),
        ]);
      const patched = await this.#options.dispatcher.patch(operation, body.value, type);
      span?.event('Object stored in database');
      return this.#send(request, 200, patched);
    }
    const manager = query.get('fieldManager') ?? '';
    const { outcome, created } = await this.#options.dispatcher.apply(
      // A User-Agent is not enough to apply.
      { ...operation, fieldManager: manager },
      body.value,
      { force: isTrue(query.get('force')) },
    );
    span?.event('Object stored in database');
    await this.#send(request, created ? 201 : 200, outcome);
  }

  async #delete(request: Request): Promise<void> {
    const [operation, options] = await this.#deletion(request);
    const span = activeSpan();
    span?.event('About to delete object from database');
    const outcome = await this.#options.dispatcher.delete(operation, options);
    span?.event('Object deleted from database');
    if (isStatus(outcome)) {
      const { code: _, ...status } = outcome as Status;
      return writing(() => this.#sendValue(request, 200, status));
    }
    await this.#send(request, 200, outcome);
  }

  async #deleteCollection(request: Request): Promise<void> {
    const [operation, options] = await this.#deletion(request);
    const result = await this.#options.dispatcher.deleteCollection(operation, options, listQuery(request.query));
    await writing(() => this.#sendList(request, result));
  }

  #body(request: Request): Body | Promise<Body> {
    const { trail } = request.context;
    const span = activeSpan();
    const found = this.#decoded(request);
    if (!trail && !span) return found;
    const noted = (body: Body) => {
      span?.event('Conversion done');
      trail?.requested(body.value);
      return body;
    };
    return found instanceof Promise ? found.then(noted) : noted(found);
  }
  #decoded({ context: { exchange }, operation }: Request): Body | Promise<Body> {
    const type = exchange.headers['content-type'];
    const accepted = servingOf(operation) === 'custom' ? CUSTOM_OBJECT_TYPES : OBJECT_TYPES;
    const bytes = exchange.body();
    const { kind } = operation.served.info;
    const span = activeSpan();
    const decoded = (all: Buffer) => {
      countBody(operation.attributes, all.length);
      span?.event('limitedReadBody succeeded', { len: all.length });
      span?.event('About to convert to expected version');
      return decodeBody(all, type, accepted, kind);
    };
    return bytes instanceof Promise ? bytes.then(decoded) : decoded(bytes);
  }

  // Options come in the body; in its absence in the query. A dry run that either asks for is one.
  async #deletion({ context: { exchange, trail }, operation, query }: Request): Promise<[Operation, Deletion]> {
    const bytes = await exchange.body();
    countBody(operation.attributes, bytes.length);
    const span = activeSpan();
    span?.event('limitedReadBody succeeded', { len: bytes.length });
    let options = deletionOf(query);
    if (bytes.length > 0) {
      const { value } = await decodeBody(bytes, exchange.headers['content-type'], OBJECT_TYPES, 'DeleteOptions');
      span?.event('Decoded delete options');
      trail?.requested(value);
      span?.event('Recorded the audit event');
      options = decodeDeletion(value);
    }
    const { dryRun, ...deletion } = options;
    checkDeletion(options);
    return [dryRun?.length ? { ...operation, dryRun: true } : operation, deletion];
  }

  #send(request: Request, status: number, outcome: Outcome): void | Promise<void> {
    return activeSpan()
      ? writing(() => this.#sendOutcome(request, status, outcome))
      : this.#sendOutcome(request, status, outcome);
  }
  #sendOutcome(request: Request, status: number, outcome: Outcome): void | Promise<void> {
    const { context, operation, query } = request;
    const { served } = operation;
    context.trail?.answered(() => outcomeObject(served, outcome));
    const wanted = negotiate(context.exchange.headers.accept, servingOf(operation));
    if (!wanted.as && wanted.format === 'json' && outcome instanceof Entry && isShownAsStored(served, outcome))
      return serialized(request, wanted, () => finishObject(context, status, wanted, outcome.parts));
    const object = outcomeObject(served, outcome);
    const isScale = object.kind === 'Scale' && operation.attributes.subresource === 'scale';
    const isOwn = object.kind === served.info.kind || isScale;
    if (!wanted.as || !isOwn) return this.#sendValue(request, status, object);
    const stored = outcome instanceof Entry ? outcome.object : outcome;
    const transform = () =>
      wanted.as === 'Table'
        ? tableOf(served, [stored], {
            includeObject: includeObjectOf(query),
            metadata: {
              ...(object.metadata.resourceVersion ? { resourceVersion: object.metadata.resourceVersion } : {}),
            },
            shown: () => object,
            nowMs: this.#options.clock.now(),
            version: wanted.version,
            ...(isScale ? { columns: SCALE_COLUMNS } : {}),
          })
        : partialOf(object, wanted.version);
    return this.#sendValue(request, status, timed(context, 'transform-response-object', transform));
  }

  async #sendList(request: Request, result: ListResult): Promise<void> {
    const { context, operation, query } = request;
    const { served } = operation;
    const { info } = served;
    const wanted = negotiate(context.exchange.headers.accept, servingOf(operation));
    const metadata: ListMeta = {
      resourceVersion: String(result.revision),
      ...(result.continue ? { continue: result.continue } : {}),
      ...(result.remaining === undefined ? {} : { remainingItemCount: result.remaining }),
    };
    const head = { kind: info.listKind, apiVersion: apiVersionOf(info), metadata };
    context.trail?.answered(() => ({ ...head, items: result.entries.map(entry => shownObject(served, entry.object)) }));
    if (!wanted.as && wanted.format === 'json') {
      if (!result.entries.every(entry => isShownAsStored(served, entry))) {
        const bytes = timed(context, 'serialize-response-object', () =>
          Buffer.from(
            JSON.stringify({ ...head, items: result.entries.map(entry => shownObject(served, entry.object)) }),
          ),
        );
        return serialized(request, wanted, () => finishObject(context, 200, wanted, [bytes]));
      }
      const items = timed(context, 'serialize-response-object', () =>
        result.whole === undefined
          ? joinBytes(result.entries)
          : this.#options.dispatcher.registry.cacheOf(served).join(result.whole, result.entries),
      );
      const start = Buffer.from(`${JSON.stringify(head).slice(0, -1)},"items":[`);
      return serialized(request, wanted, () => finishObject(context, 200, wanted, [start, items, LIST_END]));
    }
    const objects = result.entries.map(entry => entry.object);
    const shown = (object: KubeObject) => shownObject(served, object);
    const value = timed(context, 'transform-response-object', () =>
      listValue(wanted, {
        served,
        objects,
        shown,
        metadata,
        head,
        includeObject: includeObjectOf(query),
        nowMs: this.#options.clock.now(),
      }),
    );
    await this.#sendValue(request, 200, value);
  }

  async #sendValue(request: Request, status: number, value: unknown): Promise<void> {
    const { context, operation } = request;
    const wanted = negotiate(context.exchange.headers.accept, servingOf(operation));
    await serialized(request, wanted, async () => {
      const bytes = await timed(context, 'serialize-response-object', () => encodeBody(value, wanted.format));
      await finishObject(context, status, wanted, [bytes]);
    });
  }
}

/** Upstream's names of what handlers do. A watch is but the span of its request, as there. */
const SPAN_NAMES: Readonly<Record<string, string>> = {
  get: 'Get',
  list: 'List',
  create: 'Create',
  update: 'Update',
  patch: 'Patch',
  delete: 'Delete',
  deletecollection: 'Delete',
};

function spanAttributes({ context: { exchange, auditId }, routed: { attributes } }: Request): Attributes {
  return handlerAttributes(exchange, {
    auditId,
    resource: attributes.resource,
    scope: scopeOf(attributes),
    verb: verbOf(exchange.method, attributes, exchange.headers['content-type']),
  });
}

function tracedList({ context, operation }: Request, list: () => Promise<ListResult>): Promise<ListResult> {
  const attributes = () => ({
    'audit-id': truncatedAuditId(context.auditId),
    type: groupResource(operation.served.stored),
  });
  return traced('cacher.GetList', attributes, async () => {
    const result = await list();
    activeSpan()?.event('Listed items from cache', { count: result.entries.length });
    return result;
  });
}

/** A write of the object, told at the span that it is part of. */
function stored<T>(write: () => Promise<T>): Promise<T> {
  const span = activeSpan();
  return span ? toldOf(span, write) : write();
}
async function toldOf<T>(span: Span, write: () => Promise<T>): Promise<T> {
  span.event('About to store object in database');
  try {
    const outcome = await write();
    span.event('Write to database call succeeded');
    return outcome;
  } catch (error) {
    span.event('Write to database call failed', { err: messageOf(error) });
    throw error;
  }
}

/** The answer on its way, told likewise. */
function writing(send: () => void | Promise<void>): void | Promise<void> {
  const span = activeSpan();
  span?.event('About to write a response');
  const done = () => span?.event('Writing http response done');
  const sending = send();
  return sending instanceof Promise ? sending.then(done) : done();
}

/** Encoding and sending, as a span. */
function serialized(
  { context }: Request,
  wanted: Representation,
  work: () => void | Promise<void>,
): void | Promise<void> {
  if (!activeSpan()) return work();
  const { exchange, auditId } = context;
  const attributes = () => ({
    'audit-id': truncatedAuditId(auditId),
    method: exchange.method,
    url: pathOf(exchange.url),
    protocol: exchange.protocol,
    mediaType: mediaTypeOf(wanted),
  });
  return traced('SerializeObject', attributes, work);
}

/** Work on the reply, whose time is told of slow requests. */
const timed = <T>({ trail }: ReplyContext, layer: Layer, work: () => T): T =>
  trail ? trail.time(layer, work) : work();

function servingOf({ served, attributes }: Operation): Serving {
  if (!served.persistent) return 'review';
  return served.custom && attributes.subresource !== 'scale' ? 'custom' : 'builtin';
}

function listValue(
  wanted: Representation,
  list: {
    served: Served;
    objects: readonly KubeObject[];
    shown: (object: KubeObject) => KubeObject;
    metadata: ListMeta;
    head: object;
    includeObject: ReturnType<typeof includeObjectOf>;
    nowMs: number;
  },
): unknown {
  const { served, objects, shown, metadata } = list;
  if (wanted.as === 'Table')
    return tableOf(served, objects, {
      includeObject: list.includeObject,
      metadata,
      shown,
      nowMs: list.nowMs,
      version: wanted.version,
    });
  if (wanted.as)
    return {
      kind: 'PartialObjectMetadataList',
      apiVersion: `meta.k8s.io/${wanted.version}`,
      metadata,
      items: objects.map(object => partialOf(object, wanted.version)),
    };
  return { ...list.head, items: objects.map(shown) };
}

const LIST_END = Buffer.from(']}');
function withText(operation: Operation, { text, duplicates }: Body): Operation {
  if (text === undefined && !duplicates) return operation;
  return { ...operation, ...(text === undefined ? {} : { text }), ...(duplicates ? { duplicates } : {}) };
}
