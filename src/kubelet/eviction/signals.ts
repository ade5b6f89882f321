/**
 * Eviction signals: how much of memory, disk and process ids is left on the node, and which thresholds that is below. Reading
 * costs a few small files of /proc and two statfs calls. It decides about no pod.
 */

import { readFileSync } from 'node:fs';
import { formatNano } from '../../api/machinery/quantity.ts';
import type { CgroupTree } from '../../sys/cgroup.ts';
import type { EvictionSignal, KubeletConfiguration } from '../configuration.ts';
import { thresholdOf } from '../node/machine.ts';
import { diskStats, machineMemory } from '../stats/node-stats.ts';

export type Pressure = 'MemoryPressure' | 'DiskPressure' | 'PIDPressure';
export type Resource = 'memory' | 'ephemeral-storage' | 'pids' | 'inodes';

export interface Observation {
  readonly signal: EvictionSignal;
  readonly available: number;
  readonly capacity: number;
}
/** A soft one counts only after its grace period. */
export interface Threshold {
  readonly signal: EvictionSignal;
  /** A quantity, or a percentage of the capacity. */
  readonly text: string;
  /** Absent for a hard one. */
  readonly graceMs?: number;
  /** So much more than the threshold must be there before a shortage is over. */
  readonly reclaim?: string;
}
export interface Shortage extends Observation {
  readonly of: Threshold;
  readonly threshold: number;
  readonly resource: Resource;
  readonly pressure: Pressure;
}

export function thresholdsOf(
  configuration: Pick<
    KubeletConfiguration,
    'evictionHard' | 'evictionSoft' | 'evictionSoftGracePeriodSeconds' | 'evictionMinimumReclaim'
  >,
): Threshold[] {
  const { evictionHard, evictionSoft, evictionSoftGracePeriodSeconds, evictionMinimumReclaim } = configuration;
  const reclaimOf = (signal: EvictionSignal) => {
    const reclaim = evictionMinimumReclaim[signal];
    return reclaim === undefined ? {} : { reclaim };
  };
  return [
    ...(Object.entries(evictionHard) as [EvictionSignal, string][]).map(([signal, text]) => ({
      signal,
      text,
      ...reclaimOf(signal),
    })),
    ...(Object.entries(evictionSoft) as [EvictionSignal, string][]).map(([signal, text]) => ({
      signal,
      text,
      graceMs: (evictionSoftGracePeriodSeconds[signal] ?? 0) * 1000,
      ...reclaimOf(signal),
    })),
  ];
}

const OF_SIGNAL: Readonly<Record<EvictionSignal, { resource: Resource; pressure: Pressure }>> = {
  'memory.available': { resource: 'memory', pressure: 'MemoryPressure' },
  'nodefs.available': { resource: 'ephemeral-storage', pressure: 'DiskPressure' },
  'nodefs.inodesFree': { resource: 'inodes', pressure: 'DiskPressure' },
  'imagefs.available': { resource: 'ephemeral-storage', pressure: 'DiskPressure' },
  'imagefs.inodesFree': { resource: 'inodes', pressure: 'DiskPressure' },
  'pid.available': { resource: 'pids', pressure: 'PIDPressure' },
};
/** Memory first: it ends soonest. */
const ORDER: readonly Resource[] = ['memory', 'pids', 'ephemeral-storage', 'inodes'];

export interface SignalSources {
  readonly rootDir: string;
  readonly imageDir: string;
  readonly cgroups: CgroupTree;
  /** Of all pods. */
  readonly cgroup: string;
  /** What `cgroup` may have, where something is reserved beside it. */
  readonly memoryBytesMax?: number;
}

export function observe(sources: SignalSources): Observation[] {
  const memory = machineMemory();
  const disk = diskStats(sources.rootDir);
  const images = diskStats(sources.imageDir);
  const { memoryBytesMax } = sources;
  const pods = memoryBytesMax === undefined ? undefined : sources.cgroups.usage(sources.cgroup);
  return [
    { signal: 'memory.available', available: memory.availableBytes, capacity: memory.capacityBytes },
    ...(pods && memoryBytesMax !== undefined
      ? [
          {
            signal: 'memory.available' as const,
            available: Math.max(0, memoryBytesMax - pods.workingSetBytes),
            capacity: memoryBytesMax,
          },
        ]
      : []),
    { signal: 'nodefs.available', available: disk.availableBytes, capacity: disk.capacityBytes },
    { signal: 'nodefs.inodesFree', available: disk.inodesFree, capacity: disk.inodes },
    { signal: 'imagefs.available', available: images.availableBytes, capacity: images.capacityBytes },
    { signal: 'imagefs.inodesFree', available: images.inodesFree, capacity: images.inodes },
    processIds(),
  ];
}

function processIds(): Observation {
  const max = (name: string) => Number(readFileSync(`/proc/sys/kernel/${name}`, 'latin1'));
  const capacity = Math.min(max('pid_max'), max('threads-max'));
  // `0.01 0.02 0.03 1/234 5678`: threads that run, and all.
  const used = Number(/\d+\/(\d+)/.exec(readFileSync('/proc/loadavg', 'latin1'))?.[1] ?? 0);
  return { signal: 'pid.available', available: Math.max(0, capacity - used), capacity };
}

/** Thresholds that are crossed, most urgent first; one that was crossed `before` stays so until its minimum is reclaimed. */
export function shortages(
  observations: readonly Observation[],
  thresholds: readonly Threshold[],
  before: { has(threshold: Threshold): boolean } = new Set(),
): Shortage[] {
  return thresholds
    .flatMap(of =>
      observations.flatMap(observation => {
        // A file system without a count of inodes has no lack of them.
        if (of.signal !== observation.signal || observation.capacity === 0) return [];
        const threshold = thresholdOf(of.text, observation.capacity);
        const extra = before.has(of) ? thresholdOf(of.reclaim, observation.capacity) : 0;
        if (observation.available >= threshold + extra) return [];
        return [{ ...observation, of, threshold, ...OF_SIGNAL[observation.signal] }];
      }),
    )
    .sort((a, b) => ORDER.indexOf(a.resource) - ORDER.indexOf(b.resource));
}

/** As upstream prints it: 100Mi, 1234Ki, 12. */
export function amountText(amount: number, resource: Resource): string {
  if (resource === 'pids' || resource === 'inodes') return String(amount);
  return formatNano(BigInt(Math.round(amount)) * 10n ** 9n, 'binary');
}
