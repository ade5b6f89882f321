/**
 * How fast one pod, and thirty at once, become Ready: create in the API to the Ready condition in the API, with a real
 * kubelet, crun and conmon, and without a pod network. Budgets: 100 ms and 1.5 s; runc and namespaces alone take 35 ms and 1.0 s.
 */

import { isReady, TestNode } from '../test/kubelet/node.ts';

const node = new TestNode({ isolated: true });
const spec = { containers: [{ name: 'c', image: 'busybox:1', command: ['sleep', '1000'] }] };
try {
  await node.start();
  const times: number[] = [];
  for (let i = 0; i < 10; i++) {
    const began = performance.now();
    await node.create(`one-${i}`, spec);
    await node.until(`one-${i}`, isReady);
    times.push(performance.now() - began);
  }
  times.sort((a, b) => a - b);
  console.log(
    `one pod, create to Ready: median ${times[5]!.toFixed(0)} ms, worst ${times[9]!.toFixed(0)} ms (budget 100)`,
  );
  const began = performance.now();
  const cpu = process.cpuUsage();
  await Promise.all(
    Array.from({ length: 30 }, async (_, i) => {
      await node.create(`many-${i}`, spec);
      await node.until(`many-${i}`, isReady);
    }),
  );
  console.log(`30 pods at once: ${(performance.now() - began).toFixed(0)} ms (budget 1500)`);
  const { user, system } = process.cpuUsage(cpu);
  // Unlike the time on the clock this does not depend on what else the machine does.
  console.log(`this process, API server included: ${((user + system) / 30_000).toFixed(1)} ms of processor a pod`);
} finally {
  await node.close();
}
