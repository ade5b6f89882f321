/**
 * What the node, its pods and their containers use, read from control groups when somebody asks. A rate needs two readings:
 * the one before serves while it is recent, else the asker waits for a second one. Invariant: nothing is read while nobody
 * asks, and askers at the same time share one reading. It judges nothing.
 */

import { readFileSync, statfsSync } from 'node:fs';
import type { Pod } from '../../api/core/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import type { CgroupTree, CgroupUsage, Pressure } from '../../sys/cgroup.ts';
import { podCgroup } from '../pods/resources.ts';
import type { ContainerState, Runtime } from '../runtime.ts';

const FRESH_MS = 1000;
const WINDOW_MS_MIN = 1000;
/** An older reading says nothing of now. */
const WINDOW_MS_MAX = 60_000;

export interface Usage extends CgroupUsage {
  readonly pressure?: Pressure | undefined;
  /** Wall clock. */
  readonly timeMs: number;
  readonly cpuNanoCores: number;
}
export interface ContainerStats {
  readonly state: ContainerState;
  readonly cgroup: string;
  readonly usage: Usage;
}
export interface InterfaceStats {
  readonly name: string;
  readonly rxBytes: number;
  readonly rxErrors: number;
  readonly txBytes: number;
  readonly txErrors: number;
}
export interface PodStats {
  readonly pod: Pod;
  readonly cgroup: string;
  readonly usage: Usage;
  readonly containers: readonly ContainerStats[];
  readonly processes: number;
  /** Of the pod's own network namespace; empty for one on the node's. */
  readonly interfaces: readonly InterfaceStats[];
}
export interface DiskStats {
  readonly capacityBytes: number;
  readonly usedBytes: number;
  /** To processes without privilege. */
  readonly availableBytes: number;
  readonly inodes: number;
  readonly inodesFree: number;
}
export interface Stats {
  readonly nodeName: string;
  readonly timeMs: number;
  readonly startedMs: number;
  readonly windowMs: number;
  /** Its pods, and this process. */
  readonly node: Usage;
  readonly memory: { readonly capacityBytes: number; readonly availableBytes: number };
  readonly pods: readonly PodStats[];
  readonly disk: DiskStats;
  readonly imageDisk: DiskStats;
}

export interface NodeStatsOptions {
  readonly nodeName: string;
  readonly cgroups: CgroupTree;
  readonly cgroupRoot: string;
  readonly rootDir: string;
  readonly imageDir: string;
  readonly runtime: Runtime;
  pods(): readonly Pod[];
  readonly clock: Clock;
}

interface Reading {
  readonly atMs: number;
  readonly cpuNanos: ReadonlyMap<string, number>;
}
interface Raw {
  readonly usages: ReadonlyMap<string, CgroupUsage>;
  readonly pressures: ReadonlyMap<string, Pressure | undefined>;
  readonly pods: readonly { readonly pod: Pod; readonly cgroup: string; readonly containers: readonly Placed[] }[];
}
interface Placed {
  readonly state: ContainerState;
  readonly cgroup: string;
}

export class NodeStats {
  readonly #options: NodeStatsOptions;
  readonly #startedMs: number;
  #before: Reading | undefined;
  #latest: { readonly atMs: number; readonly stats: Promise<Stats> } | undefined;

  constructor(options: NodeStatsOptions) {
    this.#options = options;
    this.#startedMs = options.clock.now();
  }

  measure(): Promise<Stats> {
    const atMs = this.#options.clock.monotonic();
    if (!this.#latest || atMs - this.#latest.atMs > FRESH_MS) {
      const stats = this.#measure();
      this.#latest = { atMs, stats };
      stats.catch(() => (this.#latest = undefined));
    }
    return this.#latest.stats;
  }

  async #measure(): Promise<Stats> {
    const { clock } = this.#options;
    let raw = await this.#read();
    let atMs = clock.monotonic();
    if (!this.#before || atMs - this.#before.atMs > WINDOW_MS_MAX || atMs - this.#before.atMs < WINDOW_MS_MIN) {
      this.#before = { atMs, cpuNanos: processorTimes(raw) };
      await clock.sleep(WINDOW_MS_MIN);
      raw = await this.#read();
      atMs = clock.monotonic();
    }
    const before = this.#before;
    this.#before = { atMs, cpuNanos: processorTimes(raw) };
    return this.#statsOf(raw, { before, atMs });
  }

  async #read(): Promise<Raw> {
    const { cgroups, cgroupRoot, runtime } = this.#options;
    const { containers } = await runtime.snapshot();
    const usages = new Map<string, CgroupUsage>();
    const pressures = new Map<string, Pressure | undefined>();
    const look = (cgroup: string) => {
      const usage = cgroups.usage(cgroup);
      if (usage) usages.set(cgroup, usage);
      if (usage) pressures.set(cgroup, cgroups.pressure(cgroup));
      return usage !== undefined;
    };
    look(`${cgroupRoot}/kubepods`);
    const running = containers.filter(one => one.state === 'running');
    const pods = this.#options.pods().flatMap(pod => {
      const cgroup = podCgroup(cgroupRoot, pod);
      const own = running
        .filter(one => one.podUid === pod.metadata.uid)
        .map(state => ({ state, cgroup: `${cgroup}/${state.id}` }))
        .filter(one => look(one.cgroup));
      return own.length > 0 && look(cgroup) ? [{ pod, cgroup, containers: own }] : [];
    });
    return { usages, pressures, pods };
  }

  #statsOf(raw: Raw, { before, atMs }: { readonly before: Reading; readonly atMs: number }): Stats {
    const { clock, cgroups, cgroupRoot, nodeName, rootDir, imageDir } = this.#options;
    const timeMs = clock.now();
    const windowMs = atMs - before.atMs;
    const rated = (cgroup: string, beganMs: number): Usage => {
      const usage = raw.usages.get(cgroup) ?? NOTHING;
      // What began since then used nothing before.
      const spanMs = before.cpuNanos.has(cgroup) ? windowMs : Math.max(1, Math.min(timeMs - beganMs, windowMs));
      const spent = Math.max(0, usage.cpuNanos - (before.cpuNanos.get(cgroup) ?? 0));
      const pressure = raw.pressures.get(cgroup);
      return { ...usage, pressure, timeMs, cpuNanoCores: Math.round((spent / spanMs) * 1000) };
    };
    const pods = raw.pods.map(({ pod, cgroup, containers }): PodStats => {
      const beganMs = Math.min(...containers.map(({ state }) => state.startedMs ?? timeMs));
      const pid = containers[0]?.state.pid;
      return {
        pod,
        cgroup,
        usage: rated(cgroup, beganMs),
        containers: containers.map(one => ({ ...one, usage: rated(one.cgroup, one.state.startedMs ?? timeMs) })),
        processes: cgroups.taskCount(cgroup),
        interfaces: pid === undefined || pod.spec.hostNetwork ? [] : interfacesOf(pid),
      };
    });
    return {
      nodeName,
      timeMs,
      startedMs: this.#startedMs,
      windowMs,
      node: withSelf(rated(`${cgroupRoot}/kubepods`, this.#startedMs), before.cpuNanos.get(SELF) ?? 0, windowMs),
      memory: machineMemory(),
      pods,
      disk: diskStats(rootDir),
      imageDisk: diskStats(imageDir),
    };
  }
}

const SELF = '';
const NOTHING: CgroupUsage = {
  cpuNanos: 0,
  memoryBytes: 0,
  workingSetBytes: 0,
  rssBytes: 0,
  cacheBytes: 0,
  pageFaults: 0,
  majorPageFaults: 0,
};

function selfCpuNanos(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) * 1000;
}

function withSelf(pods: Usage, beforeNanos: number, windowMs: number): Usage {
  const own = selfCpuNanos();
  const { rss } = process.memoryUsage();
  return {
    ...pods,
    cpuNanos: pods.cpuNanos + own,
    cpuNanoCores: pods.cpuNanoCores + Math.round((Math.max(0, own - beforeNanos) / windowMs) * 1000),
    memoryBytes: pods.memoryBytes + rss,
    workingSetBytes: pods.workingSetBytes + rss,
    rssBytes: pods.rssBytes + rss,
  };
}

function processorTimes({ usages }: Raw): Map<string, number> {
  const times = new Map([...usages].map(([cgroup, usage]) => [cgroup, usage.cpuNanos]));
  return times.set(SELF, selfCpuNanos());
}

export function machineMemory(): { capacityBytes: number; availableBytes: number } {
  const text = readFileSync('/proc/meminfo', 'latin1');
  const bytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0) * 1024;
  return { capacityBytes: bytes('MemTotal'), availableBytes: bytes('MemAvailable') };
}

export function diskStats(path: string): DiskStats {
  const { blocks, bfree, bavail, bsize, files, ffree } = statfsSync(path);
  return {
    capacityBytes: blocks * bsize,
    usedBytes: (blocks - bfree) * bsize,
    availableBytes: bavail * bsize,
    inodes: files,
    inodesFree: ffree,
  };
}

// Loopback is nobody's traffic.
function interfacesOf(pid: number): InterfaceStats[] {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/net/dev`, 'latin1');
  } catch {
    return [];
  }
  return text
    .split('\n')
    .slice(2)
    .flatMap(line => {
      const [name, numbers] = line.split(':');
      if (!name || !numbers || name.trim() === 'lo') return [];
      const at = numbers.trim().split(/\s+/).map(Number);
      return [{ name: name.trim(), rxBytes: at[0]!, rxErrors: at[2]!, txBytes: at[8]!, txErrors: at[10]! }];
    });
}
