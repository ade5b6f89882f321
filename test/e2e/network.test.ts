import assert from 'node:assert/strict';
import { before, deployment, HTTP_READY, it, type Json, pod, service, useCluster, useNamespace } from './cluster.ts';
import { eventually, outcomeOf, run } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'network');
const nodes = ['node-1', 'node-2'] as const;
const on = (node: string) => ({ nodeName: node });
const pods: Record<string, Json> = {};

// `a` and `b` share node-1, `c` is on node-2; `web` has a pod on each.
before(
  async () => {
    const spread = {
      affinity: {
        podAntiAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: [
            { labelSelector: { matchLabels: { app: 'web' } }, topologyKey: 'kubernetes.io/hostname' },
          ],
        },
      },
    };
    await cluster.apply(ns, [
      pod('a', 'coxswain/echo:1', { spec: on('node-1'), labels: { app: 'a' } }),
      pod('b', 'coxswain/echo:1', { spec: on('node-1'), labels: { app: 'b' } }),
      pod('c', 'coxswain/echo:1', { spec: on('node-2'), labels: { app: 'c' } }),
      pod('host', 'busybox:1.35', {
        command: ['httpd', '-f', '-p', '18080', '-h', '/etc'],
        spec: { ...on('node-1'), hostNetwork: true, dnsPolicy: 'ClusterFirstWithHostNet' },
      }),
      deployment('web', 'coxswain/echo:1', { replicas: 2, container: HTTP_READY, podSpec: spread }),
      service('web', 'web', {
        ports: [
          { name: 'http', port: 80 },
          { name: 'alt', port: 8888, targetPort: 8080 },
        ],
      }),
      service('web-node', 'web', { type: 'NodePort', ports: [{ name: 'http', port: 80 }] }),
      service('web-udp', 'web', {
        type: 'NodePort',
        ports: [
          { name: 'udp', port: 5000, protocol: 'UDP' },
          { name: 'tcp', port: 5000, protocol: 'TCP' },
        ],
      }),
      service('web-headless', 'web', { clusterIP: 'None', ports: [{ name: 'http', port: 80 }] }),
      service('self', 'a', { ports: [{ port: 80 }] }),
      service('nobody', 'no-such-app', { type: 'NodePort', ports: [{ port: 80 }] }),
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'elsewhere' },
        spec: { type: 'ExternalName', externalName: 'web.network.svc.cluster.local' },
      },
    ]);
    for (const name of ['a', 'b', 'c', 'host']) pods[name] = await cluster.readyPod(ns, name);
    await cluster.readyPods(ns, 'app=web', 2);
  },
  { timeout: 120_000 },
);

const ipOf = (name: string): string => pods[name].status.podIP;
const vipOf = async (name: string): Promise<string> =>
  (await cluster.json('-n', ns, 'get', 'service', name)).spec.clusterIP;
const nodePortOf = async (name: string, index = 0): Promise<number> =>
  (await cluster.json('-n', ns, 'get', 'service', name)).spec.ports[index].nodePort;
const nodeIp = async (node: string): Promise<string> =>
  (await cluster.json('get', 'node', node)).status.addresses.find((address: Json) => address.type === 'InternalIP')
    .address;

it('pods reach each other unchanged on one node and across nodes', cluster, async () => {
  assert.equal(new Set(['a', 'b', 'c'].map(ipOf)).size, 3);
  for (const [from, to] of [
    ['a', 'b'],
    ['b', 'a'],
    ['a', 'c'],
    ['c', 'b'],
  ] as const) {
    const reply = await cluster.get(ns, from, `http://${ipOf(to)}/`);
    assert.match(reply, new RegExp(`hostname: ${to}\n`));
    assert.match(
      reply,
      new RegExp(`client: ${ipOf(from).replaceAll('.', '\\.')}\n`),
      `${to} sees ${from} by its own address`,
    );
  }
});

it('large packets cross nodes', cluster, async () => {
  await cluster.exec(ns, 'c', 'sh', '-c', `ping -c 1 -W 2 -s 8000 ${ipOf('a')}`);
  await cluster.exec(ns, 'a', 'sh', '-c', `ping -c 1 -W 2 -s 1300 ${ipOf('c')}`);
});

it('nodes and pods reach each other', cluster, async () => {
  for (const node of nodes) {
    for (const name of ['a', 'c'])
      assert.match(
        await cluster.onNode(node, 'curl', '-sS', '-m', '3', `http://${ipOf(name)}/hostname`),
        new RegExp(name),
      );
  }
  for (const name of ['a', 'c']) await cluster.exec(ns, name, 'ping', '-c', '1', '-W', '2', await nodeIp('node-2'));
});

it('a pod reaches itself: localhost and its own address', cluster, async () => {
  assert.match(await cluster.get(ns, 'a', 'http://127.0.0.1/hostname'), /^a$/m);
  assert.match(await cluster.get(ns, 'a', 'http://localhost:8080/hostname'), /^a$/m);
  assert.match(await cluster.get(ns, 'a', `http://${ipOf('a')}/hostname`), /^a$/m);
});

it('a hostNetwork pod has the address of its node and cluster DNS', cluster, async () => {
  assert.equal(pods['host'].status.podIP, pods['host'].status.hostIP);
  assert.equal(pods['host'].status.podIP, await nodeIp('node-1'));
  assert.match(await cluster.get(ns, 'c', `http://${await nodeIp('node-1')}:18080/nsswitch.conf`), /hosts/);
  assert.match(await cluster.get(ns, 'host', `http://web.${ns}.svc.cluster.local/`), /version: 1/);
});

it('a ClusterIP spreads over ready endpoints from pods and nodes', cluster, async () => {
  const vip = await vipOf('web');
  const seen = new Set<string>();
  await eventually('both pods answer', async () => {
    seen.add((await cluster.get(ns, 'a', `http://${vip}/hostname`)).trim());
    return seen.size === 2;
  });
  for (const node of nodes)
    assert.match(await cluster.onNode(node, 'curl', '-sS', '-m', '3', `http://${vip}/`), /version: 1/);
  assert.match(await cluster.get(ns, 'c', `http://${vip}:8888/`), /version: 1/);
});

it('a not-ready pod gets no traffic until it is ready again', cluster, async () => {
  const [first, second] = await cluster.readyPods(ns, 'app=web', 2);
  await cluster.exec(ns, first.metadata.name, 'touch', '/tmp/not-ready');
  await eventually('one endpoint', async () => {
    const slices = (await cluster.json('-n', ns, 'get', 'endpointslices', '-l', 'kubernetes.io/service-name=web'))
      .items as Json[];
    return slices.flatMap(slice => slice.endpoints ?? []).filter(endpoint => endpoint.conditions.ready).length === 1;
  });
  const vip = await vipOf('web');
  await eventually('only the ready pod answers', async () => {
    const replies = await cluster.exec(
      ns,
      'a',
      'sh',
      '-c',
      `for i in 1 2 3 4 5 6 7 8 9 10; do timeout 2 wget -q -O - http://${vip}/hostname; done`,
    );
    return new Set(replies.trim().split('\n')).size === 1 && replies.startsWith(second.metadata.name);
  });
  await cluster.exec(ns, first.metadata.name, 'rm', '/tmp/not-ready');
  await cluster.readyPods(ns, 'app=web', 2);
});

it('a NodePort answers on every node and on 127.0.0.1 of the machine', cluster, async () => {
  const port = await nodePortOf('web-node');
  assert.ok(port >= 30000 && port <= 32767);
  for (const from of nodes)
    for (const to of nodes)
      assert.match(
        await cluster.onNode(from, 'curl', '-sS', '-m', '3', `http://${await nodeIp(to)}:${port}/`),
        /version: 1/,
      );
  assert.match(await cluster.get(ns, 'a', `http://${await nodeIp('node-2')}:${port}/`), /version: 1/);
  const reply = await eventually(
    'node port on 127.0.0.1',
    async () => (await outcomeOf('curl', ['-sS', '-m', '3', `http://127.0.0.1:${port}/`])).stdout || undefined,
  );
  assert.match(reply, /version: 1/);
});

it('UDP works to pods, virtual IPs and node ports', cluster, async () => {
  const ask = (address: string, port: number): string[] => [
    'bash',
    '-c',
    `exec 3<>/dev/udp/${address}/${port}; for i in 1 2 3; do echo hi >&3; timeout 1 head -n1 <&3 && exit 0; done; exit 1`,
  ];
  assert.match(await cluster.exec(ns, 'a', ...ask(ipOf('c'), 5000)), /^c$/m);
  assert.match(await cluster.exec(ns, 'a', ...ask(await vipOf('web-udp'), 5000)), /^web-/m);
  assert.match(
    await cluster.onNode('node-1', ...ask(await nodeIp('node-2'), await nodePortOf('web-udp', 0))),
    /^web-/m,
  );
});

it('a pod reaches itself through its own Service (hairpin)', cluster, async () => {
  for (let round = 0; round < 3; round++)
    assert.match(await cluster.get(ns, 'a', `http://${await vipOf('self')}/hostname`), /^a$/m);
});

it('a Service without endpoints refuses at once', cluster, async () => {
  const vip = await vipOf('nobody');
  const startMs = performance.now();
  const direct = await outcomeOf(
    cluster.kubectlPath,
    ['-n', ns, 'exec', 'a', '--', 'timeout', '10', 'wget', '-q', '-O', '-', `http://${vip}/`],
    { env: cluster.env },
  );
  assert.notEqual(direct.code, 0);
  assert.match(direct.stderr, /refused/i);
  const byNodePort = await outcomeOf('curl', ['-sS', '-m', '5', `http://127.0.0.1:${await nodePortOf('nobody')}/`]);
  assert.notEqual(byNodePort.code, 0);
  assert.ok(performance.now() - startMs < 9000);
});

it('the virtual IP is on no interface', cluster, async () => {
  const vip = await vipOf('web');
  for (const node of nodes) assert.ok(!(await cluster.onNode(node, 'ip', '-o', 'address')).includes(`${vip}/`));
});

it('resolv.conf has the cluster DNS and search paths', cluster, async () => {
  const text = await cluster.exec(ns, 'a', 'cat', '/etc/resolv.conf');
  assert.match(text, /^nameserver 10\.96\.0\.10$/m);
  assert.match(text, new RegExp(`^search ${ns}\\.svc\\.cluster\\.local svc\\.cluster\\.local cluster\\.local`, 'm'));
  assert.match(text, /^options ndots:5$/m);
});

it('Services have names: full, short, in other namespaces', cluster, async () => {
  for (const name of ['web', `web.${ns}`, `web.${ns}.svc`, `web.${ns}.svc.cluster.local`])
    assert.match(await cluster.get(ns, 'a', `http://${name}/`), /version: 1/);
  const lookup = await cluster.exec(ns, 'c', 'nslookup', 'kubernetes.default.svc.cluster.local');
  assert.match(lookup, /10\.96\.0\.1\b/);
  assert.match(await cluster.get(ns, 'a', 'http://elsewhere/'), /version: 1/);
});

it('SRV, PTR, headless and pod names', cluster, async () => {
  const dig = (type: string, name: string): Promise<string> =>
    cluster.onNode('node-2', 'dig', '+short', '+time=2', '+tries=2', '@10.96.0.10', type, name);
  const vip = await vipOf('web');
  assert.equal((await dig('A', `web.${ns}.svc.cluster.local`)).trim(), vip);
  assert.equal(
    (await dig('SRV', `_http._tcp.web.${ns}.svc.cluster.local`)).trim(),
    `0 100 80 web.${ns}.svc.cluster.local.`,
  );
  assert.equal(
    (await dig('PTR', `${vip.split('.').reverse().join('.')}.in-addr.arpa`)).trim(),
    `web.${ns}.svc.cluster.local.`,
  );
  const webIps = (await cluster.readyPods(ns, 'app=web', 2)).map(item => item.status.podIP as string).sort();
  assert.deepEqual((await dig('A', `web-headless.${ns}.svc.cluster.local`)).trim().split('\n').sort(), webIps);
  const dashed = webIps[0]!.replaceAll('.', '-');
  assert.equal((await dig('A', `${dashed}.web-headless.${ns}.svc.cluster.local`)).trim(), webIps[0]);
  assert.equal((await dig('A', `${dashed}.${ns}.pod.cluster.local`)).trim(), webIps[0]);
  assert.equal((await dig('TXT', 'dns-version.cluster.local')).trim(), '"1.1.0"');
  assert.equal((await dig('CNAME', `elsewhere.${ns}.svc.cluster.local`)).trim(), `web.${ns}.svc.cluster.local.`);
  const missing = await cluster.onNode('node-1', 'dig', '+tcp', '@10.96.0.10', `nope.${ns}.svc.cluster.local`);
  assert.match(missing, /status: NXDOMAIN/);
  assert.match(missing, /cluster\.local\.\s+\d+\s+IN\s+SOA/);
});

it('a pod with hostname and subdomain has its own name', cluster, async () => {
  await cluster.apply(ns, [
    pod('named', 'coxswain/echo:1', { labels: { app: 'named' }, spec: { hostname: 'db-0', subdomain: 'db' } }),
    service('db', 'named', { clusterIP: 'None', ports: [{ name: 'http', port: 80 }] }),
  ]);
  await cluster.readyPod(ns, 'named');
  await eventually('db-0.db', async () => /hostname: db-0/.test(await cluster.get(ns, 'a', 'http://db-0.db/')));
  assert.equal((await cluster.exec(ns, 'named', 'hostname', '-f')).trim(), `db-0.db.${ns}.svc.cluster.local`);
});

it('the API server is a Service that pods can use', cluster, async () => {
  const reply = await cluster.exec(
    ns,
    'a',
    'sh',
    '-c',
    'timeout 3 wget -q --no-check-certificate -O - https://kubernetes.default/version || true',
  );
  assert.match(reply, /gitVersion|^$/);
  const [host, port] = (
    await cluster.exec(ns, 'a', 'sh', '-c', 'echo $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT')
  )
    .trim()
    .split(' ');
  assert.deepEqual([host, port], ['10.96.0.1', '443']);
});

it('the machine itself keeps no route or rule of the cluster', cluster, async () => {
  assert.equal((await run('ip', ['route', 'show', 'root', '10.244.0.0/16'])).trim(), '');
  assert.ok(!(await outcomeOf('nft', ['list', 'tables'])).stdout.includes('kube'));
});
