/**
 * The API server under load over TLS and HTTP/2: durable creates, GETs of one object, LISTs of 500 objects, Services with
 * their slices. It is the server as `src/app` puts it together: a service account's token, RBAC, all admission, the store on
 * disk, controllers and scheduler. h2load makes the load. Two floors take turns with it, round by round, so that all meet the same
 * machine: our own HTTP/2 that does nothing but commit the body of a POST to a store of its own, and a bare node:http2
 * server that only answers. Figures are medians; processor time compares better than rates on a machine that is not quiet.
 * `node26 bench/api.ts [creates|gets|lists|services]`; BENCH_BESIDE=DIR runs the server of another checkout in turn.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
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
import { CONFIG_MAPS, NAMESPACES, ROLE_BINDINGS, SERVICE_ACCOUNTS } from '../src/client/resources.ts';
import { startControllers } from '../src/controllers/start.ts';
import { startScheduler } from '../src/scheduler/scheduler.ts';
import { LmdbStore } from '../src/store/lmdb.ts';
import { installH2load, type LoadRequest, type LoadResult, type LoadTarget, load } from './h2load.ts';
import { inDirectory, median } from './measure.ts';

const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5);
const LIST_ITEMS = 500;
const MAPS = '/api/v1/namespaces/bench/configmaps';
const LISTED = '/api/v1/namespaces/listed/configmaps';
const SERVICES = '/api/v1/namespaces/bench/services';
const SLICES = '/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices';
const text = 'x'.repeat(900);

/** What a server child prints once it listens. */
type Ready = Omit<LoadTarget, 'pid'>;

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
  metadata: { name: 'bench' },
  roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
  subjects: [{ kind: 'ServiceAccount', name: 'bench', namespace: 'bench' }],
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
    for (const name of ['bench', 'listed']) {
      await transport.create({ of: NAMESPACES }, {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name },
      } as KubeObject);
      await transport.create({ of: ROLE_BINDINGS, namespace: name }, BINDING);
    }
    const namespace = 'bench';
    await transport.create({ of: SERVICE_ACCOUNTS, namespace }, {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: 'bench' },
    } as KubeObject);
    for (let i = 0; i < LIST_ITEMS; i++)
      await transport.create({ of: CONFIG_MAPS, namespace: 'listed' }, configMap({ name: `c${i}` }) as KubeObject);
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
    const { status } = (await transport.create(
      { of: SERVICE_ACCOUNTS, namespace, name: 'bench', subresource: 'token' },
      { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', metadata: { name: '' }, spec: {} } as KubeObject,
    )) as KubeObject & { status: { token: string } };
    announce({ port, token: status.token });
    await once(process, 'SIGTERM');
    if (process.env['BENCH_METRICS']) console.error(process.memoryUsage());
    stop.abort();
    await server.close();
  });
  process.exit(0);
}

/** Child: what Node's HTTP stack can do with the same bytes and no work. */
async function serveBare(): Promise<void> {
  await inDirectory(async directory => {
    const pki = await ensurePki(directory, { sans: ['127.0.0.1'] });
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
      if (headers[':method'] === 'GET') return send(headers[':path'] === LISTED ? list : one);
      stream.resume();
      stream.on('end', () => send(one));
    });
    server.listen(0, '127.0.0.1', () => announce({ port: (server.address() as { port: number }).port, token: 'none' }));
    await once(process, 'SIGTERM');
  });
  process.exit(0);
}

/** Child: our HTTP/2 and our store with the same bytes, and nothing between them. */
async function serveFloor(): Promise<void> {
  await inDirectory(async directory => {
    const pki = await ensurePki(directory, { sans: ['127.0.0.1'] });
    const store = await LmdbStore.open(join(directory, 'store'));
    let count = 0;
    const { port } = await listenTls(
      { host: '127.0.0.1', port: 0 },
      { key: pki.server.key, cert: pki.server.certificate, ca: pki.ca },
      {
        request: async exchange => {
          const body = exchange.body();
          const value = body instanceof Promise ? await body : body;
          const isPost = exchange.method === 'POST';
          if (isPost) await store.commit({ type: 'put', key: `/bench/${count++}`, value: Buffer.from(value) });
          const reply = isPost ? value : exchange.url === LISTED ? list : one;
          exchange.reply(200, { 'content-type': 'application/json' }, reply);
        },
        upgrade: ({ socket }) => socket.destroy(),
      },
    );
    announce({ port, token: 'none' });
    await once(process, 'SIGTERM');
  });
  process.exit(0);
}

function announce(ready: Ready): void {
  process.stdout.write(`${JSON.stringify(ready)}\n`);
}

function configMap(metadata: object) {
  return { kind: 'ConfigMap', apiVersion: 'v1', metadata, data: { text } };
}

/** What floors answer: as large as the real replies. */
const one = Buffer.from(
  JSON.stringify(configMap({ name: 'c0', namespace: 'listed', uid: 'u'.repeat(36), managedFields: 'x'.repeat(150) })),
);
const list = Buffer.concat(Array.from({ length: LIST_ITEMS }, () => one));

type Mode = 'serve' | 'floor' | 'bare';

async function withServer<T>(mode: Mode, use: (server: LoadTarget) => Promise<T>, checkout?: string): Promise<T> {
  const flags =
    !checkout && mode === (process.env['BENCH_FLAGS_OF'] ?? 'serve') && process.env['BENCH_NODE_FLAGS']
      ? process.env['BENCH_NODE_FLAGS'].split(' ')
      : [];
  const program = checkout ? join(checkout, 'bench/api.ts') : import.meta.filename;
  const child: ChildProcess = spawn(process.execPath, [...flags, program, mode], {
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

const service = {
  kind: 'Service',
  apiVersion: 'v1',
  metadata: { generateName: 'bench-' },
  spec: { ports: [{ name: 'http', port: 80, targetPort: 8080 }] },
};

const slice = {
  kind: 'EndpointSlice',
  apiVersion: 'discovery.k8s.io/v1',
  // Not of one Service, whose ten thousands of slices its controller would go through each time.
  metadata: { generateName: 'bench-' },
  addressType: 'IPv4',
  ports: [{ name: 'http', port: 8080 }],
  endpoints: [{ addresses: ['10.244.1.7'], conditions: { ready: true }, nodeName: 'node-1' }],
};

interface Measurement {
  readonly name: string;
  readonly what: string;
  readonly budget: number;
  /** In one round; enough for some seconds. */
  readonly count: number;
  /** Together they count as one. */
  readonly requests: readonly LoadRequest[];
}

const measurements: readonly Measurement[] = [
  {
    name: 'creates',
    what: 'durable creates, 1 KB ConfigMap, 32 clients',
    budget: 10_000,
    count: 10_000,
    requests: [{ path: MAPS, body: configMap({ generateName: 'bench-' }), clients: 32 }],
  },
  {
    name: 'gets',
    what: 'GET one object, 32 clients',
    budget: 15_000,
    count: 30_000,
    requests: [{ path: `${LISTED}/c0`, clients: 32 }],
  },
  {
    name: 'lists',
    what: `LIST ${LIST_ITEMS} x 1 KB, 4 clients`,
    budget: 1000,
    count: 2000,
    requests: [{ path: LISTED, clients: 4 }],
  },
  {
    name: 'services',
    what: 'Service (address allocated) and a slice, 16 clients',
    budget: 3000,
    count: 4000,
    requests: [
      { path: SERVICES, body: service, clients: 8 },
      { path: SLICES, body: slice, clients: 8 },
    ],
  },
];

interface Run {
  readonly name: string;
  readonly of: LoadTarget;
  readonly rounds: LoadResult[];
}

async function measure(measurement: Measurement): Promise<void> {
  const { what, requests, budget } = measurement;
  const count = Math.ceil(measurement.count * Number(process.env['BENCH_SCALE'] ?? 1));
  const beside = process.env['BENCH_BESIDE'];
  const takeTurns = (runs: readonly Run[]) =>
    inDirectory(async directory => {
      // The first round warms the code up.
      for (const { of } of runs) await load(of, { directory, count, requests });
      for (let round = 0; round < ROUNDS; round++)
        for (const { of, rounds } of runs) rounds.push(await load(of, { directory, count, requests }));
      console.log(`${what}; budget ${budget}/s`);
      for (const { name, rounds } of runs) {
        const of = (field: keyof LoadResult) => median(rounds.map(result => result[field]));
        const least = Math.min(...rounds.map(({ mainUs }) => mainUs));
        console.log(
          `  ${name.padEnd(28)} ${of('rate').toFixed(0).padStart(6)}/s, mean ${of('meanMs').toFixed(1)} ms, ${of('cpuUs').toFixed(0)} µs of processor (main thread ${of('mainUs').toFixed(0)}, at least ${least.toFixed(0)}; generator ${of('generatorUs').toFixed(0)})`,
        );
      }
    });
  await withServer('serve', server =>
    withServer('floor', floor =>
      withServer('bare', async bare => {
        const runs: Run[] = [
          { name: 'ours', of: server, rounds: [] },
          { name: 'our HTTP/2 and store alone', of: floor, rounds: [] },
          { name: 'node:http2 alone', of: bare, rounds: [] },
        ];
        if (!beside) return takeTurns(runs);
        return withServer('serve', other => takeTurns([...runs, { name: beside, of: other, rounds: [] }]), beside);
      }),
    ),
  );
}

const mode = process.argv[2];
if (mode === 'serve') await serve();
else if (mode === 'floor') await serveFloor();
else if (mode === 'bare') await serveBare();
else {
  installH2load();
  for (const measurement of measurements) if (!mode || mode === measurement.name) await measure(measurement);
}
