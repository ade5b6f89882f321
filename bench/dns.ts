/**
 * Cluster DNS under load: answers a second, processor time and memory of our server (names of the cluster; names of others,
 * from its cache) and, beside it, of a bare
 * `node:dgram` echo as the floor. The generator is a process of its own on the same machine, keeps a fixed number of
 * queries in flight over several sockets on 127.0.0.1 and walks through the names, as dnsperf does.
 *
 *   node26 bench/dns.ts [--seconds 5] [--names 1000] [--in-flight 256]
 */

import { type ChildProcess, fork } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { silentLogger } from '../src/base/log.ts';
import { ClusterFixture, namespace, service, slice } from '../src/dns/cluster-fixture.ts';
import { decodeMessage, encodeQuery, TYPE } from '../src/dns/message.ts';
import { NameServerFixture } from '../src/dns/name-server-fixture.ts';
import { DnsServer } from '../src/dns/server.ts';
import { parseAddress } from '../src/sys/address.ts';
import { DatagramBatch, openDatagramSocket } from '../src/sys/datagram-batch.ts';

const { values } = parseArgs({
  options: {
    role: { type: 'string', default: 'main' },
    seconds: { type: 'string', default: '5' },
    names: { type: 'string', default: '1000' },
    'in-flight': { type: 'string', default: '256' },
    port: { type: 'string' },
    suffix: { type: 'string', default: 'default.svc.cluster.local' },
  },
});
const seconds = Number(values.seconds);
const names = Number(values.names);
const inFlight = Number(values['in-flight']);
const LOCALHOST = '127.0.0.1';
const SOCKETS = 4;

const nameOf = (index: number): string => `service-${index % names}.${values.suffix}`;

async function serve(): Promise<void> {
  const cluster = new ClusterFixture();
  const server = new DnsServer({ informers: cluster, listen: { addresses: [LOCALHOST], port: 0 }, log: silentLogger });
  await cluster.put(namespace('default'));
  for (let index = 0; index < names; index++) {
    const ip = `10.96.${index >> 8}.${index & 255}`;
    const pods = [0, 1].map(pod => ({ addresses: [`10.1.${index >> 7}.${((index & 127) << 1) | pod}`] }));
    await cluster.put(
      service(`service-${index}`, {
        clusterIP: ip,
        clusterIPs: [ip],
        ports: [{ name: 'http', protocol: 'TCP', port: 80 }],
      }),
      slice(`service-${index}-a`, `service-${index}`, pods, [{ name: 'http', protocol: 'TCP', port: 8080 }]),
    );
  }
  const stop = new AbortController();
  await cluster.start(stop.signal);
  void server.run(stop.signal);
  process.send!({ port: (await server.bound).port });
  reportUsage();
}

// Names of others: the first question of each goes to an upstream in this process, all others to the cache.
async function cached(): Promise<void> {
  const upstream = await NameServerFixture.start(name => ({ answers: [`${name}. 3600 A 192.0.2.1`] }), { after() {} });
  const stop = new AbortController();
  const cluster = new ClusterFixture();
  const server = new DnsServer({
    informers: cluster,
    listen: { addresses: [LOCALHOST], port: 0 },
    corefile: `. {\n kubernetes cluster.local\n forward . ${upstream.address}\n cache\n loadbalance\n}\n`,
    log: silentLogger,
  });
  await cluster.start(stop.signal);
  void server.run(stop.signal);
  const { port } = await server.bound;
  for (let index = 0; index < names; index++)
    await server.resolve(encodeQuery({ id: index, name: nameOf(index), type: TYPE.A }), 'udp', LOCALHOST);
  process.send!({ port });
  reportUsage();
}

async function echo(): Promise<void> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
  socket.on('message', (message, { port, address }) => socket.send(message, port, address));
  socket.bind(0, LOCALHOST);
  await once(socket, 'listening');
  process.send!({ port: socket.address().port });
  reportUsage();
}

function reportUsage(): void {
  let before = process.cpuUsage();
  process.on('message', question => {
    if (question === 'start') before = process.cpuUsage();
    else if (question === 'stop') {
      const { user, system } = process.cpuUsage(before);
      process.send!({ cpuSeconds: (user + system) / 1e6, residentMb: process.memoryUsage().rss / 2 ** 20 });
    }
  });
  process.once('disconnect', () => process.exit(0));
}

// Sends and receives in batches too, so that on few cores the server is what is measured.
async function generate(port: number): Promise<void> {
  const queries = Array.from({ length: names }, (_, index) =>
    encodeQuery({ id: index, name: nameOf(index), type: TYPE.A }),
  );
  let answered = 0;
  let next = 0;
  const sockets = Array.from({ length: SOCKETS }, () => {
    const fd = openDatagramSocket({ address: parseAddress(LOCALHOST), port: 0 });
    const socket = createSocket('udp4');
    socket.bind({ fd });
    socket.setRecvBufferSize(1 << 20);
    const batch = new DatagramBatch(fd, { slots: 64, requestBytesMax: 1024, replyBytesMax: 512 });
    let lastMs = performance.now();
    const query = (): Buffer => queries[next++ % names]!;
    socket.on('message', message => {
      answered++;
      lastMs = performance.now();
      check(message);
      socket.send(query(), port, LOCALHOST);
      for (let round = 0; round < 4; round++) {
        const count = batch.receive();
        for (let slot = 0; slot < count; slot++) {
          const asked = query();
          asked.copy(batch.output, batch.replyAt);
          batch.stage(slot, asked.length);
        }
        answered += count;
        batch.flush();
        if (count < batch.slots) break;
      }
    });
    const fill = (): void => {
      for (let index = 0; index < inFlight / SOCKETS; index++) socket.send(query(), port, LOCALHOST);
    };
    fill();
    // Lost datagrams are made up for.
    const refill = setInterval(() => {
      if (performance.now() - lastMs > 100) fill();
    }, 100);
    return { close: () => (clearInterval(refill), socket.close()) };
  });
  await new Promise(resolve => setTimeout(resolve, 500));
  process.send!('warm');
  const from = answered;
  const startMs = performance.now();
  await new Promise(resolve => setTimeout(resolve, seconds * 1000));
  process.send!({ rate: (answered - from) / ((performance.now() - startMs) / 1000) });
  for (const socket of sockets) socket.close();
}

function check(message: Buffer): void {
  const { rcode } = decodeMessage(message);
  if (rcode !== 0) throw new Error(`answered with code ${rcode}`);
}

async function heard<T>(from: ChildProcess): Promise<T> {
  const [message] = await once(from, 'message');
  return message as T;
}

async function main(): Promise<void> {
  const self = fileURLToPath(import.meta.url);
  const shared = ['--seconds', String(seconds), '--names', String(names), '--in-flight', String(inFlight)];
  const measure = async (role: string, ...more: string[]): Promise<void> => {
    const server = fork(self, ['--role', role, ...shared, ...more]);
    const { port } = await heard<{ port: number }>(server);
    const generator = fork(self, ['--role', 'generate', '--port', String(port), ...shared, ...more]);
    await heard(generator);
    server.send('start');
    const { rate } = await heard<{ rate: number }>(generator);
    server.send('stop');
    const { cpuSeconds, residentMb } = await heard<{ cpuSeconds: number; residentMb: number }>(server);
    server.disconnect();
    if (generator.connected) generator.disconnect();
    const cores = cpuSeconds / seconds;
    console.log(
      `${role.padEnd(8)} ${Math.round(rate).toLocaleString('en').padStart(9)} answers/s  ${cores.toFixed(2)} cores  ${((cores / rate) * 1e6).toFixed(1)} µs of processor an answer  ${residentMb.toFixed(0)} MB resident`,
    );
  };
  console.log(`${names} names, ${inFlight} queries in flight, ${seconds} s each; budget 60,000 answers/s`);
  await measure('serve');
  await measure('cached', '--suffix', 'example.com');
  await measure('echo');
}

if (values.role === 'serve') await serve();
else if (values.role === 'cached') await cached();
else if (values.role === 'echo') await echo();
else if (values.role === 'generate') await generate(Number(values.port));
else await main();
