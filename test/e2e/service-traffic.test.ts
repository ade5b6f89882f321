/** Who gets a Service's traffic and when, on a real cluster: readiness and its gates, host ports, health ports. */

import assert from 'node:assert/strict';
import { before, deployment, HTTP_READY, it, pod, service, useCluster, useNamespace } from './cluster.ts';
import { eventually, outcomeOf } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'service-traffic');
const on = (node: string) => ({ nodeSelector: { 'kubernetes.io/hostname': node } });
const k = (...args: string[]) => cluster.kubectl('-n', ns, ...args);

before(
  async () => {
    await cluster.apply(ns, [
      deployment('web', 'coxswain/echo:1', { replicas: 2, container: HTTP_READY }),
      service('web', 'web', { type: 'NodePort', ports: [{ port: 80 }] }),
      pod('caller', 'busybox:1.35', { command: ['sleep', '3600'], spec: on('node-1') }),
      pod('ported', 'coxswain/echo:1', {
        spec: on('node-1'),
        container: {
          ports: [
            { containerPort: 80, hostPort: 18_180 },
            { containerPort: 80, hostPort: 18_181, hostIP: '127.0.0.1' },
          ],
        },
      }),
      pod('gated', 'coxswain/echo:1', {
        labels: { app: 'gated' },
        spec: { readinessGates: [{ conditionType: 'example.com/warm' }] },
      }),
      service('gated', 'gated', { ports: [{ port: 80 }] }),
    ]);
    await cluster.readyPods(ns, 'app=web', 2);
    for (const name of ['caller', 'ported']) await cluster.readyPod(ns, name);
  },
  { timeout: 150_000 },
);

it('readiness takes a pod out of its Service and puts it back', cluster, async t => {
  const [first] = await cluster.readyPods(ns, 'app=web', 2);
  const name = first.metadata.name as string;
  const nodePort = (await cluster.json('-n', ns, 'get', 'service', 'web')).spec.ports[0].nodePort as number;
  const answers = async () => {
    const all = await Promise.all(
      Array.from({ length: 12 }, () => outcomeOf('curl', ['-sS', '-m', '3', `http://127.0.0.1:${nodePort}/hostname`])),
    );
    return new Set(all.map(({ stdout }) => stdout.trim()));
  };
  await eventually('both answer', async () => (await answers()).size === 2);
  const took = async (what: string, condition: () => Promise<boolean>) => {
    const startMs = performance.now();
    await eventually(what, condition, { everyMs: 20 });
    return Math.round(performance.now() - startMs);
  };
  await cluster.exec(ns, name, 'touch', '/tmp/not-ready');
  const outMs = await took('it is out', async () => !(await answers()).has(name));
  await cluster.exec(ns, name, 'rm', '/tmp/not-ready');
  const inMs = await took('it is back', async () => (await answers()).has(name));
  t.diagnostic(`out after ${outMs} ms, back after ${inMs} ms, with a probe each second`);
  // A probe comes within a second, then the API, the slice and the rules: the rest is for a busy machine.
  assert.ok(outMs < 10_000 && inMs < 10_000, `${outMs} ms, ${inMs} ms`);
});

it('a readiness gate keeps a pod out until its condition is true', cluster, async () => {
  const ready = async () => {
    const { items } = await cluster.json('-n', ns, 'get', 'endpointslices', '-l', 'kubernetes.io/service-name=gated');
    return items[0]?.endpoints?.[0]?.conditions?.ready;
  };
  await eventually('it runs, unready', async () => (await ready()) === false);
  assert.equal((await cluster.json('-n', ns, 'get', 'pod', 'gated')).status.containerStatuses[0].ready, true);
  const patch = (status: string) =>
    k(
      'patch',
      'pod',
      'gated',
      '--subresource=status',
      '-p',
      JSON.stringify({ status: { conditions: [{ type: 'example.com/warm', status }] } }),
    );
  await patch('True');
  await eventually('it is in', async () => (await ready()) === true);
  assert.match(await eventually('it answers', () => cluster.get(ns, 'caller', 'http://gated/hostname')), /gated/);
  await patch('False');
  await eventually('it is out', async () => (await ready()) === false);
});

it('host ports on the node, its loopback too; a port for the loopback only', cluster, async () => {
  const { hostIP } = (await cluster.json('-n', ns, 'get', 'pod', 'ported')).status;
  const get = (address: string, port: number) =>
    cluster.onNode('node-1', 'curl', '-sS', '-m', '3', `http://${address}:${port}/hostname`).catch(() => 'refused');
  await eventually('they answer', async () => /ported/.test(await get(hostIP, 18_180)));
  // By a process of its own, which may still be starting.
  for (const port of [18_180, 18_181])
    await eventually(`${port} at the loopback`, async () => /ported/.test(await get('127.0.0.1', port)));
  assert.equal(await get(hostIP, 18_181), 'refused');
  assert.match(await cluster.get(ns, 'caller', `http://${hostIP}:18180/hostname`), /ported/);
});

it('the proxy says that it is well, and how long programming takes', cluster, async () => {
  const get = (url: string) => cluster.onNode('node-1', 'curl', '-sS', '-m', '3', url);
  const health = JSON.parse(await get('http://127.0.0.1:10256/healthz'));
  assert.deepEqual([health.healthy, health.nodeEligible], [true, true]);
  assert.equal(await get('http://127.0.0.1:10249/proxyMode'), 'nftables');
  const metrics = await get('http://127.0.0.1:10249/metrics');
  assert.match(metrics, /^kubeproxy_network_programming_duration_seconds_count\{ip_family="IPv4"\} [1-9]/m);
});
