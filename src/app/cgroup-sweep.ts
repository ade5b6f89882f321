/** Removes a cluster's cgroups from every hierarchy; they are the one thing that does not vanish with its namespaces. */

import { existsSync, readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';

const MOUNT = '/sys/fs/cgroup';

/** Roots below which a cluster's path may exist: the unified mount, or one for each v1 controller and hybrid. */
function hierarchies(): string[] {
  if (existsSync(join(MOUNT, 'cgroup.controllers'))) return [MOUNT];
  return readdirSync(MOUNT, { withFileTypes: true })
    .filter(entry => entry.isDirectory())
    .map(entry => join(MOUNT, entry.name));
}

function removeTree(path: string): boolean {
  if (!existsSync(path)) return true;
  let clean = true;
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) clean = removeTree(join(path, entry.name)) && clean;
  try {
    rmdirSync(path);
  } catch {
    // Still has a process that is on its way out: the caller asks again.
    return false;
  }
  return clean;
}

/** True when nothing of the path is left in any hierarchy. `/coxswain` itself goes with its last cluster. */
export function removeCgroups(path: string): boolean {
  let clean = true;
  for (const root of hierarchies()) {
    clean = removeTree(join(root, path)) && clean;
    const parent = join(root, 'coxswain');
    try {
      if (existsSync(parent)) rmdirSync(parent);
    } catch {
      // Other clusters live there.
    }
  }
  return clean;
}

/** Pids of processes in the path's cgroups, in any hierarchy. */
export function cgroupMembers(path: string, read: (file: string) => string): number[] {
  const members = new Set<number>();
  const visit = (folder: string) => {
    if (!existsSync(folder)) return;
    for (const line of read(join(folder, 'cgroup.procs')).split('\n')) if (line) members.add(Number(line));
    for (const entry of readdirSync(folder, { withFileTypes: true }))
      if (entry.isDirectory()) visit(join(folder, entry.name));
  };
  for (const root of hierarchies()) visit(join(root, path));
  return [...members].filter(pid => pid > 0);
}
