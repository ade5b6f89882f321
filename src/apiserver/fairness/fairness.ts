/**
 * Priority and fairness (KEP-1040): each request is classified by the flow schemas, and runs when its priority level has
 * seats for it. Costs two lookups and one small object while there are seats. Who is refused gets 429 and is told when to ask again.
 * Besides it bounds watches, which upstream does not, because they sit on no seat.
 */

import type { FlowSchema, PriorityLevelConfiguration } from '../../api/flowcontrol/v1.gen.ts';
import { assert } from '../../base/assert.ts';
import type { Clock } from '../../base/clock.ts';
import { ApiError, failure } from '../../base/errors.ts';
import { metrics, type SeriesHandle } from '../../base/metrics.ts';
import type { RequestAttributes } from '../request.ts';
import { MANDATORY_LEVELS, MANDATORY_SCHEMAS } from './bootstrap-objects.ts';
import { type CompiledSchema, compileSchemas, flowOf } from './classifier.ts';
import { type Grant, type PriorityLevel, PriorityLevels, type Refusal } from './priority-levels.ts';
import { Turns } from './turns.ts';

/** Upstream's --max-requests-inflight and --max-mutating-requests-inflight. */
const SEATS = 400 + 200;
/** A quarter of the time that a request may take. */
const WAIT_MS_MAX = 15_000;
const EXPIRE_MS = 1000;
const RETRY_SECONDS = 1;
/** Replies that a user asked for and does not read: beyond that it gets no more large ones. */
const UNREAD_BYTES_OF_USER_MAX = 64 * 1024 * 1024;
/** Of one user, and of all together; some 5 KB each. */
const WATCHES_OF_USER_MAX = 5000;
const WATCHES_MAX = 20_000;

const LABELS = ['priority_level', 'flow_schema'];
const dispatched = metrics.counter(
  'apiserver_flowcontrol_dispatched_requests_total',
  'Number of requests executed by API Priority and Fairness subsystem',
  LABELS,
);
const rejected = metrics.counter(
  'apiserver_flowcontrol_rejected_requests_total',
  'Number of requests rejected by API Priority and Fairness subsystem',
  [...LABELS, 'reason'],
);
const waited = metrics.histogram(
  'apiserver_flowcontrol_request_wait_duration_seconds',
  'Length of time a request spent waiting in its queue',
  [0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30],
  [...LABELS, 'execute'],
);
const GAUGES = {
  current_inqueue_requests: (level: PriorityLevel) => level.waiters.size,
  current_executing_requests: (level: PriorityLevel) => level.executing,
  current_executing_seats: (level: PriorityLevel) => level.seats,
  nominal_limit_seats: (level: PriorityLevel) => level.nominal,
};

/** What a request is expected to cost. */
export interface Work {
  /** Seats. */
  readonly width: number;
  /** It holds the processor for long. */
  readonly heavy: boolean;
}

interface Flow {
  readonly schema: CompiledSchema;
  readonly level: PriorityLevel;
  readonly dispatched: SeriesHandle;
}

/** A request that may run. */
export class Admitted {
  readonly #fairness: Fairness;
  readonly #flow: Flow;
  readonly #user: string;
  #grant: Grant | undefined;
  readonly #leave: (() => void) | undefined;

  constructor(
    fairness: Fairness,
    { flow, user, grant, leave }: { flow: Flow; user: string; grant: Grant; leave: (() => void) | undefined },
  ) {
    this.#fairness = fairness;
    this.#user = user;
    this.#flow = flow;
    this.#grant = grant;
    this.#leave = leave;
  }
  get schemaUid(): string {
    return this.#flow.schema.uid;
  }
  get levelUid(): string {
    return this.#flow.level.uid;
  }
  /** The seats are free for others; what follows, as the events of a watch, costs little. */
  release(): void {
    this.#grant?.release();
    this.#grant = undefined;
  }
  /** A large reply is on its way, until the signal aborts. */
  sending(bytes: number, signal: AbortSignal): void {
    if (signal.aborted || this.#flow.level.exempt) return;
    this.#fairness.unread(this.#user, bytes);
    signal.addEventListener('abort', () => this.#fairness.unread(this.#user, -bytes), { once: true });
  }
  end(): void {
    this.release();
    this.#leave?.();
  }
}

/** Too many requests, in upstream's words and not as a Status. */
export class TooManyRequests extends ApiError {
  override name = 'TooManyRequests';
  constructor() {
    super(
      failure(429, 'TooManyRequests', 'Too many requests, please try again later.', {
        retryAfterSeconds: RETRY_SECONDS,
      }).status,
    );
  }
}

export class Fairness {
  readonly #clock: Clock;
  readonly #unreadBytesMax: number;
  readonly #levels: PriorityLevels;
  readonly #turns = new Turns();
  readonly #watches = new Map<string, number>();
  #watchCount = 0;
  readonly #unread = new Map<string, number>();
  #flows: readonly Flow[] = [];
  #expiring = false;

  constructor(options: { readonly clock: Clock; readonly seats?: number; readonly unreadBytesMax?: number }) {
    const { clock, seats = SEATS } = options;
    this.#clock = clock;
    this.#unreadBytesMax = options.unreadBytesMax ?? UNREAD_BYTES_OF_USER_MAX;
    this.#levels = new PriorityLevels({ seats, clock });
    this.configure([], []);
    metrics.onCollect(() => this.#collect());
  }

  /** The objects there are; mandatory ones that are missing apply all the same. */
  configure(schemas: readonly FlowSchema[], levels: readonly PriorityLevelConfiguration[]): void {
    const missing = <T extends { metadata: { name: string } }>(mandatory: readonly T[], there: readonly T[]) =>
      mandatory.filter(one => !there.some(other => other.metadata.name === one.metadata.name));
    this.#levels.configure([...levels, ...missing(MANDATORY_LEVELS, levels)]);
    const flows: Flow[] = [];
    for (const schema of compileSchemas([...schemas, ...missing(MANDATORY_SCHEMAS, schemas)])) {
      const level = this.#levels.get(schema.level);
      // A schema whose level is missing is passed over, as upstream does.
      if (level) flows.push({ schema, level, dispatched: dispatched.series(level.name, schema.name) });
    }
    this.#flows = flows;
  }

  /** Resolves when the request may run, at once where it can. Rejects with TooManyRequests. */
  admit(request: RequestAttributes, work: Work, signal: () => AbortSignal): Admitted | Promise<Admitted> {
    const flow = this.#classify(request);
    const leave = request.verb === 'watch' && !flow.level.exempt ? this.#watch(request.user.name) : undefined;
    const { width, heavy } = work;
    if (heavy && (this.#unread.get(request.user.name) ?? 0) > this.#unreadBytesMax) {
      rejected.add(1, flow.level.name, flow.schema.name, 'unread-replies');
      leave?.();
      throw new TooManyRequests();
    }
    const outcome = this.#levels.acquire(flow.level, { width, flow: () => flowOf(flow.schema, request), signal });
    if (typeof outcome === 'object' && !(outcome instanceof Promise) && !heavy) {
      flow.dispatched.add(1);
      return new Admitted(this, { flow, user: request.user.name, grant: outcome, leave });
    }
    return this.#later(flow, outcome, { heavy, leave, request });
  }
  async #later(
    flow: Flow,
    outcome: Grant | Refusal | Promise<Grant | Refusal>,
    { heavy, leave, request }: { heavy: boolean; leave: (() => void) | undefined; request: RequestAttributes },
  ): Promise<Admitted> {
    const { schema, level } = flow;
    const sinceMs = this.#clock.monotonic();
    this.#keepExpiring();
    const decided = await outcome;
    const execute = typeof decided === 'object';
    waited.observe((this.#clock.monotonic() - sinceMs) / 1000, level.name, schema.name, String(execute));
    if (!execute) {
      leave?.();
      rejected.add(1, level.name, schema.name, decided);
      throw new TooManyRequests();
    }
    if (heavy) await this.#turns.take(flowOf(schema, request));
    flow.dispatched.add(1);
    return new Admitted(this, { flow, user: request.user.name, grant: decided, leave });
  }
  /** For `Admitted`: bytes more, or less, that the user has not read yet. */
  unread(user: string, bytes: number): void {
    const left = (this.#unread.get(user) ?? 0) + bytes;
    if (left > 0) this.#unread.set(user, left);
    else this.#unread.delete(user);
  }
  #classify(request: RequestAttributes): Flow {
    for (const flow of this.#flows) if (flow.schema.matches(request)) return flow;
    const last = this.#flows.at(-1);
    assert(last, 'the mandatory schemas apply always');
    return last;
  }
  #watch(user: string): () => void {
    const count = this.#watches.get(user) ?? 0;
    if (count >= WATCHES_OF_USER_MAX || this.#watchCount >= WATCHES_MAX)
      throw failure(429, 'TooManyRequests', 'too many watches are open, please try again later', {
        retryAfterSeconds: RETRY_SECONDS,
      });
    this.#watches.set(user, count + 1);
    this.#watchCount++;
    return () => {
      this.#watchCount--;
      const left = this.#watches.get(user)! - 1;
      if (left === 0) this.#watches.delete(user);
      else this.#watches.set(user, left);
    };
  }
  #keepExpiring(): void {
    if (this.#expiring || this.#levels.waiting === 0) return;
    this.#expiring = true;
    const again = () => {
      this.#expiring = false;
      this.#levels.expire(WAIT_MS_MAX);
      this.#keepExpiring();
    };
    this.#clock.after(EXPIRE_MS, again, { background: true });
  }

  #collect(): void {
    for (const [name, value] of Object.entries(GAUGES)) {
      const gauge = metrics.gauge(`apiserver_flowcontrol_${name}`, `${name} of API Priority and Fairness`, [
        'priority_level',
      ]);
      for (const level of this.#levels.all()) gauge.set(value(level), level.name);
    }
  }
  /** Upstream's `/debug/api_priority_and_fairness/dump_priority_levels`. */
  dumpLevels(): string {
    const rows = [...this.#levels.all()]
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map(level => {
        const { dispatched, cancelled } = level.totals;
        const rejections = level.totals['queue-full'] + level.totals['concurrency-limit'];
        const active = level.queues?.activeCount ?? 0;
        return [
          level.name,
          active,
          level.executing + level.waiters.size === 0,
          level.nominal === 0 && !level.exempt,
          level.waiters.size,
          level.executing,
          dispatched,
          rejections,
          level.totals['time-out'],
          cancelled,
        ].join(', ');
      });
    const head =
      'PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, DispatchedRequests, RejectedRequests, TimedoutRequests, CancelledRequests';
    return `${[head, ...rows].join('\n')}\n`;
  }
}
