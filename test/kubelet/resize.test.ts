/** Containers resized in place: real control groups, the limits that the container itself reads, conditions and events. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Pod } from '../../src/api/core/v1.gen.ts';
import { metrics } from '../../src/base/metrics.ts';
import { PODS } from '../../src/client/resources.ts';
import { CgroupTree } from '../../src/sys/cgroup.ts';
import { isReady, TestNode } from './node.ts';

const MIB = 1024 * 1024;
let node: TestNode;
before(async () => {
  node = new TestNode();
  await node.start();
});
after(() => node.close());

const resources = (cpu: string, memory: string, cpuLimit = cpu, memoryLimit = memory) => ({
  requests: { cpu, memory },
  limits: { cpu: cpuLimit, memory: memoryLimit },
});
const container = (given: object, extra: object = {}) => ({
  name: 'c',
  image: 'busybox:1',
  imagePullPolicy: 'IfNotPresent',
  command: ['sh', '-c', 'trap "exit 0" TERM; while :; do sleep 0.1; done'],
  resources: given,
  ...extra,
});
const resize = (name: string, given: object) =>
  node.api.patch(
    { of: PODS, namespace: 'default', name, subresource: 'resize' },
    { spec: { containers: [{ name: 'c', resources: given }] } },
    'application/strategic-merge-patch+json',
  );
const tree = new CgroupTree();
const groupOf = (pod: Pod) => `${node.cgroupRoot}/kubepods/burstable/pod${pod.metadata.uid}`;
const idOf = (pod: Pod) => pod.status!.containerStatuses![0]!.containerID!.slice('cox://'.length);
const has = (pod: Pod) => pod.status?.containerStatuses?.[0]?.resources;
const condition = (pod: Pod, type: string) => pod.status?.conditions?.find(one => one.type === type);

test('CPU and memory grow and shrink without a restart; status and control groups follow', async () => {
  await node.create('live', { containers: [container(resources('100m', '32Mi', '200m', '64Mi'))] });
  const first = await node.until('live', isReady);
  assert.deepEqual(tree.limits(`${groupOf(first)}/${idOf(first)}`), {
    cpuQuotaMicros: 20_000,
    memoryBytesMax: 64 * MIB,
  });
  await resize('live', resources('200m', '48Mi', '500m', '128Mi'));
  const grown = await node.until('live', pod => has(pod)?.limits?.['memory'] === '128Mi');
  assert.equal(idOf(grown), idOf(first));
  assert.equal(grown.status!.containerStatuses![0]!.restartCount, 0);
  assert.deepEqual(grown.status!.containerStatuses![0]!.allocatedResources, { cpu: '200m', memory: '48Mi' });
  assert.deepEqual(tree.limits(`${groupOf(grown)}/${idOf(grown)}`), {
    cpuQuotaMicros: 50_000,
    memoryBytesMax: 128 * MIB,
  });
  assert.deepEqual(tree.limits(groupOf(grown)), { cpuQuotaMicros: 50_000, memoryBytesMax: 128 * MIB });
  await resize('live', resources('100m', '16Mi', '150m', '24Mi'));
  const shrunk = await node.until('live', pod => has(pod)?.limits?.['memory'] === '24Mi');
  assert.deepEqual(tree.limits(`${groupOf(shrunk)}/${idOf(shrunk)}`), {
    cpuQuotaMicros: 15_000,
    memoryBytesMax: 24 * MIB,
  });
  const settled = await node.until('live', pod => !condition(pod, 'PodResizeInProgress'));
  assert.equal(condition(settled, 'PodResizePending'), undefined);
  await node.untilEvents('live', events => events.filter(text => text.startsWith('ResizeCompleted')).length === 2);
});

test('what the node has not is infeasible or deferred, and granted when there is room', async () => {
  await node.create('asks', { containers: [container(resources('10m', '16Mi', '2', '64Mi'))] });
  const first = await node.until('asks', isReady);
  await resize('asks', resources('1000', '16Mi', '1000', '64Mi'));
  const hopeless = await node.until('asks', pod => condition(pod, 'PodResizePending'));
  assert.equal(condition(hopeless, 'PodResizePending')!.reason, 'Infeasible');
  assert.match(
    condition(hopeless, 'PodResizePending')!.message!,
    /^Node didn't have enough capacity: cpu, requested: 1000000, capacity: \d+$/,
  );
  const told = (word: string, generation: number) =>
    node.untilEvents('asks', events =>
      events.some(
        text =>
          text.includes(`Pod resize ${word}: {"containers":[{"name":"c",`) &&
          text.includes(`"generation":${generation},"error":"Node didn't`),
      ),
    );
  await told('Infeasible', 2);
  assert.deepEqual(tree.limits(`${groupOf(first)}/${idOf(first)}`), {
    cpuQuotaMicros: 200_000,
    memoryBytesMax: 64 * MIB,
  });
  await node.create('holds', { containers: [container(resources('1500m', '16Mi', '1600m', '64Mi'))] });
  await node.until('holds', isReady);
  await resize('asks', resources('900m', '16Mi', '2', '64Mi'));
  await node.until('asks', pod => condition(pod, 'PodResizePending')?.reason === 'Deferred');
  await told('Deferred', 3);
  const pending = () => /^kubelet_pod_pending_resizes\{reason="deferred"\} (\d)/m.exec(metrics.render())?.[1];
  assert.equal(pending(), '1');
  await node.api.delete({ of: PODS, namespace: 'default', name: 'holds' }, { gracePeriodSeconds: 0 });
  const granted = await node.until('asks', pod => has(pod)?.requests?.['cpu'] === '900m', 20_000);
  assert.equal(granted.status!.containerStatuses![0]!.allocatedResources!['cpu'], '900m');
  await node.until('asks', pod => !condition(pod, 'PodResizePending'));
  const page = metrics.render();
  assert.match(page, /^kubelet_pod_infeasible_resizes_total\{reason_detail="insufficient_node_allocatable"\} 1/m);
  assert.match(page, /^kubelet_pod_deferred_accepted_resizes_total\{retry_trigger="periodic_retry"\} 1/m);
  assert.match(
    page,
    /^kubelet_container_requested_resizes_total\{resource="cpu",requirement="limits",operation="increase"\} /m,
  );
  assert.match(page, /^kubelet_pod_resize_duration_milliseconds_count\{success="true"\} /m);
});

test('a container that must restart for it does, once, and begins with the new limits', async () => {
  const resizePolicy = [{ resourceName: 'memory', restartPolicy: 'RestartContainer' }];
  await node.create('restarts', { containers: [container(resources('10m', '16Mi', '20m', '32Mi'), { resizePolicy })] });
  await node.until('restarts', isReady);
  await resize('restarts', resources('10m', '16Mi', '20m', '40Mi'));
  const again = await node.until('restarts', pod => isReady(pod) && has(pod)?.limits?.['memory'] === '40Mi', 30_000);
  assert.equal(again.status!.containerStatuses![0]!.restartCount, 1);
  assert.equal(tree.limits(`${groupOf(again)}/${idOf(again)}`).memoryBytesMax, 40 * MIB);
});

test('a limit below what is used is not set: the condition says why, and the container lives', async () => {
  const command = ['sh', '-c', 'dd if=/dev/zero of=/big/x bs=1M count=40; touch /tmp/done; sleep 1000'];
  await node.create('full', {
    containers: [
      container(resources('10m', '16Mi', '500m', '80Mi'), {
        command,
        volumeMounts: [{ name: 'big', mountPath: '/big' }],
        readinessProbe: { exec: { command: ['test', '-e', '/tmp/done'] }, periodSeconds: 1 },
      }),
    ],
    volumes: [{ name: 'big', emptyDir: { medium: 'Memory' } }],
  });
  await node.until('full', isReady, 20_000);
  await resize('full', resources('10m', '16Mi', '500m', '20Mi'));
  const stuck = await node.until('full', pod => condition(pod, 'PodResizeInProgress')?.reason === 'Error');
  assert.match(condition(stuck, 'PodResizeInProgress')!.message!, /memory limit \(20971520\) below current usage/);
  assert.equal(stuck.status!.containerStatuses![0]!.restartCount, 0);
});

test('what the pod itself may have grows and shrinks in place, and a kubelet that comes back knows it', async () => {
  const given = resources('100m', '32Mi', '200m', '64Mi');
  await node.create('whole', { resources: given, containers: [container(undefined as never)] });
  const first = await node.until('whole', isReady);
  assert.deepEqual(first.status!.resources, given);
  const resizePod = (wanted: object) =>
    node.api.patch(
      { of: PODS, namespace: 'default', name: 'whole', subresource: 'resize' },
      { spec: { resources: wanted } },
      'application/strategic-merge-patch+json',
    );
  await resizePod(resources('200m', '48Mi', '500m', '128Mi'));
  const grown = await node.until('whole', pod => pod.status?.resources?.limits?.['memory'] === '128Mi');
  assert.equal(idOf(grown), idOf(first));
  assert.deepEqual(grown.status!.allocatedResources, { cpu: '200m', memory: '48Mi' });
  assert.deepEqual(tree.limits(groupOf(grown)), { cpuQuotaMicros: 50_000, memoryBytesMax: 128 * MIB });
  await node.until('whole', pod => !condition(pod, 'PodResizeInProgress'));
  await resizePod(resources('1000', '48Mi', '1000', '128Mi'));
  const hopeless = await node.until('whole', pod => condition(pod, 'PodResizePending'));
  assert.equal(condition(hopeless, 'PodResizePending')!.reason, 'Infeasible');
  await node.restartKubelet();
  await resizePod(resources('100m', '32Mi', '300m', '96Mi'));
  const shrunk = await node.until('whole', pod => pod.status?.resources?.limits?.['memory'] === '96Mi');
  assert.equal(idOf(shrunk), idOf(first));
  assert.deepEqual(tree.limits(groupOf(shrunk)), { cpuQuotaMicros: 30_000, memoryBytesMax: 96 * MIB });
});

test('a pod that had no resources of its own gets some while it runs', async () => {
  await node.create('plain', { containers: [container(resources('100m', '32Mi', '200m', '64Mi'))] });
  const first = await node.until('plain', isReady);
  assert.equal(first.status!.resources, undefined);
  const given = resources('200m', '64Mi', '500m', '128Mi');
  await node.api.patch(
    { of: PODS, namespace: 'default', name: 'plain', subresource: 'resize' },
    { spec: { resources: given } },
    'application/strategic-merge-patch+json',
  );
  const grown = await node.until('plain', pod => pod.status?.resources?.limits?.['memory'] === '128Mi');
  assert.equal(idOf(grown), idOf(first));
  assert.deepEqual(grown.status!.resources, given);
  assert.deepEqual(tree.limits(groupOf(grown)), { cpuQuotaMicros: 50_000, memoryBytesMax: 128 * MIB });
});

test('an init container is resized while it runs', async () => {
  const init = (given: object) => ({ ...container(given), name: 'i' });
  await node.create('begins', {
    initContainers: [init(resources('100m', '32Mi', '200m', '64Mi'))],
    containers: [container(resources('100m', '32Mi', '200m', '64Mi'))],
  });
  const statusOf = (pod: Pod) => pod.status?.initContainerStatuses?.[0];
  const first = await node.until('begins', pod => statusOf(pod)?.state?.running);
  await node.api.patch(
    { of: PODS, namespace: 'default', name: 'begins', subresource: 'resize' },
    { spec: { initContainers: [{ name: 'i', resources: resources('100m', '32Mi', '500m', '128Mi') }] } },
    'application/strategic-merge-patch+json',
  );
  const grown = await node.until('begins', pod => statusOf(pod)?.resources?.limits?.['memory'] === '128Mi');
  const id = statusOf(grown)!.containerID!.slice('cox://'.length);
  assert.equal(statusOf(grown)!.containerID, statusOf(first)!.containerID);
  assert.deepEqual(tree.limits(`${groupOf(grown)}/${id}`), { cpuQuotaMicros: 50_000, memoryBytesMax: 128 * MIB });
  await node.until('begins', pod => !condition(pod, 'PodResizeInProgress'));
});
