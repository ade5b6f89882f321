/**
 * Seats: how many requests of each priority level run at once. A level is sure of its own seats except those it lends; what
 * nobody uses others may borrow, and gets back as they are done. Who finds no seat waits in the level's queues, or is
 * refused. Invariant: limited levels together never use more than all seats. Pure, apart from the clock.
 */

import type { PriorityLevelConfiguration } from '../../api/flowcontrol/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import { FairQueues, type Queue } from './fair-queues.ts';

export type Refusal = 'concurrency-limit' | 'queue-full' | 'time-out' | 'cancelled';

interface Waiter {
  readonly width: number;
  readonly flow: string;
  readonly sinceMs: number;
  queue: Queue<Waiter>;
  readonly decide: (outcome: Grant | Refusal) => void;
}

/** No request takes more of its level's seats. */
const LEVEL_PART_MAX = 0.15;

/** Seats that somebody sits on; `release` is to be called once. */
export interface Grant {
  release(): void;
}

export class PriorityLevel {
  readonly name: string;
  uid = '';
  exempt = false;
  /** Seats of its own; those it does not lend; the most it may have. */
  nominal = 0;
  sure = 0;
  most = Number.POSITIVE_INFINITY;
  /** Seats that one request takes at most, so that the flows of the level get along. */
  widthMax = Number.POSITIVE_INFINITY;
  queues: FairQueues<Waiter> | undefined;
  queueLengthMax = 0;
  readonly waiters = new Set<Waiter>();
  seats = 0;
  executing = 0;
  readonly totals = { dispatched: 0, 'concurrency-limit': 0, 'queue-full': 0, 'time-out': 0, cancelled: 0 };
  #queuing = '';

  constructor(name: string) {
    this.name = name;
  }
  configure({ metadata, spec }: PriorityLevelConfiguration, seatsAShare: number): void {
    const { limited, exempt } = spec;
    const shares = limited ? (limited.nominalConcurrencyShares ?? 30) : (exempt?.nominalConcurrencyShares ?? 0);
    const lendable = (limited ?? exempt)?.lendablePercent ?? 0;
    const borrowing = limited?.borrowingLimitPercent;
    this.uid = metadata.uid ?? '';
    this.exempt = spec.type === 'Exempt';
    this.nominal = Math.ceil(shares * seatsAShare);
    this.sure = this.nominal - Math.round((this.nominal * lendable) / 100);
    this.most =
      borrowing === undefined || borrowing === null
        ? Number.POSITIVE_INFINITY
        : this.nominal + Math.round((this.nominal * borrowing) / 100);
    const queuing = limited?.limitResponse?.type === 'Queue' ? limited.limitResponse.queuing : undefined;
    this.queueLengthMax = queuing?.queueLengthLimit ?? 50;
    this.widthMax = queuing
      ? Math.max(
          1,
          Math.min(Math.ceil(this.nominal * LEVEL_PART_MAX), Math.floor(this.nominal / (queuing.handSize ?? 8))),
        )
      : Math.max(1, this.nominal);
    const shape = queuing ? `${queuing.queues ?? 64}/${queuing.handSize ?? 8}` : '';
    if (shape === this.#queuing) return;
    this.#queuing = shape;
    const waiting = this.queues?.drain() ?? [];
    this.queues = queuing
      ? new FairQueues({ queues: queuing.queues ?? 64, handSize: queuing.handSize ?? 8 })
      : undefined;
    for (const waiter of waiting) {
      if (!this.queues) {
        this.waiters.delete(waiter);
        waiter.decide('concurrency-limit');
        continue;
      }
      waiter.queue = this.queues.queueOf(waiter.flow);
      this.queues.add(waiter.queue, waiter);
    }
  }
}

export class PriorityLevels {
  readonly #seats: number;
  readonly #clock: Clock;
  readonly #levels = new Map<string, PriorityLevel>();
  /** Seats in use by limited levels, and requests that wait for some. */
  #used = 0;
  #waiting = 0;

  constructor(options: { readonly seats: number; readonly clock: Clock }) {
    this.#seats = options.seats;
    this.#clock = options.clock;
  }

  configure(configurations: readonly PriorityLevelConfiguration[]): void {
    let shares = 0;
    for (const { spec } of configurations)
      shares += spec.limited?.nominalConcurrencyShares ?? spec.exempt?.nominalConcurrencyShares ?? 0;
    const seatsAShare = this.#seats / Math.max(1, shares);
    const named = new Set<string>();
    for (const configuration of configurations) {
      const { name } = configuration.metadata;
      named.add(name);
      let level = this.#levels.get(name);
      if (!level) this.#levels.set(name, (level = new PriorityLevel(name)));
      level.configure(configuration, seatsAShare);
    }
    for (const level of this.#levels.values()) {
      if (named.has(level.name)) continue;
      // It goes once nobody is left in it.
      level.nominal = level.sure = 0;
      if (level.executing === 0 && level.waiters.size === 0) this.#levels.delete(level.name);
    }
    this.#dispatch();
  }
  get(name: string): PriorityLevel | undefined {
    return this.#levels.get(name);
  }
  all(): Iterable<PriorityLevel> {
    return this.#levels.values();
  }

  /** A seat at once, a refusal, or a promise of either. */
  acquire(
    level: PriorityLevel,
    request: { readonly width: number; readonly flow: () => string; readonly signal: () => AbortSignal },
  ): Grant | Refusal | Promise<Grant | Refusal> {
    if (level.exempt) return this.#grant(level, 0);
    const width = Math.min(request.width, level.widthMax);
    if (level.waiters.size === 0 && this.#hasRoom(level, width)) return this.#grant(level, width);
    if (!level.queues) return this.#refuse(level, 'concurrency-limit');
    return this.#wait(level, width, request);
  }

  #wait(
    level: PriorityLevel,
    width: number,
    { flow: flowOf, signal: signalOf }: { readonly flow: () => string; readonly signal: () => AbortSignal },
  ): Refusal | Promise<Grant | Refusal> {
    const flow = flowOf();
    const queue = level.queues!.queueOf(flow);
    if (queue.waiting.length >= level.queueLengthMax) return this.#refuse(level, 'queue-full');
    return new Promise(decide => {
      const waiter: Waiter = { width, flow, queue, sinceMs: this.#clock.monotonic(), decide };
      level.queues!.add(queue, waiter);
      level.waiters.add(waiter);
      this.#waiting++;
      signalOf().addEventListener('abort', () => this.#leave(level, waiter, 'cancelled'), { once: true });
    });
  }
  #leave(level: PriorityLevel, waiter: Waiter, why: Refusal): void {
    if (!level.waiters.delete(waiter)) return;
    level.queues?.remove(waiter.queue, waiter);
    this.#waiting--;
    waiter.decide(this.#refuse(level, why));
  }
  #refuse(level: PriorityLevel, why: Refusal): Refusal {
    level.totals[why]++;
    return why;
  }

  /** Refuses whoever has waited that long. */
  expire(waitMsMax: number): void {
    if (this.#waiting === 0) return;
    const since = this.#clock.monotonic() - waitMsMax;
    for (const level of this.#levels.values())
      for (const waiter of level.waiters) if (waiter.sinceMs <= since) this.#leave(level, waiter, 'time-out');
  }
  get waiting(): number {
    return this.#waiting;
  }

  #hasRoom(level: PriorityLevel, width: number): boolean {
    const after = level.seats + width;
    if (after <= level.sure) return true;
    if (after > level.most) return false;
    // Beyond what it is sure of, a level takes what the others neither use nor are sure of.
    let kept = 0;
    for (const other of this.#levels.values())
      if (other !== level && !other.exempt && other.sure > other.seats) kept += other.sure - other.seats;
    return this.#used + width + kept <= this.#seats;
  }
  #grant(level: PriorityLevel, width: number, queue?: Queue<Waiter>): Grant {
    level.seats += width;
    level.executing++;
    level.totals.dispatched++;
    this.#used += width;
    const startMs = queue ? this.#clock.monotonic() : 0;
    const { queues } = level;
    return {
      release: () => {
        level.seats -= width;
        level.executing--;
        this.#used -= width;
        if (queue) queues!.charge(queue, width, (this.#clock.monotonic() - startMs) / 1000);
        if (this.#waiting > 0) this.#dispatch();
      },
    };
  }
  /** Own seats come before borrowed ones. */
  #dispatch(): void {
    for (const borrowing of [false, true])
      for (const level of this.#levels.values()) {
        for (let next = level.queues?.peek(); next; next = level.queues!.peek()) {
          const { item } = next;
          if (!borrowing && level.seats + item.width > level.nominal) break;
          if (!this.#hasRoom(level, item.width)) break;
          level.queues!.take(next);
          level.waiters.delete(item);
          this.#waiting--;
          item.decide(this.#grant(level, item.width, next.queue));
        }
      }
  }
}
