import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ClusterPolicyKind, readClusterPolicy } from './cluster-policy.ts';
import { explain } from './explain.ts';
import { isAllowed, type PlainPod, reachesOwnNode } from './plain-model.ts';
import { clusterPolicies, modelPod, namespaceLabels, PORTS, podShapes, policies, policy } from './policy-fixture.ts';
import { readNetworkPolicy } from './statement.ts';

const BLOCKS = [{ cidr: '10.244.0.0/16', except: ['10.244.0.4/30'] }, { cidr: '192.0.2.0/24' }];
const endOf = (ip: string, pod?: PlainPod) => ({ ip, ...(pod ? { pod: modelPod(pod) } : {}) });

test('says what the plain model says', () => {
  fc.assert(
    fc.property(
      namespaceLabels,
      podShapes(6),
      policies(BLOCKS, { minLength: 1, maxLength: 6 }),
      clusterPolicies(['0.0.0.0/0', '10.244.0.4/30'], { minLength: 0, maxLength: 3 }),
      (namespaces, shapes, all, cluster) => {
        const pods = shapes.map((shape, i) => ({ ...shape, ips: [`10.244.0.${i + 2}`] }));
        const world = { namespaces, pods, policies: all, clusterPolicies: cluster };
        const statements = cluster.map(one => readClusterPolicy(one.kind as ClusterPolicyKind, one));
        const read = {
          policies: [...all.map(readNetworkPolicy), ...statements],
          namespaceLabels: (name: string) => namespaces[name],
        };
        const ends = [...pods.map(pod => ({ ip: pod.ips[0]!, pod })), { ip: '192.0.2.1' }] as {
          ip: string;
          pod?: PlainPod;
        }[];
        for (const from of ends)
          for (const to of ends)
            for (const protocol of ['TCP', 'UDP'])
              for (const port of PORTS) {
                const said = explain(read, {
                  from: endOf(from.ip, from.pod),
                  to: endOf(to.ip, to.pod),
                  protocol,
                  port,
                });
                assert.equal(said.allowed, isAllowed(world, { from, to, protocol, port }), JSON.stringify(said));
                if (!from.pod || to.pod) continue;
                const [own, node] = [
                  { ...endOf(from.ip, from.pod), node: 'n' },
                  { ip: to.ip, node: 'n' },
                ];
                const out = explain(read, { from: own, to: node, protocol, port });
                assert.equal(out.allowed, reachesOwnNode(world, { from, to, protocol, port }), JSON.stringify(out));
                assert.ok(explain(read, { from: node, to: own, protocol, port }).allowed);
              }
      },
    ),
    { numRuns: 30 },
  );
});

test('names the policy and the rule', () => {
  const pod = (name: string, app: string, ip: string): PlainPod => ({
    namespace: 'x',
    name,
    labels: { app },
    ips: [ip],
    ports: [{ name: 'http', protocol: 'TCP', containerPort: 8080 }],
  });
  const [web, db] = [pod('web', 'web', '10.244.0.2'), pod('db', 'db', '10.244.0.3')];
  const read = {
    policies: [
      policy('deny', 'x', { podSelector: {} }),
      policy('web', 'x', {
        podSelector: { matchLabels: { app: 'web' } },
        ingress: [
          { ports: [{ port: 1 }] },
          { from: [{ podSelector: { matchLabels: { app: 'db' } } }], ports: [{ port: 'http' }] },
        ],
      }),
    ].map(readNetworkPolicy),
    namespaceLabels: () => ({}),
  };
  const ask = (from: PlainPod, to: PlainPod, port: number) =>
    explain(read, { from: endOf(from.ips[0]!, from), to: endOf(to.ips[0]!, to), protocol: 'TCP', port });
  assert.deepEqual(ask(db, web, 8080).ingress, {
    allowed: true,
    why: 'rule',
    policies: ['NetworkPolicy x/deny', 'NetworkPolicy x/web'],
    by: { policy: 'NetworkPolicy x/web', tier: 'namespace', at: 'spec.ingress[1]', action: 'allow' },
  });
  assert.deepEqual(ask(web, db, 8080), {
    allowed: false,
    itself: false,
    egress: { allowed: true, why: 'not isolated', policies: [] },
    ingress: { allowed: false, why: 'no rule', policies: ['NetworkPolicy x/deny'] },
  });
});
