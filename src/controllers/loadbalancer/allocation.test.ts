import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Service } from '../../api/core/v1.gen.ts';
import { API_VERSION, type IPAddressPool } from '../../api/loadbalancer/v1beta1.ts';
import { addressesIn, allocate, type Claim, claimOf, isOurs } from './allocation.ts';
import { capacityOf, readPools } from './pool.ts';

type ServiceSpec = Partial<Service['spec']>;

function pool(name: string, addresses: string[], spec: Partial<IPAddressPool['spec']> = {}): IPAddressPool {
  return { apiVersion: API_VERSION, kind: 'IPAddressPool', metadata: { name }, spec: { addresses, ...spec } };
}

function service(
  name: string,
  options: { spec?: ServiceSpec; annotations?: Record<string, string>; has?: string[]; namespace?: string } = {},
): Service {
  const { spec = {}, annotations, has = [], namespace = 'default' } = options;
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace, ...(annotations ? { annotations } : {}) },
    spec: { type: 'LoadBalancer', ports: [{ port: 80, protocol: 'TCP' }], ...spec },
    status: { loadBalancer: { ingress: has.map(ip => ({ ip })) } },
  } as Service;
}

function give(wanted: Service, pools: IPAddressPool[], others: Service[] = []): string[] | string {
  const claims = (address: string): Claim[] =>
    others.filter(other => addressesIn(other).includes(address)).map(claimOf);
  const result = allocate({
    service: wanted,
    namespace: { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'default', labels: { team: 'a' } }, spec: {} },
    pools: readPools(pools),
    claimsOn: claims,
  });
  return 'addresses' in result ? [...result.addresses] : result.message;
}

test('the first free address of the first pool that serves it', () => {
  const pools = [
    pool('late', ['192.0.2.0/30']),
    pool('early', ['198.51.100.1-198.51.100.2'], { serviceAllocation: { priority: 1 } }),
    pool('manual', ['203.0.113.0/24'], { autoAssign: false, serviceAllocation: { priority: 1 } }),
  ];
  const a = service('a', { has: ['198.51.100.1'] });
  const b = service('b', { has: ['198.51.100.2'] });
  assert.deepEqual(give(service('x'), pools), ['198.51.100.1']);
  assert.deepEqual(give(service('x'), pools, [a]), ['198.51.100.2']);
  assert.deepEqual(give(service('x'), pools, [a, b]), ['192.0.2.0']);
  assert.deepEqual(give(service('x'), [pool('p', ['192.0.2.0/24'], { avoidBuggyIPs: true })]), ['192.0.2.1']);
});

test('running out says so, naming the pools', () => {
  const full = [pool('only', ['192.0.2.7-192.0.2.7'])];
  const a = service('a', { has: ['192.0.2.7'] });
  assert.equal(
    give(service('x'), full, [a]),
    'Failed to allocate IP for "default/x": no available IPv4 addresses: pool "only"',
  );
  assert.match(String(give(service('x'), [])), /no address pool serves it/);
});

test('an address asked for is given, or the refusal names who has it', () => {
  const pools = [pool('p', ['192.0.2.0/24'])];
  const a = service('a', { has: ['192.0.2.9'] });
  for (const asked of [
    service('x', { spec: { loadBalancerIP: '192.0.2.9' } }),
    service('x', { annotations: { 'metallb.io/loadBalancerIPs': '192.0.2.9' } }),
    service('x', { annotations: { 'loadbalancer.coxswain.dev/loadBalancerIPs': '192.0.2.9' } }),
  ]) {
    assert.deepEqual(give(asked, pools), ['192.0.2.9']);
    assert.match(String(give(asked, pools, [a])), /"192.0.2.9" cannot be used: it is in use by "default\/a"/);
  }
  assert.match(
    String(give(service('x', { spec: { loadBalancerIP: '10.1.1.1' } }), pools)),
    /\["10.1.1.1"\] is not in any pool that serves it: pool "p"/,
  );
  assert.match(
    String(give(service('x', { annotations: { 'metallb.io/loadBalancerIPs': 'many' } }), pools)),
    /"many" is not an IP address/,
  );
});

test('a pool by name, by namespace, by labels, by class', () => {
  const named = { annotations: { 'metallb.io/address-pool': 'b' } };
  const two = [pool('a', ['192.0.2.0/28']), pool('b', ['198.51.100.0/28'], { autoAssign: false })];
  assert.deepEqual(give(service('x', named), two), ['198.51.100.0']);
  assert.match(String(give(service('x', named), [two[0]!])), /there is no pool "b"; there are: pool "a"/);

  const fenced = pool('f', ['192.0.2.0/28'], { serviceAllocation: { namespaces: ['prod'] } });
  assert.match(String(give(service('x'), [fenced])), /no address pool serves it/);
  assert.deepEqual(give(service('x', { namespace: 'prod' }), [fenced]), ['192.0.2.0']);
  const teams = pool('t', ['192.0.2.0/28'], {
    serviceAllocation: { namespaceSelectors: [{ matchLabels: { team: 'a' } }] },
  });
  assert.deepEqual(give(service('x'), [teams]), ['192.0.2.0']);

  const classy = pool('c', ['192.0.2.0/28'], { loadBalancerClass: 'example.com/vip' });
  const classed = service('x', { spec: { loadBalancerClass: 'example.com/vip' } });
  assert.match(String(give(service('x'), [classy])), /no address pool serves it/);
  assert.deepEqual(give(classed, [classy]), ['192.0.2.0']);
  assert.equal(isOurs(classed, readPools([classy])), true);
  assert.equal(isOurs(classed, readPools(two)), false);
});

test('what a Service has it keeps while it is right', () => {
  const pools = [pool('p', ['192.0.2.0/24'])];
  assert.deepEqual(give(service('x', { has: ['192.0.2.44'] }), pools), ['192.0.2.44']);
  assert.deepEqual(give(service('x', { has: ['198.51.100.1'] }), pools), ['192.0.2.0']);
  assert.deepEqual(give(service('x', { has: ['192.0.2.44'], spec: { loadBalancerIP: '192.0.2.45' } }), pools), [
    '192.0.2.45',
  ]);
});

test('sharing needs the same key, other ports and the same places to go', () => {
  const pools = [pool('p', ['192.0.2.1-192.0.2.1'])];
  const key = { annotations: { 'metallb.io/allow-shared-ip': 'k' } };
  const local: ServiceSpec = { externalTrafficPolicy: 'Local', selector: { app: 'a' } };
  const first = service('a', { ...key, has: ['192.0.2.1'] });
  const udp: ServiceSpec = { ports: [{ port: 80, protocol: 'UDP' }] };
  assert.deepEqual(give(service('x', { ...key, spec: udp }), pools, [first]), ['192.0.2.1']);
  assert.match(String(give(service('x', key), pools, [first])), /no available/);
  const asked = { loadBalancerIP: '192.0.2.1' };
  assert.match(String(give(service('x', { ...key, spec: asked }), pools, [first])), /which has port TCP\/80 too/);
  assert.match(String(give(service('x', { spec: { ...udp, ...asked } }), pools, [first])), /the same sharing key/);
  assert.match(
    String(give(service('x', { ...key, spec: { ...udp, ...asked, ...local } }), pools, [first])),
    /only Services of the same selector can share/,
  );
});

test('families: one address each, a preferred second one where there is one', () => {
  const dual = pool('d', ['192.0.2.0/28', '2001:db8::/124']);
  const four = pool('a', ['198.51.100.0/28']);
  const both: ServiceSpec = { ipFamilies: ['IPv6', 'IPv4'] };
  assert.deepEqual(give(service('x', { spec: { ...both, ipFamilyPolicy: 'RequireDualStack' } }), [four, dual]), [
    '2001:db8::',
    '192.0.2.0',
  ]);
  assert.deepEqual(give(service('x', { spec: { ...both, ipFamilyPolicy: 'PreferDualStack' } }), [four]), [
    '198.51.100.0',
  ]);
  assert.match(
    String(give(service('x', { spec: { ...both, ipFamilyPolicy: 'RequireDualStack' } }), [four])),
    /no available IPv6 and IPv4 addresses/,
  );
});

test('bad pools give nothing out, with the reason', () => {
  const pools = readPools([
    { ...pool('old', ['192.0.2.0/24']), metadata: { name: 'old', creationTimestamp: '2026-01-01T00:00:00Z' } },
    { ...pool('new', ['192.0.2.128/25']), metadata: { name: 'new', creationTimestamp: '2026-01-02T00:00:00Z' } },
    pool('mixed', ['192.0.2.1-2001:db8::1']),
    pool('backwards', ['192.0.2.9-192.0.2.1']),
    pool('words', ['all of them']),
  ]);
  const problem = (name: string) => pools.find(pool => pool.name === name)!.problem;
  assert.equal(problem('old'), undefined);
  assert.match(problem('new')!, /overlaps with those of the pool "old"/);
  assert.match(problem('mixed')!, /different families/);
  assert.match(problem('backwards')!, /spec.addresses\[0\]: its end is before its start/);
  assert.match(problem('words')!, /spec.addresses\[0\]: not an address prefix/);
  assert.equal(capacityOf(pools.find(({ name }) => name === 'old')!, 4), 256);
  assert.equal(capacityOf(readPools([pool('v6', ['2001:db8::/64'])])[0]!, 6), Number.MAX_SAFE_INTEGER);
});

test('Services keep what they have of a pool that has become bad', () => {
  const pools = [pool('typo', ['192.0.2.0/24', '198.51.100.9-198.51.100.1']), pool('other', ['203.0.113.0/24'])];
  assert.deepEqual(give(service('a', { has: ['192.0.2.7'] }), pools), ['192.0.2.7']);
  assert.deepEqual(give(service('b'), pools), ['203.0.113.0']);
  assert.match(
    String(give(service('c', { annotations: { 'metallb.io/address-pool': 'typo' } }), pools)),
    /the requested pool "typo" gives nothing out: spec.addresses\[1\]: its end is before its start/,
  );
});
