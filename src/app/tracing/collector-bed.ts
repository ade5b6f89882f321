/** For tests: a collector of OTLP that keeps what it is told, in a form that is easy to look at. */

import type { Attributes, AttributeValue } from '../../base/tracing/span.ts';
import type { Reply, Request } from '../../csi/calls.ts';
import { type GrpcServer, serveGrpc } from '../../csi/grpc.ts';
import { TRACE_CALLS } from './messages.ts';

export interface CollectedSpan {
  readonly resource: Attributes;
  readonly scope: string;
  readonly name: string;
  readonly kind: number;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentId: string;
  readonly attributes: Attributes;
  readonly events: readonly { readonly name: string; readonly attributes: Attributes }[];
  readonly links: readonly { readonly traceId: string; readonly spanId: string }[];
  readonly status: { readonly code?: number; readonly message?: string };
  readonly startNano: bigint;
  readonly endNano: bigint;
}

type Exported = Request<typeof TRACE_CALLS.export>;
type Answer = Partial<Reply<typeof TRACE_CALLS.export>>;

export class Collector {
  readonly spans: CollectedSpan[] = [];
  /** Spans of each request, as they came. */
  readonly batches: number[] = [];
  /** What a request is answered with; may throw a GrpcError. */
  answer: () => Answer | Promise<Answer> = () => ({});
  #server: GrpcServer | undefined;
  readonly #waiting = new Set<() => void>();

  /** On a unix socket, or on a free port of the loopback. */
  static async open(socket?: string): Promise<Collector> {
    const collector = new Collector();
    const place = socket ?? { host: '127.0.0.1', port: 0 };
    const handlers = { export: (request: Exported) => collector.#take(request) };
    collector.#server = await serveGrpc(place, handlers, TRACE_CALLS);
    return collector;
  }
  get port(): number {
    return this.#server?.port ?? 0;
  }
  async #take(request: Exported): Promise<Answer> {
    const spans = spansOf(request);
    this.batches.push(spans.length);
    const answer = await this.answer();
    this.spans.push(...spans);
    for (const wake of this.#waiting) wake();
    return answer;
  }

  /** The first span that fits, when it has come. */
  async find(fits: (span: CollectedSpan) => boolean): Promise<CollectedSpan> {
    for (;;) {
      const found = this.spans.find(fits);
      if (found) return found;
      await new Promise<void>(resolve => {
        const wake = () => {
          this.#waiting.delete(wake);
          resolve();
        };
        this.#waiting.add(wake);
      });
    }
  }
  /** The names of the spans from this one to its root. */
  pathOf(span: CollectedSpan): string[] {
    const parent = this.spans.find(({ spanId, traceId }) => spanId === span.parentId && traceId === span.traceId);
    return [...(parent ? this.pathOf(parent) : []), span.name];
  }
  async close(): Promise<void> {
    await this.#server?.close();
  }
}

function spansOf({ resourceSpans }: Exported): CollectedSpan[] {
  return resourceSpans.flatMap(({ resource, scopeSpans }) =>
    (scopeSpans ?? []).flatMap(({ scope, spans }) =>
      (spans ?? []).map(span => ({
        resource: attributesOf(resource?.attributes),
        scope: scope?.name ?? '',
        name: span.name ?? '',
        kind: span.kind ?? 0,
        traceId: hex(span.traceId),
        spanId: hex(span.spanId),
        parentId: hex(span.parentSpanId),
        attributes: attributesOf(span.attributes),
        events: (span.events ?? []).map(event => ({
          name: event.name ?? '',
          attributes: attributesOf(event.attributes),
        })),
        links: (span.links ?? []).map(link => ({ traceId: hex(link.traceId), spanId: hex(link.spanId) })),
        status: span.status ?? {},
        startNano: span.startTimeUnixNano ?? 0n,
        endNano: span.endTimeUnixNano ?? 0n,
      })),
    ),
  );
}

const hex = (bytes: Buffer | undefined): string => bytes?.toString('hex') ?? '';

interface KeyValue {
  readonly key?: string;
  readonly value?:
    | {
        readonly stringValue?: string | undefined;
        readonly boolValue?: boolean | undefined;
        readonly intValue?: number | undefined;
        readonly doubleValue?: number | undefined;
        readonly arrayValue?:
          | { readonly values?: readonly { readonly stringValue?: string | undefined }[] }
          | undefined;
      }
    | undefined;
}

function attributesOf(pairs: readonly KeyValue[] | undefined): Attributes {
  return Object.fromEntries(
    (pairs ?? []).map(({ key = '', value = {} }) => {
      const { stringValue, boolValue, intValue, doubleValue, arrayValue } = value;
      const list = arrayValue?.values?.map(one => one.stringValue ?? '');
      return [key, (stringValue ?? boolValue ?? intValue ?? doubleValue ?? list) as AttributeValue];
    }),
  );
}
