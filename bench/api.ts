/**
 * The API server under load over TLS and HTTP/2: durable creates, GETs of one object, LISTs of 500 objects, Services with
 * their slices. It is the server as `src/app` puts it together: client certificates, RBAC, all admission, LMDB, controllers.
 * This process makes the load; the server and two floors that send the same bytes without any work (a bare node:http2 server,
 * and our own HTTP/2) are children and take turns round by round, so that all meet the same machine. Figures are medians. LMDB's own floor: bench/store.ts.
 * `node bench/api.ts [creates|gets|lists|services]`
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createSecureServer, type ServerHttp2Stream } from 'node:http2';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { KubeObject } from '../src/api/meta.ts';
import { ensurePki } from '../src/apiserver/certificates/pki.ts';
import { listenTls } from '../src/apiserver/listener.ts';
import { LOOPBACK_USER } from '../src/apiserver/request.ts';
import { createSecurity } from '../src/apiserver/security.ts';
import { ApiServer } from '../src/apiserver/server.ts';
import { systemClock } from '../src/base/clock.ts';
import { silentLogger } from '../src/base/log.ts';
import { systemRandom } from '../src/base/random.ts';
import { InformerFactory } from '../src/client/informer.ts';
import { NAMESPACES, ROLE_BINDINGS } from '../src/client/resources.ts';
import { startControllers } from '../src/controllers/start.ts';
import { startScheduler } from '../src/scheduler/scheduler.ts';
import { LmdbStore } from '../src/store/lmdb.ts';
import { H2Client, type PreparedRequest, prepare } from './h2-client.ts';
import { inDirectory, median, printRow } from './measure.ts';

const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5);
const SECONDS = Number(process.env['BENCH_SECONDS'] ?? 2);
const LIST_ITEMS = 500;
const PATH = '/api/v1/namespaces/bench/configmaps';
const SERVICES = '/api/v1/namespaces/bench/services';
const SLICES = '/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices';
const text = 'x'.repeat(900);

/** What a server child prints once it listens. */
interface Ready {
  readonly port: number;
  readonly ca: string;
  readonly key: string;
  readonly cert: string;
}

const settings = {
  serviceCidrs: ['10.96.0.0/12'],
  nodePortRange: { first: 30000, last: 32767 },
  advertise: { address: '172.30.0.1', port: 6443 },
  clock: systemClock,
  random: systemRandom,
  log: silentLogger,
};

/** The role that a namespace's user gets, so that RBAC has to look for it. */
const BINDING = {
  apiVersion: 'rbac.authorization.k8s.io/v1',
  kind: 'RoleBinding',
  metadata: { name: 'bench', namespace: 'bench' },
  roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
  subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'bench' }],
} as KubeObject;

/** Child: the real server on LMDB, and the control plane in its process. */
async function serve(): Promise<void> {
  await inDirectory(async directory => {
    const pki = await ensurePki(join(directory, 'pki'), { sans: ['127.0.0.1'] });
    const store = await LmdbStore.open(join(directory, 'store'));
    const late: { server?: ApiServer } = {};
    const security = createSecurity({
      ...settings,
      pki,
      reader: () => late.server!.reader,
      transport: () => late.server!.transport(LOOPBACK_USER),
    });
    const server = await ApiServer.open({ store, ...security });
    late.server = server;
    const transport = server.transport(LOOPBACK_USER);
    await security.bootstrap();
    await transport.create({ of: NAMESPACES }, {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: 'bench' },
    } as KubeObject);
    await transport.create({ of: ROLE_BINDINGS, namespace: 'bench' }, BINDING);
    const stop = new AbortController();
    if (!process.env['BENCH_NO_CONTROLLERS']) {
      const informers = new InformerFactory({ transport, log: silentLogger });
      informers.start(stop.signal);
      const control = { ...settings, transport, informers, signal: stop.signal };
      startControllers({ ...control, caPem: pki.ca });
      startScheduler(control);
    }
    const { port } = await server.listen(
      { host: '127.0.0.1', port: 0 },
      { key: pki.server.key, cert: pki.server.certificate, ca: pki.ca },
    );
    const client = pki.issueClient({ commonName: 'bench', organizations: ['benches'] });
    announce({ port, ca: pki.ca, key: client.key, cert: client.certificate });
    await once(process, 'SIGTERM');
    if (process.env['BENCH_METRICS']) console.error(process.memoryUsage());
    stop.abort();
    await server.close();
  });
  process.exit(0);
}

/** Child: what the HTTP stack can do with the same bytes and no work. */
async function serveFloor(): Promise<void> {
  await inDirectory(async directory => {
    const pki = await ensurePki(directory, { sans: ['127.0.0.1'] });
    const one = Buffer.from(JSON.stringify(configMap('c0')));
    const list = Buffer.concat(Array.from({ length: LIST_ITEMS }, () => one));
    const server = createSecureServer({
      key: pki.server.key,
      cert: pki.server.certificate,
      ca: pki.ca,
      requestCert: true,
      rejectUnauthorized: false,
    });
    server.on('stream', (stream: ServerHttp2Stream, headers) => {
      const send = (body: Buffer) => {
        stream.respond({ ':status': 200, 'content-type': 'application/json', 'content-length': body.length });
        stream.end(body);
      };
      if (headers[':method'] === 'GET') return send(headers[':path'] === PATH ? list : one);
      stream.resume();
      stream.on('end', () => send(one));
    });
    server.listen(0, '127.0.0.1', () => {
      const client = pki.issueClient({ commonName: 'bench' });
      const { port } = server.address() as { port: number };
      announce({ port, ca: pki.ca, key: client.key, cert: client.certificate });
    });
    await once(process, 'SIGTERM');
  });
  process.exit(0);
}

/** Child: what our own HTTP/2 can do with the same bytes and no work. */
async function serveOwn(): Promise<void> {
  await inDirectory(async directory => {
    const pki = await ensurePki(directory, { sans: ['127.0.0.1'] });
    const one = Buffer.from(JSON.stringify(configMap('c0')));
    const list = Buffer.concat(Array.from({ length: LIST_ITEMS }, () => one));
    const { port } = await listenTls(
      { host: '127.0.0.1', port: 0 },
      { key: pki.server.key, cert: pki.server.certificate, ca: pki.ca },
      {
        request: async exchange => {
          await exchange.body();
          const isList = exchange.method === 'GET' && exchange.url === PATH;
          exchange.reply(200, { 'content-type': 'application/json' }, isList ? list : one);
        },
        upgrade: ({ socket }) => socket.destroy(),
      },
    );
    const client = pki.issueClient({ commonName: 'bench' });
    announce({ port, ca: pki.ca, key: client.key, cert: client.certificate });
    await once(process, 'SIGTERM');
  });
  process.exit(0);
}

function announce(ready: Ready): void {
  process.stdout.write(`${JSON.stringify(ready)}\n`);
}

function configMap(name: string) {
  return { kind: 'ConfigMap', apiVersion: 'v1', metadata: { name }, data: { text } };
}

interface Server extends Ready {
  readonly pid: number;
}

async function withServer<T>(mode: 'serve' | 'floor' | 'own', use: (server: Server) => Promise<T>): Promise<T> {
  const flags =
    mode === (process.env['BENCH_FLAGS_OF'] ?? 'serve') && process.env['BENCH_NODE_FLAGS']
      ? process.env['BENCH_NODE_FLAGS'].split(' ')
      : [];
  const child: ChildProcess = spawn(process.execPath, [...flags, import.meta.filename, mode], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    for await (const line of createInterface({ input: child.stdout! }))
      return await use({ ...(JSON.parse(line) as Ready), pid: child.pid! });
    throw new Error('the server did not start');
  } finally {
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
}

/** Runs `clients` loops of one request at a time, each on its own connection. */
async function load(
  server: Server,
  options: { clients: number; seconds: number; requests: () => readonly PreparedRequest[]; expect: string },
): Promise<{ rate: number; latencyMs: number; cpuUs: number }> {
  const clients = await Promise.all(Array.from({ length: options.clients }, () => open(server)));
  const latencies: number[] = [];
  const cpuMs = cpuMsOf(server.pid);
  const start = performance.now();
  const end = start + options.seconds * 1000;
  await Promise.all(
    clients.map(async client => {
      for (let begun = performance.now(); begun < end; ) {
        for (const request of options.requests()) {
          const reply = await client.send(request);
          if (!reply.startsWith(options.expect)) throw new Error(`unexpected reply: ${reply}`);
        }
        const now = performance.now();
        latencies.push(now - begun);
        begun = now;
      }
    }),
  );
  const seconds = (performance.now() - start) / 1000;
  const count = latencies.length;
  for (const client of clients) client.close();
  return { rate: count / seconds, latencyMs: median(latencies), cpuUs: ((cpuMsOf(server.pid) - cpuMs) * 1000) / count };
}

function open({ port, ca, key, cert }: Server): Promise<H2Client> {
  return H2Client.open(port, { ca, key, cert });
}

const post = (path: string, object: object) =>
  prepare('POST', path, {
    headers: { 'content-type': 'application/json', 'user-agent': 'bench' },
    body: Buffer.from(JSON.stringify(object)),
  });

function service(name: string) {
  return {
    kind: 'Service',
    apiVersion: 'v1',
    metadata: { name },
    spec: { ports: [{ name: 'http', port: 80, targetPort: 8080 }] },
  };
}

function slice(name: string) {
  return {
    kind: 'EndpointSlice',
    apiVersion: 'discovery.k8s.io/v1',
    metadata: { name: `${name}-1`, labels: { 'kubernetes.io/service-name': name } },
    addressType: 'IPv4',
    ports: [{ name: 'http', port: 8080 }],
    endpoints: [{ addresses: ['10.244.1.7'], conditions: { ready: true }, nodeName: 'node-1' }],
  };
}

interface Measurement {
  readonly name: string;
  readonly what: string;
  readonly clients: number;
  readonly budget: number;
  /** Objects that must be there. */
  readonly objects: number;
  /** What one client does one after the other; together they count as one. */
  readonly requests: () => readonly PreparedRequest[];
  /** How each reply's body begins. */
  readonly expect: string;
}

let unique = 0;
const getOne = [prepare('GET', `${PATH}/c0`)];
const listAll = [prepare('GET', PATH)];
const measurements: readonly Measurement[] = [
  {
    name: 'creates',
    what: 'durable creates, 1 KB ConfigMap, 32 clients',
    clients: 32,
    budget: 10_000,
    objects: 0,
    requests: () => [post(PATH, configMap(`n${unique++}`))],
    expect: '{"kind":"ConfigMap",',
  },
  {
    name: 'gets',
    what: 'GET one object, 32 clients',
    clients: 32,
    budget: 15_000,
    objects: 1,
    requests: () => getOne,
    expect: '{"kind":"ConfigMap",',
  },
  {
    name: 'lists',
    what: `LIST ${LIST_ITEMS} x 1 KB, 4 clients`,
    clients: 4,
    budget: 1000,
    objects: LIST_ITEMS,
    requests: () => listAll,
    expect: '{"kind":"ConfigMap',
  },
  {
    name: 'services',
    what: 'Service (address allocated) and its slice, 16 clients',
    clients: 16,
    budget: 3000,
    objects: 0,
    requests: () => {
      const name = `s${unique++}`;
      return [post(SERVICES, service(name)), post(SLICES, slice(name))];
    },
    expect: '{"kind":"',
  },
];

function measure(measurement: Measurement): Promise<void> {
  return withServer('serve', server =>
    withServer('floor', floor =>
      withServer('own', async own => {
        const client = await open(server);
        for (let i = 0; i < measurement.objects; i++) await client.send(post(PATH, configMap(`c${i}`)));
        client.close();
        const floors = { ...measurement, expect: '{"kind"' };
        const runs = [
          { of: server, what: measurement },
          { of: floor, what: floors },
          { of: own, what: floors },
        ].map(run => ({ ...run, rounds: [] as Awaited<ReturnType<typeof load>>[] }));
        for (const { of, what } of runs) await load(of, { ...what, seconds: 1 });
        for (let round = 0; round < ROUNDS; round++)
          for (const { of, what, rounds } of runs) rounds.push(await load(of, { ...what, seconds: SECONDS }));
        const [ours, bare, alone] = runs.map(({ rounds }) => ({
          rate: median(rounds.map(({ rate }) => rate)),
          latencyMs: median(rounds.map(({ latencyMs }) => latencyMs)),
          cpuUs: median(rounds.map(({ cpuUs }) => cpuUs)),
        }));
        printRow(measurement.what, {
          ...ours!,
          floor: bare!.rate,
          floorName: 'bare node:http2',
          floorCpuUs: bare!.cpuUs,
          budget: measurement.budget,
        });
        console.log(`  our HTTP/2 without work: ${Math.round(alone!.rate)}/s, ${alone!.cpuUs.toFixed(0)} µs CPU`);
      }),
    ),
  );
}

/** CPU time of a process so far. What a request costs says more on a busy machine than how many fit into a second. */
function cpuMsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

const mode = process.argv[2];
if (mode === 'serve') await serve();
else if (mode === 'floor') await serveFloor();
else if (mode === 'own') await serveOwn();
else for (const measurement of measurements) if (!mode || mode === measurement.name) await measure(measurement);
