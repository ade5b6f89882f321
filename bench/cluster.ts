/**
 * Start-up, memory and pod start of a whole cluster, as a user meets them: `cox up`, one pod, thirty pods, an idle minute's CPU.
 * Beside each figure stand DESIGN's budget and a floor measured in the same run (crun alone for a container's start).
 * Run as root: `node26 bench/cluster.ts [--rounds N]`. Images: tools/images/build.ts (busybox).
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parse } from 'yaml';
import type { Pod } from '../src/api/core/v1.gen.ts';
import { silentLogger } from '../src/base/log.ts';
import { HttpsTransport } from '../src/client/https-transport.ts';
import { Informer } from '../src/client/informer.ts';
import { PODS } from '../src/client/resources.ts';
import { extractBusybox } from '../test/kubelet/busybox-image.ts';

const root = resolve(import.meta.dirname, '..');
const cox = join(root, 'cox');
const name = 'bench';
const rounds = Number(process.argv[process.argv.indexOf('--rounds') + 1] || 5) || 5;
const IMAGE = 'busybox:1.35';

const run = (...args: string[]): string =>
  execFileSync(cox, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;

interface Row {
  what: string;
  value: string;
  budget: string;
  floor?: string;
}
const rows: Row[] = [];

function report(): void {
  const header: Row = { what: 'what', value: 'measured (median)', budget: 'budget', floor: 'floor in this run' };
  for (const row of [header, ...rows])
    console.log(`${row.what.padEnd(46)} ${row.value.padEnd(28)} ${row.budget.padEnd(12)} ${row.floor ?? ''}`);
}

interface UpTimes {
  total: number;
  api: number;
}

/** Wall time of the whole command, and of the step in which the API server became ready. */
function timeUp(nodes: number): UpTimes {
  const start = performance.now();
  const output = run('up', '--name', name, '--nodes', String(nodes), '--api-port', '0');
  const total = performance.now() - start;
  const api = /API server ready.*?([\d.]+) s/.exec(output);
  return { total, api: Number(api?.[1] ?? Number.NaN) * 1000 };
}

function adminTransport(): HttpsTransport {
  const config = parse(readFileSync(run('kubeconfig', '--name', name, '--path').trim(), 'utf8'));
  const decode = (text: string) => Buffer.from(text, 'base64');
  return new HttpsTransport({
    server: config.clusters[0].cluster.server,
    ca: decode(config.clusters[0].cluster['certificate-authority-data']),
    cert: decode(config.users[0].user['client-certificate-data']),
    key: decode(config.users[0].user['client-key-data']),
  });
}

interface Usage {
  residentBytes: number;
  cpuSeconds: number;
  processes: number;
}

/** All processes of the cluster: supervisors, server, agents, monitors, containers. */
function usage(): Usage {
  const status = JSON.parse(run('status', '--name', name, '-o', 'json')) as { processes: { supervisorPid?: number }[] };
  const pending = status.processes.flatMap(item => item.supervisorPid ?? []);
  const total: Usage = { residentBytes: 0, cpuSeconds: 0, processes: 0 };
  for (let i = 0; i < pending.length; i++) {
    const pid = pending[i]!;
    try {
      // Shared pages count once: PSS, as the upstream figures beside it were taken.
      const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
      total.residentBytes += Number(/^Pss:\s+(\d+) kB/m.exec(rollup)?.[1] ?? 0) * 1024;
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      total.cpuSeconds += (Number(fields[11]) + Number(fields[12])) / 100;
      total.processes++;
      pending.push(...readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number));
    } catch {
      // Ended meanwhile.
    }
  }
  return total;
}

function podManifest(podName: string): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: podName, namespace: 'default' },
    spec: {
      terminationGracePeriodSeconds: 0,
      containers: [{ name: 'main', image: IMAGE, command: ['sleep', '100000'] }],
    },
  } as Pod;
}

const isReady = (pod: Pod) =>
  pod.status?.conditions?.some(condition => condition.type === 'Ready' && condition.status === 'True') === true;

async function podsToReady(
  transport: HttpsTransport,
  informer: Informer<Pod>,
  count: number,
  prefix: string,
): Promise<number> {
  const waiting = new Set(Array.from({ length: count }, (_, i) => `${prefix}-${i}`));
  const names = [...waiting];
  let finish!: () => void;
  const allReady = new Promise<void>((resolveReady, reject) => {
    finish = resolveReady;
    setTimeout(() => reject(new Error(`not Ready within 60 s: ${[...waiting].join(', ')}`)), 60_000).unref();
  });
  informer.onChange(change => {
    if (!change.deleted && isReady(change.object) && waiting.delete(change.object.metadata.name) && waiting.size === 0)
      finish();
  });
  const start = performance.now();
  await Promise.all(names.map(pod => transport.create({ of: PODS, namespace: 'default' }, podManifest(pod))));
  await allReady;
  const elapsed = performance.now() - start;
  await Promise.all(
    names.map(pod => transport.delete({ of: PODS, namespace: 'default', name: pod }, { gracePeriodSeconds: 0 })),
  );
  while (names.some(pod => informer.get(`default/${pod}`)))
    await new Promise(resolveWait => setTimeout(resolveWait, 10));
  await new Promise(resolveWait => setTimeout(resolveWait, 300));
  return elapsed;
}

/** Where a machine has control groups of both versions, crun gets those of the first only, as on our nodes. */
const WITHOUT_V2 = 'umount -l /sys/fs/cgroup/unified 2>/dev/null; exec "$@"';

/** `run` of a static binary in a ready root file system, detached: what a container's start costs at least. */
function startFloor(program: 'crun' | 'runc'): number {
  const command = (...words: string[]) => [
    '-m',
    '--propagation',
    'slave',
    'sh',
    '-c',
    WITHOUT_V2,
    'sh',
    program,
    ...words,
  ];
  const bundle = mkdtempSync(join(tmpdir(), 'cox-bench-'));
  mkdirSync(join(bundle, 'rootfs/bin'), { recursive: true });
  extractBusybox(join(bundle, 'rootfs/bin/sleep'));
  execFileSync(program, ['spec'], { cwd: bundle });
  const spec = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8'));
  spec.process = { ...spec.process, terminal: false, args: ['/bin/sleep', '1000'] };
  spec.linux.cgroupsPath = '/coxswain-bench';
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(spec));
  const times: number[] = [];
  for (let i = 0; i < 5; i++) {
    const id = `cox-bench-${process.pid}-${i}`;
    const start = performance.now();
    execFileSync('unshare', command('run', '--detach', '--bundle', bundle, id), { stdio: 'ignore' });
    times.push(performance.now() - start);
    spawnSync('unshare', command('delete', '--force', id), { stdio: 'ignore' });
  }
  rmSync(bundle, { recursive: true, force: true });
  return median(times);
}

const image = join(root, '.cache/images/busybox-1.35.tar');
const ups: UpTimes[] = [];
for (let round = 0; round < rounds; round++) {
  run('down', '--name', name);
  ups.push(timeUp(1));
}
rows.push({
  what: 'cox up, one node, first start (whole command)',
  value: `${median(ups.map(item => item.total)).toFixed(0)} ms`,
  budget: '1 000 ms',
});
rows.push({
  what: 'of that, until the API server is ready',
  value: `${median(ups.map(item => item.api)).toFixed(0)} ms`,
  budget: '300 ms',
});
const resumes: number[] = [];
for (let round = 0; round < rounds; round++) {
  run('down', '--name', name, '--keep-data');
  resumes.push(timeUp(1).total);
}
rows.push({ what: 'cox up, resuming kept data', value: `${median(resumes).toFixed(0)} ms`, budget: '1 000 ms' });

run('image', 'load', '--name', name, image);
const [floorMs, runcMs] = [startFloor('crun'), startFloor('runc')];
const transport = adminTransport();
const informer = new Informer<Pod>({ transport, of: PODS, log: silentLogger });
const stop = new AbortController();
void informer.run(stop.signal);
await informer.synced;
await podsToReady(transport, informer, 1, 'warm');
const single: number[] = [];
for (let round = 0; round < Math.max(rounds, 7); round++)
  single.push(await podsToReady(transport, informer, 1, `one-${round}`));
rows.push({
  what: 'one pod, create to Ready',
  value: `${median(single).toFixed(0)} ms`,
  budget: '100 ms',
  floor: `crun run ${floorMs.toFixed(0)} ms, runc run ${runcMs.toFixed(0)} ms`,
});
const many: number[] = [];
for (let round = 0; round < 3; round++) many.push(await podsToReady(transport, informer, 30, `many-${round}`));
rows.push({
  what: '30 pods at once, all Ready',
  value: `${median(many).toFixed(0)} ms`,
  budget: '1 500 ms',
  floor: `30 × crun run on 2 cores ${((30 * floorMs) / 2).toFixed(0)} ms, runc ${((30 * runcMs) / 2).toFixed(0)} ms`,
});
stop.abort();
transport.close();

await new Promise(resolveWait => setTimeout(resolveWait, 5000));
const before = usage();
await new Promise(resolveWait => setTimeout(resolveWait, 20_000));
const after = usage();
rows.push({
  what: 'memory (PSS) of the idle one-node cluster',
  value: `${(after.residentBytes / 2 ** 20).toFixed(0)} MiB in ${after.processes} processes`,
  budget: '220 MB',
});
rows.push({
  what: 'CPU of the idle one-node cluster',
  value: `${(((after.cpuSeconds - before.cpuSeconds) / 20) * 100).toFixed(1)} % of a core`,
  budget: '-',
});
run('down', '--name', name);
report();
