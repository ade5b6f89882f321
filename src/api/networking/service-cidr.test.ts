import assert from 'node:assert/strict';
import test from 'node:test';
import { ipAddress, serviceCidr } from './service-cidr.ts';
import type { IPAddress, ServiceCIDR } from './v1.gen.ts';

const range = (...cidrs: string[]): ServiceCIDR =>
  ({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'ServiceCIDR',
    metadata: { name: 'x' },
    spec: { cidrs },
  }) as ServiceCIDR;
const told = (errors: readonly { field: string; message: string }[]) =>
  errors.map(one => `${one.field}: ${one.message}`);

test('a ServiceCIDR has one range, or one of each family, each in its one spelling', () => {
  for (const good of [['10.0.0.0/24'], ['fd00::/112', '10.0.0.0/24']])
    assert.deepEqual(serviceCidr.validate!(range(...good)), []);
  for (const [cidrs, expected] of [
    [[], 'spec.cidrs: Required value: at least one CIDR required'],
    [['10.0.0.1/24'], 'spec.cidrs[0]: Invalid value: "10.0.0.1/24": must not have bits set beyond the prefix length'],
    [['fd00:0:0::/64'], 'spec.cidrs[0]: Invalid value: "fd00:0:0::/64": must be in canonical form ("fd00::/64")'],
    [
      ['10.0.0.0'],
      'spec.cidrs[0]: Invalid value: "10.0.0.0": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)',
    ],
    [
      ['10.0.0.0/24', '10.1.0.0/24'],
      'spec.cidrs: Invalid value: {"cidrs":["10.0.0.0/24","10.1.0.0/24"]}: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64',
    ],
  ] as const)
    assert.deepEqual(told(serviceCidr.validate!(range(...cidrs))), [expected]);
});

test('its ranges stay; a second family may come', () => {
  const update = (now: string[], then: string[]) => told(serviceCidr.validateUpdate!(range(...now), range(...then)));
  assert.deepEqual(update(['10.0.0.0/24', 'fd00::/112'], ['10.0.0.0/24']), []);
  assert.deepEqual(update(['10.1.0.0/24'], ['10.0.0.0/24']), [
    'spec.cidrs[0]: Invalid value: "10.1.0.0/24": field is immutable',
  ]);
  assert.deepEqual(update(['10.0.0.0/24'], ['10.0.0.0/24', 'fd00::/112']), [
    'spec.cidrs: Invalid value: ["10.0.0.0/24"]: field is immutable',
  ]);
});

test('an IPAddress is named by its address and refers to something, for ever', () => {
  assert.deepEqual(ipAddress.validateName!('fd00::1', false), []);
  assert.deepEqual(ipAddress.validateName!('FD00::1', false), ['must be in canonical form ("fd00::1")']);
  assert.match(ipAddress.validateName!('ten', false)[0]!, /must be a valid IP address/);
  const address = (parentRef?: object): IPAddress =>
    ({ apiVersion: 'v1', kind: 'IPAddress', metadata: { name: '10.0.0.1' }, spec: { parentRef } }) as never;
  assert.deepEqual(told(ipAddress.validate!(address())), ['spec.parentRef: Required value']);
  assert.deepEqual(
    told(ipAddress.validate!(address({ group: '-', resource: 'a/b' }))).map(text => text.split(':')[0]),
    ['spec.parentRef.group', 'spec.parentRef.resource', 'spec.parentRef.name'],
  );
  const [one, two] = ['a', 'b'].map(name => address({ resource: 'services', name }));
  assert.match(told(ipAddress.validateUpdate!(one!, two!))[0]!, /^spec\.parentRef: .*field is immutable$/);
});
