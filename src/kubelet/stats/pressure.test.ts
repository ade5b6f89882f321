import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CgroupTree, Pressure } from '../../sys/cgroup.ts';
import { cadvisorMetrics } from './metrics-text.ts';
import type { Stats, Usage } from './node-stats.ts';
import { summaryOf } from './summary.ts';

const stall = (totalMicros: number) => ({ avg10: 1, avg60: 2, avg300: 3, totalMicros });
const stalls = { some: stall(2_500_000), full: stall(500_000) };
const usage = (pressure?: Pressure): Usage => ({
  cpuNanos: 1,
  memoryBytes: 1,
  workingSetBytes: 1,
  rssBytes: 1,
  cacheBytes: 1,
  pageFaults: 1,
  majorPageFaults: 1,
  timeMs: 0,
  cpuNanoCores: 1,
  pressure,
});
const disk = { capacityBytes: 1, usedBytes: 1, availableBytes: 1, inodes: 1, inodesFree: 1 };
const statsOf = (pressure?: Pressure): Stats => ({
  nodeName: 'n',
  timeMs: 0,
  startedMs: 0,
  windowMs: 1,
  node: usage(pressure),
  memory: { capacityBytes: 1, availableBytes: 1 },
  pods: [
    {
      pod: { metadata: { name: 'p', namespace: 'd' }, spec: { containers: [] } } as never,
      cgroup: '/p',
      usage: usage(pressure),
      containers: [],
      processes: 1,
      interfaces: [],
    },
  ],
  disk,
  imageDisk: disk,
});
const cgroups = {
  throttling: () => ({ periods: 0, throttledPeriods: 0, throttledNanos: 0 }),
  taskCount: () => 1,
  oomKills: () => 0,
} as unknown as CgroupTree;

test('pressure is told where control groups tell it: averages in the summary, seconds in the metrics', () => {
  // biome-ignore lint/suspicious/noExplicitAny: looks into the document
  const { node } = summaryOf(statsOf({ cpu: stalls, io: stalls })) as any;
  assert.deepEqual(node.cpu.psi.full, { total: 500_000, avg10: 1, avg60: 2, avg300: 3 });
  assert.equal(node.io.psi.some.total, 2_500_000);
  assert.equal(node.memory.psi, undefined);
  const page = cadvisorMetrics(statsOf({ cpu: stalls }), cgroups);
  assert.match(page, /^container_pressure_cpu_stalled_seconds_total\{.*pod="p"\} 0\.5 0$/m);
  assert.match(page, /^container_pressure_cpu_waiting_seconds_total\{.*pod="p"\} 2\.5 0$/m);
  assert.ok(!page.includes('pressure_memory') && !cadvisorMetrics(statsOf(), cgroups).includes('pressure'));
  assert.ok(!JSON.stringify(summaryOf(statsOf())).includes('psi'));
});
