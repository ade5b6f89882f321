/** What tests of eviction ask of the node. */

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Node, Pod } from '../../src/api/core/v1.gen.ts';
import { NODES } from '../../src/client/resources.ts';
import type { TestNode } from './node.ts';

async function condition(node: TestNode, type: string): Promise<string | undefined> {
  const found = (await node.api.get({ of: NODES, name: 'node-1' })) as Node;
  return found.status?.conditions?.find(one => one.type === type)?.status;
}

export async function untilCondition(node: TestNode, type: string, wanted: string): Promise<void> {
  const endMs = Date.now() + 30_000;
  while ((await condition(node, type)) !== wanted) {
    assert.ok(Date.now() < endMs, `${type} does not become ${wanted}`);
    await sleep(50);
  }
}

export const evicted = (pod: Pod): boolean => pod.status?.phase === 'Failed';
