/**
 * From the start of the server process to its first `/readyz` over TLS: an empty store (bootstrap included), an existing
 * one, and one with 100 000 ConfigMaps of 1 KB, with the compile cache warm, as `cox up` starts it. Floor: the same runtime that prints nothing and ends. It runs the
 * bundle in a network namespace of its own. As root: `node26 bench/start.ts [rounds]`; `./cox version` builds the bundle first.
 */

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:http2';
import { join, resolve } from 'node:path';
import type { KubeObject } from '../src/api/meta.ts';
import { canonical, encode } from '../src/apiserver/entry.ts';
import { chooseRanges, dnsAddress } from '../src/app/cluster-ranges.ts';
import { CLUSTER_DOMAIN, NODE_PORT_RANGE } from '../src/base/cluster-defaults.ts';
import { LmdbStore } from '../src/store/lmdb.ts';
import { inDirectory, median } from './measure.ts';

const ENTRY = resolve(import.meta.dirname, '../dist/cox.mjs');
const ADDRESS = '172.30.0.1';
const PORT = 6443;
const RANGES = chooseRanges({});
const BUDGET_MS = 300;
const MANY = 100_000;
const MANY_BUDGET_MS = 3000;
const MANY_ROUNDS = 3;
const STATES = {
  first: { name: 'empty store', budgetMs: BUDGET_MS },
  again: { name: 'existing store', budgetMs: BUDGET_MS },
  many: { name: `${MANY} objects more`, budgetMs: MANY_BUDGET_MS },
};
/** Under which number the server expects its namespace of the machine. */
const NETNS_FD = 9;

interface Start {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly residentMb: number;
}

function ask(): Promise<boolean> {
  return new Promise(answer => {
    const session = connect(`https://127.0.0.1:${PORT}`, { rejectUnauthorized: false });
    session.once('error', () => answer(false));
    const stream = session.request({ ':path': '/readyz' });
    stream.once('error', () => answer(false));
    stream.once('response', headers => {
      answer(headers[':status'] === 200);
      session.destroy();
    });
  });
}

async function start(directory: string): Promise<Start> {
  const config = join(directory, 'server.json');
  writeFileSync(
    config,
    JSON.stringify({
      cluster: 'bench',
      stateDir: join(directory, 'state'),
      runDir: directory,
      apiPort: PORT,
      machineNetnsFd: NETNS_FD,
      addresses: [ADDRESS],
      port: PORT,
      ranges: RANGES,
      nodePortRange: NODE_PORT_RANGE,
      loadBalancerAddresses: [],
      clusterDomain: CLUSTER_DOMAIN,
      clusterDns: dnsAddress(RANGES),
      arguments: [],
    }),
  );
  const netns = openSync('/proc/self/ns/net', 'r');
  const begun = performance.now();
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', ENTRY, 'server', '--config', config],
    {
      stdio: ['ignore', 'ignore', 'inherit', ...Array<'ignore'>(NETNS_FD - 3).fill('ignore'), netns],
      env: { ...process.env, NODE_COMPILE_CACHE: join(directory, 'compiled') },
    },
  );
  closeSync(netns);
  while (!(await ask())) {
    if (performance.now() - begun > 60_000 || child.exitCode !== null)
      throw new Error(`the server did not become ready (exit code ${child.exitCode})`);
    await new Promise(next => setTimeout(next, 2));
  }
  const wallMs = performance.now() - begun;
  const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  const resident = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))![1];
  await new Promise(next => setTimeout(next, 500));
  child.kill('SIGTERM');
  await once(child, 'exit');
  return { wallMs, cpuMs: (Number(fields[11]) + Number(fields[12])) * 10, residentMb: Number(resident) / 1024 };
}

/** Writes as the API server would have. */
async function fill(directory: string): Promise<void> {
  const store = await LmdbStore.open(join(directory, 'state/store'));
  const text = 'x'.repeat(900);
  const commits: Promise<number>[] = [];
  for (let i = 0; i < MANY; i++) {
    const [namespace, name] = ['default', `many-${i}`];
    const object = { kind: 'ConfigMap', apiVersion: 'v1', metadata: { name, namespace, uid: name }, data: { text } };
    const value = encode(canonical(object as KubeObject));
    const key = `/registry/core/configmaps/${namespace}/${name}`;
    commits.push(store.commit({ type: 'put', key, value, expect: 'absent' }));
  }
  await Promise.all(commits);
  await store.close();
}

function floorMs(): number {
  const begun = performance.now();
  execFileSync(process.execPath, ['-e', '0']);
  return performance.now() - begun;
}

async function measure(rounds: number): Promise<void> {
  await inDirectory(async directory => {
    mkdirSync(join(directory, 'state'));
    await start(directory);
    const results: Record<keyof typeof STATES, Start[]> = { first: [], again: [], many: [] };
    const floors: number[] = [];
    for (let round = 0; round < rounds; round++) {
      floors.push(floorMs());
      // The keys are made by `cox up` before it starts the server.
      rmSync(join(directory, 'state/store'), { recursive: true, force: true });
      results.first.push(await start(directory));
      results.again.push(await start(directory));
    }
    await fill(directory);
    for (let round = 0; round < Math.min(rounds, MANY_ROUNDS); round++) results.many.push(await start(directory));
    for (const [what, starts] of Object.entries(results) as [keyof typeof STATES, Start[]][]) {
      const { name, budgetMs } = STATES[what];
      const of = (field: keyof Start) => median(starts.map(one => one[field])).toFixed(0);
      console.log(
        `server start to /readyz, ${name}: ${of('wallMs')} ms, ${of('cpuMs')} ms CPU, ${of('residentMb')} MB resident; floor (node alone) ${median(floors).toFixed(0)} ms, budget ${budgetMs} ms`,
      );
    }
  });
}

if (process.env['BENCH_NAMESPACE']) {
  execFileSync('ip', ['link', 'set', 'lo', 'up']);
  execFileSync('ip', ['address', 'add', `${ADDRESS}/32`, 'dev', 'lo']);
  await measure(Number(process.argv[2] ?? 7));
} else {
  execFileSync('unshare', ['--net', process.execPath, import.meta.filename, ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { ...process.env, BENCH_NAMESPACE: 'own' },
  });
}
