import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  apiAddresses,
  checkCapacity,
  chooseRanges,
  dnsAddress,
  ipFamilyOf,
  kubernetesAddress,
  nodeAddresses,
} from './cluster-ranges.ts';

test('each family has its ranges, and addresses that follow from them', () => {
  const one = chooseRanges({});
  assert.deepEqual([one.podCidrs, one.serviceCidrs, one.nodeMaskSizes], [['10.244.0.0/16'], ['10.96.0.0/12'], [24]]);
  assert.deepEqual([ipFamilyOf(one), dnsAddress(one), kubernetesAddress(one)], ['ipv4', '10.96.0.10', '10.96.0.1']);
  const six = chooseRanges({ ipFamily: 'ipv6' });
  assert.deepEqual([ipFamilyOf(six), dnsAddress(six)], ['ipv6', 'fd00:10:96::a']);
  assert.deepEqual([apiAddresses(six), nodeAddresses(six, 2)], [['fd00:172:30::1'], ['fd00:172:30::3']]);
  const both = chooseRanges({ ipFamily: 'dual' });
  assert.deepEqual(both.podCidrs, ['10.244.0.0/16', 'fd00:10:244::/56']);
  assert.deepEqual(nodeAddresses(both, 1), ['172.30.0.2', 'fd00:172:30::2']);
});

test('ranges tell the families and which is the primary one', () => {
  const ranges = chooseRanges({ ipFamily: 'dual', podCidr: 'fd01::/48,10.1.0.0/16' });
  assert.deepEqual(ranges.serviceCidrs, ['fd00:10:96::/112', '10.96.0.0/12']);
  assert.deepEqual(ranges.nodeMaskSizes, [64, 24]);
  assert.equal(ipFamilyOf(chooseRanges({ serviceCidr: 'fd02::/112' })), 'ipv6');
});

test('what cannot work is refused with the option that is wrong', () => {
  for (const [choice, message] of [
    [{ ipFamily: 'v6' }, /--ip-family: Unsupported value: "v6"/],
    [{ podCidr: '10.1.0.1/16' }, /--pod-cidr: Invalid value: "10.1.0.1\/16": the range is written 10.1.0.0\/16/],
    [{ podCidr: 'ten' }, /must be an address and a prefix length/],
    [{ podCidr: '10.1.0.0/16,10.2.0.0/16' }, /one IPv4 and one IPv6 range/],
    [{ podCidr: 'fd01::/48', serviceCidr: '10.1.0.0/16' }, /--service-cidr: .*families of --pod-cidr/],
    [{ ipFamily: 'ipv4', podCidr: 'fd01::/48' }, /--ip-family: .*the ranges given are of IPv6/],
    [{ serviceCidr: '10.1.0.0/29' }, /--service-cidr: .*from \/1 to \/28/],
    [{ podCidr: '10.1.0.0/25' }, /smaller than one node's share, a \/24/],
    [{ podCidr: '10.0.0.0/8', nodeMaskSize: '25' }, /--node-cidr-mask-size: Invalid value: "25": at most 16 bits/],
    [{ nodeMaskSize: '24,64' }, /a prefix length for each family: IPv4/],
    [{ nodeMaskSize: '30' }, /must be at most 29/],
    [{ podCidr: '10.96.0.0/16' }, /--pod-cidr: .*overlaps with 10.96.0.0\/12 of --service-cidr/],
    [{ serviceCidr: '172.30.8.0/24' }, /overlaps with 172.30.0.0\/16 of the nodes' own network/],
  ] as const)
    assert.throws(() => chooseRanges(choice), message);
  const small = chooseRanges({ podCidr: '10.1.0.0/24', nodeMaskSize: '26' });
  checkCapacity(small, 4);
  assert.throws(() => checkCapacity(small, 5), /--nodes: .*10.1.0.0\/24 holds 4 shares of nodes, each a \/26/);
});
