/** Traffic through Services while the agents that program them are killed. It runs alone: whatever else talks to a node would notice. */

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { nodeNamespace } from '../../src/app/cluster-record.ts';
import { connectTcp } from '../../src/sys/socket.ts';
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
  if [ "$(timeout 5 wget -q -O - http://$WEB_SERVICE_HOST/hostname 2>/tmp/said)" = "" ]; then echo "$(date +%T) $(cat /tmp/said)" >> /tmp/failed; fi
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
  assert.equal(
    after[1] - failed,
    0,
    `of ${after[0] - tried} connections: ${await cluster.exec(ns, 'caller', 'sh', '-c', 'cat /tmp/failed 2>/dev/null || true')}`,
  );
  assert.ok(after[0] - tried > 20, `only ${after[0] - tried} connections`);
  const now = await eventually('the stream goes on', async () => {
    const last = await streamed();
    return last > before + 10 && last;
  });
  // The listener takes one connection and says when it ends.
  assert.equal(await cluster.exec(ns, 'sink', 'sh', '-c', 'cat /tmp/ended 2>/dev/null || true'), '');
  t.diagnostic(`${after[0] - tried} connections and a stream of ${now - before} lines over 3 kills of both agents`);
});

/** A stream to `cat`: what is said comes back. */
class Echo {
  readonly #socket: Socket;
  #got = '';
  #isOver = false;
  #said = 0;

  constructor(port: number, namespace?: string) {
    this.#socket = connectTcp({ address: '127.0.0.1', port, ...(namespace ? { namespace } : {}) });
    this.#socket.on('data', bytes => {
      this.#got += bytes;
    });
    this.#socket.on('error', () => {});
    this.#socket.on('close', () => {
      this.#isOver = true;
    });
  }
  /** False once the stream has ended. */
  async says(): Promise<boolean> {
    const word = `${++this.#said}\n`;
    this.#socket.write(word);
    await eventually('an echo or the end', () => this.#isOver || this.#got.endsWith(word), { everyMs: 5 });
    return !this.#isOver;
  }
  close(): void {
    this.#socket.destroy();
  }
}

it(
  'server and agents killed: streams through ports of 127.0.0.1 go on, new ones are carried meanwhile, UDP too',
  cluster,
  async t => {
    const hostPort = 7707;
    await cluster.apply(ns, [
      pod('echo', 'busybox:1.35', {
        command: ['sh', '-c', 'nc -ll -p 7000 -e cat'],
        labels: { app: 'echo' },
        container: { ports: [{ containerPort: 7000, hostPort }] },
        spec: on('node-1'),
      }),
      service('echo', 'echo', { type: 'NodePort', ports: [{ port: 7000 }] }),
      service('udp', 'web', { type: 'NodePort', ports: [{ port: 5000, protocol: 'UDP' }] }),
    ]);
    await cluster.readyPod(ns, 'echo');
    const nodePortOf = async (name: string) =>
      (await cluster.json('-n', ns, 'get', 'service', name)).spec.ports[0].nodePort as number;
    const [nodePort, udpPort] = [await nodePortOf('echo'), await nodePortOf('udp')];
    const namespace = nodeNamespace(cluster.name, 'node-1');
    const ways = [() => new Echo(nodePort), () => new Echo(hostPort, namespace)];
    const isCarried = async (way: () => Echo) => {
      const echo = way();
      try {
        return await echo.says();
      } finally {
        echo.close();
      }
    };
    for (const way of ways) await eventually('the port leads in', () => isCarried(way));
    const client = createSocket('udp4');
    const asksByUdp = async () => {
      client.send('?', udpPort, '127.0.0.1');
      const [answer] = await Promise.race([once(client, 'message'), pause(300).then(() => [''])]);
      return /^web-/.test(String(answer));
    };
    const open = ways.map(way => way());
    try {
      await eventually('UDP leads in', asksByUdp);
      for (const echo of open) assert.ok(await echo.says());
      const running = async () =>
        (JSON.parse((await cluster.tryCox(['status', '-o', 'json'])).stdout).processes as Json[]).filter(
          ({ role, pid }) => (role === 'agent' || role === 'server') && pid,
        );
      const victims = await running();
      for (const { pid } of victims) process.kill(pid, 'SIGKILL');
      let carried = 0;
      // Not thrown: what waits would try again.
      const failures: string[] = [];
      const goesOn = async () => {
        for (const [i, echo] of open.entries()) if (!(await echo.says())) failures.push(`open stream ${i} ended`);
        for (const [i, way] of ways.entries())
          if (!(await isCarried(way))) failures.push(`new connection ${i} not carried`);
        carried += 2;
      };
      await goesOn();
      await eventually('UDP is answered while the server is dead', asksByUdp);
      await eventually('all are back', async () => {
        await goesOn();
        const now = await running();
        return now.length === victims.length && now.every(({ pid }) => !victims.some(old => old.pid === pid));
      });
      await eventually('API ready', async () => {
        await goesOn();
        return (await cluster.tryKubectl('get', '--raw', '/readyz')).stdout === 'ok';
      });
      assert.deepEqual(failures, []);
      // What the successors say is heard by the same process: a port that is not wanted any more closes.
      await cluster.kubectl('-n', ns, 'patch', 'service', 'echo', '-p', '{"spec":{"type":"ClusterIP"}}');
      await eventually('the port is closed', async () => !(await isCarried(ways[0]!)));
      for (const echo of open) assert.ok(await echo.says(), 'open streams outlive their port');
      t.diagnostic(`${carried} connections`);
    } finally {
      client.close();
      for (const echo of open) echo.close();
    }
  },
);
