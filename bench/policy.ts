/**
 * Network policies at 10 000 pods and 1 000 policies, 100 of the pods on the node, in a namespace of its own: first programming, changes
 * until they are in the kernel, and what a packet costs: connections and throughput between two pods without policies, with one, and with
 * all. Run as root: `node26 bench/policy.ts [pods] [policies]`.
 */

import { once } from 'node:events';
import { createServer } from 'node:net';
import type { NetworkPolicy } from '../src/api/networking/v1.gen.ts';
import { silentLogger } from '../src/base/log.ts';
import { seededRandom } from '../src/base/random.ts';
import { KernelTable } from '../src/network/policy/kernel-table.ts';
import type { Pod } from '../src/network/policy/peer-classes.ts';
import { policy } from '../src/network/policy/policy-fixture.ts';
import { PolicyModel } from '../src/network/policy/policy-model.ts';
import { readNetworkPolicy } from '../src/network/policy/statement.ts';
import { connectTcp, listenTcp } from '../src/sys/socket.ts';
import { Bed } from '../test/network/bed.ts';
import { median } from './measure.ts';

const PODS = Number(process.argv[2] ?? 10_000);
const POLICIES = Number(process.argv[3] ?? 1000);
const LOCAL = 100;
const NAMESPACES = 50;
const PORT = 8080;
const random = seededRandom(1);
const pick = (count: number) => Math.floor(random.next() * count);
const ms = (value: number) => `${value.toFixed(2)} ms`;

function podOf(i: number, ip: string, app = pick(40)): Pod {
  return {
    key: `ns${i % NAMESPACES}/p${i}`,
    uid: `u${i}`,
    namespace: `ns${i % NAMESPACES}`,
    labels: { app: `app${app}`, tier: `t${i % 3}` },
    ips: [ip],
    names: new Map([['TCP/http', 8080 + (i % 3)]]),
  };
}

/** `near`: selects pods of the node's namespaces. Every policy lets the two pods of the measurement talk. */
function policyOf(i: number): NetworkPolicy {
  const app = (n: number) => ({ matchLabels: { app: `app${n}` } });
  return policy(`p${i}`, `ns${i % NAMESPACES}`, {
    podSelector: i % 4 === 0 ? {} : app(pick(40)),
    policyTypes: ['Ingress', 'Egress'],
    ingress: [
      {
        from: [
          { podSelector: app(pick(40)) },
          { namespaceSelector: { matchLabels: { team: `team${i % 7}` } }, podSelector: app(pick(40)) },
        ],
        ports: [{ port: 8000 + (i % 20) }, { port: 'http' }],
      },
      {
        from: [{ namespaceSelector: {} }, { ipBlock: { cidr: '10.0.0.0/8', except: ['10.200.0.0/16'] } }],
        ports: [{ port: PORT }],
      },
    ],
    egress: [{ to: [{ namespaceSelector: {} }], ports: [{ port: PORT, endPort: PORT + 20 }] }],
  });
}

const bed = new Bed();
try {
  const node = await bed.addNode();
  const [client, server] = [await bed.addPod(node), await bed.addPod(node)];
  const sink = createServer(peer => {
    peer.on('error', () => {}).on('data', () => {});
  }).listen({ fd: listenTcp({ namespace: server.namespace, address: '0.0.0.0', port: PORT }) });

  const model = new PolicyModel();
  const kernel = new KernelTable({
    namespace: node.namespace,
    bridge: 'cox0',
    log: silentLogger,
    random,
    onDamage: () => {},
  });
  const ranges = ['10.244.0.0/24'];
  for (let i = 0; i < NAMESPACES; i++) model.setNamespace(`ns${i}`, { team: `team${i % 7}` });
  const ips = [client.ip, server.ip];
  for (let i = 0; i < PODS; i++) {
    const ip = i < 2 ? ips[i]! : i < LOCAL ? `10.244.0.${i + 20}` : `10.${(i >> 8) % 200}.1.${i & 255}`;
    model.setPod(podOf(i, ip), { local: i < LOCAL });
  }

  // Both ends are this process, and the kernel works on its account: its time in the kernel tells what packets cost on a busy machine too.
  const cpuUs = () => process.cpuUsage().system;
  async function cpuUsPerConnect(): Promise<number> {
    const [end, startUs] = [performance.now() + 1500, cpuUs()];
    let count = 0;
    while (performance.now() < end) {
      const dial = () => connectTcp({ namespace: client.namespace, address: server.ip, port: PORT });
      const sockets = Array.from({ length: 8 }, dial);
      await Promise.all(sockets.map(socket => once(socket, 'connect')));
      for (const socket of sockets) socket.resetAndDestroy();
      count += sockets.length;
    }
    return (cpuUs() - startUs) / count;
  }
  async function cpuUsPerMegabyte(): Promise<number> {
    const socket = connectTcp({ namespace: client.namespace, address: server.ip, port: PORT });
    await once(socket, 'connect');
    const chunk = Buffer.alloc(256 * 1024);
    const [end, startUs] = [performance.now() + 1500, cpuUs()];
    let sent = 0;
    while (performance.now() < end) {
      sent += chunk.length;
      if (!socket.write(chunk)) await once(socket, 'drain');
    }
    const used = cpuUs() - startUs;
    socket.resetAndDestroy();
    return used / (sent / 1e6);
  }

  // In turn, several times: the machine is rarely quiet.
  const loads = {
    none: () => kernel.remove(),
    one: () => program(1),
    all: () => program(POLICIES),
  };
  const programmed = new Set<string>();
  function program(count: number): number {
    for (let i = 0; i < POLICIES; i++) {
      const read = readNetworkPolicy(policyOf(i));
      if (i < count && !programmed.has(read.id)) {
        model.setPolicy(read);
        programmed.add(read.id);
      } else if (i >= count && programmed.delete(read.id)) model.removePolicy(read.id);
    }
    const startMs = performance.now();
    model.settle();
    model.table.takeChanges();
    const settledMs = performance.now();
    kernel.rebuild(model.table, { podCidrs: ranges, served: [] });
    console.log(
      `${count} policies, ${PODS} pods: computed in ${ms(settledMs - startMs)}, first programming ${ms(performance.now() - settledMs)}`,
    );
    return performance.now() - startMs;
  }

  const results: Record<string, { connects: number[]; megabytes: number[] }> = {};
  for (let round = 0; round < 4; round++)
    for (const [name, load] of Object.entries(loads)) {
      load();
      results[name] ??= { connects: [], megabytes: [] };
      results[name].connects.push(await cpuUsPerConnect());
      results[name].megabytes.push(await cpuUsPerMegabyte());
    }
  const best = (name: string, what: 'connects' | 'megabytes') => Math.min(...results[name]![what]);
  const row = (name: string, what: 'connects' | 'megabytes', unit: string) =>
    `${best(name, what).toFixed(0)} µs in the kernel a ${unit}, ${(best('none', what) / best(name, what)).toFixed(2)} of none (${best('none', what).toFixed(0)})`;
  for (const name of ['one', 'all'])
    console.log(
      `${name === 'all' ? POLICIES : 1} policies: throughput ${row(name, 'megabytes', 'megabyte')} (budget 0.95); ${row(name, 'connects', 'connection')}`,
    );

  const measure = (what: string, times: number, change: (i: number) => void) => {
    const values: number[] = [];
    let elements = 0;
    for (let i = 0; i < times; i++) {
      const startMs = performance.now();
      change(i);
      model.settle();
      const changes = model.table.takeChanges();
      kernel.change(changes);
      elements += changes.length;
      values.push(performance.now() - startMs);
    }
    console.log(
      `${what}: median ${ms(median(values))}, worst ${ms(Math.max(...values))}, ${Math.round(elements / times)} entries   (budget 20 ms)`,
    );
  };
  measure("a pod's labels", 100, i =>
    model.setPod(podOf(LOCAL + i, `10.${((LOCAL + i) >> 8) % 200}.1.${(LOCAL + i) & 255}`, i % 40), { local: false }),
  );
  measure('labels of a pod of the node', 50, i =>
    model.setPod(podOf(2 + i, `10.244.0.${22 + i}`, i % 40), { local: true }),
  );
  measure('a policy made', 50, i =>
    model.setPolicy(
      readNetworkPolicy({ ...policyOf(i), metadata: { name: `new${i}`, namespace: `ns${i % NAMESPACES}` } }),
    ),
  );
  measure('a policy changed', 50, i => {
    const changed = policyOf(i);
    changed.spec.ingress![0]!.ports = [{ port: 9000 + i }];
    model.setPolicy(readNetworkPolicy(changed));
  });
  measure('a policy removed', 50, i => model.removePolicy(`NetworkPolicy ns${i % NAMESPACES}/new${i}`));
  measure("a namespace's labels (200 pods)", 20, i => model.setNamespace(`ns${i}`, { team: `team${(i + 3) % 7}` }));
  sink.close();
  kernel.close();
} finally {
  await bed.close();
}
process.exit(0);
