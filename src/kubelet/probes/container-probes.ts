/**
 * The probes of one running container: startup first, then readiness and liveness, each on its own beat. Thresholds and
 * delays as upstream. Invariant: after `stop` nothing is reported any more and no probe's process is left.
 *
 * Until it succeeds the first time, a readiness or startup probe without initial delay is also tried in between its beats:
 * such extra tries only ever count when they succeed, so a pod is Ready as soon as it is, not a period later.
 */

import type { Container, Probe } from '../../api/core/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Random } from '../../base/random.ts';
import type { ProbeOutcome, ProbeTarget } from './prober.ts';
import { PROBERS } from './registry.ts';

export type ProbeKind = 'startup' | 'readiness' | 'liveness';

export interface ContainerProbesOptions {
  readonly container: Container;
  readonly startedMs: number;
  readonly target: ProbeTarget;
  readonly clock: Clock;
  readonly random: Random;
  /** The agent found the container already running: it counts as ready until a probe says otherwise, if it was. */
  readonly wasReady: boolean;
  /** A probe was made: on its beat, or beside it with success. */
  probed(kind: ProbeKind, isSuccess: boolean, seconds: number): void;
  /** A probe has something to say: it failed once, could not be made at all, or only warns. */
  told(kind: ProbeKind, what: 'failed' | 'errored' | 'warning', output: string): void;
  /** `isReady` or `isStarted` changed, or the container must be restarted. */
  changed(): void;
}

/** Or why there is no telling. */
type Attempt = ProbeOutcome | { readonly error: string };
const isSuccess = (attempt: Attempt): boolean => 'isSuccess' in attempt && attempt.isSuccess;

/** A probe that cannot be made is tried again at once. */
const TRIES_MAX = 3;
const EAGER_MS_MIN = 10;
const EAGER_EXEC_MS_MIN = 100;

export class ContainerProbes {
  readonly #options: ContainerProbesOptions;
  readonly #stop = new AbortController();
  #isReady: boolean;
  #isStarted: boolean;
  /** The probe that gave the container up. */
  doomedBy: ProbeKind | undefined;

  constructor(options: ContainerProbesOptions) {
    this.#options = options;
    const { startupProbe, readinessProbe, livenessProbe } = options.container;
    this.#isStarted = !startupProbe || options.wasReady;
    this.#isReady = !readinessProbe || options.wasReady;
    if (startupProbe && !this.#isStarted) void this.#run('startup', startupProbe);
    if (readinessProbe) void this.#run('readiness', readinessProbe);
    if (livenessProbe) void this.#run('liveness', livenessProbe);
  }
  get isReady(): boolean {
    return this.#isReady && this.#isStarted;
  }
  get isStarted(): boolean {
    return this.#isStarted;
  }
  stop(): void {
    this.#stop.abort();
  }

  async #run(kind: ProbeKind, probe: Probe): Promise<void> {
    const { clock, startedMs, random, wasReady } = this.#options;
    const { signal } = this.#stop;
    const periodMs = (probe.periodSeconds || 10) * 1000;
    const delayMs = (probe.initialDelaySeconds ?? 0) * 1000 - (clock.now() - startedMs);
    if (delayMs > 0) await clock.sleep(delayMs, signal);
    // After a restart of the agent all its pods would be probed at the same moment.
    else if (wasReady) await clock.sleep(random.next() * periodMs, signal);
    let successes = 0;
    let failures = 0;
    let hasSucceeded = wasReady;
    let eagerMs = probe.exec ? EAGER_EXEC_MS_MIN : EAGER_MS_MIN;
    while (!signal.aborted && this.doomedBy === undefined) {
      const beatMs = clock.monotonic();
      if (kind === 'startup' || this.#isStarted) {
        const outcome = await this.#probe(probe);
        if (signal.aborted) return;
        if (!('error' in outcome)) this.#options.probed(kind, outcome.isSuccess, (clock.monotonic() - beatMs) / 1000);
        if ('error' in outcome) {
          // Nothing follows from it, neither for readiness nor for the counts.
          this.#options.told(kind, 'errored', outcome.error);
        } else if (outcome.isSuccess) {
          if (outcome.isWarning) this.#options.told(kind, 'warning', outcome.output);
          hasSucceeded = true;
          failures = 0;
          if (++successes >= (probe.successThreshold || 1)) this.#succeed(kind);
          if (kind === 'startup' && this.#isStarted) return;
        } else {
          successes = 0;
          failures++;
          this.#options.told(kind, 'failed', outcome.output);
          if (failures >= (probe.failureThreshold || 3)) this.#fail(kind);
        }
      }
      const nextMs = beatMs + periodMs;
      if (kind !== 'liveness' && !hasSucceeded && !probe.initialDelaySeconds && (probe.successThreshold || 1) === 1) {
        for (; !signal.aborted && clock.monotonic() + eagerMs < nextMs && !hasSucceeded; eagerMs *= 2) {
          await clock.sleep(eagerMs, signal);
          const tryMs = clock.monotonic();
          if (
            signal.aborted ||
            (kind !== 'startup' && !this.#isStarted) ||
            !isSuccess(await this.#probe(probe)) ||
            signal.aborted
          )
            continue;
          this.#options.probed(kind, true, (clock.monotonic() - tryMs) / 1000);
          hasSucceeded = true;
          failures = 0;
          this.#succeed(kind);
          if (kind === 'startup') return;
        }
      }
      // A readiness probe that waits for the startup probe begins the moment that one succeeds.
      if (kind !== 'startup' && !this.#isStarted) await this.#untilStarted();
      else await clock.sleep(Math.max(0, nextMs - clock.monotonic()), signal);
    }
  }

  #startWaiters: (() => void)[] = [];
  #untilStarted(): Promise<void> {
    if (this.#stop.signal.aborted) return Promise.resolve();
    return new Promise(resolve => {
      this.#startWaiters.push(resolve);
      this.#stop.signal.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  #succeed(kind: ProbeKind): void {
    if (kind === 'startup' && !this.#isStarted) {
      this.#isStarted = true;
      for (const wake of this.#startWaiters.splice(0)) wake();
      this.#options.changed();
    }
    if (kind === 'readiness' && !this.#isReady) {
      this.#isReady = true;
      this.#options.changed();
    }
  }
  #fail(kind: ProbeKind): void {
    if (kind === 'readiness') {
      if (!this.#isReady) return;
      this.#isReady = false;
    } else {
      this.doomedBy = kind;
    }
    this.#options.changed();
  }

  async #probe(probe: Probe): Promise<Attempt> {
    let attempt = await this.#try(probe);
    for (let tries = 1; tries < TRIES_MAX && 'error' in attempt && !this.#stop.signal.aborted; tries++)
      attempt = await this.#try(probe);
    return attempt;
  }
  async #try(probe: Probe): Promise<Attempt> {
    const prober = PROBERS.find(one => probe[one.action] !== undefined && probe[one.action] !== null);
    if (!prober) return { isSuccess: true, output: '' };
    const timeoutSeconds = probe.timeoutSeconds || 1;
    const late = new AbortController();
    const abort = () => late.abort();
    const timer = this.#options.clock.after(timeoutSeconds * 1000, abort);
    this.#stop.signal.addEventListener('abort', abort, { once: true });
    try {
      return await prober.probe(probe[prober.action] as never, this.#options.target, {
        signal: late.signal,
        timeoutSeconds,
      });
    } catch (error) {
      return { error: messageOf(error) };
    } finally {
      timer.cancel();
      this.#stop.signal.removeEventListener('abort', abort);
    }
  }
}
