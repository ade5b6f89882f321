/**
 * A full node: many pods of a real cluster, an agent that is killed under them, as many pods that crash, and
 * nothing left of all that afterwards: no process, mount, namespace, control group, interface or address.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { loadRecord } from '../../src/app/cluster-record.ts';
import { mountTable } from '../../src/sys/mount.ts';
import { type Cluster, deployment, freshCluster, isReady, type Json, pod, root } from '../e2e/cluster.ts';
import { eventually } from '../e2e/process.ts';

/** Two hundred take minutes beside other work: `COX_SCALE_PODS=200`. */
const PODS = Number(process.env['COX_SCALE_PODS'] ?? 30);
const IMAGE = 'busybox:1.35';
const SLEEP = { command: ['sleep', '100000'] };
const WAIT_MS = Math.max(240_000, PODS * 900);
const BOUND = { timeout: Math.max(600_000, PODS * 2000) };
/** A /24 has addresses for 250 pods. */
const RANGE = PODS > 230 ? ['--node-cidr-mask-size', '20'] : [];

let cluster: Cluster;
before(
  async () => {
    cluster = freshCluster('scale');
    const configuration = join(cluster.stateDir, 'kubelet.yaml');
    writeFileSync(
      configuration,
      `apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: ${PODS + 20}\n`,
    );
    await cluster.up({ nodes: 1, extra: ['--kubelet-config', configuration, ...RANGE] });
    await cluster.cox(['image', 'load', join(root, '.cache/images/busybox-1.35.tar')]);
  },
  { timeout: 120_000 },
);
after(async () => {
  await cluster.down();
  rmSync(cluster.stateDir, { recursive: true, force: true });
});

/** What of pods there is on the node. */
interface Traces {
  readonly processes: string[];
  readonly mounts: string[];
  readonly namespaces: number;
  readonly groups: string[];
  readonly links: number;
  readonly folders: string[];
}

function agentPid(): Promise<number> {
  return eventually('the agent runs', async () => {
    const { processes } = JSON.parse(await cluster.cox(['status', '-o', 'json'])) as Json;
    return processes.find((one: Json) => one.role === 'agent').pid as number | undefined;
  });
}

function below(pid: number): number[] {
  const children = readdirSync(`/proc/${pid}/task`).flatMap(task => {
    try {
      return readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
    } catch {
      return [];
    }
  });
  return [pid, ...children.flatMap(below)];
}

function traces(): Traces {
  const supervisor = loadRecord(cluster.name)!.nodes[0]!.supervisor!.pid;
  const commands = below(supervisor).flatMap(pid => {
    try {
      return [readFileSync(`/proc/${pid}/comm`, 'utf8').trim()];
    } catch {
      return [];
    }
  });
  const outside = readlinkSync('/proc/self/ns/mnt');
  const inside = below(supervisor).find(pid => readlinkSync(`/proc/${pid}/ns/mnt`) !== outside);
  assert.ok(inside !== undefined, 'the node runs');
  const mounts = mountTable(readFileSync(`/proc/${inside}/mountinfo`, 'utf8')).map(one => one.mountPoint);
  const groups: string[] = [];
  const walk = (folder: string) => {
    for (const entry of readdirSync(folder, { withFileTypes: true }))
      if (entry.isDirectory()) {
        if (entry.name.startsWith('pod')) groups.push(entry.name);
        walk(join(folder, entry.name));
      }
  };
  for (const { mountPoint } of mountTable().filter(one => one.fsType.startsWith('cgroup'))) {
    try {
      walk(join(mountPoint, 'coxswain', cluster.name, 'node-1', 'kubepods'));
    } catch {
      // Not in this hierarchy.
    }
  }
  const node = join(cluster.stateDir, 'node-1');
  const names = (folder: string) => {
    try {
      return readdirSync(join(node, folder)).map(name => `${folder}/${name}`);
    } catch {
      return [];
    }
  };
  return {
    processes: commands.filter(name => ['conmon', 'crun', 'sleep'].includes(name)),
    mounts: mounts.filter(path => /\/(pods|c|s)\/[0-9a-f-]{36}/.test(path)),
    namespaces: mounts.filter(path => path.endsWith('/net')).length,
    groups,
    links: execFileSync('ip', ['-n', `cox-${cluster.name}-node-1`, '-o', 'link'], { encoding: 'utf8' })
      .split('\n')
      .filter(line => /master cox0/.test(line) && !/vxlan/.test(line)).length,
    folders: [...names('pods'), ...names('runtime/layers'), ...names('logs/pods')],
  };
}
const NOTHING: Traces = { processes: [], mounts: [], namespaces: 0, groups: [], links: 0, folders: [] };

const untilNothingIsLeft = (): Promise<unknown> =>
  eventually(
    'nothing of the pods left on the node',
    async () => {
      const left = traces();
      assert.deepEqual(left, NOTHING);
      return true;
    },
    { timeoutMs: WAIT_MS },
  );

const idOf = ({ metadata, status }: Json): string =>
  `${metadata.name} ${status.containerStatuses[0].containerID} ${status.containerStatuses[0].restartCount} ${status.podIP}`;

/** Processor time and memory of the agent itself, without the programs that it runs. */
async function agentUsage(): Promise<{ readonly cpuSeconds: number; readonly memoryMb: number }> {
  const pid = await agentPid();
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  const resident = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]!;
  return { cpuSeconds: (Number(fields[11]) + Number(fields[12])) / 100, memoryMb: Math.round(Number(resident) / 1024) };
}

async function timed<T>(t: TestContext, what: string, run: () => Promise<T>): Promise<T> {
  const began = performance.now();
  const result = await run();
  t.diagnostic(`${what}: ${((performance.now() - began) / 1000).toFixed(1)} s`);
  return result;
}

test(`${PODS} pods on one node, an agent killed under them, nothing left of them`, BOUND, async t => {
  assert.deepEqual(traces(), NOTHING);
  const pods = await timed(t, `${PODS} pods ready`, async () => {
    await cluster.apply('default', [deployment('many', IMAGE, { replicas: PODS, container: SLEEP })]);
    return cluster.readyPods('default', 'app=many', PODS, WAIT_MS);
  });
  assert.equal(new Set(pods.map(one => one.status.podIP)).size, PODS, 'every pod has an address of its own');
  const full = traces();
  assert.deepEqual(
    [full.processes.filter(name => name === 'sleep').length, full.namespaces, full.links],
    [PODS, PODS, PODS],
    'what is looked for is there while the pods are',
  );

  const pid = await agentPid();
  process.kill(pid, 'SIGKILL');
  await timed(t, 'a new pod ready after the agent was killed', async () => {
    await cluster.apply('default', [pod('later', IMAGE, SLEEP)]);
    await cluster.readyPod('default', 'later', WAIT_MS);
  });
  assert.notEqual(await agentPid(), pid);
  const after = (await cluster.json('get', 'pods', '-l', 'app=many')).items as Json[];
  assert.ok(after.every(isReady));
  assert.deepEqual(after.map(idOf).sort(), pods.map(idOf).sort(), 'the very same containers, none restarted');

  await timed(t, 'all deleted and cleaned up', async () => {
    await cluster.kubectl('delete', 'deployment/many', 'pod/later', '--wait=false');
    await untilNothingIsLeft();
  });
});

test(`${PODS} pods that crash do not keep another from starting`, BOUND, async t => {
  await cluster.kubectl('delete', 'deployments,pods', '--all', '--wait=false');
  await untilNothingIsLeft();
  await cluster.apply('default', [
    deployment('crash', IMAGE, { replicas: PODS, container: { command: ['sh', '-c', 'exit 3'] } }),
  ]);
  const before = await agentUsage();
  let restarts = 0;
  await timed(t, `${PODS} pods crashed`, () =>
    eventually(
      'every pod has crashed',
      async () => {
        const pods = (await cluster.json('get', 'pods', '-l', 'app=crash')).items as Json[];
        const crashed = pods.filter(({ status }) => status.containerStatuses?.[0].restartCount > 0);
        restarts = pods.reduce((sum, { status }) => sum + (status.containerStatuses?.[0].restartCount ?? 0), 0);
        return crashed.length === PODS;
      },
      { timeoutMs: WAIT_MS, everyMs: 500 },
    ),
  );
  const during = await agentUsage();
  t.diagnostic(
    `agent: ${(during.cpuSeconds - before.cpuSeconds).toFixed(1)} s of processor for ${PODS + restarts} starts, ${before.memoryMb} to ${during.memoryMb} MB`,
  );
  await timed(t, 'a pod beside them ready', async () => {
    await cluster.apply('default', [pod('calm', IMAGE, SLEEP)]);
    await cluster.readyPod('default', 'calm', WAIT_MS);
  });
  const calm = await cluster.json('get', 'pod', 'calm');
  assert.equal(calm.status.containerStatuses[0].restartCount, 0);
  await cluster.kubectl('delete', 'deployment/crash', 'pod/calm', '--wait=false');
  await timed(t, 'all deleted and cleaned up', untilNothingIsLeft);
});
