import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod } from '../../api/core/v1.gen.ts';
import { countsOtherwise } from './replicas.ts';

const OWNER = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'web', uid: 'u1', controller: true };
const podWith = (change: { metadata?: object; status?: object } = {}): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {
    name: 'a',
    namespace: 'n',
    uid: 'p',
    labels: { app: 'web' },
    ownerReferences: [OWNER],
    ...change.metadata,
  },
  spec: { containers: [] },
  status: { phase: 'Running', conditions: [ready('False', 'a')], ...change.status },
});
const ready = (status: string, since: string) => ({ type: 'Ready', status, lastTransitionTime: since });

test('a replica set looks at its pods again when one of them counts otherwise', () => {
  for (const [what, change] of Object.entries<Parameters<typeof podWith>[0]>({
    'became ready': { status: { conditions: [ready('True', 'b')] } },
    'was ready for a moment': { status: { conditions: [ready('False', 'c')] } },
    'has no condition': { status: { conditions: [] } },
    succeeded: { status: { phase: 'Succeeded', conditions: [ready('False', 'a')] } },
    ends: { metadata: { deletionTimestamp: '2026-01-01T00:00:00Z' } },
    'has other labels': { metadata: { labels: { app: 'other' } } },
    'has no owner': { metadata: { ownerReferences: [] } },
    'has another owner': { metadata: { ownerReferences: [{ ...OWNER, uid: 'u2' }] } },
  }))
    assert.equal(countsOtherwise(podWith(), podWith(change)), true, what);
});

test('a container that starts and crashes, a heartbeat, an annotation change nothing', () => {
  const crash = { containerStatuses: [{ name: 'c', restartCount: 7 }], conditions: [ready('False', 'a')] };
  assert.equal(countsOtherwise(podWith(), podWith({ status: crash })), false);
  assert.equal(countsOtherwise(podWith(), podWith({ metadata: { annotations: { a: 'b' } } })), false);
});
