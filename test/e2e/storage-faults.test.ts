/** Volumes when an agent is killed. It runs alone: whatever else talks to that node would notice. */

import assert from 'node:assert/strict';
import { claim, localDisks, user } from './claims.ts';
import { agentPid } from './cloud.ts';
import { it, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'storage-faults');
const k = (...args: string[]) => cluster.kubectl('-n', ns, ...args);

it('an agent that is killed finds its volumes again, and cleans up what was deleted meanwhile', cluster, async () => {
  await cluster.apply(ns, [claim('crash', '16Mi'), user('crash', 'crash', { script: 'echo here > /data/file' })]);
  const { nodeName } = (await cluster.readyPod(ns, 'crash')).spec;
  process.kill(agentPid(JSON.parse(await cluster.cox(['status', '-o', 'json'])), nodeName), 'SIGKILL');
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
