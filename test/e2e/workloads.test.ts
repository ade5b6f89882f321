import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { deployment, HTTP_READY, it, type Json, pod, service, useCluster, useNamespace } from './cluster.ts';
import { eventually, pause } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'workloads');
const get = (...args: string[]): Promise<Json> => cluster.json('-n', ns, 'get', ...args);
const k = (...args: string[]): Promise<string> => cluster.kubectl('-n', ns, ...args);
const events = async (name: string): Promise<string[]> =>
  ((await get('events', '--field-selector', `involvedObject.name=${name}`)).items as Json[]).map(
    event => `${event.reason}: ${event.message}`,
  );

it('a ReplicationController and a ReplicaSet keep their number of pods', cluster, async () => {
  const template = {
    metadata: { labels: { app: 'rc' } },
    spec: {
      terminationGracePeriodSeconds: 1,
      containers: [
        { name: 'main', image: 'busybox:1.35', imagePullPolicy: 'IfNotPresent', command: ['sleep', '3600'] },
      ],
    },
  };
  const forSet = { ...template, metadata: { labels: { app: 'rs' } } };
  await cluster.apply(ns, [
    {
      apiVersion: 'v1',
      kind: 'ReplicationController',
      metadata: { name: 'rc' },
      spec: { replicas: 2, selector: { app: 'rc' }, template },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      metadata: { name: 'rs' },
      spec: { replicas: 2, selector: { matchLabels: { app: 'rs' } }, template: forSet },
    },
  ]);
  for (const name of ['rc', 'rs']) {
    const [first] = await cluster.readyPods(ns, `app=${name}`, 2);
    await k('delete', 'pod', first.metadata.name, '--grace-period=0', '--force');
    const again = await cluster.readyPods(ns, `app=${name}`, 2);
    assert.ok(!again.some(item => item.metadata.uid === first.metadata.uid));
    assert.equal(again[0].metadata.ownerReferences[0].name, name);
  }
  await k('scale', 'rc/rc', '--replicas=1');
  await cluster.readyPods(ns, 'app=rc', 1);
  // An orphan is adopted, a relabelled pod is let go and replaced.
  const [kept] = await cluster.readyPods(ns, 'app=rc', 1);
  await k('label', 'pod', kept.metadata.name, 'app=free', '--overwrite');
  await cluster.readyPods(ns, 'app=rc', 1);
  assert.equal((await get('pod', kept.metadata.name)).metadata.ownerReferences, undefined);
  await k('delete', 'rc/rc', 'rs/rs', `pod/${kept.metadata.name}`, '--wait=false');
});

it('a Job takes an orphan back and lets go of a pod that it no longer selects', cluster, async () => {
  await cluster.apply(ns, [
    {
      apiVersion: 'batch/v1',
      kind: 'Job',
      metadata: { name: 'adopts' },
      spec: {
        template: {
          metadata: { labels: { app: 'adopts' } },
          spec: {
            restartPolicy: 'Never',
            terminationGracePeriodSeconds: 1,
            containers: [
              { name: 'main', image: 'busybox:1.35', imagePullPolicy: 'IfNotPresent', command: ['sleep', '3600'] },
            ],
          },
        },
      },
    },
  ]);
  const [{ metadata }] = await cluster.readyPods(ns, 'app=adopts', 1);
  const change = (patch: object) => k('patch', 'pod', metadata.name, '--type=merge', '-p', JSON.stringify(patch));
  const seen = async () => (await get('pod', metadata.name)).metadata;
  await change({ metadata: { ownerReferences: null, finalizers: null } });
  await eventually('adopted', async () => (await seen()).ownerReferences?.[0]?.name === 'adopts');
  assert.deepEqual((await seen()).finalizers, ['batch.kubernetes.io/job-tracking']);
  await change({ metadata: { labels: null } });
  await eventually('released', async () => !(await seen()).ownerReferences);
  assert.equal((await seen()).finalizers, undefined);
  await k('delete', 'job/adopts', `pod/${metadata.name}`, '--wait=false');
});

it('a Deployment rolls, pauses, rolls back and collects its garbage', cluster, async () => {
  await cluster.apply(ns, [
    deployment('roll', 'coxswain/echo:1', {
      replicas: 3,
      container: HTTP_READY,
      spec: { revisionHistoryLimit: 1, strategy: { rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } } },
    }),
  ]);
  await k('rollout', 'status', 'deploy/roll', '--timeout=60s');
  await k('rollout', 'pause', 'deploy/roll');
  await k('set', 'image', 'deploy/roll', 'main=coxswain/echo:2');
  await pause(1000);
  assert.ok((await cluster.pods(ns, 'app=roll')).every(item => item.spec.containers[0].image === 'coxswain/echo:1'));
  await k('rollout', 'resume', 'deploy/roll');
  let fewest = Number.POSITIVE_INFINITY;
  await eventually('rolled out', async () => {
    const { status } = await get('deployment', 'roll');
    fewest = Math.min(fewest, status.availableReplicas ?? 0);
    return status.updatedReplicas === 3 && status.replicas === 3 && status.availableReplicas === 3;
  });
  assert.ok(fewest >= 3, `availability fell to ${fewest}`);
  await k('set', 'image', 'deploy/roll', 'main=no-such-image:1');
  await eventually('a pod that cannot start', async () =>
    (await cluster.pods(ns, 'app=roll')).some(item =>
      /ErrImagePull|ImagePullBackOff|ErrImageNeverPull/.test(
        item.status.containerStatuses?.[0]?.state?.waiting?.reason ?? '',
      ),
    ),
  );
  assert.equal((await get('deployment', 'roll')).status.availableReplicas, 3);
  await k('rollout', 'undo', 'deploy/roll');
  await k('rollout', 'status', 'deploy/roll', '--timeout=60s');
  await cluster.readyPods(ns, 'app=roll', 3);
  await eventually(
    'old ReplicaSets beyond the limit are gone',
    async () => ((await get('replicasets', '-l', 'app=roll')).items as Json[]).length <= 2,
  );
  await k('delete', 'deploy/roll');
  await eventually(
    'nothing of it is left',
    async () => ((await get('replicasets,pods', '-l', 'app=roll')).items as Json[]).length === 0,
  );
});

it('deleting with orphan keeps the dependents, foreground waits for them', cluster, async () => {
  await cluster.apply(ns, [deployment('orphan', 'busybox:1.35', { container: { command: ['sleep', '3600'] } })]);
  const [kept] = await cluster.readyPods(ns, 'app=orphan', 1);
  await k('delete', 'deploy/orphan', '--cascade=orphan');
  await pause(1000);
  assert.equal((await get('pod', kept.metadata.name)).metadata.uid, kept.metadata.uid);
  await k('delete', 'rs', '-l', 'app=orphan', '--cascade=foreground', '--timeout=30s');
  assert.equal((await cluster.pods(ns, 'app=orphan')).length, 0);
});

it('init containers run in order before the others', cluster, async () => {
  const shared = [{ name: 'work', mountPath: '/scratch' }];
  const init = (name: string, script: string) => ({
    name,
    image: 'busybox:1.35',
    imagePullPolicy: 'IfNotPresent',
    command: ['sh', '-c', script],
    volumeMounts: shared,
  });
  await cluster.apply(ns, [
    pod('init', 'busybox:1.35', {
      command: ['sh', '-c', 'cat /scratch/order; sleep 3600'],
      container: { volumeMounts: shared },
      spec: {
        initContainers: [init('one', 'sleep 1; echo one >> /scratch/order'), init('two', 'echo two >> /scratch/order')],
        volumes: [{ name: 'work', emptyDir: {} }],
      },
    }),
  ]);
  await cluster.readyPod(ns, 'init');
  assert.equal(await k('logs', 'init', '-c', 'main'), 'one\ntwo\n');
  await cluster.apply(ns, [
    pod('init-fails', 'busybox:1.35', {
      spec: {
        restartPolicy: 'Never',
        initContainers: [init('bad', 'exit 3')],
        volumes: [{ name: 'work', emptyDir: {} }],
      },
    }),
  ]);
  const failed = await eventually('failed pod', async () => {
    const item = await get('pod', 'init-fails');
    return item.status.phase === 'Failed' ? item : undefined;
  });
  assert.equal(failed.status.initContainerStatuses[0].state.terminated.exitCode, 3);
});

it('restart policies and back-off', cluster, async () => {
  const exits = (name: string, code: number, restartPolicy: string) =>
    pod(name, 'busybox:1.35', { command: ['sh', '-c', `sleep 0.2; exit ${code}`], spec: { restartPolicy } });
  await cluster.apply(ns, [
    exits('never-0', 0, 'Never'),
    exits('never-1', 1, 'Never'),
    exits('onfailure-0', 0, 'OnFailure'),
    exits('crashes', 1, 'Always'),
  ]);
  const phase = (name: string, wanted: string) =>
    eventually(`${name} ${wanted}`, async () => (await get('pod', name)).status.phase === wanted);
  await Promise.all([phase('never-0', 'Succeeded'), phase('never-1', 'Failed'), phase('onfailure-0', 'Succeeded')]);
  const crashing = await eventually(
    'CrashLoopBackOff',
    async () => {
      const item = await get('pod', 'crashes');
      const [status] = item.status.containerStatuses;
      return status.state.waiting?.reason === 'CrashLoopBackOff' && status.restartCount >= 1 ? status : undefined;
    },
    { timeoutMs: 60_000 },
  );
  assert.match(
    crashing.state.waiting.message,
    /^back-off \d+s restarting failed container=main pod=crashes_workloads\(/,
  );
  assert.equal(crashing.lastState.terminated.exitCode, 1);
  assert.match(await k('get', 'pod', 'crashes'), /CrashLoopBackOff|Error/);
  await eventually('BackOff event', async () =>
    (await events('crashes')).some(text =>
      text.startsWith('BackOff: Back-off restarting failed container main in pod crashes_workloads('),
    ),
  );
  await k('delete', 'pod', 'crashes', '--wait=false');
});

it('probes: liveness restarts, readiness and startup gate', cluster, async () => {
  await cluster.apply(ns, [
    pod('alive', 'coxswain/echo:1', {
      container: { livenessProbe: { httpGet: { path: '/live', port: 80 }, periodSeconds: 1, failureThreshold: 2 } },
    }),
    pod('started', 'busybox:1.35', {
      command: ['sh', '-c', 'sleep 2; touch /tmp/up; sleep 3600'],
      container: {
        startupProbe: { exec: { command: ['test', '-e', '/tmp/up'] }, periodSeconds: 1, failureThreshold: 30 },
        livenessProbe: { exec: { command: ['test', '-e', '/tmp/up'] }, periodSeconds: 1, failureThreshold: 1 },
      },
    }),
    pod('tcp', 'coxswain/echo:1', { container: { readinessProbe: { tcpSocket: { port: 5000 }, periodSeconds: 1 } } }),
    pod('never-ready', 'coxswain/echo:1', {
      container: { readinessProbe: { tcpSocket: { port: 9 }, periodSeconds: 1 } },
    }),
  ]);
  await cluster.readyPod(ns, 'tcp');
  assert.equal((await cluster.readyPod(ns, 'started')).status.containerStatuses[0].restartCount, 0);
  await cluster.readyPod(ns, 'alive');
  await cluster.exec(ns, 'alive', 'touch', '/tmp/not-live');
  await eventually('restarted', async () => (await get('pod', 'alive')).status.containerStatuses[0].restartCount === 1);
  const texts = await events('alive');
  assert.ok(
    texts.some(text => text === 'Unhealthy: Liveness probe failed: HTTP probe failed with statuscode: 500'),
    texts.join('\n'),
  );
  assert.ok(
    texts.some(text => text === 'Killing: Container main failed liveness probe, will be restarted'),
    texts.join('\n'),
  );
  // The new container starts clean.
  await cluster.readyPod(ns, 'alive');
  const never = await get('pod', 'never-ready');
  assert.equal(
    never.status.conditions.find((condition: Json) => condition.type === 'Ready').reason,
    'ContainersNotReady',
  );
});

it('termination is graceful: preStop, SIGTERM, then the deadline', cluster, async () => {
  const script = 'trap "echo got-term; sleep 1; echo done; exit 0" TERM; echo up; while true; do sleep 0.1; done';
  await cluster.apply(ns, [
    pod('graceful', 'busybox:1.35', {
      command: ['sh', '-c', script],
      container: { lifecycle: { preStop: { exec: { command: ['sh', '-c', 'echo pre-stop > /proc/1/fd/1'] } } } },
      spec: { terminationGracePeriodSeconds: 20 },
    }),
    pod('stubborn', 'busybox:1.35', {
      command: ['sh', '-c', 'trap "" TERM; while true; do sleep 1; done'],
      spec: { terminationGracePeriodSeconds: 2 },
    }),
  ]);
  await cluster.readyPod(ns, 'graceful');
  await cluster.readyPod(ns, 'stubborn');
  const log = k('logs', '-f', 'graceful');
  const startMs = performance.now();
  await k('delete', 'pod', 'graceful');
  assert.ok(performance.now() - startMs < 10_000, 'ends when the process does');
  assert.match(await log, /up\npre-stop\ngot-term\ndone\n/);
  const stubbornMs = performance.now();
  await k('delete', 'pod', 'stubborn');
  const tookMs = performance.now() - stubbornMs;
  assert.ok(tookMs > 1500 && tookMs < 12_000, `SIGKILL after the grace, took ${tookMs} ms`);
});

it('env: values, references, ConfigMaps, Secrets, fields and resources', cluster, async () => {
  const env = [
    { name: 'PLAIN', value: 'plain' },
    { name: 'COMPOSED', value: '$(PLAIN)-and-$(MISSING)-$$(PLAIN)' },
    { name: 'FROM_MAP', valueFrom: { configMapKeyRef: { name: 'settings', key: 'colour' } } },
    { name: 'FROM_SECRET', valueFrom: { secretKeyRef: { name: 'hidden', key: 'word' } } },
    { name: 'OPTIONAL', valueFrom: { configMapKeyRef: { name: 'absent', key: 'x', optional: true } } },
    { name: 'POD', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
    { name: 'NODE', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } },
    { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
    { name: 'LABEL', valueFrom: { fieldRef: { fieldPath: "metadata.labels['tier']" } } },
    { name: 'MEMORY', valueFrom: { resourceFieldRef: { resource: 'limits.memory' } } },
    { name: 'CPU', valueFrom: { resourceFieldRef: { resource: 'requests.cpu', divisor: '1m' } } },
  ];
  await cluster.apply(ns, [
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'settings' }, data: { colour: 'blue', size: 'large' } },
    { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'hidden' }, stringData: { word: 'sesame' } },
    pod('env', 'busybox:1.35', {
      labels: { tier: 'x' },
      command: ['sh', '-c', 'env; sleep 3600'],
      container: {
        env,
        envFrom: [{ prefix: 'MAP_', configMapRef: { name: 'settings' } }],
        resources: { requests: { cpu: '50m' }, limits: { memory: '64Mi' } },
      },
    }),
  ]);
  const item = await cluster.readyPod(ns, 'env');
  const seen = Object.fromEntries(
    (await k('logs', 'env'))
      .trim()
      .split('\n')
      .map(line => line.split(/=(.*)/s).slice(0, 2)),
  );
  const expected = {
    PLAIN: 'plain',
    COMPOSED: 'plain-and-$(MISSING)-$(PLAIN)',
    FROM_MAP: 'blue',
    FROM_SECRET: 'sesame',
    POD: 'env',
    NODE: item.spec.nodeName,
    IP: item.status.podIP,
    LABEL: 'x',
    MEMORY: String(64 << 20),
    CPU: '50',
    MAP_colour: 'blue',
    MAP_size: 'large',
    KUBERNETES_SERVICE_HOST: '10.96.0.1',
    HOSTNAME: 'env',
  };
  for (const [name, value] of Object.entries(expected)) assert.equal(seen[name], value, name);
  assert.ok(!('OPTIONAL' in seen));
});

it(
  'volumes: emptyDir, hostPath, configMap, secret, downward, projected',
  cluster,
  async () => {
    const folder = join(cluster.stateDir, 'hostpath');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'from-host'), 'host');
    await cluster.apply(ns, [
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'files' }, data: { one: '1', two: '2' } },
      { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'keys' }, stringData: { key: 'secret' } },
      pod('volumes', 'busybox:1.35', {
        command: ['sleep', '3600'],
        labels: { app: 'volumes' },
        container: {
          volumeMounts: [
            { name: 'empty', mountPath: '/empty' },
            { name: 'memory', mountPath: '/memory' },
            { name: 'host', mountPath: '/host' },
            { name: 'map', mountPath: '/map', readOnly: true },
            { name: 'secret', mountPath: '/secret' },
            { name: 'info', mountPath: '/info' },
            { name: 'all', mountPath: '/all' },
            { name: 'empty', mountPath: '/sub', subPath: 'sub' },
            { name: 'map', mountPath: '/etc/one', subPath: 'one' },
          ],
        },
        spec: {
          volumes: [
            { name: 'empty', emptyDir: {} },
            { name: 'memory', emptyDir: { medium: 'Memory', sizeLimit: '1Mi' } },
            { name: 'host', hostPath: { path: folder, type: 'Directory' } },
            { name: 'map', configMap: { name: 'files', defaultMode: 0o440 } },
            { name: 'secret', secret: { secretName: 'keys', items: [{ key: 'key', path: 'deep/key', mode: 0o400 }] } },
            { name: 'info', downwardAPI: { items: [{ path: 'labels', fieldRef: { fieldPath: 'metadata.labels' } }] } },
            {
              name: 'all',
              projected: {
                sources: [
                  { configMap: { name: 'files' } },
                  { secret: { name: 'keys' } },
                  { serviceAccountToken: { path: 'token', audience: 'someone', expirationSeconds: 600 } },
                ],
              },
            },
          ],
        },
      }),
    ]);
    await cluster.readyPod(ns, 'volumes');
    const sh = (script: string): Promise<string> => cluster.exec(ns, 'volumes', 'sh', '-c', script);
    assert.equal(await sh('cat /map/one /map/two /secret/deep/key /etc/one /all/two /all/key'), '12secret12secret');
    assert.equal((await sh('stat -Lc %a /map/one /secret/deep/key')).trim(), '440\n400');
    assert.equal((await sh('stat -fc %T /memory')).trim(), 'tmpfs');
    assert.match(await sh('cat /info/labels'), /app="volumes"/);
    await sh('echo x > /sub/file && test -e /empty/sub/file && echo from-pod > /host/from-pod');
    assert.equal(await sh('cat /host/from-host'), 'host');
    const claims = JSON.parse(Buffer.from((await sh('cat /all/token')).split('.')[1]!, 'base64url').toString());
    assert.deepEqual(claims.aud, ['someone']);
    assert.equal(claims['kubernetes.io'].pod.name, 'volumes');
    assert.notEqual(
      (await cluster.tryKubectl('-n', ns, 'exec', 'volumes', '--', 'sh', '-c', 'echo x > /map/one')).code,
      0,
    );
    await k('patch', 'configmap', 'files', '-p', '{"data":{"one":"changed"}}');
    await eventually('the file follows its ConfigMap', async () => (await sh('cat /map/one')) === 'changed', {
      timeoutMs: 100_000,
      everyMs: 1000,
    });
    assert.equal(await sh('cat /etc/one'), '1', 'a subPath does not');
    rmSync(folder, { recursive: true });
  },
  { timeoutMs: 150_000 },
);

it("a pod's own token works against the API, within its rights", cluster, async () => {
  await cluster.apply(ns, [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'reader' } },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'Role',
      metadata: { name: 'reader' },
      rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get', 'list'] }],
    },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'RoleBinding',
      metadata: { name: 'reader' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'reader' },
      subjects: [{ kind: 'ServiceAccount', name: 'reader', namespace: ns }],
    },
    pod('client', 'busybox:1.35', { command: ['sleep', '3600'], spec: { serviceAccountName: 'reader' } }),
  ]);
  await cluster.readyPod(ns, 'client');
  const folder = '/var/run/secrets/kubernetes.io/serviceaccount';
  assert.equal(await cluster.exec(ns, 'client', 'cat', `${folder}/namespace`), ns);
  assert.match(await cluster.exec(ns, 'client', 'cat', `${folder}/ca.crt`), /BEGIN CERTIFICATE/);
  const token = (await cluster.exec(ns, 'client', 'cat', `${folder}/token`)).trim();
  const api = (path: string): Promise<string> =>
    cluster.onNode(
      'node-1',
      'curl',
      '-sS',
      '-k',
      '-m',
      '5',
      '-H',
      `Authorization: Bearer ${token}`,
      `https://10.96.0.1${path}`,
    );
  assert.equal(JSON.parse(await api(`/api/v1/namespaces/${ns}/pods/client`)).metadata.name, 'client');
  assert.equal(JSON.parse(await api(`/api/v1/namespaces/${ns}/secrets`)).code, 403);
  assert.match(
    JSON.parse(await api('/api/v1/nodes')).message,
    /User "system:serviceaccount:workloads:reader" cannot list resource "nodes" in API group "" at the cluster scope/,
  );
});

it('security context, limits and working folder reach the process', cluster, async () => {
  await cluster.apply(ns, [
    pod('limited', 'busybox:1.35', {
      command: ['sh', '-c', 'id -u; id -g; pwd; grep NoNewPrivs /proc/self/status; touch /x 2>&1; sleep 3600'],
      container: {
        workingDir: '/tmp',
        securityContext: {
          runAsUser: 1000,
          runAsGroup: 2000,
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        },
        resources: { limits: { memory: '32Mi', cpu: '200m' } },
      },
    }),
  ]);
  const item = await cluster.readyPod(ns, 'limited');
  assert.match(await k('logs', 'limited'), /^1000\n2000\n\/tmp\nNoNewPrivs:\s1\ntouch: \/x: (Read-only|Permission)/);
  assert.equal(item.status.qosClass, 'Guaranteed', 'requests default to limits');
  await cluster.apply(ns, [
    pod('hungry', 'busybox:1.35', {
      command: ['sh', '-c', 'x=$(head -c 100000000 /dev/zero | tr "\\0" x); echo ${#x}'],
      container: { resources: { limits: { memory: '24Mi' } } },
      spec: { restartPolicy: 'Never' },
    }),
  ]);
  const killed = await eventually('OOMKilled', async () => {
    const found = await get('pod', 'hungry');
    return found.status.containerStatuses?.[0].state.terminated;
  });
  assert.equal(killed.reason, 'OOMKilled');
  assert.equal(killed.exitCode, 137);
});

it('scheduling: selectors, taints, resources, and events that say why', cluster, async () => {
  await cluster.kubectl('label', 'node', 'node-2', 'disk=fast', '--overwrite');
  await cluster.apply(ns, [
    pod('chosen', 'busybox:1.35', { command: ['sleep', '3600'], spec: { nodeSelector: { disk: 'fast' } } }),
    pod('nowhere', 'busybox:1.35', { command: ['sleep', '3600'], spec: { nodeSelector: { disk: 'none' } } }),
    pod('huge', 'busybox:1.35', { container: { resources: { requests: { cpu: '1000' } } } }),
    pod('pages', 'busybox:1.35', { container: { resources: { limits: { memory: '8Mi', 'hugepages-2Mi': '1Pi' } } } }),
  ]);
  assert.equal((await cluster.readyPod(ns, 'chosen')).spec.nodeName, 'node-2');
  const why = async (name: string, text: RegExp) =>
    eventually(`${name} says why`, async () => (await events(name)).some(event => text.test(event)));
  await why(
    'nowhere',
    /^FailedScheduling: 0\/2 nodes are available: 2 node\(s\) didn't match Pod's node affinity\/selector\./,
  );
  await why('huge', /^FailedScheduling: 0\/2 nodes are available: 2 Insufficient cpu\./);
  await why('pages', /^FailedScheduling: 0\/2 nodes are available: 2 Insufficient hugepages-2Mi\./);
  await cluster.kubectl('label', 'node', 'node-1', 'disk=none', '--overwrite');
  assert.equal((await cluster.readyPod(ns, 'nowhere')).spec.nodeName, 'node-1');
  await cluster.kubectl('label', 'node', 'node-1', 'node-2', 'disk-');
});

it('a Service of a Deployment survives the loss of a container process', cluster, async () => {
  await cluster.apply(ns, [
    deployment('sturdy', 'coxswain/echo:1', { replicas: 2, container: HTTP_READY }),
    service('sturdy', 'sturdy', { ports: [{ port: 80 }] }),
  ]);
  const [first] = await cluster.readyPods(ns, 'app=sturdy', 2);
  await cluster.tryKubectl('-n', ns, 'exec', first.metadata.name, '--', 'kill', '1');
  await eventually('restarted in place', async () => {
    const item = await get('pod', first.metadata.name);
    return item.metadata.uid === first.metadata.uid && item.status.containerStatuses[0].restartCount === 1;
  });
  await cluster.readyPods(ns, 'app=sturdy', 2);
});
