import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { before, it, type Json, pod, root, useCluster } from './cluster.ts';
import { Background, eventually, outcomeOf, run } from './process.ts';

// What issue 2 calls "What a user sees", line by line, in namespace default, with the machine's kubectl and with 1.35.
const cluster = useCluster();
const guestbook = join(root, 'examples', 'guestbook');
const scratch = mkdtempSync(join(tmpdir(), 'cox-session-'));
const machine = (): string => cluster.machineKubectlPath ?? cluster.kubectlPath;
const k = (...args: string[]): Promise<string> => cluster.kubectlWith({ path: machine() }, ...args);
const shellQuote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

before(
  async () => {
    await k('apply', '-f', guestbook);
    for (const name of ['frontend', 'redis', 'redis-info'])
      await k('rollout', 'status', `deploy/${name}`, '--timeout=60s');
  },
  { timeout: 200_000 },
);
after(async () => {
  await cluster.tryKubectl('delete', '-f', guestbook, '--wait=false', '--ignore-not-found');
  rmSync(scratch, { recursive: true });
});

const frontendPods = async (): Promise<Json[]> => cluster.pods('default', 'app=guestbook,tier=frontend');
const firstFrontend = async (): Promise<string> => (await frontendPods())[0].metadata.name;

it('get nodes -o wide shows two Ready nodes, each with its own IP and pod range', cluster, async () => {
  const table = await k('get', 'nodes', '-o', 'wide');
  assert.match(
    table,
    /^NAME\s+STATUS\s+ROLES\s+AGE\s+VERSION\s+INTERNAL-IP\s+EXTERNAL-IP\s+OS-IMAGE\s+KERNEL-VERSION\s+CONTAINER-RUNTIME/,
  );
  for (const node of ['node-1', 'node-2'])
    assert.match(table, new RegExp(`^${node}\\s+Ready\\s+\\S+\\s+\\S+\\s+v1\\.36\\.`, 'm'));
  const nodes = (await cluster.json('get', 'nodes')).items as Json[];
  assert.equal(
    new Set(nodes.map(node => node.status.addresses.find((address: Json) => address.type === 'InternalIP').address))
      .size,
    2,
  );
  assert.equal(new Set(nodes.map(node => node.spec.podCIDR)).size, 2);
});

it('get pods -o wide shows pods on both nodes, each with its own IP', cluster, async () => {
  const table = await k('get', 'pods', '-o', 'wide');
  assert.match(table, /^NAME\s+READY\s+STATUS\s+RESTARTS\s+AGE\s+IP\s+NODE\s+NOMINATED NODE\s+READINESS GATES/);
  const pods = await cluster.pods('default', 'app=guestbook');
  assert.equal(new Set(pods.map(item => item.status.podIP)).size, 4);
  assert.equal(new Set(pods.map(item => item.spec.nodeName)).size, 2);
});

it('curl 127.0.0.1:30080 answers, and the guestbook keeps entries', cluster, async () => {
  await eventually('it answers', async () =>
    /<h1>Guestbook<\/h1>/.test((await outcomeOf('curl', ['-sS', '-m', '5', '127.0.0.1:30080'])).stdout),
  );
  const entry = `entry ${Date.now()}`;
  await eventually('entry written', async () =>
    (await run('curl', ['-sS', '-m', '5', '--data', entry, '127.0.0.1:30080/entries'])).includes(entry),
  );
  assert.ok((await run('curl', ['-sS', '-m', '5', '127.0.0.1:30080/entries'])).includes(entry));
});

it('exec deploy/frontend reaches redis-info by DNS name through the virtual IP', cluster, async () => {
  const reply = await k('exec', 'deploy/frontend', '--', 'wget', '-qO-', 'http://redis-info.default.svc.cluster.local');
  assert.match(reply, /^redis_version:7\./m);
  assert.match(reply, /^role:master$/m);
});

it('exec passes on exit codes, standard error and standard input', cluster, async () => {
  const failed = await outcomeOf(
    machine(),
    ['exec', 'deploy/frontend', '--', 'sh', '-c', 'echo out; echo err >&2; exit 7'],
    { env: cluster.env },
  );
  assert.equal(failed.code, 7);
  assert.equal(failed.stdout, 'out\n');
  assert.match(failed.stderr, /^err$/m);
  for (const path of [machine(), cluster.kubectlPath]) {
    assert.equal(
      await cluster.kubectlWith({ path, input: 'over stdin' }, 'exec', '-i', await firstFrontend(), '--', 'cat'),
      'over stdin',
    );
  }
  const big = 'x'.repeat(1 << 20);
  assert.equal(
    (await cluster.kubectlWith({ input: big }, 'exec', '-i', await firstFrontend(), '--', 'wc', '-c')).trim(),
    String(big.length),
  );
});

it('exec -it gives a terminal', cluster, async () => {
  const command = [
    machine(),
    'exec',
    '-it',
    await firstFrontend(),
    '--',
    'sh',
    '-c',
    'tty && sleep 0.3; stty size && echo term=$TERM',
  ]
    .map(shellQuote)
    .join(' ');
  const output = await run('script', ['-qec', `stty rows 33 cols 101; ${command}`, '/dev/null'], {
    env: { ...cluster.env, TERM: 'xterm' },
  });
  assert.match(output, /\/dev\/pts\/\d+|\/dev\/console/);
  assert.match(output, /33 101\r?$/m);
});

it('exec with a tty runs a shell that reads what is typed', cluster, async () => {
  const command = [cluster.kubectlPath, 'exec', '-it', await firstFrontend(), '--', 'sh'].map(shellQuote).join(' ');
  const shell = new Background('script', ['-qec', command, '/dev/null'], { env: cluster.env });
  try {
    await eventually('prompt', () => shell.output.includes('#'));
    shell.child.stdin!.write('echo answer-$((6*7))\n');
    await eventually('answer', () => shell.output.includes('answer-42'));
    shell.child.stdin!.write('exit 3\n');
    assert.equal(await shell.exited, 3);
  } finally {
    await shell.stop();
  }
});

it('logs, logs -f, --tail, --timestamps, --previous of none', cluster, async () => {
  await cluster.apply('default', [
    pod('ticker', 'busybox:1.35', {
      command: ['sh', '-c', 'i=0; while true; do echo "tick $i"; i=$((i+1)); sleep 0.3; done'],
    }),
  ]);
  await cluster.readyPod('default', 'ticker');
  const follow = new Background(machine(), ['logs', '-f', 'ticker'], { env: cluster.env });
  try {
    await eventually('ticks', () => follow.output.includes('tick 5'));
    assert.ok(follow.output.startsWith('tick 0\ntick 1\n'));
  } finally {
    await follow.stop();
  }
  assert.equal((await k('logs', 'ticker', '--tail=2')).trim().split('\n').length, 2);
  assert.match(
    await k('logs', 'ticker', '--tail=1', '--timestamps'),
    /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z tick \d+\n/,
  );
  assert.match(await k('logs', '-l', 'app=guestbook,tier=frontend', '--tail=5', '--prefix'), /\[pod\/frontend-/);
  const previous = await outcomeOf(machine(), ['logs', 'ticker', '--previous'], { env: cluster.env });
  assert.notEqual(previous.code, 0);
  assert.match(previous.stderr, /previous terminated container "main" in pod "ticker" not found/);
});

it('attach joins the running process', cluster, async () => {
  await cluster.apply('default', [
    pod('echoer', 'busybox:1.35', {
      command: ['sh', '-c', 'while read line; do echo "got $line"; done'],
      container: { stdin: true },
    }),
  ]);
  await cluster.readyPod('default', 'echoer');
  for (const path of new Set([machine(), cluster.kubectlPath])) {
    const attached = new Background(path, ['attach', '-i', 'echoer'], { env: cluster.env });
    try {
      await eventually(
        'reply over attach',
        async () => {
          attached.child.stdin!.write('hello\n');
          return attached.output.includes('got hello');
        },
        { everyMs: 500 },
      );
    } finally {
      await attached.stop('SIGKILL');
    }
  }
});

it('run --rm -it is create, attach and delete', cluster, async () => {
  const output = await cluster.kubectlWith(
    { input: 'echo sum=$((40+2))\n' },
    'run',
    'once',
    '--rm',
    '-i',
    '--image=busybox:1.35',
    '--image-pull-policy=IfNotPresent',
    '--restart=Never',
    '--',
    'sh',
  );
  assert.match(output, /sum=42/);
  await eventually('pod deleted', async () =>
    /not found/.test((await cluster.tryKubectl('get', 'pod', 'once')).stderr),
  );
});

it('cp copies there and back', cluster, async () => {
  const file = join(scratch, 'file');
  writeFileSync(file, Buffer.from(Array.from({ length: 100_000 }, (_, index) => index & 255)));
  const name = await firstFrontend();
  await k('cp', file, `${name}:/tmp/copied`);
  await k('cp', `default/${name}:/tmp/copied`, `${file}-back`);
  assert.deepEqual(readFileSync(`${file}-back`), readFileSync(file));
});

it('port-forward to a pod, a Deployment and a Service', cluster, async () => {
  for (const [path, target] of [
    [machine(), 'service/frontend'],
    [cluster.kubectlPath, 'deploy/frontend'],
    [cluster.kubectlPath, `pod/${await firstFrontend()}`],
  ] as const) {
    const forward = new Background(path, ['port-forward', target, ':80'], { env: cluster.env });
    try {
      const port = await eventually('forwarding', () => /127\.0\.0\.1:(\d+) -> 80/.exec(forward.output)?.[1]);
      const replies = await Promise.all(
        Array.from({ length: 5 }, () => run('curl', ['-sS', '-m', '5', `127.0.0.1:${port}`])),
      );
      for (const reply of replies) assert.match(reply, /Guestbook/);
    } finally {
      await forward.stop();
    }
  }
});

it('scale up and down', cluster, async () => {
  assert.match(await k('scale', 'deploy/frontend', '--replicas=4'), /deployment\.apps\/frontend scaled/);
  await cluster.readyPods('default', 'app=guestbook,tier=frontend', 4);
  await k('scale', 'deploy/frontend', '--replicas=2');
  await cluster.readyPods('default', 'app=guestbook,tier=frontend', 2);
});

it('set image, rollout status, history and undo', cluster, async () => {
  await k('set', 'image', 'deploy/frontend', 'nginx=nginx:1.22-b');
  assert.match(
    await k('rollout', 'status', 'deploy/frontend', '--timeout=60s'),
    /deployment "frontend" successfully rolled out/,
  );
  for (const item of await frontendPods()) assert.equal(item.spec.containers[0].image, 'nginx:1.22-b');
  assert.match(await k('rollout', 'history', 'deploy/frontend'), /REVISION\s+CHANGE-CAUSE\n1\s+<none>\n2\s+<none>/);
  assert.match(await k('rollout', 'undo', 'deploy/frontend'), /deployment\.apps\/frontend rolled back/);
  await k('rollout', 'status', 'deploy/frontend', '--timeout=60s');
  await eventually('old image everywhere', async () =>
    (await frontendPods()).every(item => item.spec.containers[0].image === 'nginx:1.22'),
  );
  assert.match(await k('rollout', 'restart', 'deploy/frontend'), /restarted/);
  await k('rollout', 'status', 'deploy/frontend', '--timeout=60s');
});

it('expose, describe, label, annotate, edit by patch, delete', cluster, async () => {
  assert.match(
    await k('expose', 'deploy', 'frontend', '--name=exposed', '--port=8080', '--target-port=80'),
    /service\/exposed exposed/,
  );
  await eventually('exposed Service', async () =>
    (await k('exec', 'deploy/frontend', '--', 'wget', '-qO-', 'http://exposed:8080/')).includes('Guestbook'),
  );
  assert.match(await k('describe', 'service', 'exposed'), /Selector:\s+app=guestbook,tier=frontend/);
  const described = await k('describe', 'pod', await firstFrontend());
  assert.match(described, /Status:\s+Running/);
  assert.match(described, /Started\s+\S+\s+kubelet/);
  assert.match(await k('describe', 'deploy', 'frontend'), /NewReplicaSet:\s+frontend-/);
  assert.match(await k('describe', 'node', 'node-1'), /Non-terminated Pods:/);
  await k('label', 'service', 'exposed', 'colour=blue');
  await k('annotate', 'service', 'exposed', 'note=x');
  assert.equal(await k('get', 'service', '-l', 'colour=blue', '-o', 'name'), 'service/exposed\n');
  assert.match(await k('delete', 'service', 'exposed'), /service "exposed" deleted/);
  assert.match(
    (await cluster.tryKubectl('get', 'service', 'exposed')).stderr,
    /Error from server \(NotFound\): services "exposed" not found/,
  );
  await k('delete', 'pod', 'ticker', 'echoer', '--grace-period=1');
  assert.doesNotMatch(await k('get', 'pods', '-o', 'name'), /ticker|echoer/);
});

it('top-level clients agree: version, cluster-info, api-resources, cox kubectl', cluster, async () => {
  for (const path of new Set([machine(), cluster.kubectlPath])) {
    assert.match(await cluster.kubectlWith({ path }, 'version'), /Server Version: v1\.36\./);
    assert.match(
      await cluster.kubectlWith({ path }, 'cluster-info'),
      /Kubernetes control plane.*is running at.*https:\/\/127\.0\.0\.1:/,
    );
    assert.match(
      await cluster.kubectlWith({ path }, 'api-resources'),
      /^deployments\s+deploy\s+apps\/v1\s+true\s+Deployment$/m,
    );
  }
  const passed = await outcomeOf(join(root, 'cox'), ['kubectl', '--name', cluster.name, 'get', 'nodes', '-o', 'name']);
  assert.equal(passed.stdout, 'node/node-1\nnode/node-2\n');
});
