/** Volumes when an agent is killed. It runs alone: whatever else talks to that node would notice. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after } from 'node:test';
import { claim, localDisks, user } from './claims.ts';
import { Cloud } from './cloud.ts';
import { it, type Json, useCluster, useNamespace } from './cluster.ts';
import { agentPid } from './node-program.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'storage-faults');
const pidOn = async (node: string) => agentPid(JSON.parse(await cluster.cox(['status', '-o', 'json'])), node);
const k = (...args: string[]) => cluster.kubectl('-n', ns, ...args);

it('an agent that is killed finds its volumes again, and cleans up what was deleted meanwhile', cluster, async () => {
  await cluster.apply(ns, [claim('crash', '16Mi'), user('crash', 'crash', { script: 'echo here > /data/file' })]);
  const { nodeName } = (await cluster.readyPod(ns, 'crash')).spec;
  process.kill(await pidOn(nodeName), 'SIGKILL');
  await eventually(
    'exec answers again',
    async () => (await cluster.tryKubectl('-n', ns, 'exec', 'crash', '--', 'cat', '/data/file')).stdout === 'here\n',
  );
  const after = await cluster.readyPod(ns, 'crash');
  assert.equal(after.status.containerStatuses[0].restartCount, 0);
  const volume = (await cluster.json('-n', ns, 'get', 'pvc', 'crash')).spec.volumeName as string;
  await k('delete', 'pod/crash', 'pvc/crash', '--wait=false');
  await eventually('the volume is gone', async () => (await cluster.tryKubectl('get', 'pv', volume)).code !== 0, {
    timeoutMs: 60_000,
  });
  assert.ok(!localDisks(cluster).includes(volume));
});

const cloud = new Cloud(cluster, { driver: 'ebs.csi.aws.com', topologyKey: 'topology.ebs.csi.aws.com/zone' });
after(() => cloud.end());

it(
  'an agent that is killed after attach, stage, publish and at the end: the disk is there, and then gone',
  cluster,
  async () => {
    const NODE = 'node-1';
    await cloud.start(NODE, true);
    await cluster.apply(ns, [
      {
        apiVersion: 'storage.k8s.io/v1',
        kind: 'StorageClass',
        metadata: { name: 'disks-of-faults' },
        provisioner: cloud.driver,
        parameters: { fsType: 'ext4' },
      },
      claim('disk', '32Mi', { storageClassName: 'disks-of-faults' }),
      user('first', 'disk', { script: 'echo kept > /data/file; sync', spec: { nodeName: NODE } }),
    ]);
    await cluster.readyPod(ns, 'first');
    const { volumeName } = (await cluster.json('-n', ns, 'get', 'pvc', 'disk')).spec;
    const attachments = async () =>
      (await cluster.json('get', 'volumeattachment')).items.filter((one: Json) => one.spec.attacher === cloud.driver);
    const mounts = (pid: number) =>
      readFileSync(`/proc/${pid}/mountinfo`, 'utf8')
        .split('\n')
        .filter(line => line.includes(volumeName) || line.includes('/ebs.csi.aws.com/'));
    const steps: Record<string, (pid: number) => Promise<boolean>> = {
      attached: async () => (await attachments()).some((one: Json) => one.status?.attached),
      staged: async pid => mounts(pid).some(line => line.includes('globalmount')),
      published: async pid => mounts(pid).some(line => line.includes('kubernetes.io~csi')),
    };
    const remove = async (name: string): Promise<void> => {
      await k('delete', 'pod', name, '--wait=false');
    };
    const detached = (): Promise<unknown> =>
      eventually(
        'the disk is detached',
        async () => (await attachments()).length === 0 && mounts(await pidOn(NODE)).length === 0,
        {
          timeoutMs: 60_000,
        },
      );
    await remove('first');
    await detached();
    for (const [step, isDone] of Object.entries(steps)) {
      const pid = await pidOn(NODE);
      await cluster.apply(ns, [user(step, 'disk', { spec: { nodeName: NODE } })]);
      await eventually(step, () => isDone(pid), { timeoutMs: 60_000, everyMs: 5 });
      process.kill(pid, 'SIGKILL');
      await cluster.readyPod(ns, step);
      await eventually(
        `the data is there after ${step}`,
        async () => (await cluster.tryKubectl('-n', ns, 'exec', step, '--', 'cat', '/data/file')).stdout === 'kept\n',
      );
      // Killed again while it takes the disk away.
      await remove(step);
      const second = await pidOn(NODE);
      await eventually('the pod’s mount is going', async () => !(await steps['published']!(second)), {
        timeoutMs: 60_000,
        everyMs: 5,
      });
      process.kill(second, 'SIGKILL');
      await detached();
    }
    await k('delete', 'pvc', 'disk', '--wait=false');
    await eventually('the volume is gone', async () => (await cluster.tryKubectl('get', 'pv', volumeName)).code !== 0, {
      timeoutMs: 60_000,
    });
    await cluster.kubectl('delete', 'storageclass', 'disks-of-faults');
  },
);
