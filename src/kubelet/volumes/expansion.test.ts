import assert from 'node:assert/strict';
import test from 'node:test';
import { growIfAsked } from './expansion.ts';

test('a volume grows on the node, unless its driver needs no node for that', async () => {
  const grown: number[] = [];
  const told: unknown[] = [];
  const plugin = {
    source: 'csi',
    expand: async (_: unknown, __: unknown, { bytes }: { bytes: number }) => grown.push(bytes),
  };
  const grow = (annotations: Record<string, string>) =>
    growIfAsked(plugin as never, { spec: {}, target: { name: 'v' } as never }, {
      use: {
        isReadOnly: false,
        persistent: {
          volume: { spec: { capacity: { storage: '2Gi' } } },
          claim: { metadata: { name: 'c', annotations }, status: { capacity: { storage: '1Gi' } } },
        },
      },
      volumes: { name: 'n' },
      event: () => {},
      updateClaimStatus: async (_: unknown, status: unknown) => void told.push(status),
    } as never);
  await grow({ 'volume.kubernetes.io/node-expansion-not-required': 'true' });
  assert.deepEqual([grown, told], [[], []]);
  await grow({});
  assert.deepEqual([grown, told], [[2 ** 31], [{ capacity: { storage: '2Gi' }, conditions: [] }]]);
});
