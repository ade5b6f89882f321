/** Which processors the machine has and how they hang together: threads in cores, cores in sockets. Read once. */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseCpuSet } from './cpu-set.ts';

export interface Cpu {
  readonly id: number;
  /** Of the machine, not only of its socket. */
  readonly core: string;
  readonly socket: number;
}

export interface CpuTopology {
  readonly cpus: readonly Cpu[];
  readonly numaNodes: number;
}

const SYSTEM = '/sys/devices/system';

export function readCpuTopology(system = SYSTEM): CpuTopology {
  const read = (path: string) => readFileSync(join(system, path), 'utf8').trim();
  const cpus = [...parseCpuSet(read('cpu/online'))].map(id => {
    const number = (name: string) => Number(read(`cpu/cpu${id}/topology/${name}`));
    const socket = number('physical_package_id');
    return { id, socket, core: `${socket}/${number('core_id')}` };
  });
  const nodes = existsSync(join(system, 'node')) ? readdirSync(join(system, 'node')) : [];
  return { cpus, numaNodes: Math.max(1, nodes.filter(name => /^node\d+$/.test(name)).length) };
}

/** Threads of a core. */
export function threadsPerCore({ cpus }: CpuTopology): number {
  return Math.max(1, Math.round(cpus.length / new Set(cpus.map(({ core }) => core)).size));
}

/**
 * `count` of the free processors that hang together as closely as can be: whole sockets, then whole cores, then threads of the cores
 * that are in use already, each in ascending order. Undefined when there are not so many.
 */
export function takeTogether(
  { cpus }: CpuTopology,
  { free, count }: { readonly free: ReadonlySet<number>; readonly count: number },
): Set<number> | undefined {
  if (free.size < count) return undefined;
  const taken = new Set<number>();
  const takeWhole = (groupOf: (cpu: Cpu) => string) => {
    const groups = Map.groupBy(cpus, groupOf);
    for (const group of groups.values()) {
      const isWhole = group.every(({ id }) => free.has(id) && !taken.has(id));
      if (isWhole && taken.size + group.length <= count) for (const { id } of group) taken.add(id);
    }
  };
  takeWhole(({ socket }) => String(socket));
  // Sockets where something is taken already come first, so that what is taken stays together.
  const inUse = new Set(cpus.filter(({ id }) => taken.has(id) || !free.has(id)).map(({ socket }) => socket));
  const ordered = [...cpus].sort(
    (a, b) => Number(inUse.has(b.socket)) - Number(inUse.has(a.socket)) || a.socket - b.socket || a.id - b.id,
  );
  const byCore = Map.groupBy(ordered, ({ core }) => core);
  for (const group of byCore.values()) {
    const isWhole = group.every(({ id }) => free.has(id) && !taken.has(id));
    if (isWhole && taken.size + group.length <= count) for (const { id } of group) taken.add(id);
  }
  const left = [...byCore.values()]
    .map(group => group.filter(({ id }) => free.has(id) && !taken.has(id)))
    .sort((a, b) => a.length - b.length)
    .flat();
  for (const { id } of left) if (taken.size < count) taken.add(id);
  return taken;
}
