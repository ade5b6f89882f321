/**
 * The proxy in a namespace of its own: first programming, one change, restart at 10 000 Services with 20 000 endpoints; a Service with
 * 5 000 endpoints; the time to connect through a cluster IP from 10 to 30 000 Services, beside a connection straight to the pod;
 * repair after `nft flush ruleset`. CPU and memory beside each. Run as root: `node26 bench/proxy.ts [services]`.
 */

import { once } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { silentLogger } from '../src/base/log.ts';
import { inOrderOf } from '../src/proxy/endpoint-order.ts';
import { entryOf, type ServiceEntry } from '../src/proxy/model.ts';
import { NftablesBackend } from '../src/proxy/nftables/nftables-backend.ts';
import { Nftables } from '../src/sys/nftables.ts';
import { connectTcp } from '../src/sys/socket.ts';
import { Bed } from '../test/network/bed.ts';
import { endpoint, service, slice } from '../test/network/services.ts';
import { median } from './measure.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const COUNT = Number(process.argv[2] ?? 10_000);
const BIG = 5000;
const CURVE = [10, 100, 1000, 10_000, 30_000];
const view = { nodeName: 'node-1', localVips: new Set<string>() };
const ports = [{ port: 80, targetPort: 8080 }];

function entry(i: number, addresses: readonly string[]): ServiceEntry {
  const name = `s${i}`;
  return entryOf(
    service({ name, clusterIP: `10.${100 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`, ports }),
    [slice({ service: name, endpoints: addresses.map(address => endpoint(address, { nodeName: 'node-9' })), ports })],
    view,
  )!;
}

const addressOf = (i: number) => `10.250.${(i >> 8) & 255}.${i & 255}`;
const ms = (value: number) => `${value.toFixed(2)} ms`;
const megabytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MB`;

function heldBytes(): number {
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** What some work took: time, this process's processor time, and what it holds more afterwards. */
async function measured(what: string, work: () => Promise<unknown>, budget = ''): Promise<void> {
  const held = heldBytes();
  const cpu = process.cpuUsage();
  const startMs = performance.now();
  await work();
  const tookMs = performance.now() - startMs;
  const { user, system } = process.cpuUsage(cpu);
  console.log(
    `${what}: ${ms(tookMs)}; CPU ${((user + system) / 1000).toFixed(0)} ms; memory held +${megabytes(heldBytes() - held)}${budget ? `   (budget ${budget})` : ''}`,
  );
}

async function connectOnceMs(namespace: string, address: string, port: number): Promise<number> {
  const startMs = performance.now();
  const socket = connectTcp({ namespace, address, port });
  await once(socket, 'connect');
  const tookMs = performance.now() - startMs;
  socket.resetAndDestroy();
  return tookMs;
}

const bed = new Bed();
try {
  const node = await bed.addNode();
  const [client, server] = [await bed.addPod(node), await bed.addPod(node)];
  bed.serve(server.namespace, 8080, 'x');
  const options = { namespace: node.namespace, nodeIps: [node.ip], clusterCidrs: ['10.244.0.0/16'], log: silentLogger };
  const tableOf = (count: number) => {
    const table = new Map([['default/s0', entry(0, [server.ip])]]);
    for (let i = 1; i < count; i++) table.set(`default/s${i}`, entry(i, [addressOf(2 * i), addressOf(2 * i + 1)]));
    return table;
  };
  const backend = new NftablesBackend(options);

  // First packets through the VIP and straight to the pod in turn, so that both see the same machine.
  let table = new Map<string, ServiceEntry>();
  await backend.apply(table);
  for (let i = 0; i < 300; i++) await connectOnceMs(client.namespace, server.ip, 8080);
  for (const count of CURVE) {
    const next = tableOf(count);
    await backend.apply(next, table);
    table = next;
    const [vip, pod]: [number[], number[]] = [[], []];
    for (let i = 0; i < 600; i++) {
      vip.push(await connectOnceMs(client.namespace, '10.100.0.0', 80));
      pod.push(await connectOnceMs(client.namespace, server.ip, 8080));
    }
    console.log(
      `${count} Services: connect through the VIP ${ms(median(vip))}, straight to the pod ${ms(median(pod))}, ratio ${(median(vip) / median(pod)).toFixed(2)}`,
    );
  }
  await backend.apply(new Map(), table);

  const inputs = Array.from({ length: COUNT }, (_, i) => i);
  let all = new Map<string, ServiceEntry>();
  await measured(`${COUNT} Services, ${2 * COUNT} endpoints: from objects to the table`, async () => {
    all = tableOf(inputs.length);
  });
  await measured(`${COUNT} Services: first programming`, () => backend.apply(all), '2000 ms at 10 000');
  await measured(`${COUNT} Services: prune`, () => backend.prune(all));
  const changes: number[] = [];
  const cpu = process.cpuUsage();
  for (let i = 0; i < 200; i++) {
    const next = new Map(all);
    next.set(`default/s${i + 1}`, entry(i + 1, ['10.251.0.1', `10.251.1.${i}`]));
    const startMs = performance.now();
    await backend.apply(next, all);
    changes.push(performance.now() - startMs);
    all = next;
  }
  const { user, system } = process.cpuUsage(cpu);
  console.log(
    `${COUNT} Services: one change, median ${ms(median(changes))}, worst of 200 ${ms(Math.max(...changes))}; CPU ${((user + system) / 200_000).toFixed(2)} ms   (budget 10 ms)`,
  );

  const many = Array.from({ length: BIG }, (_, i) => `10.252.${i >> 8}.${i & 255}`);
  const big = new Map(all);
  await measured(`a Service with ${BIG} endpoints, beside those: added`, async () => {
    big.set('default/s30001', entry(30_001, many));
    await backend.apply(big, all);
  });
  const steps: number[] = [];
  let current: typeof big = big;
  for (let i = 0; i < 40; i++) {
    const startMs = performance.now();
    const next = new Map(current);
    const before = current.get('default/s30001')!;
    next.set('default/s30001', inOrderOf(entry(30_001, i % 2 ? many : many.toSpliced(1000 + i, 1)), before));
    await backend.apply(next, current);
    steps.push(performance.now() - startMs);
    current = next;
  }
  console.log(
    `a Service with ${BIG} endpoints: one endpoint more or less, from objects to the kernel, median ${ms(median(steps))}, worst of 40 ${ms(Math.max(...steps))}   (budget 10 ms)`,
  );
  await measured('restart, nothing changed', async () => {
    const again = new NftablesBackend(options);
    await again.apply(current);
    await again.prune(current);
    again.close();
  });

  const told = new Promise<void>(resolve => backend.onDamage(resolve));
  // The restarted one's work was somebody else's to this one.
  backend.damaged();
  await measured(`nft flush ruleset, then everything again`, async () => {
    new Nftables(node.namespace).run('flush ruleset');
    await told;
    if (!backend.damaged()) throw new Error('damage not seen');
    await backend.apply(current);
    await backend.prune(current);
  });
  backend.close();
} finally {
  await bed.close();
}
