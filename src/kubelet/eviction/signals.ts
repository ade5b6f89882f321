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
export interface Shortage extends Observation {
  readonly threshold: number;
  readonly resource: Resource;
  readonly pressure: Pressure;
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

/** Those below their threshold, most urgent first. */
export function shortages(
  observations: readonly Observation[],
  thresholds: KubeletConfiguration['evictionHard'],
): Shortage[] {
  return observations
    .flatMap(observation => {
      const text = thresholds[observation.signal];
      const threshold = thresholdOf(text, observation.capacity);
      // A file system without a count of inodes has no lack of them.
      if (text === undefined || observation.capacity === 0 || observation.available >= threshold) return [];
      return [{ ...observation, threshold, ...OF_SIGNAL[observation.signal] }];
    })
    .sort((a, b) => ORDER.indexOf(a.resource) - ORDER.indexOf(b.resource));
}

/** As upstream prints it: 100Mi, 1234Ki, 12. */
export function amountText(amount: number, resource: Resource): string {
  if (resource === 'pids' || resource === 'inodes') return String(amount);
  return formatNano(BigInt(Math.round(amount)) * 10n ** 9n, 'binary');
}
