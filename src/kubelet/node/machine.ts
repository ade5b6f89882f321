/** What this machine is and has, read once. */

import { readFileSync, statfsSync } from 'node:fs';
import { availableParallelism, release } from 'node:os';
import type { NodeSystemInfo } from '../../api/core/v1.gen.ts';
import { formatNano, quantityMilli, quantityValue } from '../../api/machinery/quantity.ts';
import type { CgroupLimits } from '../../sys/cgroup.ts';
import { readHugePages } from '../../sys/huge-pages.ts';
import type { KubeletConfiguration } from '../configuration.ts';
import { parseCpuSet } from '../cpus/cpu-set.ts';
import type { NodeResources } from '../fields.ts';

export const KUBELET_VERSION = 'v1.36.0-cox';
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

export const ARCHITECTURE = ARCHITECTURES[process.arch] ?? process.arch;

export interface MachineCapacity {
  readonly capacity: Readonly<Record<string, string>>;
  readonly allocatable: Readonly<Record<string, string>>;
  readonly resources: NodeResources & { readonly podsMax: number };
  /** Limits of the group of all pods, where something is reserved beside them. */
  readonly enforced: CgroupLimits;
}

/** Allocatable is what is left of the capacity when that is taken away which is reserved, and that below which pods are evicted. */
export function readCapacity(
  rootDir: string,
  configuration: KubeletConfiguration,
  pages = readHugePages(),
): MachineCapacity {
  const { kubeReserved, systemReserved, evictionHard, maxPods } = configuration;
  const cpuMilli = availableParallelism() * 1000;
  const memoryKib = Number(/^MemTotal:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);
  const disk = statfsSync(rootDir);
  const diskBytes = disk.blocks * disk.bsize;
  const reserved = (name: string, measure = quantityValue) =>
    measure(kubeReserved[name]) + measure(systemReserved[name]);
  const hugeBytes = pages.reduce((sum, { pageBytes, count }) => sum + pageBytes * count, 0);
  const unreservedBytes =
    memoryKib * 1024 - reserved('memory') - thresholdOf(evictionHard['memory.available'], memoryKib * 1024);
  // A machine may have set all it has aside as huge pages.
  const memoryBytes = Math.max(0, unreservedBytes - hugeBytes);
  const ephemeralBytes =
    diskBytes - reserved('ephemeral-storage') - thresholdOf(evictionHard['nodefs.available'], diskBytes);
  // Those that are named count instead of how many are reserved.
  const named = parseCpuSet(configuration.reservedSystemCPUs).size;
  const freeMilli = cpuMilli - (named > 0 ? named * 1000 : reserved('cpu', quantityMilli));
  for (const [name, left] of Object.entries({
    cpu: freeMilli,
    memory: unreservedBytes,
    'ephemeral-storage': ephemeralBytes,
  }))
    if (left <= 0) throw new Error(`the kubelet's reservations leave no ${name} for pods: reserve less`);
  const hugePages = Object.fromEntries(
    pages.map(({ size, pageBytes, count }) => [`hugepages-${size}`, pageBytes * count]),
  );
  const shared = {
    ...Object.fromEntries(
      Object.entries(hugePages).map(([name, bytes]) => [name, formatNano(BigInt(bytes) * 10n ** 9n, 'binary')]),
    ),
    pods: String(maxPods),
  };
  return {
    capacity: {
      cpu: String(cpuMilli / 1000),
      ...shared,
      memory: `${memoryKib}Ki`,
      'ephemeral-storage': `${Math.floor(diskBytes / 1024)}Ki`,
    },
    allocatable: {
      cpu: freeMilli % 1000 === 0 ? String(freeMilli / 1000) : `${freeMilli}m`,
      ...shared,
      memory: `${Math.floor(memoryBytes / 1024)}Ki`,
      'ephemeral-storage': String(ephemeralBytes),
    },
    resources: { cpuMilli: freeMilli, memoryBytes, ephemeralBytes, hugePages, podsMax: maxPods },
    enforced: reserved('memory') > 0 ? { memoryBytesMax: memoryKib * 1024 - reserved('memory') } : {},
  };
}

/** A quantity, or a percentage of the capacity. */
export function thresholdOf(text: string | undefined, capacity: number): number {
  if (!text) return 0;
  return text.endsWith('%') ? Math.floor((capacity * Number(text.slice(0, -1))) / 100) : quantityValue(text);
}

/** A machine without swap space says nothing of it. */
export function swapOf(memoryInfo: string): Pick<NodeSystemInfo, 'swap'> {
  const kib = Number(/^SwapTotal:\s+(\d+) kB$/m.exec(memoryInfo)?.[1] ?? 0);
  return kib > 0 ? { swap: { capacity: kib * 1024 } } : {};
}

export function readSystemInfo(runtimeVersion: string): NodeSystemInfo {
  const read = (path: string) => {
    try {
      return readFileSync(path, 'utf8').trim();
    } catch {
      return '';
    }
  };
  return {
    machineID: read('/etc/machine-id'),
    systemUUID: read('/sys/class/dmi/id/product_uuid') || read('/etc/machine-id'),
    bootID: read('/proc/sys/kernel/random/boot_id'),
    kernelVersion: release(),
    osImage: /^PRETTY_NAME="?(.*?)"?$/m.exec(read('/etc/os-release'))?.[1] ?? 'Linux',
    containerRuntimeVersion: runtimeVersion,
    kubeletVersion: KUBELET_VERSION,
    kubeProxyVersion: '',
    operatingSystem: 'linux',
    architecture: ARCHITECTURE,
    ...swapOf(read('/proc/meminfo')),
  };
}
