/**
 * Cluster DNS under load: answers a second, processor time and memory of our server (names of the cluster; names of others, from its cache) and,
 * beside it, of a bare `node:dgram` echo as the floor. The load is Debian's dnsperf (the program installs it) on 127.0.0.1: four clients,
 * a fixed number of queries under way, through all names in turn.
 *
 *   node26 bench/dns.ts [--seconds 5] [--names 1000] [--in-flight 256]
 */

import { type ChildProcess, execFile, fork } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { silentLogger } from '../src/base/log.ts';
import { ClusterFixture, namespace, service, slice } from '../src/dns/cluster-fixture.ts';
import { encodeQuery, TYPE } from '../src/dns/message.ts';
import { NameServerFixture } from '../src/dns/name-server-fixture.ts';
import { DnsServer } from '../src/dns/server.ts';
import { installPackage } from './package.ts';

const { values } = parseArgs({
  options: {
    role: { type: 'string', default: 'main' },
    seconds: { type: 'string', default: '5' },
    names: { type: 'string', default: '1000' },
    'in-flight': { type: 'string', default: '256' },
    suffix: { type: 'string', default: 'default.svc.cluster.local' },
  },
});
const seconds = Number(values.seconds);
const names = Number(values.names);
const inFlight = Number(values['in-flight']);
const LOCALHOST = '127.0.0.1';
const CLIENTS = 4;
const QR = 0x80;

const nameOf = (index: number, suffix: string): string => `service-${index}.${suffix}`;

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
    await server.resolve(
      encodeQuery({ id: index, name: nameOf(index, values.suffix), type: TYPE.A }),
      'udp',
      LOCALHOST,
    );
  process.send!({ port });
  reportUsage();
}

async function echo(): Promise<void> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
  socket.on('message', (message, { port, address }) => {
    message[2]! |= QR;
    socket.send(message, port, address);
  });
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

async function heard<T>(from: ChildProcess): Promise<T> {
  const [message] = await once(from, 'message');
  return message as T;
}

async function main(): Promise<void> {
  installPackage({ program: '/usr/bin/dnsperf', name: 'dnsperf', why: 'makes the load' });
  const self = fileURLToPath(import.meta.url);
  const folder = mkdtempSync(join(tmpdir(), 'cox-dns-'));
  const measure = async (role: string, suffix = values.suffix): Promise<void> => {
    const queries = join(folder, role);
    writeFileSync(queries, Array.from({ length: names }, (_, index) => `${nameOf(index, suffix)} A\n`).join(''));
    const server = fork(self, ['--role', role, ...['--names', String(names), '--suffix', suffix]]);
    const { port } = await heard<{ port: number }>(server);
    const load = async (forSeconds: number): Promise<string> => {
      const { stdout } = await promisify(execFile)('dnsperf', [
        ...['-s', LOCALHOST, '-p', String(port), '-d', queries, '-l', String(forSeconds)],
        ...['-c', String(CLIENTS), '-q', String(inFlight)],
      ]);
      return stdout;
    };
    await load(1);
    server.send('start');
    const said = await load(seconds);
    server.send('stop');
    const { cpuSeconds, residentMb } = await heard<{ cpuSeconds: number; residentMb: number }>(server);
    server.disconnect();
    const figure = (pattern: RegExp): number => Number(pattern.exec(said)?.[1]);
    const rate = figure(/Queries per second:\s+([\d.]+)/);
    const lost = figure(/Queries lost:\s+(\d+)/);
    if (role !== 'echo' && !/NOERROR \d+ \(100\.00%\)/.test(said)) throw new Error(`not all were answered:\n${said}`);
    const cores = cpuSeconds / seconds;
    console.log(
      `${role.padEnd(8)} ${Math.round(rate).toLocaleString('en').padStart(9)} answers/s  ${(figure(/Average Latency \(s\):\s+([\d.]+)/) * 1e3).toFixed(1)} ms on average  ${lost} lost  ${cores.toFixed(2)} cores  ${((cores / rate) * 1e6).toFixed(1)} µs of processor an answer  ${residentMb.toFixed(0)} MB resident`,
    );
  };
  console.log(`${names} names, ${inFlight} queries in flight, ${seconds} s each; budget 60,000 answers/s`);
  try {
    await measure('serve');
    await measure('cached', 'example.com');
    await measure('echo');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (values.role === 'serve') await serve();
else if (values.role === 'cached') await cached();
else if (values.role === 'echo') await echo();
else await main();
