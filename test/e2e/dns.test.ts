import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after } from 'node:test';
import { createNodeNamespace, deleteNodeNamespace } from '../../src/network/segment.ts';
import { addRoute, withRoutes } from '../../src/sys/netlink.ts';
import { before, it, type Json, pod, root, service, useCluster, useNamespace } from './cluster.ts';
import { Background, eventually, outcomeOf } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'dns');
const DNS = '10.96.0.10';
const on = (node: string) => ({ nodeName: node });

before(
  async () => {
    await cluster.apply(ns, [
      pod('client', 'busybox:1.35', { command: ['sleep', '10000'], spec: on('node-1') }),
      pod('named', 'coxswain/echo:1', {
        labels: { app: 'group' },
        spec: {
          ...on('node-2'),
          hostname: 'first',
          subdomain: 'group',
          setHostnameAsFQDN: true,
          hostAliases: [{ ip: '192.0.2.5', hostnames: ['aliased.test'] }],
        },
      }),
      pod('custom', 'busybox:1.35', {
        command: ['sleep', '10000'],
        spec: {
          ...on('node-1'),
          dnsPolicy: 'None',
          dnsConfig: {
            nameservers: [DNS],
            searches: ['dns.svc.cluster.local'],
            options: [{ name: 'ndots', value: '1' }],
          },
        },
      }),
      pod('greedy', 'busybox:1.35', {
        command: ['sleep', '10000'],
        spec: {
          ...on('node-1'),
          dnsConfig: { searches: Array.from({ length: 32 }, (_, index) => `search-${index}.test`) },
        },
      }),
      service('group', 'group', { clusterIP: 'None', ports: [{ name: 'http', port: 80 }] }),
      service('plain', 'group', { ports: [{ name: 'http', port: 80 }] }),
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'alias' },
        spec: { type: 'ExternalName', externalName: `plain.${ns}.svc.cluster.local` },
      },
    ]);
    for (const name of ['client', 'named', 'custom', 'greedy']) await cluster.readyPod(ns, name);
  },
  { timeout: 120_000 },
);

const dig = (...words: string[]): Promise<string> =>
  cluster.onNode('node-1', 'dig', '+time=3', '+tries=1', `@${DNS}`, ...words);
const short = async (...words: string[]): Promise<string[]> => (await dig('+short', ...words)).trim().split('\n');

it('Services, pods by host name, SRV, PTR, aliases, by a stock resolver', cluster, async () => {
  const podIp = (await cluster.json('-n', ns, 'get', 'pod', 'named')).status.podIP;
  const vip = (await cluster.json('-n', ns, 'get', 'service', 'plain')).spec.clusterIP;
  const group = `group.${ns}.svc.cluster.local`;
  await eventually('the headless Service', async () => (await short(group)).includes(podIp));
  assert.deepEqual(await short(`first.${group}`), [podIp]);
  assert.deepEqual(await short(`_http._tcp.${group}`, 'SRV'), [`0 100 80 first.${group}.`]);
  assert.deepEqual(await short('-x', podIp), [`first.${group}.`]);
  assert.deepEqual(await short(`plain.${ns}.svc.cluster.local`), [vip]);
  assert.deepEqual(await short('-x', vip), [`plain.${ns}.svc.cluster.local.`]);
  assert.deepEqual(await short(`alias.${ns}.svc.cluster.local`), [`plain.${ns}.svc.cluster.local.`, vip]);
  assert.deepEqual(await short(`${podIp.replaceAll('.', '-')}.${ns}.pod.cluster.local`), [podIp]);
  assert.deepEqual(await short('dns-version.cluster.local', 'TXT'), ['"1.1.0"']);
  assert.deepEqual(await short('+tcp', `plain.${ns}.svc.cluster.local`), [vip]);
});

it(
  'nothing waits: the other family is empty at once, unknown names do not exist, with their SOA',
  cluster,
  async () => {
    const other = await dig(`plain.${ns}.svc.cluster.local`, 'AAAA');
    assert.match(other, /status: NOERROR.*\n.*ANSWER: 0, AUTHORITY: 1/);
    const none = await dig(`nope.${ns}.svc.cluster.local`);
    assert.match(none, /status: NXDOMAIN/);
    assert.match(
      none,
      /^cluster\.local\.\s+30\s+IN\s+SOA\s+ns\.dns\.cluster\.local\. hostmaster\.cluster\.local\. \d+ 7200 1800 86400 30$/m,
    );
    // busybox asks both families from one socket, and walks the search path.
    const found = await cluster.exec(ns, 'client', 'timeout', '4', 'wget', '-q', '-O', '-', 'http://plain/hostname');
    assert.match(found, /named|first/);
  },
);

it("pods' own files: dnsPolicy None, an FQDN as host name, aliases, limits told", cluster, async () => {
  assert.equal(
    await cluster.exec(ns, 'custom', 'cat', '/etc/resolv.conf'),
    `search ${ns}.svc.cluster.local\nnameserver ${DNS}\noptions ndots:1\n`,
  );
  assert.match(await cluster.exec(ns, 'custom', 'nslookup', `plain.${ns}.svc.cluster.local`), /Address/);
  assert.equal((await cluster.exec(ns, 'named', 'hostname')).trim(), `first.group.${ns}.svc.cluster.local`);
  const hosts = await cluster.exec(ns, 'named', 'cat', '/etc/hosts');
  assert.match(hosts, new RegExp(`\\tfirst\\.group\\.${ns}\\.svc\\.cluster\\.local\\tfirst\\n`));
  assert.match(hosts, /# Entries added by HostAliases\.\n192\.0\.2\.5\taliased\.test\n/);
  await eventually('the event of a search line too long', async () => {
    const events = (await cluster.json('-n', ns, 'get', 'events', '--field-selector', 'involvedObject.name=greedy'))
      .items as Json[];
    return events.some(
      event => event.reason === 'DNSConfigForming' && /Search Line limits were exceeded/.test(event.message),
    );
  });
});

it('a policy accepts a name by the answers of DNS, before who asked has them', cluster, async () => {
  const { Corefile } = (await cluster.json('-n', 'kube-system', 'get', 'configmap', 'coredns')).data;
  const configure = (corefile: string) =>
    cluster.apply('kube-system', [
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'coredns' }, data: { Corefile: corefile } },
    ]);
  const node = (await cluster.json('get', 'node', 'node-2')).status.addresses[0].address;
  // Nobody listens there: refused is an answer.
  const answers = async (host: string) =>
    /refused/.test(
      (await cluster.tryKubectl('-n', ns, 'exec', 'client', '--', 'timeout', '2', 'wget', '-O-', `http://${host}:9/`))
        .stderr,
    );
  const policy = {
    apiVersion: 'policy.networking.k8s.io/v1alpha2',
    kind: 'ClusterNetworkPolicy',
    metadata: { name: 'e2e-names' },
    spec: {
      tier: 'Admin',
      priority: 77,
      subject: { namespaces: { matchLabels: { 'kubernetes.io/metadata.name': ns } } },
      egress: [
        { name: 'partners', action: 'Accept', to: [{ domainNames: ['*.example.test'] }] },
        { action: 'Deny', to: [{ networks: [`${node}/32`] }] },
      ],
    },
  };
  try {
    await configure(
      Corefile.replace('errors', `errors\n    hosts {\n        ${node} www.example.test\n        fallthrough\n    }`),
    );
    await cluster.kubectlWith({ input: JSON.stringify(policy) }, 'apply', '-f', '-');
    await eventually('its address is closed', async () => !(await answers(node)));
    await eventually('by its name it is open', () => answers('www.example.test'));
    assert.ok(await answers(node), 'the address is that of the name now');
    const said = await cluster.tryCox(['trace', '-n', ns, '--from', 'client', 'www.example.test:9']);
    assert.match(said.stdout, /ClusterNetworkPolicy e2e-names \(Admin tier\) spec\.egress\[0\] "partners"/);
    const wrong = structuredClone(policy);
    wrong.spec.egress[0]!.action = 'Pass';
    await assert.rejects(
      cluster.kubectlWith({ input: JSON.stringify(wrong) }, 'apply', '-f', '-'),
      /domainNames peer can be set in Accept rules only/,
    );
  } finally {
    await configure(Corefile);
    await cluster.tryKubectl('delete', 'cnp', 'e2e-names', '--ignore-not-found');
  }
});

it(
  'the Corefile is followed live: hosts, a rewrite, a stub domain; a faulty one is told and changes nothing',
  cluster,
  async () => {
    const original = (await cluster.json('-n', 'kube-system', 'get', 'configmap', 'coredns')).data.Corefile as string;
    const put = (corefile: string) =>
      cluster.apply('kube-system', [
        { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'coredns' }, data: { Corefile: corefile } },
      ]);
    try {
      await put(
        `${original.replace('    ready\n', `    ready\n    hosts {\n        192.0.2.77 handmade.test\n        fallthrough\n    }\n    rewrite name exact shop.test plain.${ns}.svc.cluster.local\n`)}\nstub.test:53 {\n    template IN A {\n        answer "{{ .Name }} 9 IN A 192.0.2.88"\n    }\n}\n`,
      );
      const vip = (await cluster.json('-n', ns, 'get', 'service', 'plain')).spec.clusterIP;
      for (const node of ['node-1', 'node-2'])
        await eventually(
          `hosts on ${node}`,
          async () => (await cluster.onNode(node, 'dig', '+short', `@${DNS}`, 'handmade.test')).trim() === '192.0.2.77',
        );
      assert.deepEqual(await short('db.stub.test'), ['192.0.2.88']);
      assert.deepEqual(await short('shop.test'), [vip]);
      await put('.:53 {\n    kubernetes cluster.local\n    nonsense\n}\n');
      await eventually('an event about the faulty Corefile', async () => {
        const events = (await cluster.json('-n', 'kube-system', 'get', 'events')).items as Json[];
        return events.some(
          event =>
            event.reason === 'InvalidCorefile' && /Corefile:3 - Unknown directive 'nonsense'/.test(event.message),
        );
      });
      assert.deepEqual(await short('handmade.test'), ['192.0.2.77']);
    } finally {
      await put(original);
    }
    await eventually('the original again', async () => (await dig('handmade.test')).includes('192.0.2.77') === false);
  },
);

it('metrics, health and readiness at the cluster address', cluster, async () => {
  assert.match(
    await cluster.get(ns, 'client', `http://${DNS}:9153/metrics`),
    /coredns_dns_requests_total\{server="dns:\/\/:53",zone="\."/,
  );
  assert.equal(await cluster.get(ns, 'client', `http://${DNS}:8080/health`), 'OK');
  assert.equal(await cluster.get(ns, 'client', `http://${DNS}:8181/ready`), 'OK');
});

// A namespace on the cluster's segment plays a machine of its own, where none of our agents runs.
it('cox proxy and cox dns by themselves, over HTTPS with a kubeconfig', cluster, async () => {
  const machine = `cox-${cluster.name}-outside`;
  const address = '172.30.99.9';
  createNodeNamespace({ switch: `cox-${cluster.name}`, name: machine, ips: [address] });
  after(() => deleteNodeNamespace({ switch: `cox-${cluster.name}`, name: machine }));
  const nodes = (await cluster.json('get', 'nodes')).items as Json[];
  withRoutes(machine, routes => {
    const link = routes.links().find(({ name }) => name === 'eth0')!.index;
    for (const node of nodes)
      routes.request([addRoute({ to: node.spec.podCIDR, via: node.status.addresses[0].address, link })]);
  });
  const kubeconfig = join(cluster.stateDir, 'outside.kubeconfig');
  writeFileSync(
    kubeconfig,
    readFileSync(cluster.kubeconfig, 'utf8').replace(/server: .*/, 'server: "https://172.30.0.1:6443"'),
    { mode: 0o600 },
  );
  const enter = [`--net=/run/netns/${machine}`, join(root, 'cox')];
  const unknown = await outcomeOf('nsenter', [
    ...enter,
    'proxy',
    '--kubeconfig',
    kubeconfig,
    '--hostname-override',
    'outside',
  ]);
  assert.equal(unknown.code, 2);
  assert.match(unknown.stderr, /node "outside" not found in the cluster/);
  // As node-1: a Node of its own would be seen by everything else that runs on this cluster.
  const proxy = new Background('nsenter', [
    ...enter,
    'proxy',
    '--kubeconfig',
    kubeconfig,
    '--hostname-override',
    'node-1',
    '--cluster-cidr',
    '10.244.0.0/16',
  ]);
  const dns = new Background('nsenter', [...enter, 'dns', '--kubeconfig', kubeconfig, '--bind', '127.0.0.1:5353']);
  try {
    const inside = (...words: string[]) => outcomeOf('nsenter', [`--net=/run/netns/${machine}`, ...words]);
    await eventually(
      'both are ready',
      () => /services are programmed/.test(proxy.output) && /the cluster is known/.test(dns.output),
    );
    const vip = (
      await inside('dig', '+short', '-p', '5353', '@127.0.0.1', `plain.${ns}.svc.cluster.local`)
    ).stdout.trim();
    assert.equal(vip, (await cluster.json('-n', ns, 'get', 'service', 'plain')).spec.clusterIP);
    const page = await inside('curl', '-sS', '-m', '3', `http://${vip}/hostname`);
    assert.match(page.stdout, /named|first/, page.stderr);
    assert.match((await inside('curl', '-sS', '-m', '3', 'http://127.0.0.1:10256/healthz')).stdout, /nodeEligible/);
  } finally {
    await Promise.all([proxy.stop('SIGKILL'), dns.stop('SIGKILL')]);
  }
});
