/**
 * What a node's kubelet costs while nothing happens: processor and memory with 100 idle pods, after it was 0. The API server
 * is in the same process, so the figures are of both. Real kubelet, runc and conmon; no pod network.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { isReady, TestNode } from '../test/kubelet/node.ts';

const PODS = 100;
const AT_ONCE = 10;
const LOOK_SECONDS = 20;

const node = new TestNode({ isolated: true });
const spec = { containers: [{ name: 'c', image: 'busybox:1', command: ['sleep', '1000'] }] };
async function idle(what: string): Promise<void> {
  const before = process.cpuUsage();
  await sleep(LOOK_SECONDS * 1000);
  const { user, system } = process.cpuUsage(before);
  const percent = (user + system) / (LOOK_SECONDS * 10_000);
  const { rss } = process.memoryUsage();
  console.log(`${what}: ${percent.toFixed(2)} % of a processor, ${(rss / 2 ** 20).toFixed(0)} MiB`);
}
try {
  await node.start();
  await sleep(3000);
  await idle('no pods');
  for (let from = 0; from < PODS; from += AT_ONCE)
    await Promise.all(
      Array.from({ length: AT_ONCE }, async (_, i) => {
        await node.create(`idle-${from + i}`, spec);
        await node.until(`idle-${from + i}`, isReady, 60_000);
      }),
    );
  await sleep(3000);
  await idle(`${PODS} idle pods`);
} finally {
  await node.close();
}
