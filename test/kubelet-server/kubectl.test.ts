/** Stock kubectl, the machine's own and the bundled one, against the kubelet's server, by WebSocket and by SPDY. */

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, get } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { findClient } from '../../src/app/bundled-clients.ts';
import { type BenchCluster, startBenchCluster } from './bench-cluster.ts';

let cluster: BenchCluster;
before(async () => {
  cluster = await startBenchCluster();
});
after(() => cluster.close());

interface Run {
  readonly child: ChildProcess;
  output(): string;
  readonly done: Promise<{ readonly code: number | null; readonly out: Buffer; readonly err: string }>;
}

const RUN_MS_MAX = 20_000;

function kubectl(client: Client, args: readonly string[], input?: Buffer | 'open'): Run {
  const child = spawn(client.path, args, {
    stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    env: {
      ...process.env,
      KUBECONFIG: cluster.kubeconfig,
      KUBECACHEDIR: join(cluster.folder, 'cache'),
      KUBECTL_REMOTE_COMMAND_WEBSOCKETS: String(client.webSockets),
      KUBECTL_PORT_FORWARD_WEBSOCKETS: String(client.webSockets),
    },
    timeout: RUN_MS_MAX,
  });
  child.stdin?.on('error', () => {});
  if (Buffer.isBuffer(input)) child.stdin?.end(input);
  const out: Buffer[] = [];
  let err = '';
  child.stdout!.on('data', chunk => out.push(chunk));
  child.stderr!.on('data', chunk => (err += chunk));
  const done = new Promise<{ code: number | null; out: Buffer; err: string }>(resolve =>
    child.once('close', code => resolve({ code, out: Buffer.concat(out), err })),
  );
  return { child, done, output: () => Buffer.concat(out).toString() };
}

async function until(check: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !check(); i++) await new Promise(resolve => setTimeout(resolve, 10));
  assert.ok(check());
}

const digest = (data: Buffer) => createHash('sha256').update(data).digest('hex');

function fetchText(url: string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    get(url, { agent: false }, response => {
      const chunks: Buffer[] = [];
      response.on('data', chunk => chunks.push(chunk));
      response.on('end', () => resolve(Buffer.concat(chunks)));
      response.on('error', reject);
    }).on('error', reject);
  });
}

interface Client {
  readonly name: string;
  readonly path: string;
  readonly webSockets: boolean;
}

const clients: Client[] = [];
for (const [name, bundled] of [
  ['machine', false],
  ['bundled', true],
] as const)
  for (const webSockets of [true, false])
    clients.push({
      name: `${name} kubectl, ${webSockets ? 'WebSocket' : 'SPDY'}`,
      path: findClient('kubectl', { bundled }),
      webSockets,
    });

for (const client of clients) {
  test(`exec: ${client.name}`, async () => {
    const script = kubectl(client, ['exec', 'p', '--', 'sh', '-c', 'echo out; echo err >&2; exit 3']);
    const piped = kubectl(client, ['exec', '-i', 'p', '--', 'cat'], Buffer.from('x\n'));
    const { code, out, err } = await script.done;
    assert.deepEqual([code, out.toString(), err], [3, 'out\n', 'err\ncommand terminated with exit code 3\n']);
    const echoed = await piped.done;
    assert.deepEqual([echoed.code, echoed.out.toString(), echoed.err], [0, 'x\n', '']);
  });

  test(`exec with a terminal: ${client.name}`, async () => {
    // `script` gives kubectl a terminal of its own, whose size must arrive.
    const command = 'sleep 0.1; while [ "$(stty size)" != "33 101" ]; do sleep 0.05; done; tty >&2; exit 5';
    writeFileSync(
      join(cluster.folder, 'terminal.sh'),
      `stty cols 101 rows 33; exec ${client.path} exec -it p -- sh -c '${command}'`,
    );
    const run = kubectl({ ...client, path: 'script' }, [
      '-qec',
      `sh ${join(cluster.folder, 'terminal.sh')}`,
      '/dev/null',
    ]);
    const { code, out } = await run.done;
    assert.equal(code, 5);
    assert.match(out.toString(), /\/dev\/pts\//);
  });

  test(`copying both ways: ${client.name}`, async () => {
    const [from, there, back] = ['from', 'there', 'back'].map(name => join(cluster.folder, name)) as [
      string,
      string,
      string,
    ];
    writeFileSync(from, randomBytes(5_000_000));
    assert.equal((await kubectl(client, ['cp', from, `p:${there}`]).done).code, 0);
    assert.equal((await kubectl(client, ['cp', `p:${there}`, back]).done).code, 0);
    assert.equal(digest(readFileSync(back)), digest(readFileSync(from)));
  });

  test(`port-forward, many at once, and a refused port: ${client.name}`, async () => {
    const body = randomBytes(500_000);
    const web = createServer((_request, response) => response.end(body));
    await new Promise<void>(resolve => web.listen(0, '127.0.0.1', resolve));
    const { port } = web.address() as AddressInfo;
    const run = kubectl(client, ['port-forward', 'p', `0:${port}`]);
    try {
      await until(() => run.output().includes('Forwarding from 127.0.0.1'));
      const url = `http://${/127\.0\.0\.1:\d+/.exec(run.output())![0]}/`;
      const bodies = await Promise.all(Array.from({ length: 8 }, () => fetchText(url)));
      for (const one of bodies) assert.equal(digest(one), digest(body));
      await new Promise(resolve => web.close(resolve).closeAllConnections());
      await assert.rejects(fetchText(url));
      assert.match((await run.done).err, new RegExp(`error forwarding port ${port} to pod p_default, uid : `));
    } finally {
      run.child.kill();
      web.close();
      await run.done;
    }
  });

  test(`attach: ${client.name}`, async () => {
    cluster.runtime.attached = spawn('cat');
    const run = kubectl(client, ['attach', '-qi', 'p'], Buffer.from('hello\n'));
    const { code, out } = await run.done;
    assert.deepEqual([code, out.toString()], [0, 'hello\n']);
  });
}

test('logs -f until the container ends', async () => {
  writeFileSync(cluster.logPath, '2026-01-01T00:00:00Z stdout F one\n');
  const run = kubectl(clients[0]!, ['logs', '-f', 'p']);
  await until(() => run.output() === 'one\n');
  appendFileSync(cluster.logPath, '2026-01-01T00:00:01Z stderr F two\n');
  await until(() => run.output() === 'one\ntwo\n');
  const [container] = cluster.runtime.containers;
  cluster.runtime.containers[0] = { ...container!, state: 'exited' };
  cluster.runtime.emit();
  assert.equal((await run.done).code, 0);
  cluster.runtime.containers[0] = container!;
});
