import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Node } from '../../api/core/v1.gen.ts';
import type { Endpoint } from '../../api/discovery/v1.gen.ts';
import { withZoneHints, zoneShares } from './topology-mode.ts';

const node = (zone: string | undefined, cpu = '4', labels: Record<string, string> = {}): Node =>
  ({
    metadata: { name: 'n', labels: { ...labels, ...(zone ? { 'topology.kubernetes.io/zone': zone } : {}) } },
    status: { allocatable: { cpu }, conditions: [{ type: 'Ready', status: 'True' }] },
  }) as unknown as Node;
const endpoints = (zones: readonly (string | undefined)[], ready = true): Endpoint[] =>
  zones.map((zone, i) => ({
    addresses: [`10.0.0.${i}`],
    conditions: { ready },
    ...(zone ? { zone } : {}),
  }));
const hints = (zones: readonly (string | undefined)[], nodes: Node[]) => {
  const result = withZoneHints([{ ports: [], endpoints: endpoints(zones) }], zoneShares(nodes));
  return result.reason ?? result.groups[0]!.endpoints.map(({ hints: given }) => given!.forZones![0]!.name).join('');
};

test('endpoints serve their own zone when they are spread as the processors are', () => {
  assert.equal(hints(['a', 'a', 'b', 'b'], [node('a'), node('b')]), 'aabb');
});

test('a zone with too many gives to one with too few', () => {
  assert.equal(hints(['a', 'a', 'a', 'a', 'a', 'b'], [node('a'), node('b')]), 'bbaaab');
  assert.equal(hints(['a', 'a', 'a', 'b', 'b', 'b'], [node('a', '8'), node('b', '4')]), 'aaaabb');
});

test('none at all when a zone would be overloaded, or too little is known', () => {
  assert.match(hints(['a'], [node('a'), node('b')]), /Insufficient number of endpoints \(1 endpoints, 2 zones\)/);
  assert.match(hints(['a', 'a', 'b'], [node('a'), node('b')]), /exceeds endpoint overload threshold/);
  assert.match(hints(['a', 'a', 'b', 'b'], [node('a'), node(undefined)]), /Insufficient Node information/);
  assert.match(hints(['a', 'a', undefined, 'b'], [node('a'), node('b')]), /do not have a zone/);
  assert.equal(
    hints(
      ['a', 'a', 'b', 'b'],
      [node('a'), node('b'), node(undefined, '4', { 'node-role.kubernetes.io/control-plane': '' })],
    ),
    'aabb',
  );
});
