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
  const next: Any = mergeSubresource(served('networking.k8s.io', 'v1', 'ingresses'), 'status', { object: sent, old });
  assert.deepEqual(next.metadata, { name: 'a', uid: 'u', annotations: { new: 'yes' } });
  assert.deepEqual([next.spec, next.status.two], [{ one: 1 }, 'changed']);
  assert.deepEqual((old as Any).metadata.labels, { old: 'yes' });
});

test('where upstream keeps the metadata, an update of the status does too', () => {
  const of = served('apiextensions.k8s.io', 'v1', 'customresourcedefinitions');
  const next: Any = mergeSubresource(of, 'status', { object: sent, old });
  assert.deepEqual(next.metadata, old.metadata);
  assert.equal(next.status.two, 'changed');
});

test('an approval brings annotations and conditions only', () => {
  const of = served('certificates.k8s.io', 'v1', 'certificatesigningrequests');
  const next: Any = mergeSubresource(of, 'approval', { object: sent, old });
  assert.deepEqual(next.metadata.annotations, { new: 'yes' });
  assert.deepEqual(next.status, { two: 2, conditions: [{ type: 'Approved' }] });
  assert.deepEqual(next.spec, { one: 1 });
});
