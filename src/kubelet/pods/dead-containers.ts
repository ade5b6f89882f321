/**
 * Which dead containers (their logs, what they wrote) the node still keeps: by upstream's options of its kubelet, which its configuration
 * file does not have. Invariant: the last container of a name stays while its pod is not over, whatever the options say, since it alone
 * tells that the container has run: upstream runs such a one again. It leaves alone what is being made, and containers of pods unknown.
 */

import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { tracedAnew } from '../../base/tracing/active.ts';
import { SCOPES, type Tracer } from '../../base/tracing/span.ts';
import type { ContainerState, Runtime } from '../runtime.ts';

export interface DeadContainerPolicy {
  /** Younger ones the collection leaves alone (`--minimum-container-ttl-duration`). */
  readonly ageMsMin: number;
  /** Of one container of a pod (`--maximum-dead-containers-per-container`); below 0: as many as there are. */
  readonly perContainerMax: number;
  /** Of the node (`--maximum-dead-containers`); below 0: as many as there are. */
  readonly max: number;
}
export const DEAD_CONTAINERS_DEFAULT: DeadContainerPolicy = { ageMsMin: 0, perContainerMax: 1, max: -1 };

/** How many a pod that goes on keeps of one container, whatever their age; upstream's, below 0 too. */
export const keptOfEach = ({ perContainerMax }: DeadContainerPolicy): number => Math.max(perContainerMax, 1);

/** The oldest ones of a container, without the newest `keep`. */
export function beyond(dead: readonly ContainerState[], keep: number): ContainerState[] {
  return [...dead].sort(newestFirst).slice(keep);
}
const newestFirst = (a: ContainerState, b: ContainerState) => b.attempt - a.attempt || b.createdMs - a.createdMs;

export interface Judgement {
  readonly policy: DeadContainerPolicy;
  readonly nowMs: number;
  /** Undefined of a pod that nobody knows. */
  isOver(podUid: string): boolean | undefined;
}

/** What is to go, in upstream's order: first by container, then by number, in the end the oldest of all. */
export function surplus(
  containers: readonly ContainerState[],
  { policy, nowMs, isOver }: Judgement,
): readonly ContainerState[] {
  const { ageMsMin, perContainerMax, max } = policy;
  const byName = new Map<string, ContainerState[]>();
  for (const one of containers) {
    const key = `${one.podUid}/${one.name}`;
    byName.set(key, [...(byName.get(key) ?? []), one]);
  }
  const needed = new Set(
    [...byName.values()].map(([...all]) => all.sort(newestFirst)[0]!).filter(one => !isOver(one.podUid)),
  );
  const units = [...byName.values()]
    .map(all =>
      all.filter(
        one => one.state === 'exited' && nowMs - one.createdMs >= ageMsMin && isOver(one.podUid) !== undefined,
      ),
    )
    .filter(dead => dead.length > 0);
  const going = new Set<ContainerState>();
  const left = () => units.flat().filter(one => !going.has(one));
  const shorten = (keep: number) => {
    for (const dead of units) for (const one of beyond(dead, keep)) if (!needed.has(one)) going.add(one);
  };
  if (perContainerMax >= 0) shorten(perContainerMax);
  if (max >= 0 && left().length > max) {
    shorten(Math.max(1, Math.floor(max / units.length)));
    const free = left().filter(one => !needed.has(one));
    free.sort((a, b) => a.createdMs - b.createdMs);
    for (const one of free.slice(0, Math.max(0, left().length - max))) going.add(one);
  }
  return [...going];
}

export interface CollectionOptions {
  readonly policy: DeadContainerPolicy;
  readonly runtime: Runtime;
  readonly tracer?: Tracer | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly isOver: Judgement['isOver'];
}

/** As often as upstream's. */
const PERIOD_MS = 60_000;

/** Looks until the signal aborts. */
export async function collectDead(options: CollectionOptions, signal: AbortSignal): Promise<void> {
  const { policy, runtime, tracer, clock, log, isOver } = options;
  while (!signal.aborted) {
    try {
      await tracedAnew(tracer, 'Containers/GarbageCollect', { scope: SCOPES.containers }, async () => {
        const { containers } = await runtime.snapshot();
        for (const one of surplus(containers, { policy, nowMs: clock.now(), isOver })) await runtime.remove(one.id);
      });
    } catch (error) {
      log.warn('dead containers not collected', { error: messageOf(error) });
    }
    await clock.sleep(PERIOD_MS, signal);
  }
}
