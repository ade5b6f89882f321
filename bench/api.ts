/**
 * The API server under load over TLS and HTTP/2: durable creates, GETs of one object, LISTs of 500 objects. This process
 * makes the load; the server and the floor (a bare node:http2 server that sends the same bytes) are children, one at a
 * time. Each figure is the median of several rounds. `node bench/api.ts [creates|gets|lists]`
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createSecureServer, type ServerHttp2Stream } from 'node:http2';
import { createInterface } from 'node:readline';
import { issueCertificate, issueKeyPair, newKey } from '../src/apiserver/certificates/certificate.ts';
import { ApiServer } from '../src/apiserver/server.ts';
import { LmdbStore } from '../src/store/lmdb.ts';
import { H2Client, type PreparedRequest, prepare } from './h2-client.ts';
import { inDirectory, median, printRow } from './measure.ts';

const ROUNDS = 3;
const SECONDS = Number(process.env['BENCH_SECONDS'] ?? 3);
const LIST_ITEMS = 500;
const PATH = '/api/v1/namespaces/bench/configmaps';
const text = 'x'.repeat(900);

interface TlsFiles {
  readonly ca: string;
  readonly key: string;
  readonly cert: string;
  readonly clientKey: string;
  readonly clientCert: string;
}

function makeTls(): TlsFiles {
  const validity = { notBeforeMs: Date.now() - 3_600_000, notAfterMs: Date.now() + 3_600_000 };
  const { privateKey, publicKey } = newKey();
  const ca = issueCertificate({ subject: { commonName: 'bench' }, usages: ['authority'], ...validity }, publicKey, {
    selfKey: privateKey,
  });
  const issuer = { certificate: ca, privateKey };
  const server = issueKeyPair(
    { subject: { commonName: 'api' }, names: ['127.0.0.1'], usages: ['server'], ...validity },
    issuer,
  );
  const client = issueKeyPair(
    { subject: { commonName: 'admin', organizations: ['system:masters'] }, usages: ['client'], ...validity },
    issuer,
  );
  return { ca, key: server.key, cert: server.certificate, clientKey: client.key, clientCert: client.certificate };
}

/** Child: the real server on LMDB. */
async function serve(tls: TlsFiles): Promise<void> {
  await inDirectory(async directory => {
    const server = await ApiServer.open({
      store: await LmdbStore.open(directory),
      authenticators: [
        {
          authenticate: ({ certificate }) =>
            certificate && { name: certificate.commonName, groups: certificate.organizations },
        },
      ],
    });
    const { port } = await server.listen({ host: '127.0.0.1', port: 0 }, tls);
    console.log(port);
    await new Promise(resolve => process.once('SIGTERM', resolve));
    if (process.env['BENCH_METRICS']) console.error(process.memoryUsage());
    await server.close();
  });
}

/** Child: what the HTTP stack can do with the same bytes and no work. */
async function serveFloor(tls: TlsFiles): Promise<void> {
  const one = Buffer.from(JSON.stringify(configMap('c0')));
  const list = Buffer.concat(Array.from({ length: LIST_ITEMS }, () => one));
  const server = createSecureServer({ key: tls.key, cert: tls.cert });
  server.on('stream', (stream: ServerHttp2Stream, headers) => {
    const send = (body: Buffer) => {
      stream.respond({ ':status': 200, 'content-type': 'application/json', 'content-length': body.length });
      stream.end(body);
    };
    if (headers[':method'] === 'GET') return send(headers[':path'] === PATH ? list : one);
    stream.resume();
    stream.on('end', () => send(one));
  });
  server.listen(0, '127.0.0.1', () => console.log((server.address() as { port: number }).port));
  await new Promise(resolve => process.once('SIGTERM', resolve));
  process.exit(0);
}

function configMap(name: string) {
  return { kind: 'ConfigMap', apiVersion: 'v1', metadata: { name }, data: { text } };
}

async function withServer<T>(
  mode: 'serve' | 'floor',
  tls: TlsFiles,
  use: (port: number, pid: number) => Promise<T>,
): Promise<T> {
  const flags = mode === 'serve' && process.env['BENCH_NODE_FLAGS'] ? process.env['BENCH_NODE_FLAGS'].split(' ') : [];
  const child: ChildProcess = spawn(process.execPath, [...flags, import.meta.filename, mode], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin!.end(JSON.stringify(tls));
  try {
    for await (const line of createInterface({ input: child.stdout! })) return await use(Number(line), child.pid!);
    throw new Error('the server did not start');
  } finally {
    child.kill('SIGTERM');
    await new Promise(resolve => child.once('exit', resolve));
  }
}

/** Runs `clients` loops of one request at a time, each on its own connection. */
async function load(
  port: number,
  tls: TlsFiles,
  options: { clients: number; seconds: number; request: () => PreparedRequest; expect: string },
): Promise<{ rate: number; latencyMs: number; count: number }> {
  const clients = await Promise.all(Array.from({ length: options.clients }, () => open(port, tls)));
  const latencies: number[] = [];
  const start = performance.now();
  const end = start + options.seconds * 1000;
  await Promise.all(
    clients.map(async client => {
      for (let begun = performance.now(); begun < end; ) {
        const reply = await client.send(options.request());
        if (!reply.startsWith(options.expect)) throw new Error(`unexpected reply: ${reply}`);
        const now = performance.now();
        latencies.push(now - begun);
        begun = now;
      }
    }),
  );
  const seconds = (performance.now() - start) / 1000;
  for (const client of clients) client.close();
  return { rate: latencies.length / seconds, latencyMs: median(latencies), count: latencies.length };
}

function open(port: number, tls: TlsFiles): Promise<H2Client> {
  return H2Client.open(port, { ca: tls.ca, key: tls.clientKey, cert: tls.clientCert });
}

const create = (name: string) =>
  prepare('POST', PATH, {
    headers: { 'content-type': 'application/json', 'user-agent': 'bench' },
    body: Buffer.from(JSON.stringify(configMap(name))),
  });

interface Measurement {
  readonly name: string;
  readonly what: string;
  readonly clients: number;
  readonly budget: number;
  /** Objects that must be there. */
  readonly objects: number;
  readonly request: () => PreparedRequest;
  /** How each reply's body begins. */
  readonly expect: string;
}

let unique = 0;
const getOne = prepare('GET', `${PATH}/c0`);
const listAll = prepare('GET', PATH);
const measurements: readonly Measurement[] = [
  {
    name: 'creates',
    what: 'durable creates, 1 KB ConfigMap, 32 clients',
    clients: 32,
    budget: 10_000,
    objects: 0,
    request: () => create(`n${unique++}`),
    expect: '{"kind":"ConfigMap",',
  },
  {
    name: 'gets',
    what: 'GET one object, 32 clients',
    clients: 32,
    budget: 15_000,
    objects: 1,
    request: () => getOne,
    expect: '{"kind":"ConfigMap",',
  },
  {
    name: 'lists',
    what: `LIST ${LIST_ITEMS} x 1 KB, 4 clients`,
    clients: 4,
    budget: 1000,
    objects: LIST_ITEMS,
    request: () => listAll,
    expect: '{"kind":"ConfigMap',
  },
];

async function measure(measurement: Measurement, tls: TlsFiles): Promise<void> {
  const run = (mode: 'serve' | 'floor') =>
    withServer(mode, tls, async (port, pid) => {
      if (mode === 'serve' && measurement.objects > 0) {
        const client = await open(port, tls);
        for (let i = 0; i < measurement.objects; i++) await client.send(create(`c${i}`));
        client.close();
      }
      await load(port, tls, { ...measurement, seconds: 1 });
      const rounds: { rate: number; latencyMs: number; cpuUs: number }[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const before = cpuMsOf(pid);
        const result = await load(port, tls, { ...measurement, seconds: SECONDS });
        rounds.push({ ...result, cpuUs: ((cpuMsOf(pid) - before) * 1000) / result.count });
      }
      return rounds;
    });
  const rounds = await run('serve');
  const floor = await run('floor');
  printRow(measurement.what, {
    rate: median(rounds.map(round => round.rate)),
    latencyMs: median(rounds.map(round => round.latencyMs)),
    floor: median(floor.map(round => round.rate)),
    floorName: 'bare node:http2',
    cpuUs: median(rounds.map(round => round.cpuUs)),
    floorCpuUs: median(floor.map(round => round.cpuUs)),
    budget: measurement.budget,
  });
}

/** CPU time of a process so far. What a request costs says more on a busy machine than how many fit into a second. */
function cpuMsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function readInput(): Promise<TlsFiles> {
  let input = '';
  for await (const chunk of process.stdin) input += chunk;
  return JSON.parse(input) as TlsFiles;
}

const mode = process.argv[2];
if (mode === 'serve') await serve(await readInput());
else if (mode === 'floor') await serveFloor(await readInput());
else {
  const tls = makeTls();
  for (const measurement of measurements) if (!mode || mode === measurement.name) await measure(measurement, tls);
}
