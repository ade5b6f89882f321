/** Pods that fill a node's disk are evicted in upstream's order, and the node says so: a real small file system. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { evicted, untilCondition } from './eviction-bed.ts';
import { isReady, TestNode } from './node.ts';
import { sh } from './pods.ts';

let node: TestNode;
before(async () => {
  node = new TestNode({
    diskBytes: 256 * 1024 * 1024,
    configuration: { evictionHard: { 'nodefs.available': '40%' }, evictionPressureTransitionPeriodSeconds: 3 },
  });
  await node.start();
});
after(() => node.close());

test('disk: the greatest user goes, critical pods never; the condition ends after its period', async () => {
  const big = (mib: number, priorityClassName?: string) => ({
    containers: [
      sh(`dd if=/dev/zero of=/big/x bs=1M count=${mib}; sync; sleep 1000`, {
        volumeMounts: [{ name: 'big', mountPath: '/big' }],
      }),
    ],
    volumes: [{ name: 'big', emptyDir: {} }],
    ...(priorityClassName ? { priorityClassName, priority: 2_000_001_000 } : {}),
  });
  await node.create('critical', big(90, 'system-node-critical'));
  await node.until('critical', isReady);
  await node.create('small', big(2));
  await node.create('writer', big(80));
  const pod = await node.until('writer', evicted, 40_000);
  assert.match(pod.status!.message!, /^The node was low on resource: ephemeral-storage\. Threshold quantity: /);
  await untilCondition(node, 'DiskPressure', 'True');
  assert.ok(isReady((await node.pod('critical'))!));
  assert.notEqual((await node.pod('small'))!.status!.phase, 'Failed');
  await untilCondition(node, 'DiskPressure', 'False');
});
