import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after } from 'node:test';
import { before, it, type Json, root, useCluster, useNamespace } from './cluster.ts';
import { eventually, outcomeOf, run } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'load-balancer');
const k = (...args: string[]): Promise<string> => cluster.kubectl('-n', ns, ...args);
const examples = join(root, 'examples', 'load-balancer');
const POOL = 'loadbalancer.coxswain.dev/address-pool';

before(
  async () => {
    await cluster.kubectl('apply', '-f', join(examples, 'pool.yaml'));
    await k('apply', '-f', join(examples, 'services.yaml'));
    await cluster.readyPods(ns, 'app=balanced', 2);
  },
  { timeout: 60_000 },
);
after(() => cluster.tryKubectl('delete', 'ippool/single', 'l2advertisement/single', '--ignore-not-found'));

const addressOf = async (name: string): Promise<string | undefined> =>
  ((await cluster.json('-n', ns, 'get', 'service', name)) as Json).status.loadBalancer?.ingress?.[0]?.ip;
const given = (name: string): Promise<string> => eventually(`an address of ${name}`, () => addressOf(name));
const machine = (port: number): Promise<string> =>
  eventually(`an answer at 127.0.0.1:${port}`, async () => {
    const { stdout } = await outcomeOf('curl', ['-s', '-m', '2', `http://127.0.0.1:${port}/`]);
    return stdout.includes('nginx') && stdout;
  });
const service = (name: string, spec: object, annotations: Record<string, string> = {}) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, annotations },
  spec: { type: 'LoadBalancer', selector: { app: 'balanced' }, ...spec },
});
const port = (number: number) => ({ ports: [{ port: number, targetPort: 80 }] });

it('a Service gets an address of the default pool, and answers at it and on the machine', cluster, async () => {
  const ip = await given('balanced');
  assert.match(ip, /^172\.30\.255\.\d+$/);
  assert.match(await k('get', 'service', 'balanced'), new RegExp(`LoadBalancer .* ${ip.replaceAll('.', '\\.')} `));
  await machine(18080);
  // By the address itself, from another node's network: through ARP and the node that was elected.
  for (const node of ['node-1', 'node-2'])
    await eventually(`an answer at ${ip}`, async () =>
      (await cluster.onNode(node, 'curl', '-s', '-m', '2', `http://${ip}:18080/`).catch(() => '')).includes('nginx'),
    );
  const events = await eventually('events', async () => {
    const text = await k('describe', 'service', 'balanced');
    return text.includes('nodeAssigned') && text;
  });
  assert.match(events, /IPAllocated .* Assigned IP \["172\.30\.255\.\d+"\]/);
  assert.match(events, /announcing from node "node-\d" with protocol "layer2"/);
});

it('a pool by name, shared by two Services of one key', cluster, async () => {
  assert.equal(await given('single'), '172.30.254.10');
  assert.equal(await given('single-too'), '172.30.254.10');
  await machine(18081);
  await machine(18082);
  await eventually('the pool counts', async () =>
    /^single\s+false\s+\S+\s+\S+\s+1\s+0\s/m.test(await cluster.kubectl('get', 'ippool', 'single')),
  );
});

it('running out says so, and what becomes free is given to who waits', cluster, async () => {
  await cluster.apply(ns, [service('waits', port(18083), { [POOL]: 'single' })]);
  await eventually('an event', async () =>
    /AllocationFailed .*no available IPv4 addresses: pool "single"/.test(await k('describe', 'service', 'waits')),
  );
  assert.match(await k('get', 'service', 'waits'), /<pending>/);
  await k('delete', 'service', 'single', 'single-too');
  assert.equal(await given('waits'), '172.30.254.10');
});

it('an address that was asked for, a bad wish, another class, and back to ClusterIP', cluster, async () => {
  await cluster.apply(ns, [
    service('asks', { ...port(18084), loadBalancerIP: '172.30.255.200' }),
    service('errs', { ...port(18085), loadBalancerIP: '10.1.2.3' }),
    service('others', { ...port(18086), loadBalancerClass: 'example.com/other' }),
  ]);
  assert.equal(await given('asks'), '172.30.255.200');
  await eventually('an event', async () =>
    /\["10\.1\.2\.3"\] is not in any pool that serves it/.test(await k('describe', 'service', 'errs')),
  );
  assert.equal(await addressOf('others'), undefined);
  await k('patch', 'service', 'asks', '-p', '{"spec":{"type":"ClusterIP","loadBalancerIP":null}}');
  assert.equal(await addressOf('asks'), undefined);
  await eventually(
    'the port closed',
    async () => (await outcomeOf('curl', ['-s', 'http://127.0.0.1:18084/'])).code === 7,
  );
});

it('a port that is taken on the machine is said so, and the Service works all the same', cluster, async () => {
  const taken = createServer().listen(18087, '127.0.0.1');
  try {
    await cluster.apply(ns, [service('crowded', port(18087))]);
    const ip = await given('crowded');
    await eventually('an event', async () => (await k('describe', 'service', 'crowded')).includes('PortNotOpen'));
    await eventually('an answer', async () =>
      (await cluster.onNode('node-1', 'curl', '-s', '-m', '2', `http://${ip}:18087/`).catch(() => '')).includes(
        'nginx',
      ),
    );
  } finally {
    taken.close();
  }
});

it('bad pools are refused by name and rule', cluster, async () => {
  const pool = (name: string, spec: object) => ({
    apiVersion: 'loadbalancer.coxswain.dev/v1beta1',
    kind: 'IPAddressPool',
    metadata: { name },
    spec,
  });
  await assert.rejects(cluster.apply(ns, [pool('words', { addresses: ['everything'] })]), /spec\.addresses\[0\]/);
  await assert.rejects(cluster.apply(ns, [pool('none', {})]), /spec\.addresses: Required value/);
  await cluster.apply(ns, [pool('overlaps', { addresses: ['172.30.255.0/28'] })]);
  try {
    await eventually('an event', async () =>
      /InvalidPool .*overlaps with those of the pool "default"/.test(
        await cluster.kubectl('describe', 'ippool', 'overlaps'),
      ),
    );
  } finally {
    await cluster.kubectl('delete', 'ippool', 'overlaps');
  }
  assert.equal(
    (await run('ip', ['route', 'show', 'root', '172.30.0.0/16'])).trim(),
    '',
    'nothing of it on the machine',
  );
});
