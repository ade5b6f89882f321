import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Event, Service, ServiceSpec } from '../../api/core/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { VirtualClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import { EVENTS, IP_ADDRESSES, SERVICES } from '../../client/resources.ts';
import { FakeReader } from '../fake-reader.ts';
import { AllocationRepair } from './allocation-repair.ts';
import { ClusterAddresses } from './cluster-addresses.ts';
import { NodePorts } from './node-ports.ts';

function setup(services: Record<string, ServiceSpec> = {}, cidrs = ['10.96.0.0/24']) {
  const reader = new FakeReader();
  const clock = new VirtualClock(Date.parse('2026-01-01T00:00:00Z'));
  const common = { reader: () => reader, transport: () => reader, random: seededRandom(1), clock, log: silentLogger };
  const put = (name: string, spec: ServiceSpec) =>
    reader.put(SERVICES, { apiVersion: 'v1', kind: 'Service', metadata: { name, namespace: 'ns' }, spec } as Service);
  for (const [name, spec] of Object.entries(services)) put(name, spec);
  const addresses = new ClusterAddresses({ ...common, cidrs });
  const ports = new NodePorts({ ...common, range: { first: 30000, last: 30099 } });
  const repair = new AllocationRepair({ ...common, addresses, ports });
  const events = () =>
    (reader.list(EVENTS) as readonly Event[]).map(
      ({ involvedObject, reason, message, source }) =>
        `${source?.component} ${involvedObject.kind} ${involvedObject.name} ${reason}: ${message}`,
    );
  return { reader, clock, addresses, ports, repair, put, events };
}
const settle = async () => {
  for (let i = 0; i < 20; i++) await new Promise(resolve => setImmediate(resolve));
};
const record = (name: string, parent: object | undefined, labels: Record<string, string> = {}): KubeObject =>
  ({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'IPAddress',
    metadata: {
      name,
      creationTimestamp: '2026-01-01T00:00:00Z',
      labels: {
        'ipaddress.kubernetes.io/managed-by': 'ipallocator.k8s.io',
        'ipaddress.kubernetes.io/ip-family': 'IPv4',
        ...labels,
      },
    },
    spec: { parentRef: parent },
  }) as never;
const parentOf = (name: string) => ({ group: '', resource: 'services', namespace: 'ns', name });

test('a Service without its IPAddress gets it, with an event; what is right is left alone', async () => {
  const { reader, repair, events } = setup({ a: { clusterIPs: ['10.96.0.9'] }, b: { clusterIPs: ['10.96.0.8'] } });
  reader.put(IP_ADDRESSES, record('10.96.0.8', parentOf('b')));
  repair.start();
  await settle();
  assert.ok(reader.get(IP_ADDRESSES, '', '10.96.0.9'));
  assert.deepEqual(events(), [
    'ipallocator-repair-controller Service a ClusterIPNotAllocated: Cluster IP [IPv4]: 10.96.0.9 is not allocated; repairing',
  ]);
  reader.remove(IP_ADDRESSES, '', '10.96.0.8');
  await settle();
  assert.ok(reader.get(IP_ADDRESSES, '', '10.96.0.8'), 'made again at once');
});

test('an IPAddress that refers to the wrong thing is made anew, an orphan goes after its grace time', async () => {
  const { reader, clock, repair, events } = setup({ a: { clusterIPs: ['10.96.0.9'] } });
  reader.put(IP_ADDRESSES, record('10.96.0.9', { group: 'x.io', resource: 'gateways', name: 'g' }));
  repair.start();
  reader.put(IP_ADDRESSES, record('10.96.0.20', parentOf('a')));
  reader.put(IP_ADDRESSES, record('10.96.0.21', parentOf('gone')));
  reader.put(IP_ADDRESSES, record('10.96.0.22', { group: 'x.io', resource: 'gateways', name: 'g' }));
  await settle();
  const { spec } = reader.get(IP_ADDRESSES, '', '10.96.0.9') as unknown as { spec: object };
  assert.deepEqual(spec, { parentRef: parentOf('a') });
  assert.deepEqual(
    ['10.96.0.20', '10.96.0.21', '10.96.0.22'].map(name => reader.get(IP_ADDRESSES, '', name) !== undefined),
    [false, true, false],
  );
  await clock.advance(61_000);
  await settle();
  assert.equal(reader.get(IP_ADDRESSES, '', '10.96.0.21'), undefined);
  assert.deepEqual(
    events()
      .map(text => text.replace('ipallocator-repair-controller ', ''))
      .sort(),
    [
      'IPAddress 10.96.0.20 IPAddressWrongReference: IPAddress: 10.96.0.20 for Service ns/a has a wrong reference; cleaning up',
      'IPAddress 10.96.0.21 IPAddressNotAllocated: IPAddress: 10.96.0.21 for Service ns/gone appears to have leaked: cleaning up',
      'IPAddress 10.96.0.22 IPAddressNotAllocated: IPAddress 10.96.0.22 appears to have been modified, not referencing a Service {"group":"x.io","resource":"gateways","name":"g"}: cleaning up',
      'Service a ClusterIPNotAllocated: the ClusterIP [IPv4]: 10.96.0.9 for Service ns/a has a wrong reference; repairing',
    ],
  );
});

test('duplicates and values outside the ranges are told', async () => {
  const { repair, events } = setup({
    a: { clusterIPs: ['10.96.0.9'], ports: [{ port: 1, nodePort: 30001 }] },
    b: { clusterIPs: ['10.96.0.9'], ports: [{ port: 1, nodePort: 30001 }] },
    c: { clusterIPs: ['10.97.0.9'], ports: [{ port: 1, nodePort: 99 }] },
  });
  await repair.run();
  await settle();
  assert.deepEqual(
    events()
      .filter(text => !text.includes('NotAllocated'))
      .sort(),
    [
      'ipallocator-repair-controller Service b ClusterIPAlreadyAllocated: Cluster IP [IPv4]:10.96.0.9 was assigned to multiple services; please recreate service',
      'ipallocator-repair-controller Service c ClusterIPOutOfRange: Cluster IP [IPv4]: 10.97.0.9 is not within any configured Service CIDR; please recreate service',
      'portallocator-repair-controller Service b PortAlreadyAllocated: Port 30001 was assigned to multiple services; please recreate service',
      'portallocator-repair-controller Service c PortOutOfRange: Port 99 is not within the port range 30000-30099; please recreate service',
    ],
  );
});

test('an allocation of no Service is freed when it is seen for the third time; one that is missing is made', async () => {
  const { addresses, ports, repair, put, events } = setup();
  addresses.take('10.96.0.9', 'ns/writing');
  ports.take(30009, 'ns/writing');
  await repair.run();
  put('a', { clusterIPs: ['10.96.0.5'], ports: [{ port: 1, nodePort: 30005 }] });
  await repair.run();
  assert.deepEqual([addresses.ownerOf('10.96.0.9'), ports.owners().get(30009)], ['ns/writing', 'ns/writing']);
  assert.deepEqual([addresses.ownerOf('10.96.0.5'), ports.owners().get(30005)], ['ns/a', 'ns/a']);
  await repair.run();
  assert.deepEqual([addresses.ownerOf('10.96.0.9'), ports.owners().get(30009)], [undefined, undefined]);
  await settle();
  assert.deepEqual(events().sort(), [
    'ipallocator-repair-controller Service a ClusterIPNotAllocated: Cluster IP [IPv4]: 10.96.0.5 is not allocated; repairing',
    'portallocator-repair-controller Service a PortNotAllocated: Port 30005 is not allocated; repairing',
  ]);
});

test('an address that is not written in its one spelling is no leak', async () => {
  const { addresses, repair, reader } = setup({ a: { clusterIPs: ['FD00:96::9'] } }, ['10.96.0.0/24', 'fd00:96::/112']);
  for (let pass = 0; pass < 4; pass++) await repair.run();
  await settle();
  assert.equal(addresses.ownerOf('fd00:96::9'), 'ns/a');
  assert.ok(reader.get(IP_ADDRESSES, '', 'fd00:96::9'));
});
