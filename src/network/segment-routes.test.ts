import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Node } from '../api/core/v1.gen.ts';
import { waysTo } from './segment-routes.ts';

const node = (name: string, podCIDRs: string[], ips: string[], ready: string): Node =>
  ({
    metadata: { name },
    spec: { podCIDRs },
    status: {
      addresses: ips.map(address => ({ type: 'InternalIP', address })),
      conditions: [{ type: 'Ready', status: ready }],
    },
  }) as Node;
const range = (...cidrs: string[]) => ({ spec: { cidrs } }) as never;

test('pods through their node, Services through one that is ready, each family by its own', () => {
  const nodes = [
    node('b', ['10.244.1.0/24', 'fd00:1::/64'], ['172.30.0.3', 'fd00::3'], 'True'),
    node('a', ['10.244.0.0/24', 'fd00:2::/64'], ['172.30.0.2', 'fd00::2'], 'Unknown'),
    node('new', [], [], 'True'),
  ];
  assert.deepEqual(
    [...waysTo(nodes, [range('10.96.0.0/12', 'fd00:96::/112'), range('10.1.0.0/24')])],
    [
      ['10.244.1.0/24', '172.30.0.3'],
      ['fd00:1::/64', 'fd00::3'],
      ['10.244.0.0/24', '172.30.0.2'],
      ['fd00:2::/64', 'fd00::2'],
      ['10.96.0.0/12', '172.30.0.3'],
      ['fd00:96::/112', 'fd00::3'],
      ['10.1.0.0/24', '172.30.0.3'],
    ],
  );
  assert.deepEqual([...waysTo([node('a', [], ['172.30.0.2'], 'False')], [range('10.96.0.0/12')])], []);
});
