/**
 * What a node's kubelet costs while nothing happens: processor and memory with 100 idle pods, after it was 0; and while as many pods
 * do nothing but crash. The API server is in the same process, so the figures are of both. Real kubelet, crun and conmon; no pod
 * network.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { PODS as POD_RESOURCE } from '../src/client/resources.ts';
import { isReady, TestNode } from '../test/kubelet/node.ts';

const PODS = 100;
const AT_ONCE = 10;
const LOOK_SECONDS = 20;

const node = new TestNode({ isolated: true });
const spec = { containers: [{ name: 'c', image: 'busybox:1', command: ['sleep', '1000'] }] };
/** Memory that the conmons of this bench have to themselves, in KiB each. */
function monitorKib(): number {
  const sizes = readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .flatMap(pid => {
      try {
        if (!readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(node.root)) return [];
        if (readFileSync(`/proc/${pid}/comm`, 'latin1') !== 'conmon\n') return [];
        return [Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1'))?.[1] ?? 0)];
      } catch {
        return [];
      }
    });
  return sizes.reduce((sum, size) => sum + size, 0) / Math.max(1, sizes.length);
}
async function idle(what: string): Promise<number> {
  const before = process.cpuUsage();
  await sleep(LOOK_SECONDS * 1000);
  const { user, system } = process.cpuUsage(before);
  const percent = (user + system) / (LOOK_SECONDS * 10_000);
  const { rss } = process.memoryUsage();
  console.log(`${what}: ${percent.toFixed(2)} % of a processor, ${(rss / 2 ** 20).toFixed(0)} MiB`);
  return rss;
}
const crash = { containers: [{ name: 'c', image: 'busybox:1', command: ['sh', '-c', 'exit 3'] }] };
const all = async (what: (i: number) => Promise<unknown>) => {
  for (let from = 0; from < PODS; from += AT_ONCE)
    await Promise.all(Array.from({ length: AT_ONCE }, (_, i) => what(from + i)));
};
const restarts = async () => {
  const { items } = await node.api.list({ of: POD_RESOURCE, namespace: 'default' });
  return (items as unknown as { status?: { containerStatuses?: { restartCount: number }[] } }[]).reduce(
    (sum, { status }) => sum + (status?.containerStatuses?.[0]?.restartCount ?? 0),
    0,
  );
};
try {
  await node.start();
  await sleep(3000);
  const before = await idle('no pods');
  await all(async i => {
    await node.create(`idle-${i}`, spec);
    await node.until(`idle-${i}`, isReady, 60_000);
  });
  await sleep(3000);
  const after = await idle(`${PODS} idle pods`);
  const perPod = (after - before) / 1024 / PODS;
  console.log(`a pod: ${perPod.toFixed(0)} KiB here, and ${monitorKib().toFixed(0)} KiB of its conmon`);
  await all(i => node.api.delete({ of: POD_RESOURCE, namespace: 'default', name: `idle-${i}` }));
  await all(i => node.untilGone(`idle-${i}`, 120_000));
  await all(i => node.create(`crash-${i}`, crash));
  await all(i => node.until(`crash-${i}`, pod => (pod.status?.containerStatuses?.[0]?.restartCount ?? 0) > 1, 120_000));
  const counted = await restarts();
  await idle(`${PODS} pods that crash`);
  console.log(`${(((await restarts()) - counted) / LOOK_SECONDS).toFixed(1)} restarts a second meanwhile`);
  await all(i => node.api.delete({ of: POD_RESOURCE, namespace: 'default', name: `crash-${i}` }));
  await all(i => node.untilGone(`crash-${i}`, 120_000));
} finally {
  await node.close();
}
