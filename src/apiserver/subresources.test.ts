import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../api/meta.ts';
import { ResourceTable, type Served } from './resource-table.ts';
import { mergeSubresource } from './subresources.ts';

// biome-ignore lint/suspicious/noExplicitAny: objects of several kinds
type Any = any;

const served = (group: string, version: string, resource: string): Served =>
  new ResourceTable().find(group, version, resource)!;
const old = {
  apiVersion: 'x/v1',
  kind: 'X',
  metadata: { name: 'a', uid: 'u', labels: { old: 'yes' }, annotations: { old: 'yes' } },
  spec: { one: 1 },
  status: { two: 2 },
} as unknown as KubeObject;
const sent = {
  apiVersion: 'x/v1',
  kind: 'X',
  metadata: { name: 'a', uid: 'forged', annotations: { new: 'yes' } },
  spec: { one: 'changed' },
  status: { two: 'changed', conditions: [{ type: 'Approved' }] },
} as unknown as KubeObject;

test('an update of the status brings labels and annotations, and nothing else but the status', () => {
  const next: Any = mergeSubresource(served('networking.k8s.io', 'v1', 'ingresses'), 'status', {
    object: sent,
    old,
    nowMs: 0,
  });
  assert.deepEqual(next.metadata, { name: 'a', uid: 'u', annotations: { new: 'yes' } });
  assert.deepEqual([next.spec, next.status.two], [{ one: 1 }, 'changed']);
  assert.deepEqual((old as Any).metadata.labels, { old: 'yes' });
});

test('where upstream keeps the metadata, an update of the status does too', () => {
  const of = served('apiextensions.k8s.io', 'v1', 'customresourcedefinitions');
  const next: Any = mergeSubresource(of, 'status', { object: sent, old, nowMs: 0 });
  assert.deepEqual(next.metadata, old.metadata);
  assert.equal(next.status.two, 'changed');
});

test('an approval brings annotations and conditions only', () => {
  const of = served('certificates.k8s.io', 'v1', 'certificatesigningrequests');
  const next: Any = mergeSubresource(of, 'approval', { object: sent, old, nowMs: 0 });
  assert.deepEqual(next.metadata.annotations, { new: 'yes' });
  assert.deepEqual(next.status, { two: 2, conditions: [{ type: 'Approved' }] });
  assert.deepEqual(next.spec, { one: 1 });
});

test('a volume tells when its phase changed last, unless who changed it does', () => {
  const of = served('', 'v1', 'persistentvolumes');
  const nowMs = Date.UTC(2026, 0, 2);
  const before = '2026-01-01T00:00:00Z';
  const now = '2026-01-02T00:00:00Z';
  const volume = (status: object) =>
    ({ apiVersion: 'v1', kind: 'PersistentVolume', metadata: { name: 'v' }, status }) as unknown as KubeObject;
  const told = (status: object, stored: object = { phase: 'Pending', lastPhaseTransitionTime: before }) =>
    (mergeSubresource(of, 'status', { object: volume(status), old: volume(stored), nowMs }) as Any).status
      .lastPhaseTransitionTime;
  assert.equal(told({ phase: 'Pending' }), before);
  assert.equal(told({ phase: 'Available' }), now);
  assert.equal(told({ phase: 'Available', lastPhaseTransitionTime: before }), now);
  assert.equal(told({ phase: 'Available', lastPhaseTransitionTime: '2025-01-01T00:00:00Z' }), '2025-01-01T00:00:00Z');
  assert.equal(told({ phase: 'Pending' }, { phase: 'Pending' }), undefined);
  assert.equal(told({ phase: 'Bound' }, { phase: 'Available' }), now);
  const made: Any = volume({ phase: 'Bound' });
  made.metadata.creationTimestamp = before;
  of.kind!.prepareCreate!(made);
  assert.deepEqual(made.status, { phase: 'Pending', lastPhaseTransitionTime: before });
});
