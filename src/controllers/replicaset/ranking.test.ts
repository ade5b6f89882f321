import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod } from '../../api/core/v1.gen.ts';
import { podsToDelete } from './ranking.ts';

const nowMs = Date.parse('2026-01-01T12:00:00Z');
const pod = (
  name: string,
  facts: { node?: string; phase?: string; ready?: boolean; cost?: string; created?: string; restarts?: number } = {},
): Pod =>
  ({
    metadata: {
      name,
      uid: name,
      creationTimestamp: facts.created ?? '2026-01-01T00:00:00Z',
      annotations: facts.cost ? { 'controller.kubernetes.io/pod-deletion-cost': facts.cost } : {},
    },
    spec: { nodeName: facts.node ?? 'n', containers: [] },
    status: {
      phase: facts.phase ?? 'Running',
      conditions: [
        { type: 'Ready', status: facts.ready === false ? 'False' : 'True', lastTransitionTime: '2026-01-01T00:00:00Z' },
      ],
      containerStatuses: [{ restartCount: facts.restarts ?? 0 }],
    },
  }) as unknown as Pod;
const first = (...pods: Pod[]) => podsToDelete(pods, pods, { count: 1, nowMs })[0]!.metadata.name;

test('unassigned, pending, unready, cheap, crowded, restarting and young pods go first', () => {
  assert.equal(first(pod('a'), pod('b', { node: '' })), 'b');
  assert.equal(first(pod('a'), pod('b', { phase: 'Pending' })), 'b');
  assert.equal(first(pod('a'), pod('b', { ready: false })), 'b');
  assert.equal(first(pod('a', { cost: '10' }), pod('b', { cost: '-5' })), 'b');
  assert.equal(first(pod('a', { node: 'x' }), pod('b', { node: 'y' }), pod('c', { node: 'y' })), 'b');
  assert.equal(first(pod('a', { ready: false }), pod('b', { ready: false, restarts: 3 })), 'b');
  assert.equal(first(pod('a'), pod('b', { created: '2026-01-01T11:59:00Z' })), 'b');
});
