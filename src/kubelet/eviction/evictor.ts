/**
 * Keeps the node from running out of memory, disk or process ids: while one is short the node says so in its conditions, takes
 * no pod that would make it worse, reclaims what nobody uses, and evicts one pod after the other until it is not. Invariant: a
 * condition lasts at least the transition period after its shortage; a soft threshold evicts only when it was crossed for its
 * whole grace period; the next pod is chosen only when the one before has ended, or had its time.
 */

import type { Pod } from '../../api/core/v1.gen.ts';
import { quantityValue } from '../../api/machinery/quantity.ts';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { metrics } from '../../base/metrics.ts';
import type { EvictionSignal, KubeletConfiguration } from '../configuration.ts';
import { allContainers, qosOf } from '../pods/resources.ts';
import { isCritical, ranked } from './ranking.ts';
import {
  amountText,
  observe,
  type Pressure,
  type Shortage,
  type SignalSources,
  shortages,
  type Threshold,
  thresholdsOf,
} from './signals.ts';

const LOOK_MS = 10_000;
/** While something is short. */
const LOOK_MS_SHORT = 1000;
const CLEANUP_MS_MAX = 30_000;
/** Who breaks a hard limit gets no more time. */
const HARD_GRACE_SECONDS = 1;
const MEMORY_PRESSURE_TAINT = 'node.kubernetes.io/memory-pressure';

/** A pod of the node as the evictor sees it. */
export interface Evictable {
  readonly pod: Pod;
  memoryBytes(): number;
  /** By container. */
  containerMemory(): Promise<ReadonlyMap<string, number>>;
  processes(): number;
  diskBytes(): Promise<number>;
  /** Resolves when nothing of it runs any more, at most so many seconds (or the pod's own, fewer) and a kill later. */
  evict(message: string, graceSecondsMax: number): Promise<void>;
}

export interface EvictorOptions {
  readonly sources: SignalSources;
  readonly configuration: Pick<
    KubeletConfiguration,
    | 'evictionHard'
    | 'evictionSoft'
    | 'evictionSoftGracePeriodSeconds'
    | 'evictionMaxPodGracePeriod'
    | 'evictionMinimumReclaim'
    | 'evictionPressureTransitionPeriodSeconds'
  >;
  pods(): readonly Evictable[];
  /** Frees what no pod needs, where that helps the signal: dead containers, unused images. */
  reclaim(signal: EvictionSignal): Promise<void>;
  /** The conditions have changed. */
  changed(): void;
  /** What is short on the node itself: told with the node's events. */
  event(reason: string, message: string): void;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Evictor {
  readonly #options: EvictorOptions;
  readonly #thresholds: readonly Threshold[];
  /** Since when each has been crossed without a pause. */
  #crossedMs: ReadonlyMap<Threshold, number> = new Map();
  /** When each was last seen. */
  readonly #seenMs = new Map<Pressure, number>();
  #pressures: ReadonlySet<Pressure> = new Set();
  readonly #evictions = metrics.counter('kubelet_evictions', 'Cumulative number of pod evictions by eviction signal', [
    'eviction_signal',
  ]);

  constructor(options: EvictorOptions) {
    this.#options = options;
    this.#thresholds = thresholdsOf(options.configuration);
  }

  get pressures(): ReadonlySet<Pressure> {
    return this.#pressures;
  }

  /** Why the pod must not start here now. */
  refusal(pod: Pod): { readonly reason: string; readonly message: string } | undefined {
    if (this.#pressures.size === 0 || isCritical(pod)) return undefined;
    const isOnlyMemory = this.#pressures.size === 1 && this.#pressures.has('MemoryPressure');
    if (isOnlyMemory && (qosOf(pod) !== 'BestEffort' || toleratesMemoryPressure(pod))) return undefined;
    return { reason: 'Evicted', message: `The node had condition: [${[...this.#pressures].join(' ')}]. ` };
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    while (!signal.aborted) {
      let isShort = false;
      try {
        isShort = await this.#look(signal);
      } catch (error) {
        log.warn('eviction signals not looked at', { error: messageOf(error) });
      }
      await clock.sleep(isShort ? LOOK_MS_SHORT : LOOK_MS, signal);
    }
  }

  async #look(signal: AbortSignal): Promise<boolean> {
    const { sources, configuration, clock } = this.#options;
    const nowMs = clock.monotonic();
    const short = shortages(observe(sources), this.#thresholds, this.#crossedMs);
    this.#crossedMs = new Map(short.map(({ of }) => [of, this.#crossedMs.get(of) ?? nowMs]));
    for (const { pressure } of short) this.#seenMs.set(pressure, nowMs);
    const lastingMs = configuration.evictionPressureTransitionPeriodSeconds * 1000;
    for (const [pressure, seenMs] of this.#seenMs) if (nowMs - seenMs > lastingMs) this.#seenMs.delete(pressure);
    const now = new Set(this.#seenMs.keys());
    if (now.size !== this.#pressures.size || [...now].some(one => !this.#pressures.has(one))) {
      this.#pressures = now;
      this.#options.changed();
    }
    const due = short.find(({ of }) => nowMs - this.#crossedMs.get(of)! >= (of.graceMs ?? 0));
    if (due) await this.#relieve(due, signal);
    return short.length > 0;
  }

  async #relieve(shortage: Shortage, signal: AbortSignal): Promise<void> {
    const { clock, log, event, pods, reclaim, sources, configuration } = this.#options;
    const { resource, available, threshold } = shortage;
    event('EvictionThresholdMet', `Attempting to reclaim ${resource}`);
    await reclaim(shortage.signal);
    if (!shortages(observe(sources), [shortage.of], new Set([shortage.of])).length) return;
    const candidates = await Promise.all(
      pods().map(async one => ({ one, pod: one.pod, used: await usedBy(one, shortage) })),
    );
    const first = ranked(candidates, resource)[0];
    if (!first) return log.warn('nothing to evict', { resource, available, threshold });
    const message =
      `The node was low on resource: ${resource}. Threshold quantity: ${amountText(threshold, resource)}, ` +
      `available: ${amountText(available, resource)}. ${await largeContainers(first.one, shortage)}`;
    log.warn('evicting a pod', { pod: `${first.pod.metadata.namespace}/${first.pod.metadata.name}`, resource });
    this.#evictions.add(1, shortage.signal);
    const graceSeconds =
      shortage.of.graceMs === undefined ? HARD_GRACE_SECONDS : configuration.evictionMaxPodGracePeriod;
    await Promise.race([
      first.one.evict(message, graceSeconds),
      clock.sleep(CLEANUP_MS_MAX + graceSeconds * 1000, signal),
    ]);
  }
}

function usedBy(one: Evictable, { resource }: Shortage): number | Promise<number> {
  if (resource === 'memory') return one.memoryBytes();
  if (resource === 'pids') return one.processes();
  return one.diskBytes();
}

async function largeContainers(one: Evictable, { resource }: Shortage): Promise<string> {
  if (resource !== 'memory') return '';
  const memory = await one.containerMemory();
  return allContainers(one.pod)
    .map(({ name, resources }) => {
      const used = memory.get(name) ?? 0;
      const request = resources?.requests?.['memory'] ?? '0';
      return used > quantityValue(request)
        ? `Container ${name} was using ${amountText(used, 'memory')}, request is ${request}, has larger consumption of memory. `
        : '';
    })
    .join('');
}

function toleratesMemoryPressure({ spec }: Pod): boolean {
  return (spec.tolerations ?? []).some(
    ({ key, operator, effect }) =>
      (!effect || effect === 'NoSchedule') && (key === MEMORY_PRESSURE_TAINT || (!key && operator === 'Exists')),
  );
}
