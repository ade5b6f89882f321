/** Less common wishes of a pod, each seen by the pod itself: environment files, restart rules, stop signals, shared processes. */

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Pod } from '../../src/api/core/v1.gen.ts';
import type { KubeObject } from '../../src/api/meta.ts';
import { PODS, RUNTIME_CLASSES } from '../../src/client/resources.ts';
import { CgroupTree } from '../../src/sys/cgroup.ts';
import { isReady, TestNode } from './node.ts';
import { done, sh } from './pods.ts';

let node: TestNode;
before(async () => {
  node = new TestNode({
    configuration: { allowedUnsafeSysctls: ['kernel.msg*'], crashLoopBackOffSecondsMax: 1 },
    deadContainers: { perContainerMax: 2 },
  });
  await node.start();
});
after(() => node.close());

const log = ({ metadata: { name, uid } }: Pod, container = 'c', attempt = 0) =>
  readFileSync(join(node.root, `lib/logs/pods/default_${name}_${uid}/${container}/${attempt}.log`), 'utf8')
    .split('\n')
    .map(line => line.split(' ').slice(3).join(' '))
    .filter(Boolean);

test('env from a file that an init container wrote', async () => {
  const volumeMounts = [{ name: 'cfg', mountPath: '/data' }];
  const from = (key: string, extra: object = {}) => ({
    name: `V_${key}`,
    valueFrom: { fileKeyRef: { volumeName: 'cfg', path: 'settings.env', key, ...extra } },
  });
  const spec = (env: object[]) => ({
    restartPolicy: 'Never',
    initContainers: [sh(`printf "A='one two'\\nB='\\$A'\\n" > /data/settings.env`, { name: 'init', volumeMounts })],
    containers: [sh('env | grep ^V_ | sort', { env })],
    volumes: [{ name: 'cfg', emptyDir: {} }],
  });
  await node.create('env-file', spec([from('A'), from('B'), from('NOPE', { optional: true })]));
  assert.deepEqual(log(await node.until('env-file', done)), ['V_A=one two', 'V_B=$A']);
  await node.create('env-file-missing', spec([from('NOPE')]));
  const waiting = await node.until(
    'env-file-missing',
    pod => pod.status?.containerStatuses?.[0]?.state?.waiting?.message,
  );
  assert.equal(
    waiting.status!.containerStatuses![0]!.state!.waiting!.message,
    'environment variable key "NOPE" not found in file "settings.env"',
  );
});

test('a container restarts by its own rules, others of the pod do not', async () => {
  const rules = [{ action: 'Restart', exitCodes: { operator: 'In', values: [42] } }];
  await node.create('rules', {
    restartPolicy: 'Never',
    containers: [
      sh('if [ -e /data/x ]; then exit 0; fi; touch /data/x; exit 42', {
        restartPolicy: 'Never',
        restartPolicyRules: rules,
        volumeMounts: [{ name: 'data', mountPath: '/data' }],
      }),
      sh('exit 7', { name: 'other', restartPolicy: 'Never', restartPolicyRules: rules }),
    ],
    volumes: [{ name: 'data', emptyDir: {} }],
  });
  const pod = await node.until('rules', done, 30_000);
  const counts = pod.status!.containerStatuses!.map(one => [
    one.name,
    one.restartCount,
    one.state!.terminated!.exitCode,
  ]);
  assert.deepEqual(counts, [
    ['c', 1, 0],
    ['other', 0, 7],
  ]);
});

test('a container that ends by such a rule restarts all of its pod in place', async () => {
  const volumeMounts = [{ name: 'data', mountPath: '/data' }];
  const rules = [{ action: 'RestartAllContainers', exitCodes: { operator: 'NotIn', values: [0, 7] } }];
  await node.create('all', {
    restartPolicy: 'Never',
    initContainers: [
      sh('echo init >> /data/order', { name: 'init', volumeMounts }),
      sh('exec sleep 1000', { name: 'sidecar', restartPolicy: 'Always' }),
    ],
    containers: [
      sh('echo short >> /data/order; exit 0', { name: 'short', volumeMounts }),
      sh('exec sleep 1000', { name: 'long', lifecycle: { preStop: { exec: { command: ['sleep', '1000'] } } } }),
      sh(
        'until grep -q short /data/order; do sleep 0.1; done; if [ -e /data/x ]; then exec sleep 1000; fi; touch /data/x; exit 42',
        { name: 'asks', restartPolicy: 'Never', restartPolicyRules: rules, volumeMounts },
      ),
    ],
    volumes: [{ name: 'data', emptyDir: {} }],
  });
  const counts = ({ status }: Pod) =>
    [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])].map(one => one.restartCount);
  const runs = (pod: Pod) =>
    pod.status?.containerStatuses?.filter(({ state }) => state?.running).length === 2 &&
    pod.status.containerStatuses.some(({ name, state }) => name === 'short' && state?.terminated);
  const pod = await node.until('all', one => counts(one).join() === '1,1,1,1,1' && runs(one), 30_000);
  const { conditions, phase, podIP, containerStatuses } = pod.status!;
  assert.equal(phase, 'Running');
  assert.equal(conditions!.find(({ type }) => type === 'AllContainersRestarting')?.status, 'False');
  assert.equal(conditions!.find(({ type }) => type === 'Initialized')?.status, 'True');
  for (const { name, lastState } of containerStatuses!)
    assert.deepEqual(
      [name, lastState?.terminated?.exitCode, lastState?.terminated?.reason],
      [name, 137, 'RestartingAllContainers'],
    );
  const order = readFileSync(
    join(node.root, `lib/pods/${pod.metadata.uid}/volumes/kubernetes.io~empty-dir/data/order`),
    'utf8',
  );
  assert.deepEqual(order.trim().split('\n'), ['init', 'short', 'init', 'short']);
  await node.restartKubelet();
  const later = await node.until('all', runs);
  assert.deepEqual([later.status!.podIP, counts(later).join()], [podIP, '1,1,1,1,1']);
});

test('the stop signal of the spec is what the container gets', async () => {
  const script = 'trap "echo usr1 > /dev/termination-log; exit 3" USR1; trap "" TERM; while :; do sleep 0.1; done';
  await node.create('signal', {
    os: { name: 'linux' },
    restartPolicy: 'Never',
    activeDeadlineSeconds: 2,
    terminationGracePeriodSeconds: 20,
    containers: [sh(script, { lifecycle: { stopSignal: 'SIGUSR1' } })],
  });
  const pod = await node.until('signal', one => one.status?.containerStatuses?.[0]?.state?.terminated, 15_000);
  const { exitCode, message } = pod.status!.containerStatuses![0]!.state!.terminated!;
  assert.deepEqual([exitCode, message], [3, 'usr1\n']);
});

test('unsafe sysctls only where the node allows them', async () => {
  const wish = (name: string) => ({
    restartPolicy: 'Never',
    securityContext: { sysctls: [{ name, value: '65536' }] },
    containers: [sh('cat /proc/sys/kernel/msgmax')],
  });
  await node.create('sysctl', wish('kernel.msgmax'));
  assert.deepEqual(log(await node.until('sysctl', done)), ['65536']);
  await node.create('sysctl-refused', wish('kernel.sem'));
  const refused = await node.until('sysctl-refused', done);
  assert.equal(refused.status!.reason, 'SysctlForbidden');
  assert.equal(refused.status!.containerStatuses, undefined);
});

test('a container whose monitor is killed starts again with a reason, and leaves nothing', async () => {
  await node.create('orphan', { containers: [sh('exec sleep 1000')] });
  const pod = await node.until('orphan', isReady);
  const id = pod.status!.containerStatuses![0]!.containerID!.slice('cox://'.length);
  const bundle = join(node.root, 'run', 'c', id);
  const pidIn = (name: string) => Number(readFileSync(join(bundle, name), 'utf8'));
  const main = pidIn('pid');
  process.kill(pidIn('conmon.pid'), 'SIGKILL');
  const again = await node.until(
    'orphan',
    one => one.status!.containerStatuses![0]!.restartCount === 1 && isReady(one),
    40_000,
  );
  const ended = again.status!.containerStatuses![0]!.lastState!.terminated!;
  assert.deepEqual([ended.exitCode, ended.reason], [137, 'MonitorLost']);
  assert.match(ended.message!, /conmon/);
  assert.equal(existsSync(`/proc/${main}/exe`), false);
});

test('a RuntimeClass names the runtime there is; another is said to be missing', async () => {
  for (const [name, handler] of [
    ['plain', 'runc'],
    ['other', 'kata'],
  ] as const) {
    await node.api.create({ of: RUNTIME_CLASSES }, {
      apiVersion: 'node.k8s.io/v1',
      kind: 'RuntimeClass',
      metadata: { name },
      handler,
    } as KubeObject);
    await node.create(`class-${name}`, { runtimeClassName: name, containers: [sh('exec sleep 1000')] });
  }
  await node.until('class-plain', isReady);
  const why = 'FailedCreatePodSandBox: Failed to create pod sandbox: no runtime for "kata" is configured';
  await node.untilEvents('class-other', events => events.some(text => text.startsWith(why)));
});

test('shared processes: containers see and signal each other, nothing outlives the pod', async () => {
  await node.create('shared', {
    shareProcessNamespace: true,
    containers: [
      sh('exec sleep 4321'),
      sh(
        'until pidof sleep; do sleep 0.1; done; cat /proc/1/cmdline; echo; ls /proc/1/root/ 2>&1; echo seen; (sleep 0.01 &); exec sleep 1234',
        {
          name: 'other',
          securityContext: { capabilities: { add: ['SYS_PTRACE'] } },
        },
      ),
    ],
  });
  const pod = await node.until('shared', isReady);
  const lines = await (async () => {
    for (;;) {
      const found = log(pod, 'other');
      if (found.includes('seen')) return found;
      await new Promise(resolve => setTimeout(resolve, 20));
    }
  })();
  assert.ok(
    lines.some(line => line.startsWith('/pause')),
    lines.join('\n'),
  );
  assert.ok(!lines.includes('etc'), `the root of the first process is empty: ${lines.join()}`);
  await node.restartKubelet();
  await node.api.delete({ of: PODS, namespace: 'default', name: 'shared' });
  await node.untilGone('shared');
  const left = new CgroupTree().children(`${node.cgroupRoot}/kubepods/besteffort`);
  assert.ok(!left.includes(`pod${pod.metadata.uid}`), left.join());
});

test('as many dead containers of a name stay as the node is told to keep', async () => {
  const script = 'n=$(cat /d/n || echo 0); echo $((n + 1)) >/d/n; [ $n -ge 3 ] && exec sleep 1000; exit 1';
  await node.create('crashes', {
    containers: [sh(script, { volumeMounts: [{ name: 'd', mountPath: '/d' }] })],
    volumes: [{ name: 'd', emptyDir: {} }],
  });
  const pod = await node.until(
    'crashes',
    one => isReady(one) && one.status?.containerStatuses?.[0]?.restartCount === 3 && one,
  );
  const { containers } = await node.runtime.snapshot(pod.metadata.uid);
  assert.deepEqual(containers.map(({ attempt, state }) => `${attempt} ${state}`).sort(), [
    '1 exited',
    '2 exited',
    '3 running',
  ]);
});
