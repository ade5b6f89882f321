/** Pods on a real kubelet: real crun, real mounts, a real API server in process. */

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import type { Node, Pod } from '../../src/api/core/v1.gen.ts';
import { silentLogger } from '../../src/base/log.ts';
import { metrics } from '../../src/base/metrics.ts';
import { Informer } from '../../src/client/informer.ts';
import { CONFIG_MAPS, LEASES, NODES, PODS, SECRETS, SERVICES } from '../../src/client/resources.ts';
import { probeMetrics } from '../../src/kubelet/metrics.ts';
import { isReady, TestNode } from './node.ts';
import { done, sh } from './pods.ts';

let node: TestNode;
before(async () => {
  node = new TestNode();
  await node.start();
});
after(() => node.close());

const log = (pod: Pod, container = 'c', attempt = 0) =>
  readFileSync(
    join(node.root, 'lib/logs/pods', `default_${pod.metadata.name}_${pod.metadata.uid}`, container, `${attempt}.log`),
    'utf8',
  )
    .split('\n')
    .filter(Boolean)
    .map(line => line.split(' ').slice(3).join(' ') + (line.split(' ')[2] === 'P' ? '' : '\n'))
    .join('')
    .split('\n')
    .filter(Boolean);

test('the node registers, is Ready, and has a lease', async () => {
  for (let i = 0; i < 400; i++) {
    const found = (await node.api.get({ of: NODES, name: 'node-1' }).catch(() => undefined)) as Node | undefined;
    if (
      found?.status?.conditions?.some(one => one.type === 'Ready' && one.status === 'True') &&
      (await node.api.get({ of: LEASES, namespace: 'kube-node-lease', name: 'node-1' }).catch(() => undefined))
    )
      return;
    await sleep(5);
  }
  assert.fail('node not ready');
});

test('where there are network policies a pod’s address is told before its containers start', async () => {
  const pods = new Informer<Pod>({ transport: node.api, of: PODS, log: silentLogger });
  const told = new Set<string>();
  pods.onChange(({ object }) => {
    const [state] = object?.status?.containerStatuses?.map(({ state }) => Object.keys(state ?? {})[0]) ?? [];
    if (object?.status?.podIP) told.add(`${object.metadata.name} ${state}`);
  });
  const stop = new AbortController();
  const following = pods.run(stop.signal);
  node.hasPolicies = true;
  await node.create('watched', { containers: [sh('sleep 100')] });
  await node.until('watched', isReady);
  node.hasPolicies = false;
  await node.create('unwatched', { containers: [sh('sleep 100')] });
  await node.until('unwatched', isReady);
  await node.until('unwatched', () => told.has('unwatched running'));
  stop.abort();
  await following;
  assert.deepEqual([...told].sort(), ['unwatched running', 'watched running', 'watched waiting']);
});

test('a pod runs: environment, configMap, secret, downward API, logs, status, events', async () => {
  await node.configMap('settings', { key: 'value', other: 'o' });
  await node.put(SECRETS, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'hidden', namespace: 'default' },
    data: { word: Buffer.from('sesame').toString('base64') },
  });
  await node.put(SERVICES, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'my-svc', namespace: 'default' },
    spec: { clusterIP: '10.96.3.4', clusterIPs: ['10.96.3.4'], ports: [{ name: 'web', port: 80, protocol: 'TCP' }] },
  });
  await node.create('full', {
    restartPolicy: 'Never',
    hostname: 'special',
    subdomain: 'sub',
    containers: [
      sh(
        'env | sort; cat /cfg/key /sec/word /down/name; echo; hostname; cat /etc/resolv.conf; grep special /etc/hosts; ls -ld /scratch/x; echo done > /dev/termination-log',
        {
          env: [
            { name: 'A', value: 'a' },
            { name: 'B', value: '$(A)-$(NOPE)-$$(A)' },
            { name: 'C', valueFrom: { configMapKeyRef: { name: 'settings', key: 'key' } } },
            { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
            { name: 'CPU', valueFrom: { resourceFieldRef: { resource: 'limits.memory', divisor: '1Mi' } } },
          ],
          envFrom: [{ prefix: 'S_', secretRef: { name: 'hidden' } }],
          resources: { limits: { memory: '32Mi', cpu: '500m' } },
          volumeMounts: [
            { name: 'cfg', mountPath: '/cfg' },
            { name: 'sec', mountPath: '/sec' },
            { name: 'down', mountPath: '/down' },
            { name: 'empty', mountPath: '/scratch/x', subPath: 'inner' },
          ],
        },
      ),
    ],
    volumes: [
      { name: 'cfg', configMap: { name: 'settings' } },
      { name: 'sec', secret: { secretName: 'hidden', defaultMode: 256 } },
      { name: 'down', downwardAPI: { items: [{ path: 'name', fieldRef: { fieldPath: 'metadata.name' } }] } },
      { name: 'empty', emptyDir: {} },
    ],
  });
  const pod = await node.until('full', done);
  const lines = log(pod);
  assert.equal(pod.status!.phase, 'Succeeded', lines.join('\n'));
  for (const expected of [
    'A=a',
    'B=a-$(NOPE)-$(A)',
    'C=value',
    `IP=${pod.status!.podIP}`,
    'CPU=32',
    'S_word=sesame',
    'HOSTNAME=special',
    'MY_SVC_SERVICE_HOST=10.96.3.4',
    'MY_SVC_PORT_80_TCP=tcp://10.96.3.4:80',
    'valuesesamefull',
    'special',
    'nameserver 10.96.0.10',
    'options ndots:5',
    `${pod.status!.podIP}\tspecial.sub.default.svc.cluster.local\tspecial`,
  ])
    assert.ok(lines.includes(expected), `${expected} in\n${lines.join('\n')}`);
  const status = pod.status!.containerStatuses![0]!;
  assert.deepEqual(
    [
      status.state?.terminated?.exitCode,
      status.state?.terminated?.reason,
      status.state?.terminated?.message,
      status.ready,
      status.restartCount,
    ],
    [0, 'Completed', 'done\n', false, 0],
  );
  assert.match(status.containerID!, /^cox:\/\/[0-9a-f]{64}$/);
  assert.equal(pod.status!.qosClass, 'Guaranteed');
  assert.equal(pod.status!.conditions!.find(one => one.type === 'Ready')!.reason, 'PodCompleted');
  await node.untilEvents('full', events => events.map(text => text.split(':')[0]).join() === 'Pulled,Created,Started');
});

test('Ready quickly; deletion is graceful and leaves nothing', async () => {
  const began = performance.now();
  await node.create('quick', {
    containers: [
      sh('httpd -f -p 80 -h /var/www', {
        readinessProbe: { httpGet: { path: '/index.html', port: 80 } },
        ports: [{ containerPort: 80 }],
      }),
    ],
    terminationGracePeriodSeconds: 2,
  });
  const pod = await node.until('quick', isReady);
  console.log(`# create to Ready ${(performance.now() - began).toFixed(0)} ms`);
  assert.equal(pod.status!.phase, 'Running');
  await node.api.delete({ of: PODS, namespace: 'default', name: 'quick' });
  await node.untilGone('quick');
  await sleep(50);
  for (const folder of ['lib/pods', 'run/p'])
    assert.equal(existsSync(join(node.root, folder, pod.metadata.uid!)), false);
  await node.untilEvents('quick', events => events.includes('Killing: Stopping container c'));
});

test('init containers and sidecars, in order', async () => {
  const step = (name: string, script: string, extra: object = {}) => ({
    name,
    image: 'busybox:1',
    command: ['sh', '-c', script],
    volumeMounts: [{ name: 'w', mountPath: '/w' }],
    ...extra,
  });
  await node.create('steps', {
    restartPolicy: 'Never',
    volumes: [{ name: 'w', emptyDir: {} }],
    initContainers: [
      step('one', 'echo one >> /w/log'),
      step('side', 'echo side >> /w/log; sleep 1000', { restartPolicy: 'Always' }),
      step('two', 'echo two >> /w/log'),
    ],
    containers: [{ ...step('c', 'cat /w/log') }],
  });
  const pod = await node.until('steps', done, 15_000);
  assert.equal(pod.status!.phase, 'Succeeded');
  const lines = log(pod);
  assert.equal(lines[0], 'one');
  assert.deepEqual([...lines].sort(), ['one', 'side', 'two']);
});

test('crashes restart with back-off; the last state is kept', async () => {
  await node.create('crash', { containers: [sh('echo attempt; exit 3')] });
  const pod = await node.until(
    'crash',
    one => one.status?.containerStatuses?.[0]?.state?.waiting?.reason === 'CrashLoopBackOff',
  );
  const status = pod.status!.containerStatuses![0]!;
  // Who looks later than a whole pause sees the next one.
  const seconds = 10 * 2 ** (status.restartCount - 1);
  assert.equal(
    status.state!.waiting!.message,
    `back-off ${seconds}s restarting failed container=c pod=crash_default(${pod.metadata.uid})`,
  );
  assert.equal(status.lastState?.terminated?.exitCode, 3);
  assert.equal(pod.status!.phase, 'Running');
  await node.untilEvents('crash', events =>
    events.includes(`BackOff: Back-off restarting failed container c in pod crash_default(${pod.metadata.uid})`),
  );
});

test('what is missing is said', async () => {
  await node.create('no-image', { containers: [{ name: 'c', image: 'nowhere.example/x:1' }] });
  await node.create('never', { containers: [{ name: 'c', image: 'nowhere.example/x:1', imagePullPolicy: 'Never' }] });
  await node.create('no-config', {
    containers: [sh('true', { env: [{ name: 'X', valueFrom: { configMapKeyRef: { name: 'absent', key: 'k' } } }] })],
  });
  await node.create('no-command', {
    restartPolicy: 'Never',
    containers: [{ name: 'c', image: 'busybox:1', command: ['/absent'] }],
  });
  await node.create('no-volume', {
    containers: [sh('true')],
    volumes: [{ name: 'v', configMap: { name: 'absent-volume' } }],
  });
  await node.create('big', { containers: [sh('true', { resources: { requests: { cpu: '1000' } } })] });
  await node.create('root', { containers: [sh('true', { securityContext: { runAsNonRoot: true } })] });
  const reason = (pod: Pod) => pod.status?.containerStatuses?.[0]?.state?.waiting;
  assert.match(
    reason(await node.until('no-image', pod => reason(pod)?.reason === 'ImagePullBackOff'))!.message!,
    /failed to resolve reference "nowhere\.example\/x:1": failed to do request: lookup nowhere\.example/,
  );
  await node.until('never', pod => reason(pod)?.reason === 'ErrImageNeverPull');
  assert.equal(
    reason(await node.until('no-config', pod => reason(pod)?.reason === 'CreateContainerConfigError'))!.message,
    'configmap "absent" not found',
  );
  const failed = await node.until('no-command', done);
  assert.deepEqual(
    [
      failed.status!.phase,
      failed.status!.containerStatuses![0]!.state!.terminated!.reason,
      failed.status!.containerStatuses![0]!.state!.terminated!.exitCode,
    ],
    ['Failed', 'StartError', 128],
  );
  const { reason: why, message } = (await node.until('big', done)).status!;
  assert.equal(why, 'OutOfcpu');
  assert.match(message!, /^Pod was rejected: Node didn't have enough resource: cpu,/);
  await node.untilEvents('big', events => events.some(text => text.startsWith("OutOfcpu: Node didn't have")));
  assert.match(metrics.render(), /^kubelet_admission_rejections_total\{reason="OutOfcpu"\} 1$/m);
  assert.match(
    reason(await node.until('root', pod => reason(pod)?.reason === 'CreateContainerConfigError'))!.message!,
    /image will run as root/,
  );
  for (
    let i = 0;
    !(await node.events('no-volume')).includes(
      'FailedMount: MountVolume.SetUp failed for volume "v" : configmap "absent-volume" not found',
    );
    i++
  ) {
    assert.ok(i < 300, (await node.events('no-volume')).join('\n'));
    await sleep(10);
  }
  await node.configMap('absent', { k: 'v' });
  await node.until('no-config', pod => reason(pod)?.reason !== 'CreateContainerConfigError');
});

test('nothing follows from a probe that cannot be made', async () => {
  const liveness = (livenessProbe: object) => ({
    containers: [sh('sleep 1000', { livenessProbe: { periodSeconds: 1, failureThreshold: 1, ...livenessProbe } })],
  });
  await node.create('no-program', liveness({ exec: { command: ['nowhere'] } }));
  await node.create('no-port', liveness({ httpGet: { port: 'web' } }));
  const words = 'Unhealthy: Liveness probe errored and resulted in unknown state: ';
  await node.untilEvents('no-program', events => events.some(text => text.startsWith(words) && /nowhere/.test(text)));
  await node.untilEvents('no-port', events => events.includes(`${words}strconv.Atoi: parsing "web": invalid syntax`));
  await sleep(1500);
  for (const name of ['no-program', 'no-port']) {
    const pod = await node.until(name, isReady);
    assert.equal(pod.status!.containerStatuses![0]!.restartCount, 0, name);
  }
});

test('probes: readiness follows, liveness restarts, exec works', async () => {
  await node.create('probed', {
    containers: [
      sh('touch /tmp/ok; sleep 1000', {
        readinessProbe: { exec: { command: ['test', '-f', '/tmp/ok'] }, periodSeconds: 1 },
        livenessProbe: { tcpSocket: { port: 9 }, periodSeconds: 1, failureThreshold: 2, initialDelaySeconds: 1 },
      }),
    ],
  });
  await node.until('probed', isReady);
  const pod = await node.until('probed', one => (one.status?.containerStatuses?.[0]?.restartCount ?? 0) > 0);
  const events = await node.events('probed');
  assert.ok(events.includes('Killing: Container c failed liveness probe, will be restarted'), events.join('\n'));
  assert.ok(
    events.some(text =>
      text.startsWith(`Unhealthy: Liveness probe failed: dial tcp ${pod.status!.podIP}:9: connect: connection refused`),
    ),
    events.join('\n'),
  );
  const page = probeMetrics.render();
  const labels = (type: string, result: string) =>
    `prober_probe_total{probe_type="${type}",result="${result}",container="c",pod="probed",namespace="default",pod_uid="${pod.metadata.uid}"}`;
  const count = (type: string, result: string) =>
    Number(
      page
        .split('\n')
        .find(line => line.startsWith(labels(type, result)))
        ?.split(' ')
        .at(-1) ?? 0,
    );
  assert.ok(count('Readiness', 'successful') > 0, page);
  assert.ok(count('Liveness', 'failed') >= 2, page);
  assert.match(page, /prober_probe_duration_seconds_count\{probe_type="Liveness",container="c",pod="probed"/);
});

test('hooks and termination order', async () => {
  await node.create('hooked', {
    terminationGracePeriodSeconds: 5,
    volumes: [{ name: 'h', hostPath: { path: join(node.root, 'hook'), type: 'DirectoryOrCreate' } }],
    containers: [
      sh('trap "echo term >> /h/log; exit 0" TERM; while true; do sleep 0.05; done', {
        volumeMounts: [{ name: 'h', mountPath: '/h' }],
        lifecycle: {
          postStart: { exec: { command: ['sh', '-c', 'echo post >> /h/log'] } },
          preStop: { exec: { command: ['sh', '-c', 'sleep 0.2; echo pre >> /h/log'] } },
        },
      }),
    ],
  });
  await node.until('hooked', isReady);
  await node.api.delete({ of: PODS, namespace: 'default', name: 'hooked' });
  await node.untilGone('hooked');
  assert.equal(readFileSync(join(node.root, 'hook/log'), 'utf8'), 'post\npre\nterm\n');
});

test('volumes change while a pod runs', async () => {
  await node.configMap('live', { k: 'before' });
  const pod = await node.create('live', {
    containers: [sh('sleep 1000')],
    volumes: [{ name: 'v', configMap: { name: 'live' } }],
  });
  await node.until('live', isReady);
  const file = join(node.root, 'run/p', pod.metadata.uid!, 'volumes/kubernetes.io~configmap/v/k');
  assert.equal(readFileSync(file, 'utf8'), 'before');
  await node.api.patch(
    { of: CONFIG_MAPS, namespace: 'default', name: 'live' },
    { data: { k: 'after' } },
    'application/merge-patch+json',
  );
  for (let i = 0; readFileSync(file, 'utf8') !== 'after'; i++) {
    assert.ok(i < 500);
    await sleep(10);
  }
});

test('a new kubelet carries on without restarting a pod', async () => {
  const before = await node.until('live', isReady);
  await node.stopKubelet();
  await node.create('late', { restartPolicy: 'Never', containers: [sh('true')] });
  node.startKubelet();
  await node.until('late', done);
  const after = await node.until('live', isReady);
  assert.equal(after.status!.containerStatuses![0]!.containerID, before.status!.containerStatuses![0]!.containerID);
  assert.equal(
    after.status!.conditions!.find(one => one.type === 'Ready')!.lastTransitionTime,
    before.status!.conditions!.find(one => one.type === 'Ready')!.lastTransitionTime,
  );
  await node.stopKubelet();
  await node.api.delete({ of: PODS, namespace: 'default', name: 'live' }, { gracePeriodSeconds: 0 });
  node.startKubelet();
  for (let i = 0; readdirSync(join(node.root, 'run/p')).includes(before.metadata.uid!); i++) {
    assert.ok(i < 500);
    await sleep(10);
  }
});

test('security: users, read-only root, capabilities, seccomp', async () => {
  await node.create('secure', {
    restartPolicy: 'Never',
    securityContext: {
      runAsUser: 1234,
      runAsNonRoot: true,
      fsGroup: 55,
      supplementalGroups: [66],
      seccompProfile: { type: 'RuntimeDefault' },
    },
    volumes: [{ name: 'e', emptyDir: {} }],
    containers: [
      sh(
        'id; touch /x || echo read-only; touch /e/y && ls -ln /e/y | tr -s " " | cut -d" " -f4; grep CapBnd /proc/self/status; grep NoNewPrivs: /proc/self/status; grep Seccomp: /proc/self/status; unshare -U true || echo no-unshare',
        {
          volumeMounts: [{ name: 'e', mountPath: '/e' }],
          securityContext: {
            readOnlyRootFilesystem: true,
            allowPrivilegeEscalation: false,
            capabilities: { drop: ['ALL'], add: ['NET_BIND_SERVICE'] },
          },
        },
      ),
    ],
  });
  const lines = log(await node.until('secure', done));
  for (const expected of [
    'uid=1234(web) gid=1234(web) groups=55,66,77(extra)',
    'read-only',
    '55',
    'CapBnd:\t0000000000000400',
    'NoNewPrivs:\t1',
    'Seccomp:\t2',
    'no-unshare',
  ])
    assert.ok(lines.includes(expected), `${expected} in\n${lines.join('\n')}`);
});

test('an ephemeral container joins a running pod, once', async () => {
  await node.create('debugged', { containers: [sh('exec sleep 12345')] });
  const before = await node.until('debugged', isReady);
  const target = { of: PODS, namespace: 'default', name: 'debugged', subresource: 'ephemeralcontainers' };
  const debug = {
    name: 'd',
    image: 'busybox:1',
    targetContainerName: 'c',
    command: ['sh', '-c', 'ps -o args; hostname; exit 7'],
  };
  await node.api.patch(target, { spec: { ephemeralContainers: [debug] } }, 'application/strategic-merge-patch+json');
  const pod = await node.until('debugged', one => one.status?.ephemeralContainerStatuses?.[0]?.state?.terminated);
  assert.equal(pod.status!.ephemeralContainerStatuses![0]!.state!.terminated!.exitCode, 7);
  const lines = log(pod, 'd');
  assert.ok(lines.includes('sleep 12345') && lines.includes('debugged'), lines.join('\n'));
  assert.equal(pod.status!.containerStatuses![0]!.containerID, before.status!.containerStatuses![0]!.containerID);
  assert.ok(isReady(pod));
  await sleep(300);
  const after = await node.pod('debugged');
  assert.equal(after!.status!.ephemeralContainerStatuses![0]!.restartCount, 0);
  assert.equal(
    after!.status!.ephemeralContainerStatuses![0]!.containerID,
    pod.status!.ephemeralContainerStatuses![0]!.containerID,
  );
});

test('a readiness gate is heeded', async () => {
  await node.create('gated', {
    readinessGates: [{ conditionType: 'example.com/open' }],
    containers: [sh('exec sleep 1000')],
  });
  await node.until('gated', one => one.status?.containerStatuses?.[0]?.ready);
  assert.equal(isReady((await node.pod('gated'))!), false);
  await node.api.patch(
    { of: PODS, namespace: 'default', name: 'gated', subresource: 'status' },
    { status: { conditions: [{ type: 'example.com/open', status: 'True' }] } },
    'application/strategic-merge-patch+json',
  );
  const pod = await node.until('gated', isReady);
  assert.ok(pod.status!.conditions!.some(one => one.type === 'example.com/open'));
});

test('activeDeadlineSeconds', async () => {
  await node.create('deadline', { activeDeadlineSeconds: 1, containers: [sh('sleep 1000')] });
  const pod = await node.until('deadline', done);
  assert.deepEqual([pod.status!.phase, pod.status!.reason], ['Failed', 'DeadlineExceeded']);
});

test('the HTTPS server: logs, exec, port-forward, pods, stats', async () => {
  await node.create('served', { containers: [sh('echo line; httpd -f -p 8080 -h /var/www')] });
  await node.until('served', isReady);
  const get = (path: string, client: object = node.admin) =>
    new Promise<{ status: number; body: string }>((resolve, reject) => {
      request({ host: '10.77.0.1', port: 10250, path, agent: false, ...node.admin, ...client }, response => {
        let body = '';
        response.on('data', chunk => (body += chunk)).on('end', () => resolve({ status: response.statusCode!, body }));
      })
        .on('error', reject)
        .end();
    });
  assert.equal((await get('/healthz', { key: undefined, cert: undefined })).body, 'ok');
  assert.equal((await get('/pods', { key: undefined, cert: undefined })).status, 401);
  assert.equal((await get('/containerLogs/default/served/c')).body, 'line\n');
  assert.equal((await get('/containerLogs/default/absent/c')).status, 404);
  assert.ok(JSON.parse((await get('/pods')).body).items.some((pod: Pod) => pod.metadata.name === 'served'));
  const stats = JSON.parse((await get('/stats/summary')).body);
  assert.ok(
    stats.pods.find((one: { podRef: { name: string } }) => one.podRef.name === 'served').containers[0].memory
      .usageBytes > 0,
  );
  const { body: told } = await get('/metrics');
  for (const line of [
    'kubelet_node_name{node="node-1"} 1',
    /^kubelet_running_pods [1-9]/m,
    /^kubelet_running_containers\{container_state="running"\} [1-9]/m,
    /^kubelet_started_containers_total\{container_type="container"\} [1-9]/m,
    /^kubelet_runtime_operations_total\{operation_type="run_podsandbox"\} [1-9]/m,
    /^kubelet_runtime_operations_duration_seconds_count\{operation_type="start_container"\} [1-9]/m,
    /^kubelet_pod_start_duration_seconds_count [1-9]/m,
    /^kubelet_pod_worker_duration_seconds_count\{operation_type="sync"\} [1-9]/m,
  ])
    assert.ok(typeof line === 'string' ? told.includes(line) : line.test(told), String(line));
  assert.ok(!told.includes('prober_probe_total'));
  await get('/healthz');
  assert.match((await get('/metrics/slis')).body, /^kubernetes_healthcheck\{name="ping",type="healthz"} 1$/m);
  assert.match((await get('/metrics/probes')).body, /^# TYPE prober_probe_total counter/m);
  const session = (path: string, send?: (socket: WebSocket) => void) =>
    new Promise<Map<number, string>>((resolve, reject) => {
      const channels = new Map<number, string>();
      const socket = new WebSocket(`wss://10.77.0.1:10250${path}`, 'v5.channel.k8s.io', node.admin);
      socket.on('open', () => send?.(socket));
      socket.on('message', (data: Buffer) => channels.set(data[0]!, (channels.get(data[0]!) ?? '') + data.subarray(1)));
      socket.on('close', () => resolve(channels)).on('error', reject);
    });
  const failed = await session(
    '/exec/default/served/c?command=sh&command=-c&command=echo+out;+echo+err+%3E%262;+exit+4&output=1&error=1',
  );
  assert.equal(failed.get(1), 'out\n');
  assert.equal(failed.get(2), 'err\n');
  assert.equal(JSON.parse(failed.get(3)!).details.causes[0].message, '4');
  // Half-close: cat ends when stdin does.
  const cat = await session('/exec/default/served/c?command=cat&input=1&output=1', socket => {
    socket.send(Buffer.from('\0hello'));
    socket.send(Buffer.from([255, 0]));
  });
  assert.equal(cat.get(1), 'hello');
  assert.equal(JSON.parse(cat.get(3)!).status, 'Success');
  const terminal = await session('/exec/default/served/c?command=sh&input=1&output=1&tty=1', socket => {
    socket.send(Buffer.from('\x04{"Width":77,"Height":22}'));
    setTimeout(() => socket.send(Buffer.from('\0stty size; exit\n')), 300);
  });
  assert.match(terminal.get(1)!, /22 77/);
});

test('a node stays Ready while a new kubelet has yet to find its network, but not for long', async () => {
  const told = async () => (await node.events('node-1')).filter(one => /status is now: Node(Not)?Ready/.test(one));
  const before = await told();
  for (const problem of ['not looked yet', 'gone for good']) {
    await node.stopKubelet();
    node.networkProblem = problem;
    node.startKubelet();
    await sleep(500);
    assert.deepEqual(await told(), before);
    if (problem === 'not looked yet') node.networkProblem = undefined;
    await sleep(100);
    assert.deepEqual(await told(), before);
  }
  await node.untilEvents('node-1', events => events.some(one => one.endsWith('status is now: NodeNotReady')));
  node.networkProblem = undefined;
  await node.untilEvents('node-1', events => events.at(-1)!.endsWith('status is now: NodeReady'));
});

test('a machine that was started anew since the node was last seen is told of', async () => {
  await node.untilEvents('node-1', events => events.includes('Starting: Starting kubelet.'));
  await node.api.patch(
    { of: NODES, name: 'node-1', subresource: 'status' },
    { status: { nodeInfo: { bootID: 'before' } } },
    'application/merge-patch+json',
  );
  await node.restartKubelet();
  const now = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const words = `Rebooted: Node node-1 has been rebooted, boot id: ${now}`;
  await node.untilEvents('node-1', events => events.includes(words));
});
