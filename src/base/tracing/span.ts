/**
 * Spans of distributed tracing (OpenTelemetry's data model) and the tracer that begins them. Invariant: a span that is not sampled records
 * nothing, and only hands its identity on; one that is ends once, and is then given away. It knows no wire format and no exporter.
 */

import type { Clock } from '../clock.ts';
import type { Random } from '../random.ts';

export type AttributeValue = string | number | boolean | readonly string[];
export type Attributes = Readonly<Record<string, AttributeValue>>;

/** What of a span others refer to, in this process or beyond. */
export interface SpanContext {
  /** 32 and 16 hexadecimal digits, not all of them zero. */
  readonly traceId: string;
  readonly spanId: string;
  readonly isSampled: boolean;
  /** Of another process. */
  readonly isRemote?: boolean;
  /** The headers `tracestate` and `baggage`, handed on as they came. */
  readonly state?: string;
  readonly baggage?: string;
}

export type SpanKind = 'internal' | 'server' | 'client';

/** Who instrumented: upstream's names, by which backends group. */
export const SCOPES = {
  component: 'k8s.io/component-base/tracing',
  filters: 'k8s.op/apiserver/pkg/endpoints/filterlatency',
  http: 'go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp',
  grpc: 'go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc',
  kubelet: 'k8s.io/kubernetes/pkg/kubelet',
  images: 'k8s.io/kubernetes/pkg/kubelet/images',
  containers: 'k8s.io/kubernetes/pkg/kubelet/kuberuntime',
} as const;

export interface SpanOptions {
  readonly kind?: SpanKind;
  readonly scope?: string;
  /** Asked only where they are recorded. */
  readonly attributes?: Attributes | (() => Attributes);
  /** A span that caused this one and is not its parent. */
  readonly link?: SpanContext | undefined;
}

export interface SpanEvent {
  readonly name: string;
  readonly timeMs: number;
  readonly attributes: Attributes;
}

/** As the Go SDK's default limits. */
const ATTRIBUTES_MAX = 128;
const EVENTS_MAX = 128;

interface Identity {
  readonly context: SpanContext;
  readonly parent: SpanContext | undefined;
}

export class Span {
  readonly name: string;
  readonly kind: SpanKind;
  readonly scope: string;
  readonly context: SpanContext;
  readonly parentId: string | undefined;
  readonly hasRemoteParent: boolean;
  readonly link: SpanContext | undefined;
  readonly startMs: number;
  readonly attributes: Record<string, AttributeValue> = {};
  readonly events: SpanEvent[] = [];
  droppedAttributes = 0;
  droppedEvents = 0;
  /** The description of a failure. */
  failure: string | undefined;
  readonly tracer: Tracer;
  #endMs: number | undefined;
  #attributeCount = 0;

  constructor(tracer: Tracer, name: string, { context, parent }: Identity, options: SpanOptions) {
    this.tracer = tracer;
    this.name = name;
    this.context = context;
    this.parentId = parent?.spanId;
    this.hasRemoteParent = parent?.isRemote ?? false;
    this.kind = options.kind ?? 'internal';
    this.scope = options.scope ?? SCOPES.component;
    this.link = options.link;
    this.startMs = context.isSampled ? tracer.timeMs() : 0;
    const { attributes } = options;
    if (attributes && context.isSampled) this.set(typeof attributes === 'function' ? attributes() : attributes);
  }

  get isEnded(): boolean {
    return this.#endMs !== undefined;
  }
  get endMs(): number {
    return this.#endMs ?? this.startMs;
  }
  /** Whether what is told of it is kept. */
  get isRecording(): boolean {
    return this.context.isSampled && this.#endMs === undefined;
  }

  set(attributes: Attributes): void {
    if (!this.isRecording) return;
    for (const [key, value] of Object.entries(attributes)) {
      if (!Object.hasOwn(this.attributes, key) && ++this.#attributeCount > ATTRIBUTES_MAX) this.droppedAttributes++;
      else this.attributes[key] = value;
    }
  }
  event(name: string, attributes: Attributes = {}): void {
    if (!this.isRecording) return;
    // The newest stay.
    if (this.events.length >= EVENTS_MAX) {
      this.events.shift();
      this.droppedEvents++;
    }
    this.events.push({ name, timeMs: this.tracer.timeMs(), attributes });
  }
  fail(description: string): void {
    if (this.isRecording) this.failure = description;
  }
  /** A failure with the event that Go's SDK records of an error. */
  failWith(error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    const type = error instanceof Error ? error.name : typeof error;
    this.event('exception', { 'exception.type': type, 'exception.message': message });
    this.fail(message);
  }
  end(): void {
    if (this.#endMs !== undefined) return;
    // The wall clock may have been set back.
    this.#endMs = this.context.isSampled ? Math.max(this.startMs, this.tracer.timeMs()) : 0;
    if (this.context.isSampled) this.tracer.ended(this);
  }
}

/** Takes spans that have ended; never waits and never throws. */
export interface SpanSink {
  take(span: Span): void;
}

export interface TracerOptions {
  /** Of traces that begin here that many in a million are sampled; of others it is decided where they began. */
  readonly samplingRatePerMillion: number;
  readonly sink: SpanSink;
  readonly clock: Clock;
  readonly random: Random;
}

const MILLION = 1_000_000;
/** Beyond that the wall clock was set, or has drifted. */
const SKEW_MS_MAX = 5;

export class Tracer {
  readonly #options: TracerOptions;
  readonly #ratio: number;
  #offsetMs: number;

  constructor(options: TracerOptions) {
    this.#options = options;
    this.#ratio = options.samplingRatePerMillion / MILLION;
    this.#offsetMs = options.clock.now() - options.clock.monotonic();
  }

  /** Since the epoch, with the monotonic clock's fractions. */
  timeMs(): number {
    const { clock } = this.#options;
    const ms = clock.monotonic();
    const wallMs = clock.now();
    if (Math.abs(wallMs - ms - this.#offsetMs) > SKEW_MS_MAX) this.#offsetMs = wallMs - ms;
    return ms + this.#offsetMs;
  }

  /** Without a parent a new trace begins. */
  start(name: string, parent: SpanContext | undefined, options: SpanOptions = {}): Span {
    const spanId = this.#hex(2);
    if (parent) return new Span(this, name, { context: { ...parent, spanId, isRemote: false }, parent }, options);
    const traceId = this.#hex(4);
    const context = { traceId, spanId, isSampled: isWithin(traceId, this.#ratio) };
    return new Span(this, name, { context, parent: undefined }, options);
  }
  ended(span: Span): void {
    this.#options.sink.take(span);
  }

  #hex(words: number): string {
    let text = '';
    for (let i = 0; i < words; i++)
      text += Math.floor(this.#options.random.next() * 2 ** 32)
        .toString(16)
        .padStart(8, '0');
    return /[^0]/.test(text) ? text : `${text.slice(1)}1`;
  }
}

/** As TraceIDRatioBased of OpenTelemetry's SDKs, by the last eight bytes: what one samples at a ratio, one with a higher ratio does too. */
function isWithin(traceId: string, ratio: number): boolean {
  if (ratio >= 1) return true;
  return ratio > 0 && Number.parseInt(traceId.slice(16), 16) < ratio * 2 ** 64;
}
