/**
 * Control groups on v1, hybrid and v2 hosts behind one face. A path is relative to the root of each hierarchy
 * (`/coxswain/dev/kubepods/pod…`). Invariant: `create` and `remove` are idempotent. It refuses to touch the root group.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { assert } from '../base/assert.ts';
import { mountTable, unmount } from './mount.ts';

export interface CgroupLimits {
  /** v1 shares (2 to 262144); turned into a v2 weight there. */
  readonly cpuShares?: number;
  /** -1 for none. */
  readonly cpuQuotaMicros?: number;
  readonly cpuPeriodMicros?: number;
  /** -1 for none. */
  readonly memoryBytesMax?: number;
  readonly pidsMax?: number;
  /** Bytes by the kernel's name of the page size (`2MB`). */
  readonly hugePageBytesMax?: Readonly<Record<string, number>>;
  /** Processors that may be used, as `0-1,4`. */
  readonly cpus?: string;
}

export interface CgroupUsage {
  readonly cpuNanos: number;
  readonly memoryBytes: number;
  /** Memory without what the kernel can drop at once (inactive file pages). */
  readonly workingSetBytes: number;
  readonly rssBytes: number;
  readonly cacheBytes: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
}

export interface CpuThrottling {
  readonly periods: number;
  readonly throttledPeriods: number;
  readonly throttledNanos: number;
}

interface Hierarchy {
  readonly mountPoint: string;
  /** v1 controllers; empty for the unified hierarchy. */
  readonly controllers: readonly string[];
}

/** v1 says "no limit" with the greatest number of whole pages. */
const UNLIMITED_BYTES = 2 ** 62;
const V2_CONTROLLERS = ['cpu', 'memory', 'pids', 'cpuset', 'io', 'hugetlb'];
const KNOWN_V1 = new Set([
  'cpu',
  'cpuacct',
  'memory',
  'pids',
  'cpuset',
  'devices',
  'freezer',
  'blkio',
  'net_cls',
  'net_prio',
  'perf_event',
  'hugetlb',
  'rdma',
  'misc',
]);

/** The kernel's own mapping of v1 shares to v2 weight, as runc and crun do it. */
export function weightOf(shares: number): number {
  if (shares <= 0) return 0;
  return Math.floor(1 + ((Math.min(Math.max(shares, 2), 262144) - 2) * 9999) / 262142);
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function field(text: string | undefined, name: string): number | undefined {
  const match = text && new RegExp(`^${name} (\\d+)$`, 'm').exec(text);
  return match ? Number(match[1]) : undefined;
}

/** Mount points of hierarchies of version 2 that have controllers while others are with version 1. */
export function mixedHierarchies(table = mountTable()): string[] {
  if (!table.some(({ fsType }) => fsType === 'cgroup')) return [];
  return table
    .filter(({ fsType, mountPoint }) => fsType === 'cgroup2' && read(`${mountPoint}/cgroup.controllers`)?.trim())
    .map(({ mountPoint }) => mountPoint);
}

/** Shares of time in percent, over seconds, and the time altogether. */
export interface Stall {
  readonly avg10: number;
  readonly avg60: number;
  readonly avg300: number;
  readonly totalMicros: number;
}
export interface Stalls {
  /** Of some processes, of all at once. */
  readonly some: Stall;
  readonly full: Stall;
}
const PRESSURES = ['cpu', 'memory', 'io'] as const;
export type Pressure = Readonly<Partial<Record<(typeof PRESSURES)[number], Stalls>>>;

/** Leaves the hierarchies of version 1 alone in this mount namespace, which must be one's own. */
export function leaveMixedHierarchies(): void {
  for (const mountPoint of mixedHierarchies()) unmount(mountPoint);
}

export class CgroupTree {
  readonly #hierarchies: readonly Hierarchy[];
  /** Whether the unified hierarchy alone rules (no v1 controllers). */
  readonly unified: boolean;

  constructor(table = mountTable()) {
    const found = new Map<string, Hierarchy>();
    for (const entry of table) {
      if (entry.fsType === 'cgroup2') found.set('', { mountPoint: entry.mountPoint, controllers: [] });
      if (entry.fsType === 'cgroup') {
        const controllers = entry.superOptions
          .split(',')
          .filter(option => KNOWN_V1.has(option) || option.startsWith('name='));
        found.set(controllers.join(','), { mountPoint: entry.mountPoint, controllers });
      }
    }
    this.#hierarchies = [...found.values()];
    this.unified = !this.#hierarchies.some(
      hierarchy => hierarchy.controllers.includes('memory') || hierarchy.controllers.includes('cpu'),
    );
  }

  #folder(controller: string, path: string): string | undefined {
    const hierarchy = this.unified
      ? this.#hierarchies.find(one => one.controllers.length === 0)
      : this.#hierarchies.find(one => one.controllers.includes(controller));
    return hierarchy && `${hierarchy.mountPoint}${path}`;
  }

  /** Makes the group and its parents and sets the limits that are given. */
  create(path: string, limits: CgroupLimits = {}): void {
    assert(path.startsWith('/') && path.length > 1, 'the root cgroup is not ours');
    if (this.unified) {
      const root = this.#folder('', '');
      if (!root) return;
      const parts = path.split('/').filter(Boolean);
      let folder = root;
      for (const part of parts) {
        this.#enableControllers(folder);
        folder = `${folder}/${part}`;
        if (!existsSync(folder)) mkdirSync(folder);
      }
      this.#enableControllers(folder);
    } else {
      for (const controller of ['cpu', 'memory', 'pids', 'cpuacct', 'hugetlb']) {
        const folder = this.#folder(controller, path);
        if (folder) mkdirSync(folder, { recursive: true });
      }
    }
    this.set(path, limits);
  }

  // A group whose processes live in it directly cannot delegate; such a refusal shows as a failed limit later.
  #enableControllers(folder: string): void {
    const available = new Set((read(`${folder}/cgroup.controllers`) ?? '').trim().split(' '));
    const enabled = new Set((read(`${folder}/cgroup.subtree_control`) ?? '').trim().split(' '));
    for (const controller of V2_CONTROLLERS) {
      if (!available.has(controller) || enabled.has(controller)) continue;
      try {
        writeFileSync(`${folder}/cgroup.subtree_control`, `+${controller}`);
      } catch {
        // Stays unlimited for this controller.
      }
    }
  }

  set(path: string, limits: CgroupLimits): void {
    const write = (controller: string, file: string, value: string | number) => {
      const folder = this.#folder(controller, path);
      if (folder) writeFileSync(`${folder}/${file}`, String(value));
    };
    const {
      cpuShares,
      cpuQuotaMicros,
      cpuPeriodMicros = 100_000,
      memoryBytesMax,
      pidsMax,
      cpus,
      hugePageBytesMax = {},
    } = limits;
    if (cpus !== undefined) write('cpuset', 'cpuset.cpus', cpus);
    for (const [size, bytes] of Object.entries(hugePageBytesMax))
      write('hugetlb', `hugetlb.${size}.${this.unified ? 'max' : 'limit_in_bytes'}`, bytes);
    if (this.unified) {
      if (cpuShares !== undefined) write('cpu', 'cpu.weight', weightOf(cpuShares));
      if (cpuQuotaMicros !== undefined)
        write('cpu', 'cpu.max', `${cpuQuotaMicros > 0 ? cpuQuotaMicros : 'max'} ${cpuPeriodMicros}`);
      if (memoryBytesMax !== undefined) write('memory', 'memory.max', memoryBytesMax > 0 ? memoryBytesMax : 'max');
      if (pidsMax !== undefined) write('pids', 'pids.max', pidsMax > 0 ? pidsMax : 'max');
      return;
    }
    if (cpuShares !== undefined) write('cpu', 'cpu.shares', cpuShares);
    if (cpuQuotaMicros !== undefined) {
      if (cpuQuotaMicros > 0) write('cpu', 'cpu.cfs_period_us', cpuPeriodMicros);
      write('cpu', 'cpu.cfs_quota_us', cpuQuotaMicros);
    }
    if (memoryBytesMax !== undefined) this.#setMemoryV1(path, memoryBytesMax);
    if (pidsMax !== undefined) write('pids', 'pids.max', pidsMax > 0 ? pidsMax : 'max');
  }

  /** Whether huge pages can be limited. */
  get limitsHugePages(): boolean {
    if (!this.unified) return this.#folder('hugetlb', '') !== undefined;
    return (read(`${this.#folder('', '')}/cgroup.controllers`) ?? '').trim().split(' ').includes('hugetlb');
  }

  /** What is set; a limit that is not there is absent. */
  limits(path: string): Pick<CgroupLimits, 'cpuQuotaMicros' | 'memoryBytesMax'> {
    const file = (controller: string, name: string) => read(`${this.#folder(controller, path)}/${name}`)?.trim();
    const memory = Number(file('memory', this.unified ? 'memory.max' : 'memory.limit_in_bytes'));
    const quota = Number(this.unified ? file('cpu', 'cpu.max')?.split(' ')[0] : file('cpu', 'cpu.cfs_quota_us'));
    return {
      ...(quota > 0 ? { cpuQuotaMicros: quota } : {}),
      ...(memory > 0 && memory < UNLIMITED_BYTES ? { memoryBytesMax: memory } : {}),
    };
  }

  // Memory with swap must not be the lesser at any moment. Where it was never limited it stays so.
  #setMemoryV1(path: string, bytesMax: number): void {
    const folder = this.#folder('memory', path);
    if (!folder) return;
    const limit = `${folder}/memory.limit_in_bytes`;
    const withSwap = `${folder}/memory.memsw.limit_in_bytes`;
    const now = Number(read(withSwap));
    const isLimited = now > 0 && now < UNLIMITED_BYTES;
    const isRaise = bytesMax < 0 || bytesMax > now;
    if (isLimited && isRaise) writeFileSync(withSwap, String(bytesMax));
    writeFileSync(limit, String(bytesMax));
    if (isLimited && !isRaise) writeFileSync(withSwap, String(bytesMax));
  }

  /** Removes the group with all below it from every hierarchy. Groups that still hold processes stay; false then. */
  remove(path: string): boolean {
    assert(path.startsWith('/') && path.length > 1, 'the root cgroup is not ours');
    let gone = true;
    for (const { mountPoint } of this.#hierarchies) if (!removeTree(`${mountPoint}${path}`)) gone = false;
    return gone;
  }

  /** Pids of the group and of all below it, from whichever hierarchy tracks them. */
  processes(path: string): number[] {
    const folder = this.#folder('memory', path) ?? this.#folder('pids', path);
    return folder ? [...new Set(pidsBelow(folder))] : [];
  }

  /** Kernel out-of-memory kills counted in this group and below. */
  oomKills(path: string): number {
    const folder = this.#folder('memory', path);
    if (!folder) return 0;
    return field(read(`${folder}/${this.unified ? 'memory.events' : 'memory.oom_control'}`), 'oom_kill') ?? 0;
  }

  children(path: string): string[] {
    const folder = this.#folder('memory', path) ?? this.#folder('cpu', path);
    if (!folder) return [];
    try {
      return readdirSync(folder, { withFileTypes: true })
        .filter(entry => entry.isDirectory())
        .map(entry => entry.name);
    } catch {
      return [];
    }
  }

  usage(path: string): CgroupUsage | undefined {
    const memory = this.#folder('memory', path);
    const cpu = this.#folder('cpuacct', path);
    if (!memory) return undefined;
    const total = Number(read(`${memory}/${this.unified ? 'memory.current' : 'memory.usage_in_bytes'}`));
    if (!Number.isFinite(total)) return undefined;
    const stat = read(`${memory}/memory.stat`);
    const inactive = field(stat, this.unified ? 'inactive_file' : 'total_inactive_file') ?? 0;
    const cpuNanos = this.unified
      ? (field(read(`${cpu}/cpu.stat`), 'usage_usec') ?? 0) * 1000
      : Number(read(`${cpu}/cpuacct.usage`) ?? 0);
    return {
      cpuNanos,
      memoryBytes: total,
      workingSetBytes: Math.max(0, total - inactive),
      rssBytes: field(stat, this.unified ? 'anon' : 'total_rss') ?? 0,
      cacheBytes: field(stat, this.unified ? 'file' : 'total_cache') ?? 0,
      pageFaults: field(stat, this.unified ? 'pgfault' : 'total_pgfault') ?? 0,
      majorPageFaults: field(stat, this.unified ? 'pgmajfault' : 'total_pgmajfault') ?? 0,
    };
  }

  /** How long the group's processes waited for what there was too little of. Version 2 only, where the kernel tells it. */
  pressure(path: string): Pressure | undefined {
    if (!this.unified) return undefined;
    const folder = this.#folder('', path);
    const found = PRESSURES.flatMap(name => {
      const stalls = stallsOf(read(`${folder}/${name}.pressure`));
      return stalls ? [[name, stalls] as const] : [];
    });
    return found.length > 0 ? Object.fromEntries(found) : undefined;
  }

  /** What a CPU quota held back. */
  throttling(path: string): CpuThrottling {
    const stat = read(`${this.#folder('cpu', path)}/cpu.stat`);
    return {
      periods: field(stat, 'nr_periods') ?? 0,
      throttledPeriods: field(stat, 'nr_throttled') ?? 0,
      throttledNanos: this.unified ? (field(stat, 'throttled_usec') ?? 0) * 1000 : (field(stat, 'throttled_time') ?? 0),
    };
  }

  /** Processes and threads of the group and all below. */
  taskCount(path: string): number {
    return Number(read(`${this.#folder('pids', path)}/pids.current`) ?? 0);
  }
}

/** Lines of `cpu.pressure` and its like: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`. */
function stallsOf(text: string | undefined): Stalls | undefined {
  const line = (word: string): Stall | undefined => {
    const [, avg10, avg60, avg300, total] =
      new RegExp(`^${word} avg10=(\\S+) avg60=(\\S+) avg300=(\\S+) total=(\\d+)$`, 'm').exec(text ?? '') ?? [];
    return total === undefined
      ? undefined
      : { avg10: Number(avg10), avg60: Number(avg60), avg300: Number(avg300), totalMicros: Number(total) };
  };
  const some = line('some');
  return some && { some, full: line('full') ?? { avg10: 0, avg60: 0, avg300: 0, totalMicros: 0 } };
}

function removeTree(folder: string): boolean {
  let names: string[];
  try {
    names = readdirSync(folder, { withFileTypes: true })
      .filter(entry => entry.isDirectory())
      .map(entry => entry.name);
  } catch {
    return true;
  }
  for (const name of names) removeTree(`${folder}/${name}`);
  try {
    rmdirSync(folder);
    return true;
  } catch {
    return !existsSync(folder);
  }
}

function pidsBelow(folder: string): number[] {
  const pids = (read(`${folder}/cgroup.procs`) ?? '').split('\n').filter(Boolean).map(Number);
  try {
    for (const entry of readdirSync(folder, { withFileTypes: true }))
      if (entry.isDirectory()) pids.push(...pidsBelow(`${folder}/${entry.name}`));
  } catch {
    // Removed meanwhile.
  }
  return pids;
}
