/**
 * What is recorded of one request while it is on its way: an audit.k8s.io/v1 Event that grows, and is handed to the sinks at each stage
 * that the policy wants. Invariant: an event ends once; what comes after is left out.
 */

import { formatDuration } from '../../api/protobuf/duration.ts';
import { formatMicroTime } from '../../base/clock.ts';
import type { Status } from '../../base/errors.ts';
import type { RequestAttributes, UserInfo } from '../request.ts';
import type { Recording, Stage } from './policy.ts';

/** An audit.k8s.io/v1 Event as it is written. */
export type AuditEvent = Record<string, unknown> & { readonly auditID: string; readonly stage: Stage };

/** Of the server, by upstream's names, where a request may spend its time. */
export type Layer =
  | 'apf-queue-wait'
  | 'authentication'
  | 'authorization'
  | 'etcd'
  | 'impersonation'
  | 'mutating-webhook'
  | 'response-write'
  | 'serialize-response-object'
  | 'transform-response-object'
  | 'validating-webhook';

/** Of requests that took longer it is told where. */
const SLOW_MS = 500;
const LATENCY = 'apiserver.latency.k8s.io';
const durationText = (ms: number): string => formatDuration(Math.round(ms * 1e6));

export interface TrailOptions {
  readonly recording: Recording;
  readonly auditId: string;
  readonly requestUri: string;
  readonly attributes: Omit<RequestAttributes, 'user'>;
  readonly user: UserInfo | undefined;
  readonly sourceIps: readonly string[];
  readonly userAgent: string | undefined;
  readonly now: () => number;
  /** By the monotonic clock. */
  readonly nowMs: () => number;
  /** When the request came, by the same. */
  readonly receivedMs: number;
  readonly record: (event: AuditEvent) => void;
}

/** Values of annotations are texts; upstream cuts nothing, but no annotation may be larger than this in all. */
const ANNOTATIONS_BYTES_MAX = 256 * 1024;

export class Trail {
  readonly #options: TrailOptions;
  readonly #event: Record<string, unknown>;
  readonly #annotations: Record<string, string> = {};
  readonly #spentMs = new Map<Layer, number>();
  #annotated = 0;
  #ended = false;

  constructor(options: TrailOptions) {
    this.#options = options;
    const { recording, auditId, requestUri, attributes, user, sourceIps, userAgent, now, nowMs, receivedMs } = options;
    this.#event = {
      kind: 'Event',
      apiVersion: 'audit.k8s.io/v1',
      level: recording.level,
      auditID: auditId,
      stage: 'RequestReceived',
      requestURI: requestUri,
      verb: attributes.verb,
      user: user ? shown(user) : {},
      ...(sourceIps.length > 0 ? { sourceIPs: sourceIps } : {}),
      ...(userAgent ? { userAgent: userAgent.slice(0, 1024) } : {}),
      ...(attributes.isResource ? { objectRef: objectRef(attributes) } : {}),
      requestReceivedTimestamp: formatMicroTime(now() - (nowMs() - receivedMs)),
    };
  }

  received(): void {
    this.#emit('RequestReceived');
  }
  /** The request goes on as another user; `constraint` is the verb that allowed it where that is for some actions only. */
  impersonates(user: UserInfo, constraint: string | undefined): void {
    this.#event['impersonatedUser'] = shown(user);
    if (constraint) this.#event['authenticationMetadata'] = { impersonationConstraint: constraint };
  }
  /** The first value of a key stays. One with bodies in it, `Request`, only where bodies are recorded. */
  annotate(key: string, value: string, least: 'Metadata' | 'Request' = 'Metadata'): void {
    if (least === 'Request' && this.#options.recording.level === 'Metadata') return;
    if (Object.hasOwn(this.#annotations, key)) return;
    this.#annotated += key.length + value.length;
    if (this.#annotated <= ANNOTATIONS_BYTES_MAX) this.#annotations[key] = value;
  }
  /** Time that a layer took for the request, in all that is told of one layer. */
  spent(layer: Layer, ms: number): void {
    this.#spentMs.set(layer, (this.#spentMs.get(layer) ?? 0) + ms);
  }
  /** Runs the work of a layer, and notes its time. */
  time<T>(layer: Layer, work: () => T): T {
    const sinceMs = this.#options.nowMs();
    const end = () => this.spent(layer, this.#options.nowMs() - sinceMs);
    let result: T;
    try {
      result = work();
    } catch (error) {
      end();
      throw error;
    }
    if (result instanceof Promise) result.then(end, end);
    else end();
    return result;
  }
  #tellLatency(): void {
    const { attributes, nowMs, receivedMs } = this.#options;
    const totalMs = nowMs() - receivedMs;
    if (totalMs <= SLOW_MS || attributes.verb === 'watch') return;
    for (const [layer, ms] of this.#spentMs) if (ms > 0) this.annotate(`${LATENCY}/${layer}`, durationText(ms));
    this.annotate(`${LATENCY}/total`, durationText(totalMs));
  }
  /** The body of the request as an object. */
  requested(value: unknown): void {
    if (this.#options.recording.level === 'Metadata' || this.#event['requestObject'] !== undefined) return;
    this.#event['requestObject'] = this.#object(value);
    const { metadata } = value as {
      metadata?: { name?: string; namespace?: string; uid?: string; resourceVersion?: string };
    };
    const ref = this.#event['objectRef'] as Record<string, string> | undefined;
    if (!ref || !metadata) return;
    for (const key of ['name', 'namespace', 'uid', 'resourceVersion'] as const) {
      const given = metadata[key];
      if (!ref[key] && typeof given === 'string' && given) ref[key] = given;
    }
  }
  /** What is answered, made only where it is recorded. */
  answered(make: () => unknown): void {
    if (this.#options.recording.level === 'RequestResponse') this.#event['responseObject'] = this.#object(make());
  }
  refused(status: Status): void {
    const { code, message, reason, details } = status;
    this.#event['responseStatus'] = {
      metadata: {},
      status: 'Failure',
      message,
      reason,
      ...(details ? { details } : {}),
      code,
    };
    this.answered(() => status);
  }
  /** The head of an answer that goes on for long has been sent. */
  started(code: number): void {
    this.#event['responseStatus'] ??= { metadata: {}, code };
    this.#emit('ResponseStarted');
  }
  complete(code: number): void {
    this.#event['responseStatus'] ??= { metadata: {}, code };
    if (!this.#ended) this.#tellLatency();
    this.#emit('ResponseComplete');
    this.#ended = true;
  }

  #emit(stage: Stage): void {
    const { recording, now, record } = this.#options;
    if (this.#ended || recording.omitStages.has(stage)) return;
    record({
      ...this.#event,
      stage,
      stageTimestamp: formatMicroTime(now()),
      ...(Object.keys(this.#annotations).length > 0 ? { annotations: { ...this.#annotations } } : {}),
    } as unknown as AuditEvent);
  }

  #object(value: unknown): unknown {
    if (!this.#options.recording.omitManagedFields || typeof value !== 'object' || value === null) return value;
    const { items } = value as { items?: unknown };
    const bare = withoutManagedFields(value);
    return Array.isArray(items) ? { ...bare, items: items.map(item => withoutManagedFields(item as object)) } : bare;
  }
}

function withoutManagedFields(object: object): object {
  const { metadata } = object as { metadata?: { managedFields?: unknown } };
  if (!metadata?.managedFields) return object;
  const { managedFields: _, ...rest } = metadata;
  return { ...object, metadata: rest };
}

function shown({ name, uid, groups, extra }: UserInfo): object {
  return {
    username: name,
    ...(uid ? { uid } : {}),
    ...(groups.length > 0 ? { groups } : {}),
    ...(extra ? { extra } : {}),
  };
}

function objectRef({
  group,
  version,
  resource,
  subresource,
  namespace,
  name,
}: Omit<RequestAttributes, 'user'>): object {
  return {
    ...(resource ? { resource } : {}),
    ...(namespace ? { namespace } : {}),
    ...(name ? { name } : {}),
    ...(group ? { apiGroup: group } : {}),
    ...(version ? { apiVersion: version } : {}),
    ...(subresource ? { subresource } : {}),
  };
}
