/**
 * The API server under many watches, over TLS and HTTP/2, and under 100 000 pods: what a change of a hot resource costs for each of
 * 1 000 watchers, how long another user's `get` takes while one client asks for 10 000 watches and the resource keeps changing, how long pods
 * take to be listed, whole and in pages, and what one weighs. Clients and server share the cores; the server's processor time is its own.
 * `node26 bench/watchers.ts [watchers|abuse|pods]`
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type ClientHttp2Session, connect } from 'node:http2';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { KubeObject } from '../src/api/meta.ts';
import { ensurePki } from '../src/apiserver/certificates/pki.ts';
import { Fairness } from '../src/apiserver/fairness/fairness.ts';
import { FairnessObjects } from '../src/apiserver/fairness/fairness-objects.ts';
import { LOOPBACK_USER } from '../src/apiserver/request.ts';
import { ApiServer } from '../src/apiserver/server.ts';
import { systemClock } from '../src/base/clock.ts';
import { silentLogger } from '../src/base/log.ts';
import { CONFIG_MAPS, PODS } from '../src/client/resources.ts';
import { LmdbStore } from '../src/store/lmdb.ts';
import { inDirectory, median } from './measure.ts';

const MAPS = '/api/v1/namespaces/default/configmaps';
const HOT = `${MAPS}/hot`;
const WATCHERS = 1000;
const CHANGES = 100;
const ASKED = 10_000;
const STREAMS = 1000;
const GETS = 200;
const POD_COUNT = 100_000;
const PAGE = 500;
/** Linux counts processor time in hundredths of a second. */
const TICK_MS = 10;

const map = (name: string, value: string) =>
  ({
    kind: 'ConfigMap',
    apiVersion: 'v1',
    metadata: { name, namespace: 'default' },
    data: { value, text: 'x'.repeat(900) },
  }) as KubeObject;

function pod(number: number): KubeObject {
  return {
    kind: 'Pod',
    apiVersion: 'v1',
    metadata: { name: `pod-${number}`, namespace: 'default', labels: { app: `app-${number % 100}` } },
    spec: {
      nodeName: `node-${number % 500}`,
      containers: [{ name: 'main', image: 'registry.example/app:1', ports: [{ containerPort: 8080 }] }],
    },
  } as KubeObject;
}

/** Child: the server, whose users are who they say they are. Pods come on request, as nobody could send them that fast. */
async function serve(): Promise<void> {
  await inDirectory(async directory => {
    const pki = await ensurePki(join(directory, 'pki'), { sans: ['127.0.0.1'] });
    const store = await LmdbStore.open(join(directory, 'store'));
    const fairness = new Fairness({ clock: systemClock });
    const server = await ApiServer.open({
      store,
      fairness,
      authenticators: [
        { authenticate: ({ headers }) => ({ name: String(headers['x-user']), groups: ['system:authenticated'] }) },
      ],
    });
    const transport = server.transport(LOOPBACK_USER);
    const flows = new FairnessObjects({
      fairness,
      reader: () => server.reader,
      transport: () => transport,
      clock: systemClock,
      log: silentLogger,
    });
    await flows.bootstrap();
    await transport.create({ of: CONFIG_MAPS, namespace: 'default' }, map('hot', '0'));
    await transport.create({ of: CONFIG_MAPS, namespace: 'default' }, map('cold', '0'));
    const held = () => {
      globalThis.gc?.();
      const { heapUsed, external } = process.memoryUsage();
      return heapUsed + external;
    };
    let perPod = 0;
    if (process.argv[3] === 'pods') {
      const before = held();
      for (let first = 0; first < POD_COUNT; first += PAGE)
        await Promise.all(
          Array.from({ length: PAGE }, (_, i) => transport.create({ of: PODS, namespace: 'default' }, pod(first + i))),
        );
      perPod = (held() - before) / POD_COUNT;
    }
    const { port } = await server.listen(
      { host: '127.0.0.1', port: 0 },
      { key: pki.server.key, cert: pki.server.certificate, ca: pki.ca },
    );
    process.stdout.write(`${JSON.stringify({ port, perPod })}\n`);
    await once(process, 'SIGTERM');
  });
  process.exit(0);
}

interface Target {
  readonly pid: number;
  readonly port: number;
  readonly perPod: number;
}

async function withServer(use: (target: Target) => Promise<void>, what = ''): Promise<void> {
  const child: ChildProcess = spawn(process.execPath, ['--expose-gc', import.meta.filename, 'serve', what], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    for await (const line of createInterface({ input: child.stdout! })) {
      await use({ pid: child.pid!, ...JSON.parse(line) });
      return;
    }
    throw new Error('the server did not start');
  } finally {
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
}

function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}
const residentMb = (pid: number) =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;

async function open(port: number): Promise<ClientHttp2Session> {
  const session = connect(`https://127.0.0.1:${port}`, {
    rejectUnauthorized: false,
    // Node's own bounds of a client, which nobody here tests.
    peerMaxConcurrentStreams: STREAMS,
    maxSessionMemory: 1000,
  });
  session.on('error', () => {});
  await once(session, 'connect');
  return session;
}

function ask(
  session: ClientHttp2Session,
  user: string,
  path: string,
  body?: object,
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': body ? 'PUT' : 'GET',
      ':path': path,
      'x-user': user,
      ...(body ? { 'content-type': 'application/json' } : {}),
    });
    const chunks: Buffer[] = [];
    let status = 0;
    stream.on('response', headers => {
      status = Number(headers[':status']);
    });
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', reject);
    stream.on('end', () => resolve({ status, text: Buffer.concat(chunks).toString() }));
    stream.end(body && JSON.stringify(body));
  });
}

/** Begins a watch; resolves with its status. `saw` is called for each whole event. */
function watch(session: ClientHttp2Session, user: string, saw: () => void): Promise<number> {
  return new Promise(resolve => {
    const stream = session.request({ ':path': `${MAPS}?watch=true&fieldSelector=metadata.name%3Dhot`, 'x-user': user });
    stream.on('error', () => resolve(0));
    stream.on('response', headers => resolve(Number(headers[':status'])));
    stream.on('data', (chunk: Buffer) => {
      for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) saw();
    });
  });
}

async function watchers({ pid, port }: Target): Promise<void> {
  const sessions = await Promise.all(Array.from({ length: 10 }, () => open(port)));
  let seen = 0;
  let reached: (() => void) | undefined;
  let wanted = WATCHERS;
  const saw = () => {
    if (++seen >= wanted) reached?.();
  };
  const arrived = () => new Promise<void>(resolve => (seen >= wanted ? resolve() : (reached = resolve)));
  await Promise.all(
    Array.from({ length: WATCHERS }, (_, i) => watch(sessions[i % sessions.length]!, `w${i % 20}`, saw)),
  );
  await arrived();
  const writer = await open(port);
  const times: number[] = [];
  const begun = cpuMs(pid);
  for (let i = 0; i < CHANGES; i++) {
    wanted += WATCHERS;
    const start = performance.now();
    await Promise.all([ask(writer, 'writer', HOT, map('hot', String(i + 1))), arrived()]);
    times.push(performance.now() - start);
  }
  const events = WATCHERS * CHANGES;
  console.log(
    `one resource, ${WATCHERS} watchers: a change has reached the last after ${median(times).toFixed(0)} ms, ${(((cpuMs(pid) - begun) * 1000) / events).toFixed(1)} µs of the server's processor an event`,
  );
  for (const session of [...sessions, writer]) session.destroy();
}

async function gets(session: ClientHttp2Session): Promise<{ median: number; worst: number }> {
  const times: number[] = [];
  for (let i = 0; i < GETS; i++) {
    const start = performance.now();
    const { status } = await ask(session, 'ann', `${MAPS}/cold`);
    if (status !== 200) throw new Error(`the get was answered with ${status}`);
    times.push(performance.now() - start);
  }
  return { median: median(times), worst: Math.max(...times) };
}

/** Child: one client that asks for many watches at once, in a process of its own since sending that many keeps it busy. */
async function askForWatches(port: number): Promise<void> {
  const sessions = await Promise.all(Array.from({ length: ASKED / STREAMS }, () => open(port)));
  process.stdout.write('connected\n');
  const statuses: Record<number, number> = {};
  await Promise.all(
    Array.from({ length: ASKED }, async (_, i) => {
      const status = await watch(sessions[i % sessions.length]!, 'mallory', () => {});
      statuses[status] = (statuses[status] ?? 0) + 1;
    }),
  );
  process.stdout.write(`${JSON.stringify(statuses)}\n`);
}

async function abuse({ pid, port }: Target): Promise<void> {
  const victim = await open(port);
  await gets(victim);
  const alone = await gets(victim);
  const child = spawn(process.execPath, [import.meta.filename, 'mallory', String(port)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const told = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  await told.next();
  const meanwhile = await gets(victim);
  const statuses = JSON.parse(String((await told.next()).value)) as Record<string, number>;
  const writer = await open(port);
  let over = false;
  let changes = 1;
  const changing = (async () => {
    for (; !over; changes++) await ask(writer, 'writer', HOT, map('hot', String(changes)));
  })();
  const under = await gets(victim);
  over = true;
  await changing;
  const said = (of: { median: number; worst: number }) => `${of.median.toFixed(1)} ms (worst ${of.worst.toFixed(0)})`;
  console.log(
    `${ASKED} watches asked for by one user: ${Object.entries(statuses)
      .map(([status, count]) => `${count} answered ${status}`)
      .join(', ')}; server ${residentMb(pid).toFixed(0)} MB resident`,
  );
  console.log(
    `  another user's get: alone ${said(alone)}, while they are asked for ${said(meanwhile)}, while what they watch changes all the time ${said(under)}`,
  );
  child.kill();
  for (const session of [writer, victim]) session.destroy();
}

async function pods({ pid, port, perPod }: Target): Promise<void> {
  const session = await open(port);
  const path = '/api/v1/namespaces/default/pods';
  const start = performance.now();
  const begun = cpuMs(pid);
  const whole = await ask(session, 'ann', path);
  const [wholeMs, wholeCpuMs] = [performance.now() - start, cpuMs(pid) - begun];
  const items = (JSON.parse(whole.text) as { items: unknown[] }).items.length;
  if (items !== POD_COUNT) throw new Error(`${items} pods were listed`);
  let paged = 0;
  const times: number[] = [];
  for (let next = ''; ; ) {
    const from = performance.now();
    const { text } = await ask(
      session,
      'ann',
      `${path}?limit=${PAGE}${next && `&continue=${encodeURIComponent(next)}`}`,
    );
    times.push(performance.now() - from);
    const page = JSON.parse(text) as { metadata: { continue?: string }; items: unknown[] };
    paged += page.items.length;
    next = page.metadata.continue ?? '';
    if (!next) break;
  }
  if (paged !== POD_COUNT) throw new Error(`${paged} pods were listed in pages`);
  console.log(
    `${POD_COUNT} pods of ${(whole.text.length / POD_COUNT).toFixed(0)} bytes: listed whole in ${wholeMs.toFixed(0)} ms (${wholeCpuMs} ms of processor), a page of ${PAGE} in ${median(times).toFixed(1)} ms; ${perPod.toFixed(0)} bytes of memory each, server ${residentMb(pid).toFixed(0)} MB resident`,
  );
  session.destroy();
}

const mode = process.argv[2];
if (mode === 'serve') await serve();
else if (mode === 'mallory') await askForWatches(Number(process.argv[3]));
else
  for (const [name, measure] of Object.entries({ watchers, abuse, pods }))
    if (!mode || mode === name) await withServer(measure, name);
