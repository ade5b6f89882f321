/** Pods that make a node short of memory are evicted in upstream's order, and the node says so: real cgroups. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { CONFIGURATION_DEFAULT } from '../../src/kubelet/configuration.ts';
import { readCapacity } from '../../src/kubelet/node/machine.ts';
import { evicted, untilCondition } from './eviction-bed.ts';
import { isReady, TestNode } from './node.ts';
import { sh } from './pods.ts';

const MIB = 1024 * 1024;
const PODS_BYTES = 160 * MIB;
const total = Number.parseInt(readCapacity('/', CONFIGURATION_DEFAULT).capacity['memory']!, 10) * 1024;

let node: TestNode;
before(async () => {
  node = new TestNode({
    configuration: {
      // All but 160 MiB is kept from pods, so that what this machine does beside cannot disturb.
      systemReserved: { memory: String(total - PODS_BYTES) },
      evictionHard: { 'memory.available': String(60 * MIB) },
      evictionPressureTransitionPeriodSeconds: 3,
    },
  });
  await node.start();
});
after(() => node.close());

const memory = (mib: number) => ({ resources: { requests: { memory: `${mib}Mi` } } });

test('memory: who uses more than it asked for goes first; the others stay', async () => {
  await node.create('modest', { containers: [sh('sleep 1000', memory(10))], priority: 0 });
  await node.until('modest', isReady);
  // A file in /dev/shm is memory of who wrote it.
  await node.create('greedy', {
    containers: [
      sh('dd if=/dev/zero of=/big/x bs=1M count=110; sleep 1000', {
        ...memory(5),
        volumeMounts: [{ name: 'big', mountPath: '/big' }],
      }),
    ],
    volumes: [{ name: 'big', emptyDir: { medium: 'Memory' } }],
  });
  const pod = await node.until('greedy', evicted, 40_000);
  assert.equal(pod.status!.reason, 'Evicted');
  assert.match(
    pod.status!.message!,
    /^The node was low on resource: memory\. Threshold quantity: 60Mi, available: \d+Ki\. Container c was using \d+Ki, request is 5Mi, has larger consumption of memory\. $/,
  );
  const target = pod.status!.conditions!.find(one => one.type === 'DisruptionTarget');
  assert.equal(target?.reason, 'TerminationByKubelet');
  await node.untilEvents('greedy', events => events.some(text => text.startsWith('Evicted: The node was low')));
  await untilCondition(node, 'MemoryPressure', 'True');
  await node.create('careless', { containers: [sh('sleep 1000')] });
  const refused = await node.until('careless', evicted);
  assert.equal(refused.status!.message, 'Pod was rejected: The node had condition: [MemoryPressure]. ');
  assert.ok(isReady((await node.pod('modest'))!));
  await untilCondition(node, 'MemoryPressure', 'False');
  await node.create('later', { containers: [sh('sleep 1000')] });
  await node.until('later', isReady);
});
