/** `/stats/summary` (kubelet stats v1alpha1) of measured statistics. Pure. What is not measured is absent, never zero. */

import { formatTime } from '../../base/clock.ts';
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
    cpu: { time, usageNanoCores: usage.cpuNanoCores, usageCoreNanoSeconds: usage.cpuNanos },
    memory: {
      time,
      ...(availableBytes === undefined ? {} : { availableBytes }),
      usageBytes: usage.memoryBytes,
      workingSetBytes: usage.workingSetBytes,
      rssBytes: usage.rssBytes,
      pageFaults: usage.pageFaults,
      majorPageFaults: usage.majorPageFaults,
    },
  };
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
