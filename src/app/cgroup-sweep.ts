/** Removes a cluster's cgroups from every hierarchy; they are the one thing that does not vanish with its namespaces. */

import { existsSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';

const MOUNT = '/sys/fs/cgroup';

/** Roots below which a cluster's path may exist: the unified mount, or one for each v1 controller and hybrid. */
function hierarchies(): string[] {
  return existsSync(join(MOUNT, 'cgroup.controllers')) ? [MOUNT] : childrenOf(MOUNT);
}

/** Groups vanish while one looks: an absent one has no children. */
function childrenOf(group: string): string[] {
  try {
    return readdirSync(group, { withFileTypes: true })
      .filter(entry => entry.isDirectory())
      .map(entry => join(group, entry.name));
  } catch {
    return [];
  }
}

function remove(group: string): boolean {
  try {
    rmdirSync(group);
    return true;
  } catch (error) {
    // EBUSY: a process in it is on its way out; the caller asks again.
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
}

function removeTree(group: string): boolean {
  const isEmpty = childrenOf(group).map(removeTree).every(Boolean);
  return isEmpty && remove(group);
}

/** True when nothing of the path is left in any hierarchy. `/coxswain` itself goes with its last cluster. */
export function removeCgroups(path: string): boolean {
  const results = hierarchies().map(root => {
    const isGone = removeTree(join(root, path));
    remove(join(root, 'coxswain'));
    return isGone;
  });
  return results.every(Boolean);
}

/** Pids of processes in the path's cgroups, in any hierarchy. */
export function cgroupMembers(path: string): number[] {
  const members = new Set<number>();
  const visit = (group: string) => {
    try {
      for (const line of readFileSync(join(group, 'cgroup.procs'), 'utf8').split('\n'))
        if (line) members.add(Number(line));
    } catch {
      return;
    }
    childrenOf(group).forEach(visit);
  };
  for (const root of hierarchies()) visit(join(root, path));
  // 0 is a process of a PID namespace that cannot be seen from here.
  return [...members].filter(pid => pid > 0);
}
