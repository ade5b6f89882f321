/** What this machine is and has, read once. */

import { readFileSync, statfsSync } from 'node:fs';
import { availableParallelism, release } from 'node:os';
import type { NodeSystemInfo } from '../../api/core/v1.gen.ts';
import type { NodeResources } from '../fields.ts';

export const KUBELET_VERSION = 'v1.36.0-cox';
const PODS_MAX = 110;
/** Memory that is never given to pods, upstream's default hard eviction threshold. */
const MEMORY_RESERVED_BYTES = 100 * 1024 * 1024;
/** Upstream keeps a tenth of the disk free in the same way. */
const DISK_SHARE = 0.9;
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

export const ARCHITECTURE = ARCHITECTURES[process.arch] ?? process.arch;

export interface MachineCapacity {
  readonly capacity: Readonly<Record<string, string>>;
  readonly allocatable: Readonly<Record<string, string>>;
  readonly resources: NodeResources & { readonly podsMax: number };
}

export function readCapacity(rootDir: string): MachineCapacity {
  const cpus = availableParallelism();
  const memoryKib = Number(/^MemTotal:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);
  const disk = statfsSync(rootDir);
  const diskBytes = disk.blocks * disk.bsize;
  const ephemeralBytes = Math.floor(diskBytes * DISK_SHARE);
  const memoryBytes = memoryKib * 1024 - MEMORY_RESERVED_BYTES;
  const shared = { cpu: String(cpus), 'hugepages-1Gi': '0', 'hugepages-2Mi': '0', pods: String(PODS_MAX) };
  return {
    capacity: { ...shared, memory: `${memoryKib}Ki`, 'ephemeral-storage': `${Math.floor(diskBytes / 1024)}Ki` },
    allocatable: {
      ...shared,
      memory: `${Math.floor(memoryBytes / 1024)}Ki`,
      'ephemeral-storage': String(ephemeralBytes),
    },
    resources: { cpuMilli: cpus * 1000, memoryBytes, ephemeralBytes, podsMax: PODS_MAX },
  };
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
  };
}
