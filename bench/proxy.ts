/**
 * The proxy at 10 000 Services with 20 000 endpoints, in a namespace of its own: first programming, one change, restart, and the time to connect
 * through a cluster IP at 10 and at 10 000 Services beside a connection straight to the pod. Run as root:
 * `node26 bench/proxy.ts [services]`.
 */

import { once } from 'node:events';
import { silentLogger } from '../src/base/log.ts';
import { entryOf, type ServiceEntry } from '../src/proxy/model.ts';
import { NftablesBackend } from '../src/proxy/nftables/nftables-backend.ts';
import { connectTcp } from '../src/sys/socket.ts';
import { Bed } from '../test/network/bed.ts';
import { endpoint, service, slice } from '../test/network/services.ts';

const COUNT = Number(process.argv[2] ?? 10_000);
const view = { nodeName: 'node-1', localVips: new Set<string>() };

function entry(i: number, addresses: readonly string[]): ServiceEntry {
  const ports = [{ port: 80, targetPort: 8080 }];
  const name = `s${i}`;
  return entryOf(
    service({ name, clusterIP: `10.${100 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`, ports }),
    [slice({ service: name, endpoints: addresses.map(address => endpoint(address, { nodeName: 'node-9' })), ports })],
    view,
  )!;
}

const ms = (value: number) => `${value.toFixed(2)} ms`;
const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1]!;

async function connectMs(namespace: string, address: string, port: number, times = 300): Promise<number> {
  const values: number[] = [];
  for (let i = 0; i < times; i++) {
    const startMs = performance.now();
    const socket = connectTcp({ namespace, address, port });
    await once(socket, 'connect');
    values.push(performance.now() - startMs);
    socket.resetAndDestroy();
  }
  return median(values);
}

const bed = new Bed();
try {
  const node = await bed.addNode();
  const [client, server] = [await bed.addPod(node), await bed.addPod(node)];
  bed.serve(server.namespace, 8080, 'x');
  const options = { namespace: node.namespace, nodeIps: [node.ip], clusterCidrs: ['10.244.0.0/16'], log: silentLogger };

  const report = async (count: number) => {
    const backend = new NftablesBackend(options);
    let table = new Map<string, ServiceEntry>();
    table.set('default/s0', entry(0, [server.ip]));
    for (let i = 1; i < count; i++)
      table.set(
        `default/s${i}`,
        entry(i, [`10.250.${(i >> 7) & 255}.${(i * 2) & 255}`, `10.250.${(i >> 7) & 255}.${(i * 2 + 1) & 255}`]),
      );
    const memory = process.memoryUsage().rss;
    let startMs = performance.now();
    await backend.apply(table);
    console.log(
      `${count} Services: first programming        ${ms(performance.now() - startMs)}   (budget 2000 ms at 10 000; memory +${((process.memoryUsage().rss - memory) / 2 ** 20).toFixed(0)} MB)`,
    );
    startMs = performance.now();
    await backend.prune(table);
    console.log(`${count} Services: prune                    ${ms(performance.now() - startMs)}`);
    const changes: number[] = [];
    for (let i = 0; i < 50; i++) {
      const next = new Map(table);
      next.set(`default/s${i + 1}`, entry(i + 1, ['10.251.0.1', `10.251.1.${i}`]));
      const changeMs = performance.now();
      await backend.apply(next, table);
      changes.push(performance.now() - changeMs);
      table = next;
    }
    console.log(
      `${count} Services: one change, median       ${ms(median(changes))}, worst ${ms(Math.max(...changes))}   (budget 10 ms)`,
    );
    console.log(
      `${count} Services: connect through the VIP  ${ms(await connectMs(client.namespace, '10.100.0.0', 80))}`,
    );
    console.log(
      `${count} Services: connect to the pod       ${ms(await connectMs(client.namespace, server.ip, 8080))}`,
    );
    startMs = performance.now();
    const again = new NftablesBackend(options);
    await again.apply(table);
    await again.prune(table);
    console.log(`${count} Services: restart, nothing changed ${ms(performance.now() - startMs)}`);
    backend.close();
    again.close();
  };
  await report(10);
  await report(COUNT);
} finally {
  await bed.close();
}
