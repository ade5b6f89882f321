import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ClusterPolicy, Rule } from '../../api/networkpolicy/kinds.ts';
import { unknownParts } from '../../api/networkpolicy/kinds.ts';
import { type NodeFacts, readClusterPolicy } from './cluster-policy.ts';
import type { BlockPeer } from './statement.ts';

const subject = { namespaces: {} };
const policy = (egress: readonly object[], more: object = {}): ClusterPolicy => ({
  apiVersion: 'policy.networking.k8s.io/v1alpha2',
  kind: 'ClusterNetworkPolicy',
  metadata: { name: 'p' },
  spec: { tier: 'Admin', priority: 7, subject, egress: egress as Rule[], ...more },
});
const statements = (rule: object) =>
  readClusterPolicy('ClusterNetworkPolicy', policy([rule])).statements.egress!.map(({ action, peers, ports }) => ({
    action,
    peers: peers === 'all' ? peers : peers.length,
    ports,
  }));

test('what nobody here understands accepts nobody, and denies everything otherwise', () => {
  const strange = [{ galaxies: ['andromeda'] }];
  assert.deepEqual(statements({ action: 'Accept', to: strange }), [{ action: 'allow', peers: 0, ports: 'all' }]);
  assert.deepEqual(statements({ action: 'Accept', to: [...strange, { namespaces: {} }] }), [
    { action: 'allow', peers: 1, ports: 'all' },
  ]);
  for (const action of ['Deny', 'Pass'])
    assert.deepEqual(statements({ action, to: strange }), [{ action: 'deny', peers: 'all', ports: 'all' }]);
  assert.deepEqual(statements({ action: 'Accept', to: [{ namespaces: {} }], protocols: [{ quic: {} }] }), [
    { action: 'allow', peers: 1, ports: [] },
  ]);
  assert.deepEqual(
    unknownParts(policy([{ action: 'Deny', to: [{ namespaces: {} }, ...strange], protocols: [{ quic: {} }] }])),
    ['spec.egress[0].to[1]', 'spec.egress[0].protocols[0]'],
  );
});

test('tier, priority, the name of a rule; nodes become their addresses', () => {
  const nodes: NodeFacts[] = [
    { labels: { role: 'edge' }, ips: ['192.0.2.1', '2001:db8::1'] },
    { labels: {}, ips: ['192.0.2.2'] },
  ];
  const rule = { name: 'edge', action: 'Deny', to: [{ nodes: { matchLabels: { role: 'edge' } } }] };
  const read = readClusterPolicy('ClusterNetworkPolicy', policy([rule]), nodes);
  assert.deepEqual([read.id, read.tier, read.priority], ['ClusterNetworkPolicy p', 'admin', 7]);
  const [statement] = read.statements.egress!;
  assert.equal(statement!.at, 'spec.egress[0] "edge"');
  assert.deepEqual(
    (statement!.peers as readonly BlockPeer[]).map(({ cidr }) => cidr),
    ['192.0.2.1/32', '2001:db8::1/128'],
  );
  assert.equal(read.statements.ingress, undefined);
  const baseline = readClusterPolicy('BaselineAdminNetworkPolicy', policy([], { priority: undefined }));
  assert.equal(baseline.tier, 'baseline');
});
