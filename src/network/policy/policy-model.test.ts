import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { ClusterPolicy } from '../../api/networkpolicy/kinds.ts';
import { type ClusterPolicyKind, readClusterPolicy } from './cluster-policy.ts';
import { type PlainEnd, type PlainPod, type PlainWorld, reachesOwnNode, sideAllows } from './plain-model.ts';
import {
  clusterPolicies,
  modelPod,
  namespaceLabels,
  PORTS,
  passes,
  passesToNode,
  podShapes,
  policies,
  policy,
} from './policy-fixture.ts';
import { PolicyModel } from './policy-model.ts';
import { MAPS } from './policy-table.ts';
import { blockPeer, idOf, readNetworkPolicy } from './statement.ts';

const BLOCKS = [
  { cidr: '0.0.0.0/0', except: ['10.244.0.0/16'] },
  { cidr: '10.244.0.0/16', except: ['10.244.0.4/30', '10.244.0.9/32'] },
  { cidr: '10.244.0.2/32' },
  { cidr: '192.0.2.0/24', except: ['192.0.2.128/25'] },
  { cidr: 'fd00::/64', except: ['fd00::8/125'] },
  { cidr: '::/0' },
];
const OUTSIDERS: PlainEnd[] = ['192.0.2.1', '192.0.2.200', '10.244.0.250', 'fd00::ffff', '2001:db8::1'].map(ip => ({
  ip,
}));
const COUNT = 10;
/** The first of them are on the node. */
const LOCAL = 6;

const withAddresses = (shapes: Omit<PlainPod, 'ips'>[]): PlainPod[] =>
  shapes.map((shape, i) => ({ ...shape, ips: [`10.244.0.${i + 2}`, `fd00::${(i + 2).toString(16)}`] }));

function compare(model: PolicyModel, world: PlainWorld): void {
  model.settle();
  const ends = [...world.pods.flatMap(pod => pod.ips.map(ip => ({ ip, pod }))), ...OUTSIDERS];
  const local = new Set(world.pods.slice(0, LOCAL));
  for (const from of ends)
    for (const ip of from.pod && local.has(from.pod) ? [...NODES[0]!.ips, '172.30.0.2', 'fd00::1'] : [])
      for (const port of from.ip.includes(':') === ip.includes(':') ? PORTS : []) {
        const question = { from, to: { ip }, protocol: 'TCP', port };
        assert.equal(
          passesToNode(model.table, question),
          reachesOwnNode(world, question),
          `${from.ip} to its node ${ip}`,
        );
      }
  for (const from of ends)
    for (const to of ends) {
      if (from.ip.includes(':') !== to.ip.includes(':')) continue;
      for (const protocol of ['TCP', 'UDP', 'SCTP', 'ICMP'])
        for (const port of [...PORTS, 9999]) {
          // The node answers for its own pods only; what is far away is the other node's.
          const isElsewhere = ({ pod }: PlainEnd) => !pod || !local.has(pod);
          const question = { from, to, protocol, port };
          const expected =
            (from.ip === to.ip && !isElsewhere(from)) ||
            ((isElsewhere(from) || sideAllows(world, 'Egress', question)) &&
              (isElsewhere(to) || sideAllows(world, 'Ingress', question)));
          assert.equal(passes(model.table, question), expected, `${from.ip} to ${to.ip} ${protocol} ${port}`);
        }
    }
}

const NODES = [
  { labels: { role: 'edge' }, ips: ['192.0.2.1', '2001:db8::1'] },
  { labels: { role: 'inner' }, ips: ['192.0.2.200'] },
];
const NETWORKS = ['0.0.0.0/0', '10.244.0.0/29', '192.0.2.128/25', '::/0', 'fd00::8/125'];
const readCluster = (one: ClusterPolicy) => readClusterPolicy(one.kind as ClusterPolicyKind, one, NODES);

const fill = (model: PolicyModel, world: PlainWorld) => {
  for (const [name, labels] of Object.entries(world.namespaces)) model.setNamespace(name, labels);
  world.pods.forEach((pod, i) => void model.setPod(modelPod(pod), { local: i < LOCAL }));
  for (const one of world.policies) model.setPolicy(readNetworkPolicy(one));
  for (const one of world.clusterPolicies ?? []) model.setPolicy(readCluster(one));
};

// A failure tells its seed. By hand `COX_RUNS=3000` tries many more.
const { COX_SEED, COX_RUNS = '12' } = process.env;
const RUNS = { numRuns: Number(COX_RUNS), ...(COX_SEED ? { seed: Number(COX_SEED) } : {}) };

test('the table says of every pair what the plain model says', () => {
  fc.assert(
    fc.property(
      namespaceLabels,
      podShapes(COUNT),
      policies(BLOCKS, { minLength: 1, maxLength: 8 }),
      clusterPolicies(NETWORKS, { minLength: 0, maxLength: 4 }),
      (namespaces, shapes, all, cluster) => {
        const world = {
          namespaces,
          pods: withAddresses(shapes),
          policies: all,
          clusterPolicies: cluster,
          nodes: NODES,
        };
        const model = new PolicyModel();
        fill(model, world);
        compare(model, world);
      },
    ),
    RUNS,
  );
});

test('changes lead to the same as a fresh start, and what is told is all that has changed', () => {
  fc.assert(
    fc.property(
      namespaceLabels,
      namespaceLabels,
      podShapes(COUNT),
      podShapes(COUNT),
      policies(BLOCKS, { minLength: 1, maxLength: 6 }),
      policies(BLOCKS, { minLength: 0, maxLength: 6 }),
      fc.tuple(
        clusterPolicies(NETWORKS, { minLength: 0, maxLength: 3 }),
        clusterPolicies(NETWORKS, { minLength: 0, maxLength: 3 }),
      ),
      (namespaces, nextNamespaces, shapes, nextShapes, first, second, [one, other]) => {
        const common = { nodes: NODES };
        const before: PlainWorld = {
          ...common,
          namespaces,
          pods: withAddresses(shapes),
          policies: first,
          clusterPolicies: one,
        };
        const after: PlainWorld = {
          ...common,
          namespaces: nextNamespaces,
          pods: withAddresses(nextShapes),
          policies: second,
          clusterPolicies: other,
        };
        const model = new PolicyModel();
        const kernel = new Map<string, number>();
        const follow = () => {
          model.settle();
          for (const { map, key, before: was, after: is } of model.table.takeChanges()) {
            assert.equal(kernel.get(`${map} ${key}`), was);
            if (is === undefined) kernel.delete(`${map} ${key}`);
            else kernel.set(`${map} ${key}`, is);
          }
        };
        fill(model, before);
        follow();
        // One thing after the other, settled in between.
        for (const [name, labels] of Object.entries(after.namespaces)) {
          model.setNamespace(name, labels);
          follow();
        }
        before.pods.forEach((old, i) => {
          const pod = after.pods[i]!;
          if (pod.namespace !== old.namespace) model.removePod(modelPod(old).key);
          model.setPod(modelPod(pod), { local: i < LOCAL });
          follow();
        });
        const ids = ({ policies: namespaced, clusterPolicies: cluster = [] }: PlainWorld) => [
          ...namespaced.map(({ metadata }) => idOf('NetworkPolicy', metadata)),
          ...cluster.map(({ kind, metadata }) => idOf(kind!, metadata)),
        ];
        const kept = new Set(ids(after));
        for (const id of ids(before)) {
          if (kept.has(id)) continue;
          model.removePolicy(id);
          follow();
        }
        for (const one of [...after.policies.map(readNetworkPolicy), ...other.map(readCluster)]) {
          model.setPolicy(one);
          follow();
        }
        compare(model, after);
        const entries = [...kernel].length;
        let own = 0;
        for (const map of MAPS) own += model.table.entries(map).size;
        assert.equal(entries, own);
      },
    ),
    RUNS,
  );
});

test('an egress rule of a block and the name of a port takes the number from the pod in the block', () => {
  const world: PlainWorld = {
    namespaces: { x: {} },
    pods: ['client', 'server'].map((name, i) => ({
      namespace: 'x',
      name,
      labels: { app: name },
      ips: [`10.244.0.${i + 2}`],
      ports: [{ name: 'dns', protocol: 'UDP', containerPort: 80 + i }],
    })),
    policies: [
      policy('p', 'x', {
        podSelector: { matchLabels: { app: 'client' } },
        egress: [{ to: [{ ipBlock: { cidr: '10.244.0.0/24' } }], ports: [{ protocol: 'UDP', port: 'dns' }] }],
        policyTypes: ['Egress'],
      }),
    ],
  };
  const model = new PolicyModel();
  fill(model, world);
  compare(model, world);
});

test('what another node sends from its ends of the overlay is judged as from its own address', () => {
  const aliases = [
    { alias: '10.244.1.0', ip: '192.0.2.7' },
    { alias: '10.244.0.250', ip: '192.0.2.130' },
    { alias: 'fd00::ffff', ip: '2001:db8::1' },
  ];
  fc.assert(
    fc.property(
      namespaceLabels,
      podShapes(COUNT),
      policies(BLOCKS, { minLength: 1, maxLength: 4 }),
      (namespaces, shapes, all) => {
        const world = { namespaces, pods: withAddresses(shapes), policies: all };
        const model = new PolicyModel();
        fill(model, world);
        model.settle();
        model.setNodeAliases(aliases);
        model.settle();
        for (const pod of world.pods.slice(0, LOCAL))
          for (const to of pod.ips.map(ip => ({ ip, pod })))
            for (const { alias, ip } of aliases)
              for (const port of alias.includes(':') === to.ip.includes(':') ? PORTS : [])
                assert.equal(
                  passes(model.table, { from: { ip: alias }, to, protocol: 'TCP', port }),
                  sideAllows(world, 'Ingress', { from: { ip }, to, protocol: 'TCP', port }),
                  `${alias} to ${to.ip} ${port}`,
                );
        model.setNodeAliases([]);
        compare(model, world);
      },
    ),
    RUNS,
  );
});

test('an address of a pod that nobody knows yet gets no further than whoever turns out to have it', () => {
  const podBlocks = ['10.244.0.0/25', 'fd00::/120'].map(cidr => blockPeer(cidr, ['10.244.0.0/31', 'fd00::/127']));
  const unknown = (i: number) => i >= COUNT - 2;
  let [held, open] = [0, 0];
  fc.assert(
    fc.property(
      namespaceLabels,
      podShapes(COUNT),
      policies(BLOCKS, { minLength: 0, maxLength: 4 }),
      clusterPolicies(NETWORKS, { minLength: 1, maxLength: 4 }),
      (namespaces, shapes, all, cluster) => {
        const world = {
          namespaces,
          pods: withAddresses(shapes),
          policies: all,
          clusterPolicies: cluster,
          nodes: NODES,
        };
        const model = new PolicyModel();
        fill(model, world);
        model.setPodBlocks(podBlocks);
        // The pods that are known are judged exactly, and so is what is outside and nodes' own addresses.
        compare(model, world);
        world.pods.forEach((pod, i) => void (unknown(i) && model.removePod(modelPod(pod).key)));
        model.settle();
        for (const [i, pod] of world.pods.entries())
          for (const far of world.pods.filter((_, at) => i < LOCAL && unknown(at)))
            for (const at of [0, 1])
              for (const protocol of ['TCP', 'UDP'])
                for (const port of PORTS)
                  for (const isOut of [true, false]) {
                    const ends = [
                      { ip: pod.ips[at]!, pod },
                      { ip: far.ips[at]!, pod: far },
                    ] as const;
                    const [from, to] = isOut ? ends : [ends[1], ends[0]];
                    const question = { from, to, protocol, port };
                    const passed = passes(model.table, question);
                    const allowed = sideAllows(world, isOut ? 'Egress' : 'Ingress', question);
                    assert.ok(allowed || !passed, `${from.ip} to ${to.ip} ${protocol} ${port} is open`);
                    if (passed) open++;
                    else if (allowed) held++;
                  }
      },
    ),
    RUNS,
  );
  assert.ok(held > 0 && open > 0, 'neither held back nor let pass');
});

test('a change of labels is a change of the address only', () => {
  const model = new PolicyModel();
  model.setNamespace('x', { ns: 'x' });
  const pod = (i: number, app: string): PlainPod => ({
    namespace: 'x',
    name: `p${i}`,
    labels: { app, role: 'none' },
    ips: [`10.244.0.${i}`],
    ports: [],
  });
  for (let i = 2; i < 100; i++) model.setPod(modelPod(pod(i, i % 2 ? 'a' : 'b')), { local: i < 10 });
  model.setPolicy(
    readNetworkPolicy(
      policy('p', 'x', {
        podSelector: { matchLabels: { app: 'a' } },
        ingress: [{ from: [{ podSelector: { matchLabels: { app: 'b' } } }] }],
      }),
    ),
  );
  model.settle();
  model.table.takeChanges();
  model.setPod(modelPod(pod(51, 'b')), { local: false });
  model.settle();
  const changes = model.table.takeChanges();
  assert.deepEqual(
    changes.map(({ map, key }) => `${map} ${key}`),
    ['peers 10.244.0.51'],
  );
});

test('a pod that leaves takes everything of its own with it', () => {
  const model = new PolicyModel();
  const pod: PlainPod = { namespace: 'x', name: 'p', labels: {}, ips: ['10.244.0.2'], ports: [] };
  model.setPod(modelPod(pod), { local: true });
  model.setPolicy(readNetworkPolicy(policy('p', 'x', { podSelector: {}, ingress: [{ from: [{ podSelector: {} }] }] })));
  model.settle();
  assert.equal(model.isolates(), true);
  model.removePod('x/p');
  model.settle();
  assert.equal(model.isolates(), false);
  assert.equal(model.table.entries('ports').size, 0);
  assert.equal(model.table.entries('peers').size, 0);
});
