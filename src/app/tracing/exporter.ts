/**
 * Hands spans to a collector by OTLP over gRPC, without TLS as upstream does. Invariants: whoever ends a span never waits; no more than
 * a queue of spans is kept, those beyond it are dropped and counted; one batch is on its way at a time. Limits are those of the Go SDK.
 */

import { createConnection } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Clock, Timer } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { metrics } from '../../base/metrics.ts';
import type { Random } from '../../base/random.ts';
import type { TracingEndpoint } from '../../base/tracing/configuration.ts';
import type { Attributes, AttributeValue, Span, SpanContext, SpanSink } from '../../base/tracing/span.ts';
import { GRPC, GrpcClient, GrpcError } from '../../csi/grpc.ts';
import { decode } from '../../csi/protobuf.ts';
import { RETRY_INFO, RETRY_INFO_TYPE, RPC_STATUS, SPAN_KINDS, STATUS_ERROR, TRACE_CALLS } from './messages.ts';

const QUEUE_MAX = 2048;
const BATCH_MAX = 512;
const BATCH_MS = 5000;
/** For a batch with all its attempts. */
const EXPORT_MS = 10_000;
const RETRY_MS = 5000;
const RETRY_FACTOR = 1.5;
const RETRY_JITTER = 0.5;
/** When the process ends, nobody waits longer. */
const CLOSE_MS = 3000;
/** A collector that is away is told of once in a while. */
const COMPLAIN_MS = 60_000;

/** Those that OTLP's specification calls so. */
const RETRYABLE: readonly number[] = [
  GRPC.CANCELLED,
  GRPC.DEADLINE_EXCEEDED,
  GRPC.ABORTED,
  GRPC.OUT_OF_RANGE,
  GRPC.UNAVAILABLE,
  GRPC.DATA_LOSS,
];

const exported = metrics.counter(
  'coxswain_tracing_exported_spans_total',
  'Number of spans that a collector has taken.',
);
const dropped = metrics.counter(
  'coxswain_tracing_dropped_spans_total',
  'Number of spans that no collector got, by reason: the queue was full, the collector could not be reached, or it refused them.',
  ['reason'],
);

export interface ExporterOptions {
  readonly endpoint: TracingEndpoint;
  /** Of the process, such as `service.name`. */
  readonly resource: Attributes;
  /** Opens the connection itself, for who must do so from elsewhere; undefined leaves it to node. */
  readonly dial?: (place: { readonly host: string; readonly port: number }) => Duplex | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export class SpanExporter implements SpanSink {
  readonly #options: ExporterOptions;
  readonly #client: GrpcClient<typeof TRACE_CALLS>;
  readonly #place: string;
  #queue: Span[] = [];
  #timer: Timer | undefined;
  #sending: Promise<void> | undefined;
  readonly #stop = new AbortController();
  #complainedMs = Number.NEGATIVE_INFINITY;

  constructor(options: ExporterOptions) {
    this.#options = options;
    const { endpoint } = options;
    this.#place = 'path' in endpoint ? endpoint.path.replace('\0', '@') : `${endpoint.host}:${endpoint.port}`;
    this.#client = new GrpcClient({ name: this.#place, dial: () => this.#connect() }, TRACE_CALLS);
  }

  take(span: Span): void {
    if (this.#stop.signal.aborted || this.#queue.length >= QUEUE_MAX) return dropped.add(1, 'queue-full');
    this.#queue.push(span);
    if (this.#queue.length >= BATCH_MAX) return this.#send();
    this.#timer ??= this.#options.clock.after(BATCH_MS, () => this.#send(), { background: true });
  }

  /** Nothing is kept, and nothing on its way. */
  get isIdle(): boolean {
    return this.#sending === undefined && this.#queue.length === 0;
  }

  /** Sends what there is, for a while at most; later spans are dropped. */
  async close(): Promise<void> {
    const { clock } = this.#options;
    const flush = async () => {
      while (this.#sending || this.#queue.length > 0) {
        this.#send();
        await this.#sending;
      }
    };
    const waiting = new AbortController();
    await Promise.race([flush(), clock.sleep(CLOSE_MS, waiting.signal)]);
    waiting.abort();
    this.#stop.abort();
    this.#timer?.cancel();
    if (this.#queue.length > 0) dropped.add(this.#queue.length, 'unreachable');
    this.#queue = [];
    this.#client.close();
  }

  #connect(): Duplex {
    const { endpoint, dial } = this.#options;
    return 'path' in endpoint ? createConnection(endpoint) : (dial?.(endpoint) ?? createConnection(endpoint));
  }

  /** Nothing where a batch is on its way: the next follows it. */
  #send(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#sending || this.#queue.length === 0) return;
    const batch = this.#queue.splice(0, BATCH_MAX);
    this.#sending = this.#export(batch).finally(() => {
      this.#sending = undefined;
      if (this.#stop.signal.aborted || this.#queue.length === 0) return;
      if (this.#queue.length >= BATCH_MAX) this.#send();
      else this.#timer ??= this.#options.clock.after(BATCH_MS, () => this.#send(), { background: true });
    });
  }

  /** Never rejects. */
  async #export(batch: readonly Span[]): Promise<void> {
    const { clock, resource } = this.#options;
    const { signal } = this.#stop;
    const untilMs = clock.monotonic() + EXPORT_MS;
    for (let waitMs = RETRY_MS; ; waitMs *= RETRY_FACTOR) {
      try {
        const deadlineMs = Math.max(1, Math.round(untilMs - clock.monotonic()));
        const { partialSuccess } = await this.#client.call('export', requestOf(batch, resource), {
          deadlineMs,
          signal,
        });
        const rejected = Math.min(partialSuccess?.rejectedSpans ?? 0, batch.length);
        exported.add(batch.length - rejected);
        if (rejected > 0) dropped.add(rejected, 'refused');
        if (rejected > 0 || partialSuccess?.errorMessage)
          this.#complain(`${rejected} spans were rejected: ${partialSuccess?.errorMessage ?? ''}`);
        return;
      } catch (error) {
        const pauseMs = this.#pause(error, waitMs);
        if (pauseMs === undefined || clock.monotonic() + pauseMs >= untilMs || signal.aborted) {
          dropped.add(batch.length, pauseMs === undefined ? 'refused' : 'unreachable');
          return this.#complain(messageOf(error));
        }
        await clock.sleep(pauseMs, signal);
      }
    }
  }

  /** How long to wait before it is tried again; undefined: never. */
  #pause(error: unknown, waitMs: number): number | undefined {
    if (!(error instanceof GrpcError)) return undefined;
    const asked = retryDelayMs(error);
    if (!RETRYABLE.includes(error.code) && (error.code !== GRPC.RESOURCE_EXHAUSTED || asked === undefined))
      return undefined;
    const jittered = waitMs * (1 - RETRY_JITTER + 2 * RETRY_JITTER * this.#options.random.next());
    return Math.max(asked ?? 0, jittered);
  }

  #complain(why: string): void {
    const { clock, log } = this.#options;
    if (this.#stop.signal.aborted || clock.monotonic() < this.#complainedMs + COMPLAIN_MS) return;
    this.#complainedMs = clock.monotonic();
    log.warn('traces are not exported', { endpoint: this.#place, error: why });
  }
}

function retryDelayMs({ details }: GrpcError): number | undefined {
  if (!details) return undefined;
  try {
    const info = decode(RPC_STATUS, details).details.find(({ typeUrl }) => typeUrl === RETRY_INFO_TYPE);
    const { retryDelay } = info?.value ? decode(RETRY_INFO, info.value) : {};
    return retryDelay && (retryDelay.seconds ?? 0) * 1000 + (retryDelay.nanos ?? 0) / 1e6;
  } catch {
    return undefined;
  }
}

// What goes on the wire

/** Bits 8 and 9 of a span's flags: whether its parent is of another process is known, and it is. */
const HAS_IS_REMOTE = 0x100;
const SAMPLED = 1;

const id = (hex: string): Buffer => Buffer.from(hex, 'hex');
const nanos = (ms: number): bigint => BigInt(Math.round(ms * 1000)) * 1000n;

function valueMessage(value: AttributeValue) {
  switch (typeof value) {
    case 'string':
      return { stringValue: value };
    case 'boolean':
      return { boolValue: value };
    case 'number':
      return Number.isSafeInteger(value) ? { intValue: value } : { doubleValue: value };
    default:
      return { arrayValue: { values: value.map(stringValue => ({ stringValue })) } };
  }
}
const attributesOf = (attributes: Attributes) =>
  Object.entries(attributes).map(([key, value]) => ({ key, value: valueMessage(value) }));

const linkOf = ({ traceId, spanId, state, isSampled }: SpanContext) => ({
  traceId: id(traceId),
  spanId: id(spanId),
  traceState: state ?? '',
  flags: HAS_IS_REMOTE | (HAS_IS_REMOTE << 1) | (isSampled ? SAMPLED : 0),
});

function spanOf(span: Span) {
  const { traceId, spanId, state } = span.context;
  return {
    traceId: id(traceId),
    spanId: id(spanId),
    traceState: state ?? '',
    parentSpanId: id(span.parentId ?? ''),
    name: span.name,
    kind: SPAN_KINDS[span.kind],
    startTimeUnixNano: nanos(span.startMs),
    endTimeUnixNano: nanos(span.endMs),
    attributes: attributesOf(span.attributes),
    droppedAttributesCount: span.droppedAttributes,
    events: span.events.map(({ name, timeMs, attributes }) => ({
      name,
      timeUnixNano: nanos(timeMs),
      attributes: attributesOf(attributes),
    })),
    droppedEventsCount: span.droppedEvents,
    links: span.link ? [linkOf(span.link)] : [],
    status: span.failure === undefined ? {} : { code: STATUS_ERROR, message: span.failure },
    flags: HAS_IS_REMOTE | (span.hasRemoteParent ? HAS_IS_REMOTE << 1 : 0) | SAMPLED,
  };
}

function requestOf(batch: readonly Span[], resource: Attributes) {
  const byScope = Map.groupBy(batch, span => span.scope);
  const scopeSpans = [...byScope].map(([name, spans]) => ({ scope: { name }, spans: spans.map(spanOf) }));
  return { resourceSpans: [{ resource: { attributes: attributesOf(resource) }, scopeSpans }] };
}
