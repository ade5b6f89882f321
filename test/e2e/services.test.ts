/** Addresses of both families: pods and Services of a dual-stack cluster and of one of IPv6 alone; Services' ranges. */

import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { after } from 'node:test';
import { before, type Cluster, freshCluster, it, type Json, pod, root, service } from './cluster.ts';
import { eventually, outcomeOf, run } from './process.ts';

const dual = freshCluster('dual');
const six = freshCluster('six');
const ns = 'default';
const WEB = ['sh', '-c', 'mkdir /www; hostname > /www/hostname; exec httpd -f -h /www'];
const on = (node: string, extra: object = {}) => ({ spec: { nodeName: node, ...extra }, command: WEB });
const bracketed = (ip: string): string => (ip.includes(':') ? `[${ip}]` : ip);

async function start(cluster: Cluster, ...extra: string[]): Promise<void> {
  await cluster.up({ nodes: extra.includes('dual') ? 2 : 1, extra });
  await run(process.execPath, [join(root, 'tools', 'images', 'build.ts')], { timeoutMs: 300_000 });
  await cluster.cox(['image', 'load', join(root, '.cache', 'images', 'busybox-1.35.tar')]);
}
before(
  async () => {
    // 30 addresses, so that they run out.
    await start(dual, '--ip-family', 'dual', '--service-cidr', '10.96.0.0/27,fd00:10:96::/112');
    await dual.apply(ns, [
      pod('a', 'busybox:1.35', {
        ...on('node-1'),
        labels: { app: 'a' },
        container: {
          env: ['podIP', 'podIPs', 'hostIPs'].map(name => ({
            name,
            valueFrom: { fieldRef: { fieldPath: `status.${name}` } },
          })),
        },
      }),
      pod('b', 'busybox:1.35', { ...on('node-1'), labels: { app: 'web' } }),
      pod('c', 'busybox:1.35', { ...on('node-2'), labels: { app: 'web' } }),
      pod('host', 'busybox:1.35', { ...on('node-2', { hostNetwork: true }), command: ['sleep', '3600'] }),
    ]);
    for (const name of ['a', 'b', 'c', 'host']) pods[name] = await dual.readyPod(ns, name);
  },
  { timeout: 120_000 },
);
after(
  async () => {
    for (const cluster of [dual, six]) {
      await cluster.down();
      rmSync(cluster.stateDir, { recursive: true, force: true });
    }
  },
  { timeout: 130_000 },
);

const pods: Record<string, Json> = {};
const ipsOf = (name: string): string[] => pods[name].status.podIPs.map(({ ip }: Json) => ip);
const specOf = async (name: string): Promise<Json> => (await dual.json('-n', ns, 'get', 'service', name)).spec;
const refused = async (manifest: object, ...args: string[]): Promise<string> => {
  const outcome = await outcomeOf(dual.kubectlPath, ['create', ...args, '-f', '-'], {
    env: dual.env,
    input: JSON.stringify(manifest),
  });
  assert.notEqual(outcome.code, 0, outcome.stdout);
  return outcome.stderr;
};

it('nodes and pods have an address of each family, IPv4 first', dual, async () => {
  for (const node of (await dual.json('get', 'nodes')).items) {
    const ips = node.status.addresses.filter(({ type }: Json) => type === 'InternalIP').map((one: Json) => one.address);
    assert.deepEqual(ips.map(family), [4, 6]);
    assert.deepEqual(node.spec.podCIDRs.map(family), [4, 6]);
    assert.equal(node.spec.podCIDR, node.spec.podCIDRs[0]);
  }
  for (const name of ['a', 'b', 'c', 'host']) {
    const { podIP, podIPs, hostIP, hostIPs } = pods[name].status;
    assert.deepEqual(
      [podIPs, hostIPs].map(ips => ips.map(({ ip }: Json) => family(ip))),
      [
        [4, 6],
        [4, 6],
      ],
    );
    assert.deepEqual([podIP, hostIP], [podIPs[0].ip, hostIPs[0].ip]);
  }
  assert.deepEqual(pods['host'].status.podIPs, pods['host'].status.hostIPs);
  const told = await dual.exec(ns, 'a', 'sh', '-c', 'echo $podIP $podIPs $hostIPs; cat /etc/hosts');
  const hostIps = pods['a'].status.hostIPs.map(({ ip }: Json) => ip).join(',');
  assert.ok(told.startsWith(`${ipsOf('a')[0]} ${ipsOf('a')} ${hostIps}\n`), told);
  for (const ip of ipsOf('a')) assert.match(told, new RegExp(`^${ip}\ta$`, 'm'));
});
const family = (address: string): number => (address.includes(':') ? 6 : 4);

it('pods reach each other over both families, on one node and across nodes', dual, async () => {
  for (const [from, to] of [
    ['a', 'b'],
    ['a', 'c'],
    ['c', 'a'],
    ['host', 'a'],
    ['a', 'host'],
  ] as const)
    for (const ip of ipsOf(to)) await dual.exec(ns, from, 'ping', '-c', '1', '-W', '2', '-s', '2000', ip);
  for (const ip of ipsOf('c')) assert.equal(await dual.get(ns, 'a', `http://${bracketed(ip)}/hostname`), 'c\n');
});

it('a Service of both families answers at both addresses, on node ports and by name', dual, async () => {
  await dual.apply(ns, [
    service('both', 'web', { ipFamilyPolicy: 'RequireDualStack', type: 'NodePort', ports: [{ port: 80 }] }),
    service('six', 'web', { ipFamilies: ['IPv6'], type: 'NodePort', ports: [{ port: 80 }] }),
    service('preferred', 'web', {
      ipFamilyPolicy: 'PreferDualStack',
      ipFamilies: ['IPv6', 'IPv4'],
      ports: [{ port: 80 }],
    }),
    service('plain', 'web', { ports: [{ port: 80 }] }),
    service('heads', 'web', { clusterIP: 'None', ipFamilyPolicy: 'PreferDualStack', ports: [{ port: 80 }] }),
  ]);
  const shape = async (name: string) => {
    const { clusterIPs, ipFamilies, ipFamilyPolicy } = await specOf(name);
    return [
      ipFamilyPolicy,
      ipFamilies.join(),
      clusterIPs.map((ip: string) => (ip === 'None' ? ip : family(ip))).join(),
    ];
  };
  assert.deepEqual(await shape('both'), ['RequireDualStack', 'IPv4,IPv6', '4,6']);
  assert.deepEqual(await shape('six'), ['SingleStack', 'IPv6', '6']);
  assert.deepEqual(await shape('preferred'), ['PreferDualStack', 'IPv6,IPv4', '6,4']);
  assert.deepEqual(await shape('plain'), ['SingleStack', 'IPv4', '4']);
  assert.deepEqual(await shape('heads'), ['PreferDualStack', 'IPv4,IPv6', 'None']);
  for (const name of ['both', 'six', 'preferred']) {
    for (const ip of (await specOf(name)).clusterIPs)
      for (const from of ['a', 'host', 'c'])
        await eventually(`${name} answers ${from} at ${ip}`, async () =>
          /^[bc]$/m.test(await dual.get(ns, from, `http://${bracketed(ip)}/hostname`)),
        );
    assert.match(await dual.get(ns, 'a', `http://${name}/hostname`), /^[bc]$/m);
  }
  for (const path of ['pods/c:80', 'services/both:80', 'services/six:80'])
    assert.match(await dual.kubectl('get', '--raw', `/api/v1/namespaces/${ns}/${path}/proxy/hostname`), /^[bc]$/m);
  for (const name of ['both', 'six']) {
    const { ports, ipFamilies } = await specOf(name);
    const [{ nodePort }] = ports;
    const ips = pods['host'].status.hostIPs.map(({ ip }: Json) => ip);
    for (const ip of ips.filter((one: string) => ipFamilies.includes(`IPv${family(one)}`)))
      assert.match(
        await dual.onNode('node-1', 'curl', '-sS', '-m', '3', `http://${bracketed(ip)}:${nodePort}/hostname`),
        /^[bc]$/m,
      );
    await eventually(`${name} on 127.0.0.1`, async () =>
      /^[bc]$/m.test((await outcomeOf('curl', ['-sS', '-m', '3', `http://127.0.0.1:${nodePort}/hostname`])).stdout),
    );
  }
  const slices = (await dual.json('-n', ns, 'get', 'endpointslices', '-l', 'kubernetes.io/service-name=heads')).items;
  assert.deepEqual(slices.map((slice: Json) => slice.addressType).sort(), ['IPv4', 'IPv6']);
});

it('the second family is added and taken away again; the first address stays', dual, async () => {
  const first = (await specOf('plain')).clusterIP;
  const patch = (spec: object) => dual.kubectl('-n', ns, 'patch', 'service', 'plain', '-p', JSON.stringify({ spec }));
  await patch({ ipFamilyPolicy: 'PreferDualStack' });
  const [kept, second] = (await specOf('plain')).clusterIPs;
  assert.equal(kept, first);
  await eventually('the new address answers', async () =>
    /^[bc]$/m.test(await dual.get(ns, 'a', `http://${bracketed(second)}/hostname`)),
  );
  await eventually('its IPAddress', () => dual.json('get', 'ipaddress', second));
  const wrong = await dual.tryKubectl('-n', ns, 'patch', 'service', 'plain', '-p', '{"spec":{"ipFamilies":["IPv4"]}}');
  assert.match(wrong.stderr, /must be 'SingleStack' to release the secondary IP family/);
  const swapped = await dual.tryKubectl(
    ...['-n', ns, 'patch', 'service', 'plain', '--type=merge', '-p'],
    `{"spec":{"clusterIP":"${second}","clusterIPs":["${second}","${first}"],"ipFamilies":["IPv6","IPv4"]}}`,
  );
  assert.match(swapped.stderr, /spec\.clusterIPs\[0\]: Invalid value: .*may not change once set/);
  await patch({ ipFamilyPolicy: 'SingleStack' });
  assert.deepEqual((await specOf('plain')).clusterIPs, [first]);
  await eventually('its IPAddress gone', async () => (await dual.tryKubectl('get', 'ipaddress', second)).code !== 0);
  assert.equal(
    (await dual.tryKubectl('-n', ns, 'exec', 'a', '--', 'timeout', '2', 'wget', '-qO-', `http://[${second}]/`)).code ===
      0,
    false,
  );
});

it('a Gateway of both families: its addresses by ARP and NDP, HTTP, TCP and UDP to pods by IPv6', dual, async () => {
  await dual.cox(['image', 'load', join(root, '.cache', 'images', 'coxswain-echo-1.tar')]);
  const group = 'gateway.networking.k8s.io';
  const route = (kind: string, version: string, name: string, port: number) => ({
    apiVersion: `${group}/${version}`,
    kind,
    metadata: { name: 'echo' },
    spec: {
      parentRefs: [{ name: 'echo', sectionName: kind.toLowerCase() }],
      rules: [{ backendRefs: [{ name, port }] }],
    },
  });
  const listener = (kind: string, protocol: string, port: number) => ({ name: kind.toLowerCase(), protocol, port });
  await dual.apply(ns, [
    pod('echo', 'coxswain/echo:1', { labels: { app: 'echo' } }),
    service('echo-six', 'echo', {
      ipFamilies: ['IPv6'],
      ports: [80, 5000].map(port => ({ name: `p${port}`, port })),
    }),
    service('echo-both', 'echo', {
      ipFamilyPolicy: 'RequireDualStack',
      ports: [{ name: 'udp', port: 5000, protocol: 'UDP' }],
    }),
    {
      apiVersion: `${group}/v1`,
      kind: 'Gateway',
      metadata: { name: 'echo' },
      spec: {
        gatewayClassName: 'coxswain',
        listeners: [
          listener('HTTPRoute', 'HTTP', 8080),
          listener('TCPRoute', 'TCP', 5300),
          listener('UDPRoute', 'UDP', 5300),
        ],
      },
    },
    route('HTTPRoute', 'v1', 'echo-six', 80),
    route('TCPRoute', 'v1alpha2', 'echo-six', 5000),
    route('UDPRoute', 'v1alpha2', 'echo-both', 5000),
  ]);
  await dual.kubectl('-n', ns, 'wait', '--for=condition=Programmed', 'gateway/echo', '--timeout=90s');
  await dual.readyPod(ns, 'echo');
  const { addresses } = (await dual.json('-n', ns, 'get', 'gateway', 'echo')).status;
  const ips: string[] = addresses.map(({ value }: Json) => value);
  assert.deepEqual(ips.map(family), [4, 6]);
  for (const ip of ips)
    for (const node of ['node-1', 'node-2']) {
      const answers = (what: string, ...command: string[]) =>
        eventually(
          `${what} at ${ip} from ${node}`,
          async () => (await dual.onNode(node, ...command).catch(() => '')).includes('echo'),
          { timeoutMs: 60_000 },
        );
      await answers('HTTP', 'curl', '-sS', '-m', '3', `http://${bracketed(ip)}:8080/hostname`);
      for (const protocol of ['tcp', 'udp'])
        await answers(
          protocol,
          ...['bash', '-c', `exec 3<>/dev/${protocol}/${ip}/5300; echo hi >&3; timeout 1 head -n1 <&3`],
        );
    }
  await dual.kubectl('-n', ns, 'delete', 'gateway/echo', 'service/echo-six', 'service/echo-both', 'pod/echo');
  // Its addresses are of a range that is to run out further below.
  await eventually('its Service is gone', async () => {
    const { items } = await dual.json('-n', ns, 'get', 'services');
    return !items.some(({ metadata }: Json) => metadata.name === 'echo-coxswain');
  });
});

it('changes of type free and claim addresses and ports', dual, async () => {
  await dual.apply(ns, [service('turn', 'web', { ports: [{ port: 80 }] })]);
  const { clusterIP } = await specOf('turn');
  const patch = (spec: object) =>
    dual.kubectl('-n', ns, 'patch', 'service', 'turn', '--type=merge', '-p', JSON.stringify({ spec }));
  await patch({ type: 'LoadBalancer', externalTrafficPolicy: 'Local' });
  const balanced = await specOf('turn');
  assert.equal(balanced.clusterIP, clusterIP);
  const { nodePort } = balanced.ports[0];
  assert.ok(nodePort && balanced.healthCheckNodePort && nodePort !== balanced.healthCheckNodePort);
  const taken = service('other', 'web', { type: 'NodePort', ports: [{ port: 80, nodePort }] });
  assert.match(
    await refused(taken),
    new RegExp(
      `The Service "other" is invalid: spec.ports\\[0\\].nodePort: Invalid value: ${nodePort}: provided port is already allocated`,
    ),
  );
  await patch({ type: 'ClusterIP' });
  const plain = await specOf('turn');
  assert.deepEqual(
    [
      plain.ports[0].nodePort,
      plain.healthCheckNodePort,
      plain.externalTrafficPolicy,
      plain.allocateLoadBalancerNodePorts,
    ],
    [undefined, undefined, undefined, undefined],
  );
  await dual.apply(ns, [taken]);
  await patch({ type: 'ExternalName', externalName: 'both.default.svc.cluster.local' });
  const named = await specOf('turn');
  assert.deepEqual([named.clusterIP, named.clusterIPs, named.ipFamilies], [undefined, undefined, undefined]);
  await dual.apply(ns, [service('heir', 'web', { clusterIP, ports: [{ port: 80 }] })]);
  await patch({ type: 'ClusterIP', externalName: null });
  const again = await specOf('turn');
  assert.ok(again.clusterIP && again.clusterIP !== clusterIP);
  await dual.kubectl('-n', ns, 'delete', 'service', 'turn', 'other', 'heir');
});

it('addresses that people choose: taken, foreign, dry', dual, async () => {
  const chosen = (name: string, clusterIP: string) => service(name, 'web', { clusterIP, ports: [{ port: 80 }] });
  const taken = (await specOf('plain')).clusterIP;
  assert.match(
    await refused(chosen('x', taken)),
    new RegExp(
      `spec.clusterIPs: Invalid value: \\["${taken}"\\]: failed to allocate IP ${taken}: provided IP is already allocated`,
    ),
  );
  assert.match(await refused(chosen('x', '10.50.0.1')), /the provided network does not match the current range/);
  assert.match(
    await refused(chosen('x', '10.96.0.31')),
    /the provided IP \(10\.96\.0\.31\) is not in the valid range\. The range of valid IPs is 10\.96\.0\.0\/27/,
  );
  const free = 'fd00:10:96::abc';
  const dry = await dual.kubectlWith(
    { input: JSON.stringify(chosen('x', free)) },
    ...['create', '--dry-run=server', '-o', 'jsonpath={.spec.clusterIPs}', '-f', '-'],
  );
  assert.equal(dry, `["${free}"]`);
  await dual.apply(ns, [chosen('x', free)]);
  await dual.kubectl('-n', ns, 'delete', 'service', 'x');
});

it('a range runs out; a ServiceCIDR adds one and is kept while it is needed', dual, async () => {
  const fillers = Array.from({ length: 40 }, (_, i) => service(`fill-${i}`, 'none', { ports: [{ port: 80 }] }));
  const full = await outcomeOf(dual.kubectlPath, ['create', '-f', '-'], {
    env: dual.env,
    input: fillers.map(each => JSON.stringify(each)).join('\n---\n'),
  });
  assert.match(full.stderr, /Internal error occurred: failed to allocate a serviceIP: range is full/);
  const used = (await dual.json('get', 'services', '-A')).items.flatMap((each: Json) => each.spec.clusterIPs ?? []);
  assert.equal(used.filter((ip: string) => ip.startsWith('10.96.0.')).length, 30);
  assert.equal(
    new Set(used.filter((ip: string) => ip !== 'None')).size,
    used.filter((ip: string) => ip !== 'None').length,
  );
  await dual.kubectlWith(
    {
      input:
        'apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: more}\nspec: {cidrs: [10.99.0.0/24]}',
    },
    ...['apply', '-f', '-'],
  );
  await dual.kubectl('wait', '--for=condition=Ready', 'servicecidr/more', '--timeout=10s');
  await dual.apply(ns, [service('late', 'web', { ports: [{ port: 80 }] })]);
  const { clusterIP } = await specOf('late');
  assert.match(clusterIP, /^10\.99\.0\./);
  await eventually('the new range answers', async () =>
    /^[bc]$/m.test(await dual.get(ns, 'a', `http://${clusterIP}/hostname`)),
  );
  await eventually('IPAddress', () => dual.json('get', 'ipaddress', clusterIP));
  await dual.kubectl('delete', 'servicecidr', 'more', '--wait=false');
  await eventually('held back', async () => {
    const { metadata, status } = await dual.json('get', 'servicecidr', 'more');
    assert.deepEqual(metadata.finalizers, ['networking.k8s.io/service-cidr-finalizer']);
    const ready = status.conditions.find(({ type }: Json) => type === 'Ready');
    return ready.status === 'False' && ready.reason === 'Terminating';
  });
  assert.match(await refused(service('never', 'web', { ports: [{ port: 80 }] })), /range is full/);
  await dual.kubectl(
    '-n',
    ns,
    'delete',
    'service',
    'late',
    ...fillers.map(({ metadata }) => metadata.name),
    '--ignore-not-found',
  );
  await dual.kubectl('wait', '--for=delete', 'servicecidr/more', '--timeout=30s');
});

it('an IPAddress that somebody deletes comes back, with an event on its Service', dual, async () => {
  const { clusterIP } = await specOf('plain');
  const record = await dual.json('get', 'ipaddress', clusterIP);
  assert.deepEqual(record.spec.parentRef, { resource: 'services', namespace: ns, name: 'plain' });
  await dual.kubectl('delete', 'ipaddress', clusterIP);
  await eventually(
    'a new one',
    async () => (await dual.json('get', 'ipaddress', clusterIP)).metadata.uid !== record.metadata.uid,
  );
  await eventually('event', async () =>
    (await dual.kubectl('-n', ns, 'get', 'events', '--field-selector', 'involvedObject.name=plain')).includes(
      `Cluster IP [IPv4]: ${clusterIP} is not allocated; repairing`,
    ),
  );
});

it('a cluster of IPv6 alone: pods, Services, names; and nodes and pods when ranges run out', six, async () => {
  // Shares of two nodes, each of five pods.
  await start(six, '--ip-family', 'ipv6', '--pod-cidr', 'fd00:10:244::/124', '--node-cidr-mask-size', '125');
  await six.apply(ns, [
    ...[
      { name: 'a', probe: { tcpSocket: { port: 80 } } },
      { name: 'b', probe: { httpGet: { path: '/hostname', port: 80 } } },
    ].map(({ name, probe }) =>
      pod(name, 'busybox:1.35', {
        command: WEB,
        labels: { app: name },
        container: { readinessProbe: { ...probe, periodSeconds: 1 } },
      }),
    ),
    service('b', 'b', { type: 'NodePort', ports: [{ port: 80 }] }),
  ]);
  const [, b] = [await six.readyPod(ns, 'a'), await six.readyPod(ns, 'b')];
  assert.deepEqual(
    b.status.podIPs.map(({ ip }: Json) => family(ip)),
    [6],
  );
  const { spec } = await six.json('-n', ns, 'get', 'service', 'b');
  assert.deepEqual([spec.ipFamilies, family(spec.clusterIP)], [['IPv6'], 6]);
  for (const host of [`[${b.status.podIP}]`, `[${spec.clusterIP}]`, 'b', 'b.default.svc.cluster.local'])
    assert.equal(await six.get(ns, 'a', `http://${host}/hostname`), 'b\n');
  for (const path of ['pods/b:80', 'services/b:80'])
    assert.equal(await six.kubectl('get', '--raw', `/api/v1/namespaces/${ns}/${path}/proxy/hostname`), 'b\n');
  await eventually(
    'on 127.0.0.1',
    async () =>
      (await outcomeOf('curl', ['-sS', '-m', '3', `http://127.0.0.1:${spec.ports[0].nodePort}/hostname`])).stdout ===
      'b\n',
  );
  await six.apply(
    ns,
    Array.from({ length: 4 }, (_, i) => pod(`p${i}`, 'busybox:1.35', { command: ['sleep', '3600'] })),
  );
  const eventsSay = (text: RegExp) =>
    eventually(`event ${text}`, async () => text.test(await six.kubectl('get', 'events', '-A')));
  await eventsSay(/FailedCreatePodSandBox.*no IP addresses available in range fd00:10:244::/);
  const nodes = ['spare-1', 'spare-2'].map(name => ({ apiVersion: 'v1', kind: 'Node', metadata: { name } }));
  await six.apply(ns, nodes);
  await eventsSay(/CIDRNotAvailable\s+node\/spare-\d/);
  const ranges = async () => (await six.json('get', 'nodes')).items.flatMap((node: Json) => node.spec.podCIDRs ?? []);
  assert.equal((await ranges()).length, 2);
  await six.kubectl(
    'delete',
    'node',
    ...(await six.json('get', 'nodes')).items
      .filter((node: Json) => node.spec.podCIDR && node.metadata.name !== 'node-1')
      .map((node: Json) => node.metadata.name),
  );
  await eventually('the share goes to the other', async () => (await ranges()).length === 2);
});
