/**
 * The queues of one priority level. A flow is dealt a hand of them by its hash (shuffle sharding), so that a flow that floods
 * its hand leaves most others at least one queue of their own; which queue is next is start-time fair queuing: the one that
 * was served least, by seats times seconds. Pure; knows no requests and no limits of seats.
 */

import { assert } from '../../base/assert.ts';

/** Seconds that a request is believed to take until it has taken them. */
const SECONDS_EXPECTED = 0.003;

export interface Queue<T> {
  readonly waiting: T[];
  /** Virtual time at which all that was served from here would be done. */
  finish: number;
}

export class FairQueues<T extends { readonly width: number }> {
  readonly #queues: Queue<T>[];
  readonly #handSize: number;
  readonly #active = new Set<Queue<T>>();
  /** Virtual time: the start of what was served last. */
  #now = 0;

  constructor({ queues, handSize }: { readonly queues: number; readonly handSize: number }) {
    this.#queues = Array.from({ length: Math.max(1, queues) }, () => ({ waiting: [], finish: 0 }));
    this.#handSize = Math.min(handSize, this.#queues.length);
  }

  /** Of the flow's queues the one with the least in it. */
  queueOf(flow: string): Queue<T> {
    let best: Queue<T> | undefined;
    for (const card of deal(hashOf(flow), this.#queues.length, this.#handSize)) {
      const queue = this.#queues[card]!;
      if (!best || queue.waiting.length < best.waiting.length) best = queue;
    }
    assert(best, 'a hand holds a queue at least');
    return best;
  }
  add(queue: Queue<T>, item: T): void {
    if (queue.waiting.length === 0) {
      this.#active.add(queue);
      // Time in which a queue asked for nothing is no credit.
      queue.finish = Math.max(queue.finish, this.#now);
    }
    queue.waiting.push(item);
  }
  remove(queue: Queue<T>, item: T): boolean {
    const at = queue.waiting.indexOf(item);
    if (at < 0) return false;
    queue.waiting.splice(at, 1);
    if (queue.waiting.length === 0) this.#active.delete(queue);
    return true;
  }
  /** Whose turn it is. */
  peek(): { readonly queue: Queue<T>; readonly item: T } | undefined {
    let best: Queue<T> | undefined;
    for (const queue of this.#active) if (!best || queue.finish < best.finish) best = queue;
    return best && { queue: best, item: best.waiting[0]! };
  }
  /** Takes what `peek` showed. */
  take({ queue, item }: { readonly queue: Queue<T>; readonly item: T }): void {
    this.remove(queue, item);
    this.#now = queue.finish;
    queue.finish += item.width * SECONDS_EXPECTED;
  }
  /** What was taken is done and took that long. */
  charge(queue: Queue<T>, width: number, seconds: number): void {
    queue.finish += width * (seconds - SECONDS_EXPECTED);
  }
  /** Ends these queues: what waited in them, in no particular order. */
  drain(): T[] {
    const all = [...this.#active].flatMap(queue => queue.waiting);
    this.#active.clear();
    return all;
  }
  get activeCount(): number {
    return this.#active.size;
  }
}

/** FNV-1a, twice with different beginnings, as one number of 52 bits. */
export function hashOf(text: string): number {
  let low = 0x811c9dc5;
  let high = 0x01000193;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    low = Math.imul(low ^ code, 0x01000193);
    high = Math.imul(high ^ code, 0x5bd1e995);
  }
  return (high >>> 12) * 2 ** 32 + (low >>> 0);
}

/** Distinct cards of a deck, by the hash alone. */
export function deal(hash: number, deck: number, handSize: number): number[] {
  const hand: number[] = [];
  let rest = hash;
  for (let i = 0; i < handSize; i++) {
    const left = deck - i;
    let card = rest % left;
    rest = Math.floor(rest / left);
    for (const dealt of [...hand].sort((a, b) => a - b)) if (card >= dealt) card++;
    hand.push(card);
  }
  return hand;
}
