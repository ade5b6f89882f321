/** `/stats/summary` (kubelet stats v1alpha1) of measured statistics. Pure. What is not measured is absent, never zero. */

import { formatTime } from '../../base/clock.ts';
import type { Pressure, Stall } from '../../sys/cgroup.ts';
import type { DiskStats, PodStats, Stats, Usage } from './node-stats.ts';

export function summaryOf(stats: Stats): object {
  const time = formatTime(stats.timeMs);
  return {
    node: {
      nodeName: stats.nodeName,
      startTime: formatTime(stats.startedMs),
      ...usageOf(stats.node, stats.memory.availableBytes),
      fs: diskOf(stats.disk, time),
      runtime: { imageFs: diskOf(stats.imageDisk, time) },
    },
    pods: stats.pods.map(pod => podOf(pod, time)),
  };
}

function podOf({ pod, usage, containers, processes, interfaces }: PodStats, time: string): object {
  const shown = interfaces.map(({ name, rxBytes, rxErrors, txBytes, txErrors }) => ({
    name,
    rxBytes,
    rxErrors,
    txBytes,
    txErrors,
  }));
  return {
    podRef: { name: pod.metadata.name, namespace: pod.metadata.namespace, uid: pod.metadata.uid },
    startTime: pod.status?.startTime ?? time,
    containers: containers.map(({ state, usage: own }) => ({
      name: state.name,
      startTime: formatTime(state.startedMs ?? state.createdMs),
      ...usageOf(own),
    })),
    ...usageOf(usage),
    ...(shown.length
      ? { network: { time, ...(shown.find(one => one.name === 'eth0') ?? {}), interfaces: shown } }
      : {}),
    process_stats: { process_count: processes },
  };
}

function usageOf(usage: Usage, availableBytes?: number): object {
  const time = formatTime(usage.timeMs);
  return {
    cpu: { time, usageNanoCores: usage.cpuNanoCores, usageCoreNanoSeconds: usage.cpuNanos, ...psiOf(usage, 'cpu') },
    memory: {
      time,
      ...(availableBytes === undefined ? {} : { availableBytes }),
      usageBytes: usage.memoryBytes,
      workingSetBytes: usage.workingSetBytes,
      rssBytes: usage.rssBytes,
      pageFaults: usage.pageFaults,
      majorPageFaults: usage.majorPageFaults,
      ...psiOf(usage, 'memory'),
    },
    ...(usage.pressure?.io ? { io: { time, ...psiOf(usage, 'io') } } : {}),
  };
}

/** Pressure stall information, of control groups of version 2. */
function psiOf({ pressure }: Usage, of: keyof Pressure): object {
  const stalls = pressure?.[of];
  if (!stalls) return {};
  const shown = ({ totalMicros: total, ...averages }: Stall) => ({ total, ...averages });
  return { psi: { full: shown(stalls.full), some: shown(stalls.some) } };
}

function diskOf({ capacityBytes, usedBytes, availableBytes, inodes, inodesFree }: DiskStats, time: string): object {
  return {
    time,
    availableBytes,
    capacityBytes,
    usedBytes,
    inodes,
    inodesFree,
    inodesUsed: inodes - inodesFree,
  };
}
