/**
 * Ends requests that take too long: whoever has no answer after the time a request may take (upstream's --request-timeout, or
 * less when the client says so) gets 504. The work goes on, its answer is thrown away. One sweep a second while requests are
 * at work, because a timer for each would cost more than most requests.
 */

import type { Clock, Timer } from '../base/clock.ts';
import { badRequest } from '../base/errors.ts';

const REQUEST_MS_MAX = 60_000;
const SWEEP_MS = 1000;

export interface Deadline {
  readonly atMs: number;
  readonly expire: () => void;
}

export class RequestDeadlines {
  readonly #clock: Clock;
  readonly #open = new Set<Deadline>();
  #timer: Timer | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls `expire` in time, unless it is taken back with `remove`. */
  add(startMs: number, allowedMs: number, expire: () => void): Deadline {
    const deadline = { atMs: startMs + allowedMs, expire };
    this.#open.add(deadline);
    this.#timer ??= this.#clock.after(SWEEP_MS, () => this.#sweep(), { background: true });
    return deadline;
  }
  remove(deadline: Deadline): void {
    this.#open.delete(deadline);
  }

  #sweep(): void {
    this.#timer = undefined;
    const now = this.#clock.monotonic();
    for (const deadline of this.#open) {
      if (deadline.atMs > now) continue;
      this.#open.delete(deadline);
      deadline.expire();
    }
    if (this.#open.size > 0) this.#timer = this.#clock.after(SWEEP_MS, () => this.#sweep(), { background: true });
  }
}

const DURATION = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?$/;

/** How long a request may take, by its `timeout` if it has one. Throws BadRequest. */
export function allowedMsOf(query: URLSearchParams | undefined): number {
  const asked = query?.get('timeout');
  if (!asked) return REQUEST_MS_MAX;
  const parts = DURATION.exec(asked);
  if (!parts) throw badRequest(`invalid timeout specified in the request URL: ${JSON.stringify(asked)}`);
  const [hours = 0, minutes = 0, seconds = 0, ms = 0] = parts.slice(1).map(part => Number(part ?? 0));
  return Math.min((hours * 3600 + minutes * 60 + seconds) * 1000 + ms || REQUEST_MS_MAX, REQUEST_MS_MAX);
}
