import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Service, ServiceSpec } from '../../api/core/v1.gen.ts';
import { silentLogger } from '../../base/log.ts';
import { metrics } from '../../base/metrics.ts';
import { seededRandom } from '../../base/random.ts';
import { IP_ADDRESSES, SERVICE_CIDRS, SERVICES } from '../../client/resources.ts';
import { FakeReader } from '../fake-reader.ts';
import { ClusterAddresses } from './cluster-addresses.ts';
import { NodePorts } from './node-ports.ts';
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
  const ports = new NodePorts({ reader: () => reader, random, range: { first: 30000, last: 32767 } });
  const allocator = new ServiceAllocator({ addresses, ports });
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
  return { reader, addresses, ports, allocator, write };
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

const DUAL = ['10.96.0.0/16', 'fd00:10:96::/108'];
/** Families, addresses by family, and policy, in short: `IPv4,IPv6 4,6 RequireDualStack`. */
const shape = ({ spec }: Service): string =>
  `${spec!.ipFamilies} ${(spec!.clusterIPs ?? []).map(ip => (ip === 'None' ? ip : ip.includes(':') ? 6 : 4))} ${spec!.ipFamilyPolicy}`;

test('each policy and family order, on each kind of cluster', () => {
  const four = ['10.96.0.0/16'];
  const six = ['fd00:10:96::/108'];
  const reversed = [...DUAL].reverse();
  const dualError = /this cluster is not configured for dual-stack services/;
  const cases: [cidrs: string[], spec: ServiceSpec, expected: string | RegExp][] = [
    [four, {}, 'IPv4 4 SingleStack'],
    [six, {}, 'IPv6 6 SingleStack'],
    [DUAL, {}, 'IPv4 4 SingleStack'],
    [reversed, {}, 'IPv6 6 SingleStack'],
    [DUAL, { ipFamilyPolicy: 'SingleStack', ipFamilies: ['IPv6'] }, 'IPv6 6 SingleStack'],
    [four, { ipFamilyPolicy: 'PreferDualStack' }, 'IPv4 4 PreferDualStack'],
    [DUAL, { ipFamilyPolicy: 'PreferDualStack' }, 'IPv4,IPv6 4,6 PreferDualStack'],
    [reversed, { ipFamilyPolicy: 'PreferDualStack' }, 'IPv6,IPv4 6,4 PreferDualStack'],
    [DUAL, { ipFamilyPolicy: 'PreferDualStack', ipFamilies: ['IPv6'] }, 'IPv6,IPv4 6,4 PreferDualStack'],
    [DUAL, { ipFamilyPolicy: 'RequireDualStack', ipFamilies: ['IPv6', 'IPv4'] }, 'IPv6,IPv4 6,4 RequireDualStack'],
    [DUAL, { ipFamilyPolicy: 'RequireDualStack', clusterIP: 'fd00:10:96::7' }, 'IPv6,IPv4 6,4 RequireDualStack'],
    [four, { ipFamilyPolicy: 'RequireDualStack' }, dualError],
    [four, { ipFamilies: ['IPv6'] }, /spec\.ipFamilies\[0\]: Invalid value: "IPv6": not configured on this cluster/],
    [DUAL, { ipFamilies: ['IPv4', 'IPv6'] }, /when multiple IP families are specified/],
    [
      DUAL,
      { clusterIP: '10.96.0.9', clusterIPs: ['10.96.0.9', 'fd00:10:96::9'] },
      /spec\.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified/,
    ],
    [four, { clusterIP: 'fd00::1' }, /spec\.clusterIPs\[0\]: .*IPv6 is not configured on this cluster/],
    [
      DUAL,
      { clusterIP: '10.96.0.9', ipFamilies: ['IPv6'] },
      /expected an IPv6 value as indicated by `ipFamilies\[0\]`/,
    ],
    [
      DUAL,
      { clusterIP: 'None', selector: { a: 'b' }, ipFamilyPolicy: 'PreferDualStack' },
      'IPv4,IPv6 None PreferDualStack',
    ],
    [four, { clusterIP: 'None', selector: { a: 'b' }, ipFamilyPolicy: 'RequireDualStack' }, dualError],
    [four, { clusterIP: 'None' }, 'IPv4,IPv6 None RequireDualStack'],
    [six, { clusterIP: 'None' }, 'IPv6,IPv4 None RequireDualStack'],
    [four, { clusterIP: 'None', ipFamilyPolicy: 'SingleStack', ipFamilies: ['IPv6'] }, 'IPv6 None SingleStack'],
  ];
  for (const [cidrs, spec, expected] of cases) {
    const { write } = setup(cidrs);
    if (typeof expected === 'string') assert.equal(shape(write('a', spec)), expected);
    else assert.throws(() => write('a', spec), expected, JSON.stringify(spec));
  }
});

test('upgrade and downgrade: the second address comes and goes, the first stays', () => {
  const { addresses, write } = setup(DUAL);
  const one = write('a', {});
  const first = one.spec!.clusterIP!;
  const two = write('a', { ...one.spec, ipFamilyPolicy: 'RequireDualStack' }, one);
  assert.equal(shape(two), 'IPv4,IPv6 4,6 RequireDualStack');
  assert.equal(two.spec!.clusterIP, first);
  const second = two.spec!.clusterIPs![1]!;
  assert.equal(addresses.ownerOf(second), 'default/a');
  // Asked for by leaving out the second address, without a policy that allows it.
  assert.throws(
    () => write('a', { ...two.spec, clusterIPs: [first], ipFamilies: ['IPv4'] }, two),
    /must be 'SingleStack' to release the secondary cluster IP/,
  );
  assert.equal(addresses.ownerOf(second), 'default/a');
  const three = write('a', { ...two.spec, ipFamilyPolicy: 'SingleStack' }, two);
  assert.equal(shape(three), 'IPv4 4 SingleStack');
  assert.deepEqual([addresses.ownerOf(first), addresses.ownerOf(second)], ['default/a', undefined]);
  const named = write(
    'a',
    { ...three.spec, ipFamilyPolicy: 'PreferDualStack', clusterIPs: [first, 'fd00:10:96::77'] },
    three,
  );
  assert.deepEqual(named.spec!.clusterIPs, [first, 'fd00:10:96::77']);
  // A PUT that knows only clusterIP keeps both.
  const { clusterIPs: _, ipFamilies: __, ...old } = named.spec!;
  assert.deepEqual(write('a', old, named).spec!.clusterIPs, named.spec!.clusterIPs);
});

test('an update that would change an address claims nothing, for validation refuses it', () => {
  const { addresses, allocator, write } = setup();
  const one = write('a', { clusterIP: '10.96.0.10' });
  write('b', { clusterIP: '10.96.0.11' });
  for (const clusterIP of ['10.96.0.11', '10.96.0.12']) {
    const next = { ...one, spec: { ...one.spec, clusterIP, clusterIPs: ['10.96.0.10'] } };
    allocator.claim(next, one, { dryRun: false }).failed();
    assert.deepEqual(next.spec.clusterIPs, [clusterIP]);
  }
  assert.equal(addresses.ownerOf('10.96.0.12'), undefined);
  assert.equal(addresses.ownerOf('10.96.0.10'), 'default/a');
});

test('every change of type frees what the new one has not and claims what it needs', () => {
  const types = ['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName'] as const;
  for (const from of types)
    for (const to of types) {
      const { addresses, ports, write } = setup(DUAL);
      const extra = (type: string): ServiceSpec => ({
        type,
        ports: [{ port: 80 }],
        ...(type === 'LoadBalancer' ? { externalTrafficPolicy: 'Local' } : {}),
        ...(type === 'ExternalName' ? { externalName: 'x.example' } : { ipFamilyPolicy: 'RequireDualStack' }),
      });
      const one = write('a', extra(from));
      // As `kubectl patch` sends it: all that was there, and the type.
      const two = write('a', { ...structuredClone(one.spec), ...extra(to), ports: one.spec!.ports! }, one);
      const isAddressed = to !== 'ExternalName';
      assert.equal(two.spec!.clusterIPs?.length ?? 0, isAddressed ? 2 : 0, `${from} to ${to}`);
      assert.equal(addresses.owners().size, isAddressed ? 2 : 0, `${from} to ${to}`);
      const expectedPorts = to === 'NodePort' ? 1 : to === 'LoadBalancer' ? 2 : 0;
      assert.equal(ports.owners().size, expectedPorts, `${from} to ${to}`);
      assert.equal(two.spec!.healthCheckNodePort !== undefined, to === 'LoadBalancer', `${from} to ${to}`);
      if (from !== 'ExternalName' && isAddressed) assert.deepEqual(two.spec!.clusterIPs, one.spec!.clusterIPs);
    }
});

test('the health check port comes and goes with the policy, and is freed', () => {
  const { ports, write } = setup();
  const spec: ServiceSpec = { type: 'LoadBalancer', ports: [{ port: 80 }] };
  const one = write('lb', { ...spec, externalTrafficPolicy: 'Cluster' });
  assert.equal(one.spec!.healthCheckNodePort, undefined);
  const two = write('lb', { ...one.spec, externalTrafficPolicy: 'Local', healthCheckNodePort: 30555 }, one);
  assert.equal(ports.owners().get(30555), 'default/lb');
  assert.throws(
    () => write('other', { ...spec, externalTrafficPolicy: 'Local', healthCheckNodePort: 30555 }),
    /failed to allocate requested HealthCheck NodePort 30555: provided port is already allocated/,
  );
  const three = write('lb', { ...two.spec, externalTrafficPolicy: 'Cluster' }, two);
  assert.equal(three.spec!.healthCheckNodePort, undefined);
  assert.equal(ports.owners().has(30555), false);
});

test('a node port that an ExternalName names is claimed when it becomes a Service that has it', () => {
  const { ports, write } = setup();
  const spec: ServiceSpec = { ports: [{ port: 80, nodePort: 30007 }] };
  const one = write('a', { type: 'ExternalName', externalName: 'x.example', ...spec });
  assert.equal(ports.owners().size, 0);
  write('b', { type: 'NodePort', ...spec });
  assert.throws(() => write('a', { type: 'NodePort', ...spec }, one), /provided port is already allocated/);
  assert.equal(ports.owners().get(30007), 'default/b');
  const { nodePort: _, ...free } = spec.ports![0]!;
  assert.notEqual(write('a', { type: 'NodePort', ports: [free] }, one).spec!.ports![0]!.nodePort, 30007);
});

test('the external traffic policy goes with the last way in from outside, not before', () => {
  const { write } = setup();
  const spec: ServiceSpec = { type: 'NodePort', externalTrafficPolicy: 'Local', externalIPs: ['192.0.2.1'] };
  const one = write('a', { ...spec, ports: [{ port: 80 }] });
  const two = write('a', { ...one.spec, type: 'ClusterIP', ports: one.spec!.ports! }, one);
  assert.equal(two.spec!.externalTrafficPolicy, 'Local');
  const { externalIPs: _, ...rest } = two.spec!;
  assert.equal(write('a', rest, two).spec!.externalTrafficPolicy, undefined);
});

test('node ports go with the type, unless another one is asked for; the policy for the inside stays', () => {
  const { write } = setup();
  const ports = [
    { name: 'a', port: 80, nodePort: 30001 },
    { name: 'b', port: 81, nodePort: 30002 },
  ];
  const one = write('s', { type: 'NodePort', internalTrafficPolicy: 'Local', ports });
  const change = (changed: ServiceSpec['ports']) =>
    write(
      's',
      { ...structuredClone(one.spec), type: 'ClusterIP', ports: structuredClone(changed!) },
      one,
    ).spec!.ports!.map(port => port.nodePort);
  assert.deepEqual(change([ports[1]!, { name: 'c', port: 82 }]), [undefined, undefined]);
  assert.deepEqual(change([ports[0]!, { ...ports[1]!, nodePort: 30003 }]), [30001, 30003]);
  const named = write('s', { ...structuredClone(one.spec), type: 'ExternalName', externalName: 'x.example' }, one);
  assert.equal(named.spec!.internalTrafficPolicy, 'Local');
});

test('a new port of an updated Service has a number of its own; asked-for numbers of two ports may be one', () => {
  const { ports, write } = setup();
  const one = write('a', { type: 'NodePort', ports: [{ name: 'u', port: 53, protocol: 'UDP' }] });
  const number = one.spec!.ports![0]!.nodePort!;
  const two = write('a', { type: 'NodePort', ports: [...one.spec!.ports!, { name: 't', port: 53 }] }, one);
  assert.notEqual(two.spec!.ports![1]!.nodePort, number);
  const [udp, tcp] = two.spec!.ports!;
  write('a', { type: 'NodePort', ports: [udp!, { ...tcp!, nodePort: number }] }, two);
  assert.deepEqual([...ports.owners().keys()], [number]);
  assert.throws(
    () =>
      write('b', {
        type: 'NodePort',
        ports: [
          { name: 'a', port: 1, nodePort: 31000 },
          { name: 'b', port: 2, protocol: 'UDP', nodePort: 31000 },
        ],
      }),
    /spec\.ports\[1\]\.nodePort: Invalid value: 31000: provided port is already allocated/,
  );
});

test('a ServiceCIDR adds addresses, and gives none while it goes', () => {
  const { reader, write } = setup(['10.1.0.0/28']);
  for (let i = 0; i < 14; i++) write(`s${i}`, {});
  assert.throws(() => write('more', {}), /range is full/);
  const range = (metadata: object, cidrs: string[]) =>
    reader.put(SERVICE_CIDRS, {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'ServiceCIDR',
      metadata: { name: 'extra', ...metadata },
      spec: { cidrs },
    } as never);
  reader.put(SERVICE_CIDRS, {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'ServiceCIDR',
    metadata: { name: 'kubernetes' },
    spec: { cidrs: ['10.1.0.0/28'] },
  } as never);
  range({}, ['10.2.0.0/24', 'fd00:2::/112']);
  assert.match(write('more', {}).spec!.clusterIP!, /^10\.2\.0\./);
  // A range of another family makes no dual-stack cluster.
  assert.throws(() => write('six', { ipFamilies: ['IPv6'] }), /not configured on this cluster/);
  range({ deletionTimestamp: '2026-01-01T00:00:00Z' }, ['10.2.0.0/24']);
  assert.throws(() => write('late', {}), /range is full/);
  assert.throws(() => write('late', { clusterIP: '10.2.0.9' }), /does not match the current range/);
});

test('what is taken, left, given out and refused is counted, by range and by who chose; a dry run is not', () => {
  const told = (name: string) =>
    metrics
      .render({ prefixes: [`kube_apiserver_${name}`] })
      .split('\n')
      .filter(line => line && !line.startsWith('#'));
  const { allocator, write } = setup(['10.77.0.0/28']);
  const [dynamicBefore, staticBefore] = ['dynamic', 'static'].map(scope =>
    Number(
      told('nodeport_allocator_allocation_total')
        .find(line => line.includes(scope))
        ?.split(' ')[1] ?? 0,
    ),
  );
  const web = write('web', { type: 'NodePort', ports: [{ port: 80 }] });
  write('chosen', { clusterIP: '10.77.0.3', type: 'NodePort', ports: [{ port: 80, nodePort: 30_001 }] });
  const again = (dryRun: boolean) =>
    assert.throws(() =>
      allocator.claim({ ...web, metadata: { name: 'again', namespace: 'default' } }, undefined, { dryRun }),
    );
  again(false);
  again(true);
  const cidr = 'cidr="10.77.0.0/28"';
  const ofRange = told('clusterip_allocator').filter(line => line.includes(cidr));
  assert.deepEqual(ofRange, [
    `kube_apiserver_clusterip_allocator_allocated_ips{${cidr}} 2`,
    `kube_apiserver_clusterip_allocator_available_ips{${cidr}} 12`,
    `kube_apiserver_clusterip_allocator_allocation_total{${cidr},scope="dynamic"} 1`,
    `kube_apiserver_clusterip_allocator_allocation_total{${cidr},scope="static"} 1`,
    `kube_apiserver_clusterip_allocator_allocation_errors_total{${cidr},scope="static"} 1`,
  ]);
  const ofPorts = told('nodeport_allocator');
  for (const line of [
    'allocated_ports 2',
    'available_ports 2766',
    `allocation_total{scope="dynamic"} ${dynamicBefore! + 1}`,
    `allocation_total{scope="static"} ${staticBefore! + 1}`,
  ])
    assert.ok(ofPorts.includes(`kube_apiserver_nodeport_allocator_${line}`), `${line} in\n${ofPorts.join('\n')}`);
});
