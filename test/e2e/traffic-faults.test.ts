/** Traffic through Services while the agents that program them are killed. It runs alone: whatever else talks to a node would notice. */

import assert from 'node:assert/strict';
import { before, deployment, HTTP_READY, it, type Json, pod, service, useCluster, useNamespace } from './cluster.ts';
import { eventually, pause } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'traffic-faults');
const on = (node: string) => ({ nodeSelector: { 'kubernetes.io/hostname': node } });

// By address: names are another story. Counts what fails, and talks over one connection for as long as it lives; no `kubectl exec` holds it, which would go with an agent.
const CALLER = `
while :; do
  (n=0; while :; do echo $n; n=$((n+1)); sleep 0.1; done) | nc $STREAM_SERVICE_HOST 7000
  sleep 0.2
done &
while :; do
  if [ "$(timeout 5 wget -q -O - http://$WEB_SERVICE_HOST/hostname)" = "" ]; then date >> /tmp/failed; fi
  echo >> /tmp/tried
done`;
const SINK = 'sleep 100000 | nc -l -p 7000 > /tmp/got; echo ended > /tmp/ended; sleep 3600';

before(
  async () => {
    await cluster.apply(ns, [
      deployment('web', 'coxswain/echo:1', { replicas: 2, container: HTTP_READY }),
      service('web', 'web', { ports: [{ port: 80 }] }),
      pod('sink', 'busybox:1.35', { command: ['sh', '-c', SINK], labels: { app: 'sink' }, spec: on('node-2') }),
      service('stream', 'sink', { ports: [{ port: 7000 }] }),
    ]);
    await cluster.readyPods(ns, 'app=web', 2);
    await cluster.readyPod(ns, 'sink');
    await cluster.apply(ns, [pod('caller', 'busybox:1.35', { command: ['sh', '-c', CALLER], spec: on('node-1') })]);
    await cluster.readyPod(ns, 'caller');
  },
  { timeout: 150_000 },
);

it('agents killed under traffic: no connection fails, none is cut', cluster, async t => {
  const counts = async () => {
    const text = await cluster.exec(
      ns,
      'caller',
      'sh',
      '-c',
      'wc -l < /tmp/tried; cat /tmp/failed 2>/dev/null | wc -l',
    );
    return text.trim().split(/\s+/).map(Number) as [tried: number, failed: number];
  };
  await eventually('the caller calls', async () => (await counts())[0] > 5);
  const [tried, failed] = await counts();
  const streamed = async () => Number((await cluster.exec(ns, 'sink', 'tail', '-n', '1', '/tmp/got')).trim());
  const before = await eventually('the stream flows', async () => {
    const last = await streamed();
    return last > 5 && last;
  });
  for (let round = 0; round < 3; round++) {
    const agents = (JSON.parse((await cluster.tryCox(['status', '-o', 'json'])).stdout).processes as Json[]).filter(
      ({ role, pid }) => role === 'agent' && pid,
    );
    assert.equal(agents.length, 2);
    for (const { pid } of agents) process.kill(pid, 'SIGKILL');
    await eventually('agents are back', async () => {
      const { stdout } = await cluster.tryCox(['status', '-o', 'json']);
      const now = (JSON.parse(stdout).processes as Json[]).filter(({ role, pid }) => role === 'agent' && pid);
      return now.length === 2 && now.every(({ pid }) => !agents.some(old => old.pid === pid));
    });
    await pause(700);
  }
  const after = await eventually('exec works again', counts, { timeoutMs: 60_000 });
  assert.equal(after[1] - failed, 0, `of ${after[0] - tried} connections`);
  assert.ok(after[0] - tried > 20, `only ${after[0] - tried} connections`);
  const now = await eventually('the stream goes on', async () => {
    const last = await streamed();
    return last > before + 10 && last;
  });
  // The listener takes one connection and says when it ends.
  assert.equal(await cluster.exec(ns, 'sink', 'sh', '-c', 'cat /tmp/ended 2>/dev/null || true'), '');
  t.diagnostic(`${after[0] - tried} connections and a stream of ${now - before} lines over 3 kills of both agents`);
});
