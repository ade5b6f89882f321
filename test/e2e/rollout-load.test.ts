import assert from 'node:assert/strict';
import { before, deployment, HTTP_READY, it, pod, service, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'load');

// What production pods do: stay while the last packets of the proxies' old rules arrive, then finish what they have.
const GRACEFUL = { ...HTTP_READY, lifecycle: { preStop: { exec: { command: ['sleep', '2'] } } } };
const SENDERS = 3;

before(
  async () => {
    await cluster.apply(ns, [
      deployment('web', 'coxswain/echo:1', {
        replicas: 3,
        container: GRACEFUL,
        podSpec: { terminationGracePeriodSeconds: 10 },
        spec: { strategy: { rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } } },
      }),
      service('web', 'web', { ports: [{ port: 80 }] }),
      ...['node-1', 'node-2', 'node-2'].map((node, index) =>
        pod(`sender-${index}`, 'coxswain/echo:1', { spec: { nodeName: node } }),
      ),
    ]);
    await cluster.readyPods(ns, 'app=web', 3);
    for (let index = 0; index < SENDERS; index++) await cluster.readyPod(ns, `sender-${index}`);
  },
  { timeout: 120_000 },
);

it(
  'a rolling image update under steady load loses no request',
  cluster,
  async () => {
    const vip = (await cluster.json('-n', ns, 'get', 'service', 'web')).spec.clusterIP as string;
    // Each round is a new connection through the virtual IP; a failure is counted, not retried.
    const script = `ok=0; bad=0; one=0; two=0; while [ ! -e /tmp/stop ]; do v=$(timeout 5 wget -q -O - http://${vip}/ 2>>/tmp/errors | head -n1); case "$v" in "version: 1") ok=$((ok+1)); one=$((one+1));; "version: 2") ok=$((ok+1)); two=$((two+1));; *) bad=$((bad+1));; esac; done; echo $ok $bad $one $two`;
    const senders = Array.from({ length: SENDERS }, (_, index) =>
      cluster.kubectlWith({ timeoutMs: 150_000 }, '-n', ns, 'exec', `sender-${index}`, '--', 'bash', '-c', script),
    );
    await new Promise(resolve => setTimeout(resolve, 2000));
    await cluster.kubectl('-n', ns, 'set', 'image', 'deploy/web', 'main=coxswain/echo:2');
    await cluster.kubectlWith({ timeoutMs: 100_000 }, '-n', ns, 'rollout', 'status', 'deploy/web', '--timeout=90s');
    await eventually('old pods gone', async () => (await cluster.readyPods(ns, 'app=web', 3)).length === 3);
    await new Promise(resolve => setTimeout(resolve, 1000));
    await Promise.all(senders.map((_, index) => cluster.exec(ns, `sender-${index}`, 'touch', '/tmp/stop')));
    const counts = (await Promise.all(senders)).map(
      text => text.trim().split(' ').map(Number) as [number, number, number, number],
    );
    const [ok, bad, one, two] = [0, 1, 2, 3].map(column => counts.reduce((sum, row) => sum + row[column]!, 0)) as [
      number,
      number,
      number,
      number,
    ];
    const errors =
      bad > 0
        ? await Promise.all(senders.map((_, index) => cluster.exec(ns, `sender-${index}`, 'cat', '/tmp/errors')))
        : [];
    console.log(`rolling update: ${ok} requests answered (${one} by version 1, ${two} by version 2), ${bad} failed`);
    assert.equal(bad, 0, errors.join(''));
    assert.ok(one > 50 && two > 50, 'both versions served');
  },
  { timeoutMs: 200_000 },
);
