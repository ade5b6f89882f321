import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Node, Service } from '../api/core/v1.gen.ts';
import type { EndpointSlice } from '../api/discovery/v1.gen.ts';
import { API_VERSION, type IPAddressPool, type L2Advertisement } from '../api/loadbalancer/v1beta1.ts';
import { announcements, type World } from './announcement.ts';

const NAMES = ['a', 'b', 'c', 'd'];
const node = (name: string, labels: Record<string, string> = {}): Node =>
  ({ apiVersion: 'v1', kind: 'Node', metadata: { name, labels }, spec: {} }) as Node;
const pool: IPAddressPool = {
  apiVersion: API_VERSION,
  kind: 'IPAddressPool',
  metadata: { name: 'p' },
  spec: { addresses: ['192.0.2.0/24'] },
};
const l2 = (spec: L2Advertisement['spec'] = {}): L2Advertisement => ({
  apiVersion: API_VERSION,
  kind: 'L2Advertisement',
  metadata: { name: 'l2' },
  spec,
});
const service = (ip: string, spec: Partial<Service['spec']> = {}, ipMode = 'VIP'): Service =>
  ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: ip, namespace: 'default' },
    spec: { type: 'LoadBalancer', ...spec },
    status: { loadBalancer: { ingress: [{ ip, ipMode }] } },
  }) as Service;
const endpoint = (nodeName: string, conditions: object = { ready: true }) => ({
  addresses: ['10.0.0.1'],
  nodeName,
  conditions,
});

/** Names of the nodes that announce the address by layer 2, each asked for itself. */
function announcers(world: Partial<World> & { endpoints?: object[] }, ip = '192.0.2.1'): string[] {
  const nodes = world.nodes ?? NAMES.map(name => node(name));
  return nodes
    .map(({ metadata }) => metadata.name)
    .filter(name =>
      announcements({
        node: name,
        services: [service(ip)],
        slicesOf: () => [{ endpoints: world.endpoints ?? [endpoint('a')] } as EndpointSlice],
        nodes,
        pools: [pool],
        l2Advertisements: [l2()],
        bgpAdvertisements: [],
        isAlive: () => true,
        ...world,
      }).has(ip),
    );
}

test('exactly one node announces, and only its own addresses move when it leaves', () => {
  const of = (isAlive: (name: string) => boolean) =>
    Array.from({ length: 50 }, (_, i) => {
      const ip = `192.0.2.${i + 1}`;
      const [holder, ...others] = announcers({ services: [service(ip)], isAlive }, ip);
      assert.deepEqual(others, []);
      return holder;
    });
  const before = of(() => true);
  const after = of(name => name !== 'b');
  assert.deepEqual(new Set(before), new Set(NAMES));
  for (const [i, holder] of before.entries()) if (holder !== 'b') assert.equal(after[i], holder);
  assert.ok(!after.includes('b'));
});

test('only where it would be served', () => {
  assert.deepEqual(announcers({ endpoints: [] }), []);
  assert.deepEqual(announcers({ endpoints: [endpoint('a', { ready: false, serving: false })] }), []);
  const local = [service('192.0.2.1', { externalTrafficPolicy: 'Local' })];
  assert.deepEqual(announcers({ services: local, endpoints: [endpoint('c')] }), ['c']);
  const ending = { ready: false, serving: true, terminating: true };
  assert.deepEqual(announcers({ services: local, endpoints: [endpoint('c', ending), endpoint('d')] }), ['d']);
  assert.deepEqual(announcers({ services: local, endpoints: [endpoint('c', ending)] }), ['c']);
});

test('only by nodes that may', () => {
  const marked = NAMES.map(name => node(name, name === 'd' ? { edge: 'yes' } : {}));
  const chosen = [l2({ nodeSelectors: [{ matchLabels: { edge: 'yes' } }] })];
  assert.deepEqual(announcers({ nodes: marked, l2Advertisements: chosen }), ['d']);
  const excluded = NAMES.map(name =>
    node(name, name === 'a' ? {} : { 'node.kubernetes.io/exclude-from-external-load-balancers': '' }),
  );
  assert.deepEqual(announcers({ nodes: excluded }), ['a']);
});

test('only what is of a pool that is advertised, and not what a proxy answers', () => {
  assert.deepEqual(announcers({ l2Advertisements: [] }), []);
  assert.deepEqual(announcers({ l2Advertisements: [l2({ ipAddressPools: ['other'] })] }), []);
  assert.deepEqual(announcers({ services: [service('203.0.113.1')] }, '203.0.113.1'), []);
  assert.deepEqual(announcers({ services: [service('192.0.2.1', {}, 'Proxy')] }), []);
});

test('what another implementation gave to Services of its class is not announced', () => {
  const foreign = [service('192.0.2.1', { loadBalancerClass: 'example.com/other' })];
  assert.deepEqual(announcers({ services: foreign }), []);
  const pools = [{ ...pool, spec: { ...pool.spec, loadBalancerClass: 'example.com/other' } }];
  assert.equal(announcers({ services: foreign, pools }).length, 1);
  assert.deepEqual(announcers({ pools }), []);
});
