/** A set of processors as Linux writes it, `0-3,8`: read and written. Pure. */

const CPUS_MAX = 8192;

/** Throws where it is no such list. */
export function parseCpuSet(text: string): Set<number> {
  const set = new Set<number>();
  for (const part of text.trim().split(',').filter(Boolean)) {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part.trim());
    const first = Number(match?.[1]);
    const last = Number(match?.[2] ?? match?.[1]);
    if (!match || last < first || last > CPUS_MAX) throw new Error(`${JSON.stringify(text)} is no list of CPUs`);
    for (let cpu = first; cpu <= last; cpu++) set.add(cpu);
  }
  return set;
}

export function formatCpuSet(set: Iterable<number>): string {
  const sorted = [...set].sort((a, b) => a - b);
  const parts: string[] = [];
  for (let i = 0; i < sorted.length; ) {
    let end = i;
    while (sorted[end + 1] === sorted[end]! + 1) end++;
    parts.push(end === i ? `${sorted[i]}` : `${sorted[i]}-${sorted[end]}`);
    i = end + 1;
  }
  return parts.join(',');
}
