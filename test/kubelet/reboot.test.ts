/** The machine goes down and comes back: processes are gone, the disk is kept. A real cluster, stock kubectl. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type Cluster, freshCluster, type Json, root } from '../e2e/cluster.ts';

let cluster: Cluster;
before(async () => {
  cluster = freshCluster('reboot');
  await cluster.up({ nodes: 1 });
  await cluster.cox(['image', 'load', join(root, '.cache/images/busybox-1.35.tar')]);
});
after(() => cluster.down());

const main = (pod: Json) => pod.status.containerStatuses[0];

test('pods come back as the same objects, with their addresses and volumes, restarted once', async () => {
  await cluster.apply('default', [
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'web' },
      spec: {
        replicas: 2,
        selector: { matchLabels: { app: 'web' } },
        template: {
          metadata: { labels: { app: 'web' } },
          spec: {
            terminationGracePeriodSeconds: 0,
            volumes: [
              { name: 'disk', emptyDir: {} },
              { name: 'memory', emptyDir: { medium: 'Memory' } },
            ],
            containers: [
              {
                name: 'c',
                image: 'busybox:1.35',
                command: ['sh', '-c', 'echo started; exec sleep 100000'],
                volumeMounts: [
                  { name: 'disk', mountPath: '/disk' },
                  { name: 'memory', mountPath: '/memory' },
                ],
              },
            ],
          },
        },
      },
    },
    ...['once', 'bare'].map(name => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name },
      spec: {
        restartPolicy: 'Never',
        containers: [
          {
            name: 'c',
            image: 'busybox:1.35',
            command: ['sh', '-c', name === 'once' ? 'echo said > /dev/termination-log' : 'exec sleep 100000'],
          },
        ],
      },
    })),
  ]);
  const pods = await cluster.readyPods('default', 'app=web', 2);
  await cluster.readyPod('default', 'bare');
  await cluster.kubectl('wait', 'pod/once', '--for=jsonpath={.status.phase}=Succeeded', '--timeout=20s');
  const [{ metadata, status }] = pods;
  await cluster.exec('default', metadata.name, 'sh', '-c', 'echo kept > /disk/file; echo lost > /memory/file');

  await cluster.down('--keep-data');
  await cluster.up({ nodes: 1 });

  await cluster.kubectl('wait', 'pod', '-l', 'app=web', '--for=jsonpath={.status.containerStatuses[0].restartCount}=1');
  const back = await cluster.readyPods('default', 'app=web', 2);
  assert.deepEqual(
    back.map(pod => [pod.metadata.uid, pod.status.podIP]).sort(),
    pods.map(pod => [pod.metadata.uid, pod.status.podIP]).sort(),
  );
  for (const pod of back) {
    const { exitCode, reason, containerID, startedAt, finishedAt } = main(pod).lastState.terminated;
    const former = main(pods.find(one => one.metadata.uid === pod.metadata.uid));
    assert.deepEqual([exitCode, reason, containerID], [255, 'Unknown', former.containerID]);
    assert.equal(startedAt, former.state.running.startedAt);
    assert.ok(finishedAt > startedAt);
  }
  const { name } = metadata;
  assert.equal(await cluster.exec('default', name, 'cat', '/disk/file'), 'kept\n');
  assert.equal(await cluster.exec('default', name, 'ls', '/memory'), '');
  for (const path of ['/memory', '/var/run/secrets/kubernetes.io/serviceaccount'])
    assert.match(await cluster.exec('default', name, 'grep', ` ${path} `, '/proc/mounts'), /^tmpfs/);
  assert.match(await cluster.exec('default', name, 'ip', 'address', 'show', 'eth0'), new RegExp(status.podIP));
  assert.equal(await cluster.kubectl('logs', name, '--previous'), 'started\n');
  const once = await cluster.json('get', 'pod', 'once');
  assert.deepEqual([once.status.phase, main(once).state.terminated.message], ['Succeeded', 'said\n']);
  const bare = await cluster.json('get', 'pod', 'bare');
  assert.deepEqual([bare.status.phase, main(bare).state.terminated.exitCode], ['Failed', 255]);
});
