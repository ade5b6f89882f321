import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after } from 'node:test';
import { before, it, type Json, root, useCluster, useNamespace } from './cluster.ts';
import { eventually, outcomeOf, run } from './process.ts';

// examples/notes/README.md names these tests, one for each promise of the notes.
const cluster = useCluster();
const ns = useNamespace(cluster, 'notes');
const k = (...args: string[]): Promise<string> => cluster.kubectl('-n', ns, ...args);
const get = (...args: string[]): Promise<Json> => cluster.json('-n', ns, 'get', ...args);
// The notes' hostPath is the machine's own /tmp/data, as the nodes are namespaces of its network only.
const hostPath = '/tmp/data';
const hadHostPath = existsSync(hostPath);

before(
  async () => {
    await k('apply', '-f', join(root, 'examples', 'notes'));
    await cluster.readyPods(ns, 'app=my-little-deploy', 3);
    for (const name of ['exchange', 'hostpath', 'liveness-exec', 'loopback']) await cluster.readyPod(ns, name);
  },
  { timeout: 120_000 },
);
after(async () => {
  await cluster.tryKubectl('delete', 'persistentvolume', 'notes', '--wait=false', '--ignore-not-found');
  if (!hadHostPath) rmSync(hostPath, { recursive: true, force: true });
});

const little = (): Promise<Json[]> => cluster.readyPods(ns, 'app=my-little-deploy', 3);
const vipOf = async (name: string): Promise<string> => (await get('service', name)).spec.clusterIP;
const fromPod = (url: string): Promise<string> => cluster.get(ns, 'loopback -c client', url);
const endpointsOf = async (service: string): Promise<string[]> =>
  ((await get('endpointslices', '-l', `kubernetes.io/service-name=${service}`)).items as Json[])
    .flatMap(slice =>
      (slice.endpoints ?? [])
        .filter((endpoint: Json) => endpoint.conditions.ready)
        .flatMap((endpoint: Json) => endpoint.addresses),
    )
    .sort();
const ipsOf = (pods: Json[]): string[] => pods.map(item => item.status.podIP as string).sort();

it('containers of a pod talk over localhost', cluster, async () => {
  assert.match(await fromPod('http://127.0.0.1/hostname'), /^loopback$/m);
});

it('pods reach each other by IP on one node and across nodes', cluster, async () => {
  const pods = await little();
  assert.equal(new Set(ipsOf(pods)).size, 3);
  assert.equal(new Set(pods.map(item => item.spec.nodeName)).size, 2, 'the pods are on both nodes');
  for (const from of pods)
    for (const to of pods)
      assert.match(
        await cluster.get(ns, from.metadata.name, `http://${to.status.podIP}/hostname`),
        new RegExp(to.metadata.name),
      );
});

it('the machine has no route to pods', cluster, async () => {
  assert.equal((await run('ip', ['route', 'show', 'root', '10.244.0.0/16'])).trim(), '');
});

it('a NodePort answers on every node and on 127.0.0.1', cluster, async () => {
  const port = (await get('service', 'nodeport')).spec.ports[0].nodePort as number;
  assert.ok(port >= 30000 && port <= 32767);
  for (const node of (await cluster.json('get', 'nodes')).items as Json[]) {
    const ip = node.status.addresses.find((address: Json) => address.type === 'InternalIP').address;
    assert.match(
      await cluster.onNode(node.metadata.name, 'curl', '-sS', '-m', '3', `http://${ip}:${port}/`),
      /version: 1/,
    );
  }
  await eventually('on 127.0.0.1', async () =>
    (await outcomeOf('curl', ['-sS', '-m', '3', `http://127.0.0.1:${port}/`])).stdout.includes('version: 1'),
  );
});

it('a ClusterIP answers inside only, on the original port', cluster, async () => {
  const { spec } = await get('service', 'clusterip');
  assert.equal(spec.type, 'ClusterIP');
  const [first, second] = spec.clusterIP.split('.').map(Number);
  assert.ok(first === 10 && second >= 96 && second <= 111, 'from 10.96.0.0/12');
  assert.match(await fromPod(`http://${spec.clusterIP}/`), /version: 1/);
  assert.match(await cluster.onNode('node-2', 'curl', '-sS', '-m', '3', `http://${spec.clusterIP}/`), /version: 1/);
  assert.equal((await run('ip', ['route', 'show', 'root', '10.96.0.0/12'])).trim(), '');
});

it('the virtual IP is on no interface', cluster, async () => {
  const vip = await vipOf('clusterip');
  for (const node of ['node-1', 'node-2'])
    assert.ok(!(await cluster.onNode(node, 'ip', '-o', 'address')).includes(vip));
});

it('labels choose the endpoints', cluster, async () => {
  const pods = await little();
  await eventually('three endpoints', async () => (await endpointsOf('clusterip')).length === 3);
  assert.deepEqual(await endpointsOf('clusterip'), ipsOf(pods));
  await k('label', 'pod', pods[0].metadata.name, 'app=elsewhere', '--overwrite');
  await eventually('it is out, a new one is in', async () => {
    const addresses = await endpointsOf('clusterip');
    return addresses.length === 3 && !addresses.includes(pods[0].status.podIP);
  });
  await k('delete', 'pod', pods[0].metadata.name, '--wait=false');
});

it('kubectl expose makes a Service', cluster, async () => {
  assert.match(await k('expose', 'deployment', 'my-little-deploy', '--port=80'), /service\/my-little-deploy exposed/);
  await eventually('it answers by name', async () =>
    (await fromPod('http://my-little-deploy/')).includes('version: 1'),
  );
});

it('Services have names', cluster, async () => {
  for (const name of ['clusterip', `clusterip.${ns}`, `clusterip.${ns}.svc.cluster.local`, 'nodeport', 'headless'])
    assert.match(await fromPod(`http://${name}/`), /version: 1/);
});

it("a headless Service answers with the pods' addresses", cluster, async () => {
  assert.equal((await get('service', 'headless')).spec.clusterIP, 'None');
  const ips = ipsOf(await little());
  await eventually('all addresses', async () => {
    const found = (await cluster.onNode('node-1', 'dig', '+short', '@10.96.0.10', `headless.${ns}.svc.cluster.local`))
      .trim()
      .split('\n')
      .sort();
    return JSON.stringify(found) === JSON.stringify(ips);
  });
});

it('a Service spreads over its pods', cluster, async () => {
  const pods = await little();
  const vip = await vipOf('clusterip');
  const seen = new Set<string>();
  await eventually('all three answer', async () => {
    seen.add((await fromPod(`http://${vip}/hostname`)).trim());
    return pods.every(item => seen.has(item.metadata.name));
  });
});

it('a Service follows its pods', cluster, async () => {
  const vip = await vipOf('clusterip');
  const before = await little();
  await k('delete', 'pod', before[0].metadata.name, '--grace-period=0', '--force');
  const now = await little();
  assert.equal(await vipOf('clusterip'), vip);
  await eventually(
    'endpoints are the pods',
    async () => JSON.stringify(await endpointsOf('clusterip')) === JSON.stringify(ipsOf(now)),
  );
  for (let round = 0; round < 5; round++) assert.match(await fromPod(`http://${vip}/`), /version: 1/);
  await k('scale', 'deploy/my-little-deploy', '--replicas=1');
  await cluster.readyPods(ns, 'app=my-little-deploy', 1);
  await eventually('one endpoint', async () => (await endpointsOf('clusterip')).length === 1);
  assert.match(await fromPod(`http://${vip}/`), /version: 1/);
  await k('scale', 'deploy/my-little-deploy', '--replicas=3');
  await little();
});

it('replaced pods have new addresses', cluster, async () => {
  const [first, second] = await cluster.readyPods(ns, 'app=my-little-rc', 2);
  await k('delete', 'pod', first.metadata.name, '--wait=false', '--grace-period=1');
  const after = await cluster.readyPods(ns, 'app=my-little-rc', 2);
  const fresh = after.find(item => item.metadata.uid !== second.metadata.uid)!;
  assert.notEqual(fresh.metadata.name, first.metadata.name);
  assert.notEqual(fresh.status.podIP, second.status.podIP);
});

it('an emptyDir is shared and lives as long as its pod', cluster, async () => {
  const seconds = async (): Promise<number> =>
    Number(await cluster.exec(ns, 'exchange -c reader', 'cat', '/tmp/data/now'));
  const first = await eventually('written', seconds);
  await eventually('written on', async () => (await seconds()) > first);
  await cluster.exec(ns, 'exchange -c reader', 'sh', '-c', 'echo kept > /tmp/data/kept');
  // A container is replaced, the volume stays; a new pod starts empty.
  await cluster.tryKubectl('-n', ns, 'exec', 'exchange', '-c', 'reader', '--', 'touch', '/tmp/crash');
  await eventually('reader restarted', async () =>
    ((await get('pod', 'exchange')).status.containerStatuses as Json[]).some(
      status => status.name === 'reader' && status.restartCount > 0 && status.ready,
    ),
  );
  assert.equal(await cluster.exec(ns, 'exchange -c reader', 'cat', '/tmp/data/kept'), 'kept\n');
  await k('delete', 'pod', 'exchange');
  await k('apply', '-f', join(root, 'examples', 'notes', 'emptydir.yaml'));
  await cluster.readyPod(ns, 'exchange');
  assert.notEqual(
    (await cluster.tryKubectl('-n', ns, 'exec', 'exchange', '-c', 'reader', '--', 'cat', '/tmp/data/kept')).code,
    0,
  );
});

it("a hostPath shows the node's folder", cluster, async () => {
  const node = (await get('pod', 'hostpath')).spec.nodeName as string;
  await eventually('written', async () =>
    (await cluster.onNode(node, 'cat', `${hostPath}/greeting`)).includes('from pod hostpath'),
  );
  await cluster.onNode(node, 'sh', '-c', `echo from node > ${hostPath}/reply`);
  assert.equal(await cluster.exec(ns, 'hostpath', 'cat', '/tmp/hostpath/reply'), 'from node\n');
});

it('a failing liveness probe restarts the container with a clean state', cluster, async () => {
  const before = await cluster.readyPod(ns, 'liveness-exec');
  await cluster.exec(ns, 'liveness-exec', 'sh', '-c', 'echo dirty > /tmp/dirt; rm /tmp/healthy');
  const after = await eventually(
    'restarted',
    async () => {
      const item = await get('pod', 'liveness-exec');
      return item.status.containerStatuses[0].restartCount > 0 && item.status.containerStatuses[0].state.running
        ? item
        : undefined;
    },
    { timeoutMs: 60_000 },
  );
  assert.equal(after.metadata.uid, before.metadata.uid);
  assert.notEqual((await cluster.tryKubectl('-n', ns, 'exec', 'liveness-exec', '--', 'cat', '/tmp/dirt')).code, 0);
  assert.match(await k('describe', 'pod', 'liveness-exec'), /Liveness probe failed: cat: can't open '\/tmp\/healthy'/);
});

it('readiness decides who gets traffic', cluster, async () => {
  const [first] = await little();
  await cluster.exec(ns, first.metadata.name, 'touch', '/tmp/not-ready');
  await eventually('not ready, out of the Service', async () => {
    const item = await get('pod', first.metadata.name);
    return (
      item.status.containerStatuses[0].ready === false && !(await endpointsOf('clusterip')).includes(first.status.podIP)
    );
  });
  assert.match(await k('get', 'pod', first.metadata.name), /0\/1\s+Running\s+0/);
  const vip = await vipOf('clusterip');
  const answers = await cluster.exec(
    ns,
    'loopback -c client',
    'sh',
    '-c',
    `for i in 1 2 3 4 5 6 7 8 9 10 11 12; do timeout 3 wget -q -O - http://${vip}/hostname; done`,
  );
  assert.ok(!answers.includes(first.metadata.name));
  await cluster.exec(ns, first.metadata.name, 'rm', '/tmp/not-ready');
  await eventually('back in', async () => (await endpointsOf('clusterip')).includes(first.status.podIP));
});

it('a LoadBalancer Service has an address outside, without extra setup', cluster, async () => {
  const ip = await eventually(
    'an address',
    async () => (await get('service', 'loadbalancer')).status.loadBalancer.ingress?.[0]?.ip as string | undefined,
  );
  assert.doesNotMatch(ip, /^10\./);
  for (const node of ['node-1', 'node-2'])
    await eventually(`an answer on ${node}`, async () =>
      (await cluster.onNode(node, 'curl', '-sS', '-m', '3', `http://${ip}:8880/`)).includes('version: 1'),
    );
  await eventually('on 127.0.0.1', async () =>
    (await outcomeOf('curl', ['-sS', '-m', '3', 'http://127.0.0.1:8880/'])).stdout.includes('version: 1'),
  );
});

it('an Ingress routes by host', cluster, async () => {
  const ip = await eventually(
    'an address',
    async () => (await get('ingress', 'notes')).status.loadBalancer?.ingress?.[0]?.ip as string | undefined,
  );
  const ask = async (host: string): Promise<string> =>
    (await cluster.onNode('node-1', 'curl', '-sS', '-m', '3', '-H', `Host: ${host}`, `http://${ip}/`)).toString();
  await eventually('its host is served', async () => (await ask('notes.example')).includes('version: 1'));
  assert.doesNotMatch(await ask('elsewhere.example'), /version: 1/);
});

it('a NetworkPolicy is a firewall', cluster, async () => {
  const { status } = await cluster.readyPod(ns, 'fortress');
  const attempt = () =>
    cluster.tryKubectl(
      '-n',
      ns,
      'exec',
      'loopback',
      '-c',
      'client',
      '--',
      'timeout',
      '2',
      'wget',
      '-q',
      '-O',
      '-',
      `http://${status.podIP}/`,
    );
  assert.notEqual((await attempt()).code, 0);
  await k('label', 'pod', 'loopback', 'access=granted');
  await eventually('it is let in', async () => (await attempt()).stdout.includes('version: 1'));
  await k('label', 'pod', 'loopback', 'access-');
  await eventually('it is shut out', async () => (await attempt()).code !== 0);
});

it('a claim is bound to a volume that suits it, and a pod mounts it', cluster, async () => {
  const volume = await eventually('bound', async () => {
    const claim = await get('persistentvolumeclaim', 'claim');
    return claim.status.phase === 'Bound' ? (claim.spec.volumeName as string) : undefined;
  });
  assert.equal(volume, 'notes');
  const { spec } = await cluster.readyPod(ns, 'claimant');
  assert.equal(await cluster.exec(ns, 'claimant', 'cat', '/data/file'), 'kept\n');
  await k('delete', 'pod', 'claimant', '--grace-period=1');
  await k('apply', '-f', join(root, 'examples', 'notes', 'persistentvolume.yaml'));
  await cluster.readyPod(ns, 'claimant');
  await eventually(
    'both lives wrote',
    async () => (await cluster.exec(ns, 'claimant', 'cat', '/data/file')) === 'kept\nkept\n',
  );
  assert.equal(await cluster.onNode(spec.nodeName, 'cat', `${hostPath}/volume/file`), 'kept\nkept\n');
});
