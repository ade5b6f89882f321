/** What benchmarks share: medians, temporary directories, one line of output a measurement. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}

/** Runs `use` with a new directory that is gone afterwards. */
export async function inDirectory<T>(use: (directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'cox-bench-'));
  try {
    return await use(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

export function printRow(
  what: string,
  row: {
    rate: number;
    floor: number;
    floorName: string;
    budget?: number;
    latencyMs?: number;
    /** CPU time of the server for one request, in microseconds. */
    cpuUs?: number;
    floorCpuUs?: number;
  },
): void {
  const ratio = (row.rate / row.floor).toFixed(2);
  const budget =
    row.budget === undefined ? '' : `, budget ${row.budget}/s (${((row.rate / row.budget) * 100).toFixed(0)} %)`;
  const latency = row.latencyMs === undefined ? '' : `, median ${row.latencyMs.toFixed(2)} ms`;
  const cpu = row.cpuUs === undefined ? '' : `, ${row.cpuUs.toFixed(0)} µs CPU (floor ${row.floorCpuUs?.toFixed(0)})`;
  console.log(
    `${what}: ${Math.round(row.rate)}/s${latency}${cpu}; ${ratio} of ${row.floorName} (${Math.round(row.floor)}/s)${budget}`,
  );
}
