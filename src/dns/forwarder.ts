/**
 * Asks several upstream servers in turn until one answers, and knows which are down: one that failed is probed every half
 * second until it answers again, and is passed over meanwhile. When all are known to be down a question fails at once, so that
 * nobody waits for what cannot come; the probes end that. A question takes less than resolvers are willing to wait (5 s).
 */

import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { MetricsRegistry } from '../base/metrics.ts';
import type { Random } from '../base/random.ts';
import { TYPE } from './message.ts';
import { type ExchangeOptions, exchange, formatUpstream, type Question, type UpstreamAddress } from './upstream.ts';

export interface ForwarderOptions {
  readonly upstreams: readonly UpstreamAddress[];
  readonly policy: 'random' | 'round_robin' | 'sequential';
  readonly forcesTcp: boolean;
  readonly prefersUdp: boolean;
  /** Failed probes until a server counts as down; 0: never. */
  readonly failsMax: number;
  readonly probeMs: number;
  readonly probeRecursion: boolean;
  readonly probeName: string;
  readonly concurrentMax: number;
  /** Replies with these codes make the next server be asked. */
  readonly failover: ReadonlySet<number>;
  readonly tls?: NonNullable<ExchangeOptions['tls']>;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: MetricsRegistry;
}

export const FORWARDER_DEFAULTS = {
  policy: 'random',
  forcesTcp: false,
  prefersUdp: false,
  failsMax: 2,
  probeMs: 500,
  probeRecursion: true,
  probeName: '.',
  concurrentMax: 1000,
  failover: new Set<number>(),
} as const;

const TIMEOUT_MS = 2000;
const PROBE_TIMEOUT_MS = 1000;
// Resolvers give up after 5 s.
const TOTAL_MS = 4500;
const ATTEMPTS_MIN = 2;
// The plugin's metric names and buckets.
const SECONDS_BUCKETS = Array.from({ length: 16 }, (_, power) => 0.00025 * 2 ** power);

class Upstream {
  readonly at: UpstreamAddress;
  readonly text: string;
  fails = 0;
  isProbed = false;
  constructor(at: UpstreamAddress) {
    this.at = at;
    this.text = formatUpstream(at);
  }
}

export class Forwarder {
  readonly #options: ForwarderOptions;
  readonly #upstreams: readonly Upstream[];
  #signal: AbortSignal = AbortSignal.abort();
  #pending = 0;
  #turn = 0;

  constructor(options: ForwarderOptions) {
    this.#options = options;
    this.#upstreams = options.upstreams.map(at => new Upstream(at));
  }

  /** Before this nothing is asked. Servers are probed once, so that a dead one is known before somebody waits for it. */
  start(signal: AbortSignal): void {
    this.#signal = signal;
    for (const upstream of this.#upstreams) this.#probe(upstream);
  }

  /** The first good reply, with the server's own id. Rejects when there is none in time. */
  async exchange(question: Question & { readonly via: 'udp' | 'tcp' }): Promise<Buffer> {
    const { concurrentMax, clock, forcesTcp, prefersUdp, failover, tls } = this.#options;
    if (this.#pending >= concurrentMax) {
      this.#count(
        'coredns_forward_max_concurrent_rejects_total',
        'Counter of the number of queries rejected because the concurrent queries were at maximum.',
      );
      throw new Error('too many queries in flight');
    }
    this.#pending++;
    try {
      const via = forcesTcp ? 'tcp' : prefersUdp ? 'udp' : question.via;
      const endMs = clock.monotonic() + TOTAL_MS;
      const candidates = this.#inOrder();
      let failure = 'all upstreams are down';
      let fallback: Buffer | undefined;
      for (let attempt = 0; attempt < Math.max(candidates.length, ATTEMPTS_MIN) && candidates.length > 0; attempt++) {
        const upstream = candidates[attempt % candidates.length]!;
        const timeoutMs = Math.min(TIMEOUT_MS, endMs - clock.monotonic());
        if (timeoutMs <= 0 || this.#signal.aborted) break;
        // The only server is tried again unless it has been found dead meanwhile.
        if (attempt > 0 && this.#isDown(upstream)) continue;
        try {
          const reply = await this.#ask(upstream, question, {
            via,
            timeoutMs,
            signal: this.#signal,
            clock,
            ...(tls ? { tls } : {}),
          });
          if (!failover.has(reply[3]! & 15)) return reply;
          fallback = reply;
        } catch (error) {
          failure = `${upstream.text}: ${messageOf(error)}`;
          this.#probe(upstream);
        }
      }
      if (fallback) return fallback;
      throw new Error(failure);
    } finally {
      this.#pending--;
    }
  }

  async #ask(upstream: Upstream, question: Question, options: ExchangeOptions): Promise<Buffer> {
    const { clock, metrics } = this.#options;
    const startMs = clock.monotonic();
    const reply = await exchange(upstream.at, question, options);
    upstream.fails = 0;
    metrics
      .histogram(
        'coredns_proxy_request_duration_seconds',
        'Histogram of the time each request took.',
        SECONDS_BUCKETS,
        ['proxy_name', 'to', 'rcode'],
      )
      .observe((clock.monotonic() - startMs) / 1000, 'forward', upstream.text, String(reply[3]! & 15));
    return reply;
  }

  #isDown({ fails }: Upstream): boolean {
    return this.#options.failsMax > 0 && fails >= this.#options.failsMax;
  }

  #inOrder(): Upstream[] {
    const up = this.#upstreams.filter(upstream => !this.#isDown(upstream));
    if (up.length === 0)
      this.#count(
        'coredns_forward_healthcheck_broken_total',
        'Counter of the number of complete failures of the healthchecks.',
      );
    const { policy, random } = this.#options;
    if (policy === 'sequential' || up.length < 2) return up;
    const from = policy === 'random' ? Math.floor(random.next() * up.length) : this.#turn++ % up.length;
    return [...up.slice(from), ...up.slice(0, from)];
  }

  // Until it answers anything at all.
  #probe(upstream: Upstream): void {
    const { failsMax, probeMs, probeName, probeRecursion, clock, log, tls } = this.#options;
    if (failsMax === 0 || upstream.isProbed || this.#signal.aborted) return;
    upstream.isProbed = true;
    const question = {
      name: probeName,
      type: TYPE.NS,
      recursionDesired: probeRecursion,
      checkingDisabled: false,
      dnssecOk: false,
    };
    const run = async (): Promise<void> => {
      for (; !this.#signal.aborted; await clock.sleep(probeMs, this.#signal)) {
        try {
          await exchange(upstream.at, question, {
            via: this.#options.forcesTcp ? 'tcp' : 'udp',
            timeoutMs: PROBE_TIMEOUT_MS,
            signal: this.#signal,
            clock,
            ...(tls ? { tls } : {}),
          });
          if (this.#isDown(upstream)) log.info('upstream answers again', { upstream: upstream.text });
          upstream.fails = 0;
          return;
        } catch (error) {
          if (this.#signal.aborted) return;
          upstream.fails++;
          this.#count(
            'coredns_proxy_healthcheck_failures_total',
            'Counter of the number of failed healthchecks.',
            upstream.text,
          );
          if (upstream.fails === failsMax)
            log.warn('upstream does not answer', { upstream: upstream.text, error: messageOf(error) });
        }
      }
    };
    void run().finally(() => {
      upstream.isProbed = false;
    });
  }

  #count(name: string, help: string, to?: string): void {
    const { metrics } = this.#options;
    if (to === undefined) metrics.counter(name, help).add();
    else metrics.counter(name, help, ['proxy_name', 'to']).add(1, 'forward', to);
  }
}
