/** Processors and memory of one's own (cpuManagerPolicy: static, memoryManagerPolicy: Static) with real control groups, and what the pod resources API tells of them. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Pod } from '../../src/api/core/v1.gen.ts';
import { PODS } from '../../src/client/resources.ts';
import { GrpcClient } from '../../src/csi/grpc.ts';
import { readCpuTopology } from '../../src/kubelet/cpus/cpu-topology.ts';
import { POD_RESOURCES_CALLS } from '../../src/kubelet/devices/pod-resources-messages.ts';
import { CgroupTree } from '../../src/sys/cgroup.ts';
import { isReady, TestNode } from './node.ts';

const cpus = readCpuTopology().cpus.map(({ id }) => id);
const isEnough = cpus.length >= 2 && availableParallelism() === cpus.length;
const options = { skip: isEnough ? false : 'this machine has one processor only' };
const tree = new CgroupTree();
let node: TestNode;
before(async () => {
  node = new TestNode({
    configuration: {
      cpuManagerPolicy: 'static',
      // All but one, so that one is to be had.
      reservedSystemCPUs: isEnough ? cpus.slice(0, -1).join(',') : '0',
      topologyManagerPolicy: 'single-numa-node',
      memoryManagerPolicy: 'Static',
      // As much as the threshold of eviction keeps.
      reservedMemory: [{ numaNode: 0, limits: { memory: '100Mi' } }],
    },
  });
  await node.start();
});
after(() => node.close());

const WAIT_MS = 30_000;
const last = cpus.at(-1)!;
const container = (cpu?: string) => ({
  name: 'c',
  image: 'busybox:1',
  imagePullPolicy: 'IfNotPresent',
  command: ['sh', '-c', 'exec sleep 1000'],
  ...(cpu === undefined ? {} : { resources: { requests: { cpu, memory: '16Mi' }, limits: { cpu, memory: '16Mi' } } }),
});
const idOf = (pod: Pod): string => pod.status!.containerStatuses![0]!.containerID!.slice('cox://'.length);
/** What the kernel lets the container's process run on. */
const allowed = (pod: Pod): string => {
  const pid = readFileSync(join(node.root, 'run/c', idOf(pod), 'pid'), 'utf8');
  return /^Cpus_allowed_list:\s+(\S+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]!;
};
const config = (pod: Pod) =>
  JSON.parse(readFileSync(join(node.root, 'run/c', idOf(pod), 'config.json'), 'utf8')) as {
    linux: { resources: { cpu: { mems?: string } } };
  };
const memoryState = (): Record<'allocatable' | 'reserved' | 'free', number> =>
  JSON.parse(readFileSync(join(node.root, 'lib/memory_manager_state'), 'utf8')).machineState[0].memoryMap.memory;
async function untilAllowed(pod: Pod, list: string): Promise<void> {
  const end = Date.now() + WAIT_MS;
  while (allowed(pod) !== list) {
    assert.ok(Date.now() < end, `runs on ${allowed(pod)}, wanted ${list}`);
    await sleep(20);
  }
}
const listOf = (ids: readonly number[]) => (ids.length > 1 ? `${ids[0]}-${ids.at(-1)}` : `${ids[0]}`);

test(
  'a guaranteed pod has its processor alone, others what is left; told by the API, kept by a restart, given back',
  options,
  async () => {
    await node.create('others', { containers: [container()] });
    const others = await node.until('others', isReady);
    assert.equal(allowed(others), listOf(cpus));
    await node.create('alone', { containers: [container('1')] });
    const alone = await node.until('alone', isReady);
    assert.equal(allowed(alone), String(last));
    await untilAllowed(others, listOf(cpus.slice(0, -1)));
    const group = `${node.cgroupRoot}/kubepods/pod${alone.metadata.uid}`;
    assert.equal(tree.limits(group).cpuQuotaMicros, undefined);
    const { reserved, free, allocatable } = memoryState();
    assert.deepEqual([reserved, free], [16 << 20, allocatable - (16 << 20)]);
    assert.equal(config(alone).linux.resources.cpu.mems, '0');
    assert.equal(config(others).linux.resources.cpu.mems, undefined);

    const client = new GrpcClient(join(node.root, 'lib/pod-resources/kubelet.sock'), POD_RESOURCES_CALLS);
    try {
      const { podResources } = await client.call('list', {});
      const told = podResources.map(({ name, containers = [] }) => [
        name,
        containers.map(one => [one.name, one.cpuIds]),
      ]);
      assert.deepEqual(told.sort(), [
        ['alone', [['c', [last]]]],
        ['others', [['c', []]]],
      ]);
      const one = await client.call('get', { podName: 'alone', podNamespace: 'default' });
      assert.deepEqual(one.podResources?.containers?.[0]?.cpuIds, [last]);
      await assert.rejects(client.call('get', { podName: 'nobody', podNamespace: 'default' }), /not found/);
      const ofNode = { memoryType: 'memory', topology: { nodes: [{ id: 0 }] } };
      assert.deepEqual(one.podResources?.containers?.[0]?.memory, [{ ...ofNode, size: 16 << 20 }]);
      const all = await client.call('getAllocatableResources', {});
      assert.deepEqual(all.cpuIds, [last]);
      assert.deepEqual(all.memory, [{ ...ofNode, size: memoryState().allocatable }]);
    } finally {
      client.close();
    }

    await node.create('late', { containers: [container('1')] });
    const late = await node.until('late', pod => pod.status?.phase === 'Failed');
    // What is reserved by name is not allocatable.
    assert.equal(late.status!.reason!, 'OutOfcpu');
    await node.restartKubelet();
    await node.create('after', { containers: [container()] });
    const next = await node.until('after', isReady);
    assert.equal(allowed(next), listOf(cpus.slice(0, -1)));
    assert.equal(allowed(alone), String(last));
    await node.api.delete({ of: PODS, namespace: 'default', name: 'alone' });
    await node.untilGone('alone');
    for (const pod of [others, next]) await untilAllowed(pod, listOf(cpus));
    assert.equal(memoryState().reserved, 0);
  },
);
