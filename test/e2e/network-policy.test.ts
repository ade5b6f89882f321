/** NetworkPolicy with stock kubectl, real pods on two nodes: behind Services, node ports and probes. */

import assert from 'node:assert/strict';
import { before, HTTP_READY, it, type Json, pod, service, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'policy');
const pods: Record<string, Json> = {};
const IMAGE = 'coxswain/echo:1';

const policy = (name: string, spec: object) => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name },
  spec,
});

before(
  async () => {
    const ports = { ports: [{ name: 'http', containerPort: 80 }] };
    await cluster.apply(ns, [
      pod('server', IMAGE, {
        labels: { app: 'server' },
        spec: { nodeName: 'node-1' },
        container: { ...ports, ...HTTP_READY },
      }),
      pod('near', IMAGE, { labels: { role: 'friend' }, spec: { nodeName: 'node-1' } }),
      pod('far', IMAGE, { labels: { role: 'friend' }, spec: { nodeName: 'node-2' } }),
      pod('stranger', IMAGE, { labels: { role: 'stranger' }, spec: { nodeName: 'node-2' } }),
      service('server', 'server', { type: 'NodePort', ports: [{ port: 80 }] }),
    ]);
    for (const name of ['server', 'near', 'far', 'stranger']) pods[name] = await cluster.readyPod(ns, name);
  },
  { timeout: 120_000 },
);

const urlOf = (address: string, port?: number) => `http://${address}${port ? `:${port}` : ''}/`;
const reaches = async (from: string, url: string): Promise<boolean> =>
  (await cluster.tryKubectl('-n', ns, 'exec', from, '--', 'timeout', '1', 'wget', '-q', '-O', '-', url)).code === 0;
const becomes = (from: string, url: string, expected: boolean) =>
  eventually(
    `${from} ${expected ? 'reaches' : 'does not reach'} ${url}`,
    async () => (await reaches(from, url)) === expected,
  );

it('default deny, and a rule by pod, port name and Service', cluster, async () => {
  const server = urlOf(pods['server'].status.podIP);
  for (const from of ['near', 'far', 'stranger']) assert.ok(await reaches(from, server), from);
  const said = await cluster.kubectlWith(
    { input: JSON.stringify(policy('deny', { podSelector: {}, policyTypes: ['Ingress'] })) },
    ...['-n', ns, 'apply', '-f', '-'],
  );
  assert.doesNotMatch(said, /Warning/);
  for (const from of ['near', 'far', 'stranger']) await becomes(from, server, false);

  await cluster.apply(ns, [
    policy('friends', {
      podSelector: { matchLabels: { app: 'server' } },
      ingress: [{ from: [{ podSelector: { matchLabels: { role: 'friend' } } }], ports: [{ port: 'http' }] }],
    }),
  ]);
  const { clusterIP, ports } = (await cluster.json('-n', ns, 'get', 'service', 'server')).spec;
  const nodes = (await cluster.json('get', 'nodes')).items as Json[];
  const node1 = nodes.find(({ metadata }) => metadata.name === 'node-1').status.addresses[0].address;
  for (const url of [server, urlOf(clusterIP), urlOf('server')])
    for (const from of ['near', 'far']) await becomes(from, url, true);
  // The pod is on the node asked, so its policy sees the client's own address.
  await becomes('near', urlOf(node1, ports[0].nodePort), true);
  await becomes('far', urlOf(node1, ports[0].nodePort), true);
  for (const url of [server, urlOf(clusterIP), urlOf(node1, ports[0].nodePort)])
    assert.ok(!(await reaches('stranger', url)), url);
  // No policy keeps a pod from itself, also by a way round its Service.
  for (const url of [server, urlOf(clusterIP)]) await becomes('server', url, true);
});

it('the node reaches its pods: they stay ready', cluster, async () => {
  const server = await cluster.json('-n', ns, 'get', 'pod', 'server');
  assert.equal(server.status.conditions.find((one: Json) => one.type === 'Ready').status, 'True');
});

it('another node is judged by its own address, whatever way its packets take', cluster, async () => {
  const server = urlOf(pods['server'].status.podIP);
  const isOpen = () =>
    cluster.onNode('node-2', 'curl', '-s', '-m', '1', '-o', '/dev/null', server).then(
      () => true,
      () => false,
    );
  assert.equal(await isOpen(), false);
  const node2 = (await cluster.json('get', 'node', 'node-2')).status.addresses[0].address;
  const nodes = policy('nodes', {
    podSelector: { matchLabels: { app: 'server' } },
    ingress: [{ from: [{ ipBlock: { cidr: `${node2}/32` } }] }],
  });
  await cluster.apply(ns, [nodes]);
  await eventually('node-2 is let in', isOpen);
  assert.equal(await reaches('stranger', server), false);
  await cluster.kubectl('-n', ns, 'delete', 'networkpolicy', 'nodes');
  await eventually('node-2 is shut out', async () => !(await isOpen()));
});

it('labels decide anew', cluster, async () => {
  const server = urlOf(pods['server'].status.podIP);
  await cluster.kubectl('-n', ns, 'label', 'pod', 'stranger', 'role=friend', '--overwrite');
  await becomes('stranger', server, true);
  await cluster.kubectl('-n', ns, 'label', 'pod', 'stranger', 'role=stranger', '--overwrite');
  await becomes('stranger', server, false);
});

it(
  'a pod that starts under default deny was never open, and names are found though all ways out are closed',
  cluster,
  async () => {
    await cluster.apply(ns, [
      policy('no-egress', { podSelector: { matchLabels: { app: 'quiet' } }, policyTypes: ['Egress'] }),
    ]);
    await cluster.apply(ns, [pod('quiet', IMAGE, { labels: { app: 'quiet' }, spec: { nodeName: 'node-2' } })]);
    const quiet = await cluster.readyPod(ns, 'quiet');
    assert.ok(!(await reaches('near', urlOf(quiet.status.podIP))));
    assert.ok(!(await reaches('quiet', urlOf(pods['server'].status.podIP))));
    const found = await cluster.tryKubectl(
      '-n',
      ns,
      'exec',
      'quiet',
      '--',
      'nslookup',
      'server.policy.svc.cluster.local',
    );
    assert.match(found.stdout, /Address/);
  },
);

it('a cluster-wide policy goes before, is told enforced, and cox trace names its tier and rule', cluster, async () => {
  await cluster.kubectl('-n', ns, 'delete', 'networkpolicies', '--all');
  const server = urlOf(pods['server'].status.podIP);
  for (const from of ['near', 'stranger']) await becomes(from, server, true);
  const rule = (role: string) => ({
    name: `no ${role}`,
    action: 'Deny',
    from: [{ pods: { podSelector: { matchLabels: { role } } } }],
    protocols: [{ tcp: { destinationPort: { number: 80 } } }],
  });
  const clusterPolicy = (ingress: object[]) => ({
    apiVersion: 'policy.networking.k8s.io/v1alpha2',
    kind: 'ClusterNetworkPolicy',
    metadata: { name: 'e2e-strangers' },
    spec: {
      tier: 'Admin',
      priority: 5,
      subject: {
        pods: {
          namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': ns } },
          podSelector: { matchLabels: { app: 'server' } },
        },
      },
      ingress,
    },
  });
  const apply = (object: object) =>
    cluster.kubectlWith({ input: JSON.stringify(object) }, 'apply', '-f', '-').then(() => undefined);
  await apply(clusterPolicy([rule('stranger')]));
  await becomes('stranger', server, false);
  await becomes('near', server, true);
  await eventually('condition', async () => {
    const { status } = await cluster.json('get', 'cnp', 'e2e-strangers');
    return status?.conditions?.some((one: Json) => one.type === 'Accepted' && one.status === 'True');
  });
  assert.match(await cluster.kubectl('get', 'cnp'), /e2e-strangers +Admin +5/);
  const said = await cluster.tryCox(['trace', '-n', ns, '--from', 'stranger', `server.${ns}`]);
  assert.match(
    said.stdout,
    /ClusterNetworkPolicy e2e-strangers \(Admin tier\) denies the way in \(spec\.ingress\[0\] "no stranger"\)/,
  );
  await assert.rejects(apply(clusterPolicy([{ ...rule('x'), from: [{}] }])), /spec\.ingress\[0\]\.from\[0\]/);
  await cluster.kubectl('delete', 'cnp', 'e2e-strangers');
  await becomes('stranger', server, true);
});

it(
  'a cluster-wide denial of all networks closes the own node too; names are found, probes come in',
  cluster,
  async () => {
    const node = (await cluster.json('get', 'node', 'node-2')).status.addresses[0].address;
    // Nobody listens there: refused is an answer.
    const answers = async () =>
      /refused/.test(
        (await cluster.tryKubectl('-n', ns, 'exec', 'far', '--', 'timeout', '1', 'wget', '-O-', urlOf(node, 9))).stderr,
      );
    await eventually('the node answers', answers);
    const caged = {
      apiVersion: 'policy.networking.k8s.io/v1alpha2',
      kind: 'ClusterNetworkPolicy',
      metadata: { name: 'e2e-caged' },
      spec: {
        tier: 'Baseline',
        priority: 5,
        subject: { namespaces: { matchLabels: { 'kubernetes.io/metadata.name': ns } } },
        egress: [{ action: 'Deny', to: [{ networks: ['0.0.0.0/0'] }] }],
      },
    };
    await cluster.kubectlWith({ input: JSON.stringify(caged) }, 'apply', '-f', '-');
    await eventually('the node does not answer', async () => !(await answers()));
    const found = await cluster.tryKubectl(
      '-n',
      ns,
      'exec',
      'far',
      '--',
      'nslookup',
      'server.policy.svc.cluster.local',
    );
    assert.match(found.stdout, /Address/);
    const said = await cluster.tryCox(['trace', '-n', ns, '--from', 'far', `${node}:9`]);
    assert.match(said.stdout, /ClusterNetworkPolicy e2e-caged \(Baseline tier\) denies the sender's way out/);
    await cluster.kubectl('delete', 'cnp', 'e2e-caged');
    await eventually('the node answers again', answers);
  },
);

it('without policies everything is open again, and nothing of them is left', cluster, async () => {
  await cluster.kubectl('-n', ns, 'delete', 'networkpolicies', '--all');
  for (const from of ['near', 'stranger']) await becomes(from, urlOf(pods['server'].status.podIP), true);
  await becomes('quiet', urlOf(pods['server'].status.podIP), true);
  // Other files may have policies of their own meanwhile, and so the table.
  await eventually('no table', async () => {
    const kinds = 'networkpolicies,clusternetworkpolicies,adminnetworkpolicies,baselineadminnetworkpolicies';
    const others = (await cluster.json('get', kinds, '-A')).items as Json[];
    return others.length > 0 || !(await cluster.onNode('node-1', 'nft', 'list', 'tables')).includes('coxswain-policy');
  });
});
