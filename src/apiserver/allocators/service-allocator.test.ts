import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Service, ServiceSpec } from '../../api/core/v1.gen.ts';
import { silentLogger } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import { SERVICES } from '../../client/resources.ts';
import { FakeReader } from '../fake-reader.ts';
import { ClusterAddresses, IP_ADDRESSES } from './cluster-addresses.ts';
import { ServiceAllocator } from './service-allocator.ts';

function setup(cidrs = ['10.96.0.0/12'], reader = new FakeReader()) {
  const random = seededRandom(7);
  const addresses = new ClusterAddresses({
    reader: () => reader,
    transport: () => reader,
    random,
    log: silentLogger,
    cidrs,
  });
  const allocator = new ServiceAllocator({
    addresses,
    reader: () => reader,
    random,
    log: silentLogger,
    nodePortRange: { first: 30000, last: 32767 },
  });
  const write = (name: string, spec: ServiceSpec, old?: Service): Service => {
    const service: Service = {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace: 'default' },
      spec: structuredClone({ type: 'ClusterIP', ...spec }),
    };
    const { committed } = allocator.claim(service, old, { dryRun: false });
    reader.put(SERVICES, service);
    committed();
    return service;
  };
  return { reader, addresses, allocator, write };
}
const settle = async () => {
  for (let i = 0; i < 8; i++) await new Promise(resolve => setImmediate(resolve));
};

test('an address of the dynamic band, an IPAddress that names the Service, and both gone after it', async () => {
  const { reader, allocator, write } = setup();
  const service = write('a', { ports: [{ port: 80 }] });
  const ip = service.spec!.clusterIP!;
  assert.match(ip, /^10\.(9[6-9]|10\d|11[01])\./);
  assert.deepEqual(
    [service.spec!.clusterIPs, service.spec!.ipFamilies, service.spec!.ipFamilyPolicy],
    [[ip], ['IPv4'], 'SingleStack'],
  );
  await settle();
  const record = reader.get(IP_ADDRESSES, '', ip) as unknown as { spec: object };
  assert.deepEqual(record.spec, { parentRef: { group: '', resource: 'services', namespace: 'default', name: 'a' } });
  allocator.release(service);
  await settle();
  assert.equal(reader.get(IP_ADDRESSES, '', ip), undefined);
});

test("a taken, foreign or unusable address is refused in upstream's words", () => {
  const { write } = setup();
  write('a', { clusterIP: '10.96.0.10' });
  assert.throws(() => write('b', { clusterIP: '10.96.0.10' }), {
    message:
      'Service "b" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.10"]: failed to allocate IP 10.96.0.10: provided IP is already allocated',
  });
  assert.throws(
    () => write('b', { clusterIP: '10.0.0.1' }),
    /failed to allocate IP 10\.0\.0\.1: the provided network does not match the current range/,
  );
  assert.throws(
    () => write('b', { clusterIP: '10.96.0.0' }),
    /the provided IP \(10\.96\.0\.0\) is not in the valid range\. The range of valid IPs is 10\.96\.0\.0\/12/,
  );
  assert.throws(
    () => write('b', { ipFamilyPolicy: 'RequireDualStack' }),
    /spec\.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services/,
  );
  assert.throws(
    () => write('b', { ipFamilies: ['IPv6'] }),
    /spec\.ipFamilies\[0\]: Invalid value: "IPv6": not configured on this cluster/,
  );
});

test('headless Services have no address; without a selector they have both families', () => {
  const { write } = setup();
  const plain = write('a', { clusterIP: 'None', selector: { a: 'b' } }).spec!;
  assert.deepEqual([plain.clusterIPs, plain.ipFamilies, plain.ipFamilyPolicy], [['None'], ['IPv4'], 'SingleStack']);
  const bare = write('b', { clusterIP: 'None' }).spec!;
  assert.deepEqual([bare.ipFamilies, bare.ipFamilyPolicy], [['IPv4', 'IPv6'], 'RequireDualStack']);
});

test('dual stack', () => {
  const { write } = setup(['10.96.0.0/16', 'fd00:10:96::/108']);
  const both = write('a', { ipFamilyPolicy: 'PreferDualStack' });
  assert.deepEqual(both.spec!.ipFamilies, ['IPv4', 'IPv6']);
  assert.match(both.spec!.clusterIPs![1]!, /^fd00:10:96::/);
  const six = write('b', { ipFamilies: ['IPv6'] });
  assert.match(six.spec!.clusterIP!, /^fd00:10:96::/);
  const less = write('a', { ...both.spec!, ipFamilyPolicy: 'SingleStack' }, both);
  assert.deepEqual([less.spec!.clusterIPs, less.spec!.ipFamilies], [[both.spec!.clusterIP], ['IPv4']]);
});

test('type changes take and give; an update that leaves fields out keeps them', () => {
  const { addresses, write } = setup();
  const one = write('a', { type: 'NodePort', ports: [{ port: 80 }] });
  const { nodePort } = one.spec!.ports![0]!;
  assert.ok(nodePort! >= 30086 && nodePort! <= 32767);
  const two = write('a', { type: 'NodePort', ports: [{ port: 8080 }] }, one);
  assert.deepEqual([two.spec!.clusterIP, two.spec!.ports![0]!.nodePort], [one.spec!.clusterIP, nodePort]);
  const three = write('a', { ...two.spec!, type: 'ClusterIP' }, two);
  assert.equal(three.spec!.ports![0]!.nodePort, undefined);
  write('other', { type: 'NodePort', ports: [{ port: 1, nodePort: nodePort! }] });
  const four = write('a', { ...three.spec!, type: 'ExternalName', externalName: 'x.example' }, three);
  assert.deepEqual(
    [four.spec!.clusterIP, four.spec!.clusterIPs, four.spec!.ipFamilies],
    [undefined, undefined, undefined],
  );
  assert.equal(addresses.ownerOf(one.spec!.clusterIP!), undefined);
  assert.ok(write('a', { ...four.spec!, type: 'ClusterIP', ports: [{ port: 80 }] }, four).spec!.clusterIP);
});

test('node ports: taken, out of range, shared by two protocols of one port', () => {
  const { write } = setup();
  write('a', { type: 'NodePort', ports: [{ port: 80, nodePort: 30080 }] });
  assert.throws(() => write('b', { type: 'NodePort', ports: [{ port: 80, nodePort: 30080 }] }), {
    message: 'Service "b" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated',
  });
  assert.throws(
    () => write('b', { type: 'NodePort', ports: [{ port: 80, nodePort: 80 }] }),
    /provided port is not in the valid range\. The range of valid ports is 30000-32767/,
  );
  const dns = write('dns', {
    type: 'NodePort',
    ports: [
      { port: 53, protocol: 'UDP', nodePort: 30053 },
      { port: 53, protocol: 'TCP' },
    ],
  });
  assert.deepEqual(
    dns.spec!.ports!.map(port => port.nodePort),
    [30053, 30053],
  );
  const balanced = write('lb', { type: 'LoadBalancer', externalTrafficPolicy: 'Local', ports: [{ port: 80 }] });
  assert.ok(balanced.spec!.healthCheckNodePort);
  assert.equal(
    write('no', { type: 'LoadBalancer', allocateLoadBalancerNodePorts: false, ports: [{ port: 80 }] }).spec!.ports![0]!
      .nodePort,
    undefined,
  );
});

test('a failed or dry write gives everything back', () => {
  const { allocator, write } = setup();
  const make = (): Service => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'a', namespace: 'default' },
    spec: { type: 'NodePort', clusterIP: '10.96.0.9', ports: [{ port: 80, nodePort: 30001 }] },
  });
  allocator.claim(make(), undefined, { dryRun: true }).committed();
  allocator.claim(make(), undefined, { dryRun: false }).failed();
  assert.throws(
    () => write('b', { type: 'NodePort', clusterIP: '10.96.0.9', ports: [{ port: 80, nodePort: 99 }] }),
    /not in the valid range/,
  );
  write('a', make().spec!);
});

test("ownership is rebuilt after a restart, and a user's IPAddress reserves its address", () => {
  const first = setup();
  first.write('a', { clusterIP: '10.96.0.10', type: 'NodePort', ports: [{ port: 1, nodePort: 30010 }] });
  first.reader.put(IP_ADDRESSES, {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'IPAddress',
    metadata: { name: '10.96.0.11' },
    spec: {},
  } as never);
  const second = setup(undefined, first.reader);
  for (const spec of [
    { clusterIP: '10.96.0.10' },
    { clusterIP: '10.96.0.11' },
    { type: 'NodePort', ports: [{ port: 1, nodePort: 30010 }] },
  ])
    assert.throws(() => second.write('b', spec), /already allocated/);
});

test('a full range says so, and no address is given twice', () => {
  const { write } = setup(['10.1.0.0/28']);
  const given = new Set<string>();
  for (let i = 0; i < 14; i++) given.add(write(`s${i}`, {}).spec!.clusterIP!);
  assert.equal(given.size, 14);
  assert.throws(() => write('more', {}), /Internal error occurred: failed to allocate a serviceIP: range is full/);
});
