/** Huge pages that the kernel has set aside at boot or since, by size. Read only: it refuses to set any aside. */

import { readdirSync, readFileSync } from 'node:fs';

export interface HugePages {
  /** As in the name of the resource: `2Mi`. */
  readonly size: string;
  /** As in the kernel's files of control groups: `2MB`. */
  readonly kernelSize: string;
  readonly pageBytes: number;
  readonly count: number;
}

const UNITS = ['K', 'M', 'G'];

export function readHugePages(folder = '/sys/kernel/mm/hugepages'): HugePages[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return [];
  }
  return names.sort().flatMap(name => {
    const kib = Number(/^hugepages-(\d+)kB$/.exec(name)?.[1] ?? 0);
    if (kib === 0) return [];
    let amount = kib;
    let unit = 0;
    for (; amount % 1024 === 0 && unit < UNITS.length - 1; unit++) amount /= 1024;
    const count = Number(readFileSync(`${folder}/${name}/nr_hugepages`, 'utf8'));
    return [{ size: `${amount}${UNITS[unit]}i`, kernelSize: `${amount}${UNITS[unit]}B`, pageBytes: kib * 1024, count }];
  });
}
