/** The audit log of the API server: a trail for each request that the policy wants recorded, and the sinks that its events go to. */

import type { Clock } from '../../base/clock.ts';
import type { RequestAttributes, UserInfo } from '../request.ts';
import { type AuditPolicy, PolicyEvaluator } from './policy.ts';
import { type AuditEvent, Trail } from './trail.ts';

/** Takes events at once and never blocks a request; what it must drop it counts and logs. */
export interface AuditSink {
  record(event: AuditEvent): void;
  /** Writes what is still waiting. */
  close(): Promise<void>;
}

export interface AuditedRequest {
  readonly auditId: string;
  readonly attributes: Omit<RequestAttributes, 'user'>;
  /** Undefined where nobody could be authenticated. */
  readonly user: UserInfo | undefined;
  readonly uri: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly remoteAddress: string | undefined;
  /** When it came, by the monotonic clock; default now. */
  readonly receivedMs?: number;
}

export class Auditor {
  readonly #policy: PolicyEvaluator;
  readonly #sinks: readonly AuditSink[];
  readonly #clock: Clock;

  constructor(options: { policy: AuditPolicy; sinks: readonly AuditSink[]; clock: Clock }) {
    this.#policy = new PolicyEvaluator(options.policy);
    this.#sinks = options.sinks;
    this.#clock = options.clock;
  }

  /** The trail of a request whose user is known; undefined when the policy does not want it. */
  begin({ receivedMs, auditId, attributes, user, uri, headers, remoteAddress }: AuditedRequest): Trail | undefined {
    const recording = this.#policy.recording({ ...attributes, user });
    if (!recording) return undefined;
    return new Trail({
      recording,
      auditId,
      requestUri: uri,
      attributes,
      user,
      sourceIps: sourceIps(headers, remoteAddress),
      userAgent: headers['user-agent'] as string | undefined,
      now: () => this.#clock.now(),
      nowMs: () => this.#clock.monotonic(),
      receivedMs: receivedMs ?? this.#clock.monotonic(),
      record: event => {
        for (const sink of this.#sinks) sink.record(event);
      },
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.#sinks.map(sink => sink.close()));
  }
}

/** What proxies say of the client, then whom we see. */
function sourceIps(headers: AuditedRequest['headers'], remote: string | undefined): string[] {
  const listed = String(headers['x-forwarded-for'] ?? '')
    .split(',')
    .map(one => one.trim())
    .filter(Boolean);
  const real = headers['x-real-ip'];
  if (listed.length === 0 && typeof real === 'string' && real !== '') listed.push(real);
  const seen = remote?.replace(/^::ffff:/, '');
  return seen && listed.at(-1) !== seen ? [...listed, seen] : listed;
}
