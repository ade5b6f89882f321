/** What a node does for pods, with stock kubectl: usage, resize, out-of-memory kills, and refusals that say why. */

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connectByKubeconfig } from '../../src/app/kubeconfig-transport.ts';
import { bootstrapKubelet } from '../../src/app/kubelet-bootstrap.ts';
import { nodeCertificates } from '../../src/app/node-certificate.ts';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { systemRandom } from '../../src/base/random.ts';
import { it, type Json, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const NAMESPACE = useNamespace(cluster, 'e2e-kubelet');
const k = (...args: string[]): Promise<string> => cluster.kubectl('-n', NAMESPACE, ...args);
const get = (name: string): Promise<Json> => cluster.json('-n', NAMESPACE, 'get', 'pod', name);
const pod = (name: string, container: object, spec: object = {}): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, labels: { app: name } },
  spec: {
    terminationGracePeriodSeconds: 1,
    containers: [
      { name: 'c', image: 'busybox:1.35', imagePullPolicy: 'IfNotPresent', command: ['sleep', '3600'], ...container },
    ],
    ...spec,
  },
});
const until = <T>(what: string, look: () => Promise<T | undefined | false>): Promise<T> =>
  eventually(what, async () => (await look()) || undefined, { timeoutMs: 40_000 });

it('kubectl top shows what nodes, pods and containers use', cluster, async () => {
  await cluster.apply(NAMESPACE, [pod('busy', { command: ['sh', '-c', 'while :; do :; done'] }), pod('idle', {})]);
  await cluster.readyPod(NAMESPACE, 'busy');
  await cluster.readyPod(NAMESPACE, 'idle');
  const milli = (table: string, name: string) => Number(new RegExp(`^${name}\\s+(\\d+)m`, 'm').exec(table)?.[1]);
  const pods = await until('usage of both pods', async () => {
    const { code, stdout } = await cluster.tryKubectl('-n', NAMESPACE, 'top', 'pods');
    return code === 0 && milli(stdout, 'busy') > milli(stdout, 'idle') && milli(stdout, 'busy') > 50 && stdout;
  });
  assert.match(pods, /^NAME\s+CPU\(cores\)\s+MEMORY\(bytes\)/);
  assert.match(await k('top', 'pods', '-l', 'app=busy', '--containers'), /^busy\s+c\s+\d+m/m);
  assert.match(await cluster.kubectl('top', 'nodes'), /^node-1\s+\d+m\s+\d+%\s+\d+Mi\s+\d+%/m);
  assert.match(await cluster.kubectl('get', 'apiservice', 'v1beta1.metrics.k8s.io'), /Local\s+True/);
  await k('create', 'rolebinding', 'looks', '--clusterrole=view', '--user=jane');
  assert.match(await k('top', 'pods', '--as=jane'), /busy/);
  const denied = await cluster.tryKubectl('top', 'nodes', '--as=nobody');
  assert.match(denied.stderr, /nodes.metrics.k8s.io is forbidden/);
  const cadvisor = await cluster.kubectl('get', '--raw', '/api/v1/nodes/node-1/proxy/metrics/cadvisor');
  assert.match(cadvisor, /^# TYPE container_cpu_usage_seconds_total counter$/m);
  assert.match(await cluster.kubectl('get', '--raw', '/api/v1/nodes/node-1/proxy/configz'), /"evictionHard"/);
  await k('delete', 'pod', 'busy', 'idle', '--wait=false');
});

it('a container is resized in place by kubectl patch --subresource resize', cluster, async () => {
  const resources = { requests: { cpu: '10m', memory: '16Mi' }, limits: { cpu: '100m', memory: '32Mi' } };
  await cluster.apply(NAMESPACE, [pod('grows', { resources })]);
  await cluster.readyPod(NAMESPACE, 'grows');
  const patch = { spec: { containers: [{ name: 'c', resources: { limits: { cpu: '200m', memory: '64Mi' } } }] } };
  await k('patch', 'pod', 'grows', '--subresource', 'resize', '--patch', JSON.stringify(patch));
  const [status] = await until('the new limits', async () => {
    const statuses = (await get('grows')).status.containerStatuses as Json[];
    return statuses[0].resources.limits.memory === '64Mi' && statuses;
  });
  assert.equal(status.restartCount, 0);
  const limit = 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null';
  assert.equal((await cluster.exec(NAMESPACE, 'grows', 'sh', '-c', `${limit}; true`)).trim(), String(64 * 1024 * 1024));
  await k('delete', 'pod', 'grows', '--wait=false');
});

it('who runs out of memory is OOMKilled with exit code 137 and starts again', cluster, async () => {
  const resources = { limits: { memory: '24Mi' } };
  const command = ['sh', '-c', 'x=$(head -c 60000000 /dev/zero | tr "\\0" x); echo $x | wc -c'];
  await cluster.apply(NAMESPACE, [pod('eats', { resources, command })]);
  const ended = await until('an OOM kill', async () => {
    const { state, lastState } = (await get('eats')).status.containerStatuses?.[0] ?? {};
    return (state?.terminated ?? lastState?.terminated) as Json;
  });
  assert.deepEqual([ended.reason, ended.exitCode], ['OOMKilled', 137]);
  await until('its restart', async () => (await get('eats')).status.containerStatuses[0].restartCount >= 1);
  await k('delete', 'pod', 'eats', '--wait=false');
});

it('what a node cannot do is said in the STATUS column', cluster, async () => {
  const sysctls = [{ name: 'kernel.msgmax', value: '65536' }];
  await cluster.apply(NAMESPACE, [pod('tunes', {}, { securityContext: { sysctls }, nodeName: 'node-1' })]);
  const row = await until('the refusal', async () => {
    const table = await k('get', 'pod', 'tunes');
    return /SysctlForbidden/.test(table) && table;
  });
  assert.match(row, /^tunes\s+0\/1\s+SysctlForbidden/m);
  assert.match((await get('tunes')).status.message, /forbidden sysctl: "kernel.msgmax" not allowlisted/);
});

it('containers that share processes see each other, from kubectl exec too', cluster, async () => {
  const second = { name: 'd', image: 'busybox:1.35', imagePullPolicy: 'IfNotPresent', command: ['sleep', '4321'] };
  const shares = pod('shares', {}) as Json;
  shares.spec.containers.push(second);
  shares.spec.shareProcessNamespace = true;
  await cluster.apply(NAMESPACE, [shares]);
  await cluster.readyPod(NAMESPACE, 'shares');
  const processes = await cluster.exec(NAMESPACE, 'shares -c c', 'ps');
  assert.match(processes, /sleep 4321/);
  assert.match(processes, /^\s+1 65535\s+\/pause$/m);
  await k('delete', 'pod', 'shares', '--wait=false');
});

it('logs of the node: listed, read and queried by whoever may use its proxy', cluster, async () => {
  const logs = (path: string) => ['get', '--raw', `/api/v1/nodes/node-1/proxy/logs/${path}`];
  assert.match(await cluster.kubectl(...logs('')), /<a href="kubelet.log">kubelet.log<\/a>\n<a href="pods\/">/);
  const lines = (await cluster.kubectl(...logs('?query=kubelet&pattern=agent.*starting&tailLines=1')))
    .trim()
    .split('\n');
  assert.equal(lines.length, 1);
  assert.match(lines[0]!, /^\d{4}-.*INFO +agent: starting node=node-1$/);
  const { stderr } = await cluster.tryKubectl(...logs('?query=kubelet&tailLines=x'));
  // What a kubelet says in plain text kubectl does not show.
  assert.match(stderr, /BadRequest/);
  const denied = await cluster.tryKubectl(...logs(''), '--as=jane');
  assert.match(denied.stderr, /cannot get resource "nodes\/proxy"/);
});

it('a kubelet gets its client certificate with a bootstrap token, and another before that ends', cluster, async () => {
  const folder = join(cluster.stateDir, 'bootstrap');
  mkdirSync(folder);
  const role = 'system:certificates.k8s.io:certificatesigningrequests';
  const bind = (name: string, clusterRole: string, group: string) =>
    cluster.kubectl('create', 'clusterrolebinding', `e2e-${name}`, `--clusterrole=${clusterRole}`, `--group=${group}`);
  await bind('bootstrap', 'system:node-bootstrapper', 'system:bootstrappers');
  await bind('approve', `${role}:nodeclient`, 'system:bootstrappers');
  await bind('renew', `${role}:selfnodeclient`, 'system:nodes');
  const usage = '--from-literal=usage-bootstrap-authentication=true';
  const token = ['--from-literal=token-id=e2ee2e', '--from-literal=token-secret=0123456789abcdef', usage];
  const type = '--type=bootstrap.kubernetes.io/token';
  await cluster.kubectl('-n', 'kube-system', 'create', 'secret', 'generic', 'bootstrap-token-e2ee2e', type, ...token);
  const bootstrapKubeconfig = join(folder, 'bootstrap.conf');
  const own = JSON.parse(await cluster.kubectl('config', 'view', '--raw', '--minify', '-o', 'json')) as Json;
  own.users[0].user = { token: 'e2ee2e.0123456789abcdef' };
  writeFileSync(bootstrapKubeconfig, JSON.stringify(own));

  let aheadMs = 0;
  const clock = Object.assign(Object.create(systemClock), { now: () => systemClock.now() + aheadMs }) as Clock;
  const kubeconfig = join(folder, 'kubelet.conf');
  const shared = { folder, nodeName: 'e2e-boot', clock, random: systemRandom, log: silentLogger };
  await bootstrapKubelet({ ...shared, bootstrapKubeconfig, kubeconfig });
  const whoami = ['auth', 'whoami', '-o', 'jsonpath={.status.userInfo.username}'];
  assert.equal(await cluster.kubectl('--kubeconfig', kubeconfig, ...whoami), 'system:node:e2e-boot');

  // Nine tenths of its year are over.
  const { transport } = await connectByKubeconfig(kubeconfig, { userAgent: 'e2e' });
  const stop = new AbortController();
  try {
    aheadMs = 0.95 * 365 * 24 * 3600_000;
    const options = { ...shared, purpose: 'client', names: [], transport } as const;
    const pairs = nodeCertificates(options, stop.signal);
    const first = (await pairs.next()).value!;
    const second = (await pairs.next()).value!;
    assert.notEqual(second.key, first.key);
    transport.renew(second);
    const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' };
    assert.match(
      await transport.raw('POST', '/apis/authentication.k8s.io/v1/selfsubjectreviews', review),
      /"system:node:e2e-boot"/,
    );
    assert.equal(await cluster.kubectl('--kubeconfig', kubeconfig, ...whoami), 'system:node:e2e-boot');
  } finally {
    stop.abort();
    transport.close();
  }
});
