/**
 * Ingress under load: requests a second and 99th percentile of our data plane with one host and with thousands, in turn with a bare HAProxy
 * and nginx over the same backend; how soon a changed endpoint gets traffic; what many hosts cost. Everything runs in a network namespace
 * of its own, on 127.0.0.1, with wrk as the generator.
 *
 *   node26 bench/ingress.ts [--seconds 5] [--rounds 3] [--hosts 5000] [--connections 32]
 */

import { execFile, spawn } from 'node:child_process';
import { mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { IngressBed, until } from '../test/network/ingress-bed.ts';
import { inDirectory, median } from './measure.ts';
import { installPackage } from './package.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '3' },
    hosts: { type: 'string', default: '5000' },
    connections: { type: 'string', default: '32' },
    inside: { type: 'boolean', default: false },
  },
});
const hosts = Number(values.hosts);
const [BACKEND, BARE, NGINX, BY_HAND] = [9000, 9001, 9002, 9003] as const;
const run = promisify(execFile);

const body = 'x'.repeat(1024);
const nginxHead = (folder: string) => `
daemon off; pid ${folder}/nginx.pid; error_log ${folder}/error.log crit; worker_processes 2;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000; client_body_temp_path ${folder}; proxy_temp_path ${folder}; fastcgi_temp_path ${folder}; uwsgi_temp_path ${folder}; scgi_temp_path ${folder};`;

async function measure(folder: string): Promise<void> {
  for (const name of ['backend', 'nginx', 'bare', 'hand']) mkdirSync(join(folder, name));
  writeFileSync(
    join(folder, 'backend', 'nginx.conf'),
    `${nginxHead(join(folder, 'backend'))} server { listen 127.0.0.1:${BACKEND}; location / { return 200 "${body}"; } } }`,
  );
  writeFileSync(
    join(folder, 'nginx', 'nginx.conf'),
    `${nginxHead(join(folder, 'nginx'))} upstream b { server 127.0.0.1:${BACKEND}; keepalive 64; keepalive_requests 1000000; }
     server { listen 127.0.0.1:${NGINX}; location / { proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; } } }`,
  );
  writeFileSync(
    join(folder, 'bare', 'haproxy.cfg'),
    `global
  nbthread 2
  maxconn 4000
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 5s
frontend f
  bind 127.0.0.1:${BARE}
  default_backend b
backend b
  server s 127.0.0.1:${BACKEND}
`,
  );
  // What an operator would write who wants the same: hosts, the headers of a proxy, an access log.
  const names = Array.from({ length: hosts }, (_, at) => `h${at}.test b\n`).join('');
  writeFileSync(join(folder, 'hand', 'hosts.map'), `one.test b\n${names}`);
  writeFileSync(
    join(folder, 'hand', 'haproxy.cfg'),
    `global
  nbthread 2
  maxconn 4000
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  timeout client 30s
  timeout server 30s
  timeout connect 5s
frontend f
  bind 127.0.0.1:${BY_HAND}
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Request-ID %[uuid]
  use_backend %[req.hdr(host),lower,map(${join(folder, 'hand', 'hosts.map')})]
backend b
  server s 127.0.0.1:${BACKEND}
`,
  );
  const children = [
    spawn('nginx', ['-c', join(folder, 'backend', 'nginx.conf')], { stdio: 'ignore', detached: true }),
    spawn('nginx', ['-c', join(folder, 'nginx', 'nginx.conf')], { stdio: 'ignore', detached: true }),
    spawn('haproxy', ['-f', join(folder, 'bare', 'haproxy.cfg')], { stdio: 'ignore', detached: true }),
    spawn('haproxy', ['-f', join(folder, 'hand', 'haproxy.cfg')], {
      detached: true,
      stdio: ['ignore', openSync(join(folder, 'hand', 'access.log'), 'w'), 'ignore'],
    }),
  ];
  const bed = new IngressBed();
  try {
    await bed.start();
    bed.putService('web', [BACKEND]);
    bed.putIngress('one', { '/': 'web' });
    bed.putIngress('quiet', { '/': 'web' }, { annotations: { 'enable-access-log': 'false' } });
    await bed.answers('one.test', '/', 200);
    await bed.answers('quiet.test', '/', 200);
    const memoryOfOne = memoryOf(bed.workerPid);
    const targets = (): Target[] => [
      { name: 'bare HAProxy', port: BARE, pid: children[2]!.pid! },
      { name: 'HAProxy by hand', port: BY_HAND, pid: children[3]!.pid! },
      { name: 'nginx', port: NGINX, pid: children[1]!.pid! },
      { name: 'ours', port: bed.httpPort, pid: bed.masterPid! },
      { name: 'ours, no access log', port: bed.httpPort, pid: bed.masterPid!, host: 'quiet.test' },
    ];
    await compare('one host', targets(), 'one.test');
    await endpointChanges(bed);
    await manyHosts(bed, memoryOfOne);
    await compare(`${hosts} hosts`, targets(), `h${hosts - 1}.test`);
    await endpointChanges(bed);
  } finally {
    await bed.close();
    for (const child of children) child.kill('SIGTERM');
  }
}

interface Load {
  readonly requests: number;
  readonly rate: number;
  readonly p99: number;
}

async function load(port: number, host: string): Promise<Load> {
  const { stdout } = await run('wrk', [
    ...['-t', '1', '-c', values.connections, '-d', `${values.seconds}s`, '--latency', '-H', `Host: ${host}`],
    `http://127.0.0.1:${port}/some/path?x=1`,
  ]);
  const wrong = /Non-2xx.*/.exec(stdout)?.[0];
  if (wrong) throw new Error(wrong);
  const [, amount, unit] = /99%\s+([\d.]+)(us|ms|s)/.exec(stdout)!;
  return {
    requests: Number(/(\d+) requests in/.exec(stdout)![1]),
    rate: Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)![1]),
    p99: Number(amount) * { us: 0.001, ms: 1, s: 1000 }[unit as 'ms'],
  };
}

/** Processor time of a process and its children so far, in microseconds. */
function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  const below = children === '' ? 0 : children.split(' ').reduce((sum, child) => sum + cpuOf(Number(child)), 0);
  return (Number(fields[11]) + Number(fields[12])) * 10_000 + below;
}

interface Target {
  readonly name: string;
  readonly port: number;
  readonly pid: number;
  readonly host?: string;
}

/** In turn, so that what else the machine does meets all of them alike. Processor time is the least seen: noise only adds to it. */
async function compare(what: string, targets: readonly Target[], host: string): Promise<void> {
  const seen = new Map<string, (Load & { cpuUs: number })[]>(targets.map(({ name }) => [name, []]));
  for (let round = 0; round < Number(values.rounds); round++)
    for (const { name, port, pid, host: own = host } of targets) {
      const before = cpuOf(pid);
      const result = await load(port, own);
      seen.get(name)!.push({ ...result, cpuUs: (cpuOf(pid) - before) / result.requests });
    }
  const rate = (name: string) => median(seen.get(name)!.map(each => each.rate));
  const cpu = (name: string) => Math.min(...seen.get(name)!.map(each => each.cpuUs));
  const [bare, byHand] = [targets[0]!.name, targets[1]!.name];
  for (const { name } of targets)
    console.log(
      `${what}, ${name}: ${Math.round(rate(name))}/s, p99 ${median(seen.get(name)!.map(each => each.p99)).toFixed(2)} ms, ${cpu(name).toFixed(1)} µs CPU; ` +
        `rate ${(rate(name) / rate(bare)).toFixed(2)} of bare, ${(rate(name) / rate(byHand)).toFixed(2)} of by hand; CPU ${(cpu(name) / cpu(bare)).toFixed(2)} and ${(cpu(name) / cpu(byHand)).toFixed(2)}`,
    );
}

/** From the slice's change in the API to the first request that the new endpoint answers, under a request at a time. */
async function endpointChanges(bed: IngressBed): Promise<void> {
  const ports = [(await bed.backend('a')).port, (await bed.backend('b')).port];
  bed.putService('change', [ports[0]!]);
  bed.putIngress('change', { '/': 'change' });
  await bed.answers('change.test', '/', 200);
  const times: number[] = [];
  for (let i = 0; i < 40; i++) {
    const wanted = i % 2 === 0 ? 'b' : 'a';
    const started = performance.now();
    bed.putService('change', [ports[(i + 1) % 2]!]);
    while ((await bed.seen('change.test')).backend !== wanted);
    times.push(performance.now() - started);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  times.sort((a, b) => a - b);
  console.log(
    `endpoint change to its first request: median ${median(times).toFixed(1)} ms, worst of 40 ${times.at(-1)!.toFixed(1)} ms`,
  );
}

async function manyHosts(bed: IngressBed, memoryOfOne: number): Promise<void> {
  const started = performance.now();
  for (let at = 0; at < hosts; at++) bed.putIngress(`h${at}`, { '/': 'web', '/api': 'web' });
  await until('the last host answers', async () => (await bed.get(`h${hosts - 1}.test`)).status === 200, 120_000);
  console.log(
    `${hosts} Ingresses, from the first to the last host that answers: ${Math.round(performance.now() - started)} ms`,
  );
  const one = performance.now();
  bed.putIngress('late', { '/': 'web' });
  await bed.answers('late.test', '/', 200);
  console.log(`one more host beside them: ${(performance.now() - one).toFixed(0)} ms`);
  console.log(
    `memory of HAProxy's worker: ${memoryOfOne} MB with one host, ${memoryOf(bed.workerPid)} MB with ${hosts}`,
  );
}

function memoryOf(pid: number | undefined): number {
  return Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024);
}

if (values.inside) await inDirectory(measure);
else {
  for (const [program, name, why] of [
    ['/usr/sbin/haproxy', 'haproxy', 'is what ours is made of'],
    ['/usr/sbin/nginx', 'nginx-light', 'answers, and is compared'],
    ['/usr/bin/wrk', 'wrk', 'makes the load'],
  ] as const)
    installPackage({ program, name, why });
  const script = 'ip link set lo up && exec "$@"';
  const child = spawn(
    'unshare',
    [
      '--net',
      '/bin/sh',
      '-c',
      script,
      'sh',
      process.execPath,
      import.meta.filename,
      ...process.argv.slice(2),
      '--inside',
    ],
    // In memory, as `/run` is, where the access log lies.
    { stdio: 'inherit', env: { ...process.env, TMPDIR: '/dev/shm' } },
  );
  child.on('exit', code => {
    process.exitCode = code ?? 1;
  });
}
