import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Node, Service } from '../../api/core/v1.gen.ts';
import { changesHosts, changesTold, demandOf, takesTraffic } from './change.ts';
import { loadBalancerName } from './provider.ts';

const node = (metadata: object = {}, spec: object = {}): Node =>
  ({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'n', ...metadata }, spec, status: {} }) as Node;
const service = (spec: object, metadata: object = {}): Service =>
  ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 's', namespace: 'x', uid: '5b2c11aa-0000-4444-8888-123456789abc', ...metadata },
    spec: { type: 'LoadBalancer', ports: [{ port: 80, nodePort: 30080 }], ...spec },
  }) as Service;
const excluded = { labels: { 'node.kubernetes.io/exclude-from-external-load-balancers': '' } };
const tainted = { taints: [{ key: 'ToBeDeletedByClusterAutoscaler', effect: 'NoSchedule' }] };

test('nodes that are excluded, about to go, or tainted by the autoscaler take no traffic', () => {
  assert.ok(takesTraffic(node()));
  assert.ok(!takesTraffic(node(excluded)));
  assert.ok(takesTraffic(node({ labels: { [Object.keys(excluded.labels)[0]!]: 'false' } })));
  assert.ok(!takesTraffic(node({ deletionTimestamp: '2026-01-01T00:00:00Z' })));
  assert.ok(!takesTraffic(node({}, tainted)));
});

test('a taint alone does not move hosts, so that connections drain; labels, ids and deletion do', () => {
  assert.ok(!changesHosts(node(), node({}, tainted)));
  assert.ok(!changesHosts(node(), node({ labels: { other: 'x' } })));
  assert.ok(changesHosts(node(), node(excluded)));
  assert.ok(changesHosts(node(), node({}, { providerID: 'cloud://1' })));
  assert.ok(changesHosts(undefined, node()) && changesHosts(node(), undefined));
});

test('what a load balancer is made of, and what is told of a change', () => {
  const before = service({});
  assert.equal(demandOf(before), demandOf(service({ selector: { app: 'b' } }, { labels: { x: 'y' } })));
  for (const other of [
    service({ ports: [{ port: 81, nodePort: 30080 }] }),
    service({ loadBalancerSourceRanges: ['10.0.0.0/8'] }),
    service({}, { annotations: { a: 'b' } }),
    service({ externalTrafficPolicy: 'Local' }),
  ])
    assert.notEqual(demandOf(before), demandOf(other));
  assert.deepEqual(changesTold(before, service({ type: 'ClusterIP', loadBalancerSourceRanges: ['10.0.0.0/8'] })), [
    ['Type', 'LoadBalancer -> ClusterIP'],
    ['LoadBalancerSourceRanges', '[] -> [10.0.0.0/8]'],
  ]);
  assert.equal(loadBalancerName(before), 'a5b2c11aa000044448888123456789ab');
});
