import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after } from 'node:test';
import { before, it, type Json, pod, root, useCluster, useNamespace } from './cluster.ts';
import { eventually, outcomeOf, pause, pidsOf } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'faults');
const guestbook = join(root, 'examples', 'guestbook');

before(
  async () => {
    await cluster.kubectl('apply', '-f', guestbook);
    for (const name of ['frontend', 'redis', 'redis-info'])
      await cluster.kubectl('rollout', 'status', `deploy/${name}`, '--timeout=60s');
  },
  { timeout: 200_000 },
);
after(() => cluster.tryKubectl('delete', '-f', guestbook, '--wait=false'));

interface Process {
  readonly role: string;
  readonly node?: string;
  readonly pid?: number;
}

const processes = async (): Promise<Process[]> =>
  JSON.parse((await cluster.tryCox(['status', '-o', 'json'])).stdout).processes;
const find = async (role: string): Promise<Process[]> =>
  (await processes()).filter(item => item.role === role && item.pid);

/** What must be the same afterwards: pods, their containers and when these started. */
async function fingerprint(): Promise<string> {
  const pods = (await cluster.pods('default', 'app=guestbook')).map(item => ({
    uid: item.metadata.uid,
    ip: item.status.podIP,
    node: item.spec.nodeName,
    containers: item.status.containerStatuses.map((status: Json) => [
      status.containerID,
      status.restartCount,
      status.state.running?.startedAt,
    ]),
  }));
  return JSON.stringify(
    pods.sort((a, b) => (a.uid < b.uid ? -1 : 1)),
    null,
    1,
  );
}

const answers = async (): Promise<boolean> =>
  (await outcomeOf('curl', ['-sS', '-m', '3', '127.0.0.1:30080'])).stdout.includes('Guestbook');

/** Kills processes and waits until others have taken their place and the cluster is whole. */
async function killAndRecover(victims: readonly Process[]): Promise<void> {
  for (const { pid } of victims) process.kill(pid!, 'SIGKILL');
  const dead = new Set(victims.map(({ pid }) => pid));
  await eventually('successors run', async () => {
    const now = await processes();
    return victims.every(({ role, node }) =>
      now.some(item => item.role === role && item.node === node && item.pid && !dead.has(item.pid)),
    );
  });
  await eventually('API ready', async () => (await cluster.tryKubectl('get', '--raw', '/readyz')).stdout === 'ok');
  await eventually('nodes Ready', async () =>
    ((await cluster.json('get', 'nodes')).items as Json[]).every(node =>
      node.status.conditions.some((condition: Json) => condition.type === 'Ready' && condition.status === 'True'),
    ),
  );
}

for (const [title, roles] of [
  ['server', ['server']],
  ['agents', ['agent']],
  ['server and agents', ['server', 'agent']],
] as const) {
  it(
    `kill -9 of ${title}: the same pods go on and answer`,
    cluster,
    async () => {
      const before = await fingerprint();
      const victims = (await Promise.all(roles.map(find))).flat();
      assert.ok(victims.length > 0, 'there is something to kill');
      await killAndRecover(victims);
      await eventually('NodePort answers', answers);
      await pause(2000);
      assert.equal(await fingerprint(), before);
      assert.match(
        await cluster.kubectl(
          'exec',
          'deploy/frontend',
          '--',
          'wget',
          '-qO-',
          'http://redis-info.default.svc.cluster.local',
        ),
        /redis_version/,
      );
      // And it is a working cluster: something new starts.
      await cluster.apply(ns, [pod('after', 'busybox:1.35', { command: ['sleep', '3600'] })]);
      await cluster.readyPod(ns, 'after');
      await cluster.kubectl('-n', ns, 'delete', 'pod', 'after');
      await cluster.kubectl('logs', 'deploy/frontend', '--tail=1');
    },
    { timeoutMs: 120_000 },
  );
}

it('names resolve while an agent is started again', cluster, async () => {
  const [victim] = (await find('agent')).filter(({ node }) => node === 'node-1');
  const failures: string[] = [];
  let asked = 0;
  let isOver = false;
  const asking = (async () => {
    // One question may well take as long as the whole restart: a few are asked afterwards too.
    for (let afterwards = 0; afterwards < 3; afterwards += isOver ? 1 : 0) {
      asked++;
      const words = ['+short', '+tries=1', '+time=4', '@10.96.0.10', 'redis-info.default.svc.cluster.local'];
      const answer = await cluster.tryCox(['node', 'exec', 'node-1', '--', 'dig', ...words]);
      if (!/^10\./.test(answer.stdout)) failures.push(answer.stdout + answer.stderr);
    }
  })();
  await eventually('the first question', () => asked > 1);
  await killAndRecover([victim!]);
  isOver = true;
  await asking;
  assert.deepEqual(failures, []);
});

it('traffic inside the cluster goes on while the server is dead', cluster, async () => {
  const node = await cluster.json('get', 'node', 'node-1');
  const ip = node.status.addresses.find((address: Json) => address.type === 'InternalIP').address as string;
  const vip = (await cluster.json('get', 'service', 'frontend')).spec.clusterIP as string;
  const [server] = await find('server');
  process.kill(server!.pid!, 'SIGKILL');
  for (const url of [`http://${ip}:30080/`, `http://${vip}/`]) {
    assert.match(await cluster.onNode('node-2', 'curl', '-sS', '-m', '3', url), /Guestbook/);
  }
  assert.match(
    await cluster.onNode('node-2', 'dig', '+short', '@10.96.0.10', 'frontend.default.svc.cluster.local'),
    /^10\./,
  );
  await killAndRecover([]);
  await eventually('127.0.0.1 leads in again', answers);
});

it('writes acknowledged before a kill are there afterwards', cluster, async () => {
  const [server] = await find('server');
  const names: string[] = [];
  const writer = (async () => {
    for (let index = 0; index < 200; index++) {
      const outcome = await cluster.tryKubectl('-n', ns, 'create', 'configmap', `kept-${index}`, '--from-literal=x=y');
      if (outcome.code !== 0) return;
      names.push(`configmap/kept-${index}`);
    }
  })();
  await eventually('some written', () => names.length >= 10);
  await killAndRecover([server!]);
  await writer;
  const there = new Set((await cluster.kubectl('-n', ns, 'get', 'configmaps', '-o', 'name')).trim().split('\n'));
  assert.deepEqual(
    names.filter(name => !there.has(name)),
    [],
  );
});

// containerd watches its own.
if (process.env['COX_E2E_RUNTIME'] !== 'containerd')
  it('a container whose monitor dies is noticed and replaced', cluster, async () => {
    await cluster.apply(ns, [pod('watched', 'coxswain/echo:1')]);
    const item = await cluster.readyPod(ns, 'watched');
    const id = (item.status.containerStatuses[0].containerID as string).split('//')[1]!;
    const monitors = pidsOf(command => command.includes('conmon') && command.includes(id));
    assert.ok(monitors.length > 0, 'it has a monitor');
    for (const pid of monitors) process.kill(pid, 'SIGKILL');
    await eventually(
      'its process told to end',
      async () => (await cluster.tryKubectl('-n', ns, 'exec', 'watched', '--', 'kill', '1')).code === 0,
    );
    await eventually('running anew', async () => {
      const now = await cluster.json('-n', ns, 'get', 'pod', 'watched');
      const [status] = now.status.containerStatuses;
      return status.state.running && status.restartCount >= 1 && !status.containerID.endsWith(id);
    });
    await eventually('answers', async () =>
      (await cluster.get(ns, 'watched', 'http://127.0.0.1/hostname')).includes('watched'),
    );
  });
