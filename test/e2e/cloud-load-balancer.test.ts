/** Load balancers of a cloud: a provider of ours (`test/cloud/haproxy-provider.ts`) behind the interface that a cloud's own would serve. */

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { switchNamespace } from '../../src/app/cluster-record.ts';
import { before, HTTP_READY, it, type Json, pod, root, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'cloud-balancer');
const folder = mkdtempSync(join(tmpdir(), 'cox-cloud-balancer-'));
const socket = join(folder, 'provider.sock');
const CLASS = 'example.com/cloud';
const FINALIZER = 'service.kubernetes.io/load-balancer-cleanup';
let provider: ChildProcess | undefined;
const k = (...args: string[]) => cluster.kubectl('-n', ns, ...args);

before(
  async () => {
    await cluster.apply(ns, [
      pod('server', 'coxswain/echo:1', {
        labels: { app: 'server' },
        container: HTTP_READY,
        spec: { nodeName: 'node-1' },
      }),
    ]);
    await cluster.readyPod(ns, 'server');
  },
  { timeout: 60_000 },
);
after(async () => {
  await cluster.tryKubectl('delete', 'loadbalancerprovider', 'e2e', '--ignore-not-found');
  if (provider && provider.exitCode === null) {
    provider.kill('SIGTERM');
    await once(provider, 'exit');
  }
  rmSync(folder, { recursive: true, force: true });
});

async function start(): Promise<void> {
  const script = join(root, 'test', 'cloud', 'haproxy-provider.ts');
  const own = `${switchNamespace(cluster.name)}-cloud`;
  provider = spawn(process.execPath, [script, socket, switchNamespace(cluster.name), own, '900'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(provider.stdout!, 'data');
}
const service = (name: string, more: object = {}, annotations: Record<string, string> = {}) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, annotations },
  spec: {
    type: 'LoadBalancer',
    loadBalancerClass: CLASS,
    selector: { app: 'server' },
    ports: [{ port: 8088, targetPort: 80 }],
    ...more,
  },
});
const read = (name: string): Promise<Json> => cluster.json('-n', ns, 'get', 'service', name);
const calls = () => readFileSync(join(folder, 'calls.log'), 'utf8').split('\n');
const reasons = async (name: string): Promise<string[]> =>
  (
    (await cluster.json('-n', ns, 'get', 'events', '--field-selector', `involvedObject.name=${name}`)).items as Json[]
  ).map(({ reason, message }) => `${reason}: ${message}`);
const told = (name: string, what: RegExp) =>
  eventually(`event ${what} of ${name}`, async () => (await reasons(name)).find(text => what.test(text)));
const answers = (ip: string, port: number) =>
  eventually(
    `an answer at ${ip}:${port}`,
    async () =>
      (await cluster.onNode('node-2', 'curl', '-s', '-m', '2', `http://${ip}:${port}/`).catch(() => '')).length > 0,
  );

it('a provider that is not there is said in an event, and asked again', cluster, async () => {
  await cluster.apply(ns, [
    {
      apiVersion: 'loadbalancer.coxswain.dev/v1beta1',
      kind: 'LoadBalancerProvider',
      metadata: { name: 'e2e' },
      spec: { socket, loadBalancerClass: CLASS },
    },
    service('web'),
  ]);
  await told(
    'web',
    /SyncLoadBalancerFailed: Error syncing load balancer: failed to ensure load balancer: rpc error: code = Unavailable/,
  );
  assert.deepEqual((await read('web')).metadata.finalizers, [FINALIZER]);
  await start();
  const ip = await eventually(
    'an address',
    async () => (await read('web')).status.loadBalancer.ingress?.[0]?.ip as string | undefined,
    { timeoutMs: 30_000 },
  );
  await answers(ip, 8088);
  for (const what of [/^EnsuringLoadBalancer: Ensuring/, /^EnsuredLoadBalancer: Ensured load balancer$/])
    await told('web', what);
});

it('what changes is brought to it; other nodes are an update', cluster, async () => {
  await k(
    'patch',
    'service',
    'web',
    '--type=json',
    '-p',
    '[{"op":"replace","path":"/spec/ports/0/port","value":8089}]',
  );
  const { ip } = (await read('web')).status.loadBalancer.ingress[0];
  await answers(ip, 8089);
  const label = 'node.kubernetes.io/exclude-from-external-load-balancers';
  await cluster.kubectl('label', 'node', 'node-2', `${label}=`);
  try {
    await eventually('update without node-2', () => calls().includes('update web node-1'));
    await told('web', /^UpdatedLoadBalancer: Updated load balancer with new hosts$/);
    await answers(ip, 8089);
  } finally {
    await cluster.kubectl('label', 'node', 'node-2', `${label}-`);
  }
  await eventually('update with node-2', () => calls().includes('update web node-1,node-2'));
});

it('a Service that the provider leaves to others has no address and no complaint', cluster, async () => {
  await cluster.apply(ns, [service('other', {}, { 'example.com/elsewhere': 'true' })]);
  await eventually('asked', () => calls().includes('ensure other'));
  assert.equal((await read('other')).status.loadBalancer.ingress, undefined);
  assert.ok(!(await reasons('other')).some(text => text.startsWith('SyncLoadBalancerFailed')));
  await k('delete', 'service', 'other', '--timeout=20s');
});

it('deletion waits until the load balancer is gone; a change of type takes it down too', cluster, async () => {
  await cluster.apply(ns, [service('plain')]);
  await eventually('an address', async () => (await read('plain')).status.loadBalancer.ingress?.[0]?.ip);
  await k(
    ...['patch', 'service', 'plain', '--type=merge', '-p'],
    JSON.stringify({ spec: { type: 'ClusterIP', loadBalancerClass: null } }),
  );
  const plain = await eventually('no finalizer', async () => {
    const object = await read('plain');
    return !object.metadata.finalizers && object;
  });
  assert.equal(plain.status.loadBalancer.ingress, undefined);
  await told('plain', /^Type: LoadBalancer -> ClusterIP$/);
  await told('plain', /^DeletedLoadBalancer: Deleted load balancer$/);

  writeFileSync(join(folder, 'fail'), '');
  await k('delete', 'service', 'web', '--wait=false');
  await told('web', /SyncLoadBalancerFailed: .*the cloud is on strike/);
  assert.deepEqual((await read('web')).metadata.finalizers, [FINALIZER]);
  rmSync(join(folder, 'fail'));
  await eventually(
    'web is gone',
    async () => (await cluster.tryKubectl('-n', ns, 'get', 'service', 'web')).code !== 0,
    {
      timeoutMs: 30_000,
    },
  );
  assert.ok(calls().some(line => line.startsWith('delete a')));
});

it('a node gets from its cloud what only that knows, then the taint goes', cluster, async () => {
  const taint = 'node.cloudprovider.kubernetes.io/uninitialized';
  writeFileSync(
    join(folder, 'machines.json'),
    JSON.stringify({ 'node-2': { providerId: 'test://2', instanceType: 'c1.small' } }),
  );
  const serves = { spec: { serves: ['LoadBalancer', 'Instances'] } };
  await cluster.kubectl('patch', 'loadbalancerprovider', 'e2e', '--type=merge', '-p', JSON.stringify(serves));
  // Other tests may go on there meanwhile.
  await cluster.kubectl('taint', 'node', 'node-2', `${taint}=true:PreferNoSchedule`);
  const node = await eventually('node-2 is initialized', async () => {
    const now = (await cluster.json('get', 'node', 'node-2')) as Json;
    return !now.spec.taints?.some((one: Json) => one.key === taint) && now;
  });
  assert.equal(node.spec.providerID, 'test://2');
  assert.equal(node.metadata.labels['node.kubernetes.io/instance-type'], 'c1.small');
  assert.ok(node.status.addresses.some((one: Json) => one.type === 'InternalIP'));
});
