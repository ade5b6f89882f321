/** A pod on a host that has control groups of version 2 only, as today's distributions do: limits, figures, an OOM kill, a resize. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { test } from 'node:test';
import type { Pod } from '../../src/api/core/v1.gen.ts';
import { PODS } from '../../src/client/resources.ts';
import { CgroupTree } from '../../src/sys/cgroup.ts';
import { isReady, TestNode } from '../kubelet/node.ts';
import { isInside, runTestsInVirtualMachine } from './virtual-machine.ts';

/** Without hardware help everything there takes its time. */
const WAIT_MS = 120_000;

if (process.getuid?.() !== 0) test('cgroup v2', { skip: 'needs root' });
else if (isInside) tests();
else
  test('control groups of version 2, on a machine with Debian’s kernel', { timeout: 400_000 }, async () => {
    const { code, output } = await runTestsInVirtualMachine(import.meta.filename, { timeoutMs: 380_000 });
    process.stdout.write(output);
    assert.equal(code, 0, output || 'the machine printed nothing');
  });

function tests(): void {
  test('limits, figures, an OOM kill and a resize', { timeout: 360_000 }, async () => {
    // A container's layers cannot lie on the overlay that is the machine's root.
    execFileSync('mount', ['-t', 'tmpfs', 'scratch', '/var/tmp']);
    const tree = new CgroupTree();
    assert.ok(tree.unified);
    const node = new TestNode({ isolated: true });
    await node.start();
    try {
      const resources = { requests: { cpu: '100m', memory: '32Mi' }, limits: { cpu: '500m', memory: '64Mi' } };
      const container = { name: 'c', image: 'busybox:1', command: ['sleep', '100000'], resources };
      await node.create('live', { containers: [container] });
      const live = await node.until('live', isReady, WAIT_MS);
      const group = `${node.cgroupRoot}/kubepods/burstable/pod${live.metadata.uid}`;
      const id = (pod: Pod) => pod.status!.containerStatuses![0]!.containerID!.slice('cox://'.length);
      const read = (path: string, file: string) => readFileSync(`/sys/fs/cgroup${path}/${file}`, 'utf8').trim();
      const own = `${group}/${id(live)}`;
      assert.deepEqual(
        [read(own, 'memory.max'), read(own, 'cpu.max'), read(group, 'memory.max'), read(group, 'cpu.max')],
        [String(64 << 20), '50000 100000', String(64 << 20), '50000 100000'],
      );
      assert.notEqual(read(own, 'cgroup.procs'), '');

      await node.api.patch(
        { of: PODS, namespace: 'default', name: 'live', subresource: 'resize' },
        { spec: { containers: [{ name: 'c', resources: { limits: { cpu: '800m', memory: '96Mi' } } }] } },
        'application/strategic-merge-patch+json',
      );
      const resized = await node.until(
        'live',
        pod => pod.status?.containerStatuses?.[0]?.resources?.limits?.['memory'] === '96Mi',
        WAIT_MS,
      );
      assert.equal(id(resized), id(live), 'without a restart');
      assert.deepEqual([read(own, 'memory.max'), read(own, 'cpu.max')], [String(96 << 20), '80000 100000']);

      const summary = JSON.parse(await get(node, '/stats/summary')) as {
        pods: {
          podRef: { name: string };
          memory?: { workingSetBytes?: number };
          cpu?: { usageCoreNanoSeconds?: number };
        }[];
      };
      const stats = summary.pods.find(one => one.podRef.name === 'live');
      assert.ok(Number(stats?.memory?.workingSetBytes) > 0, JSON.stringify(stats));
      assert.ok(Number(stats?.cpu?.usageCoreNanoSeconds) > 0, JSON.stringify(stats));

      await node.create('greedy', {
        restartPolicy: 'Never',
        containers: [
          {
            ...container,
            command: ['sh', '-c', 'dd if=/dev/zero of=/dev/shm/all bs=1M count=60'],
            resources: { limits: { memory: '16Mi' } },
          },
        ],
      });
      const greedy = await node.until('greedy', pod => pod.status?.phase === 'Failed', WAIT_MS);
      const { reason, exitCode } = greedy.status!.containerStatuses![0]!.state!.terminated!;
      assert.deepEqual([reason, exitCode], ['OOMKilled', 137]);

      await node.api.delete({ of: PODS, namespace: 'default', name: 'live' });
      await node.untilGone('live', WAIT_MS);
      assert.deepEqual(
        tree.children(`${node.cgroupRoot}/kubepods/burstable`).filter(name => name.includes(live.metadata.uid!)),
        [],
      );
    } finally {
      await node.close();
    }
  });
}

function get(node: TestNode, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const { key, cert, ca } = node.admin;
    const sent = request({ host: '127.0.0.1', port: 10250, path, key, cert, ca, checkServerIdentity: () => undefined });
    sent.on('error', reject);
    sent.on('response', response => {
      let text = '';
      response.setEncoding('utf8').on('data', part => (text += part));
      response.on('end', () => resolve(text));
    });
    sent.end();
  });
}
