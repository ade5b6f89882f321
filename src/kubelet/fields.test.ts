import assert from 'node:assert/strict';
import test from 'node:test';
import type { Container, Pod } from '../api/core/v1.gen.ts';
import { podField, resourceField } from './fields.ts';

test('the limit of a container is its own, else that of the pod (since 1.34), else what the node has', () => {
  const node = { cpuMilli: 4000, memoryBytes: 1000, ephemeralBytes: 1, hugePages: {} };
  const limit = (own: Record<string, string>, whole?: Record<string, string>, resource = 'limits.cpu') => {
    const container: Container = { name: 'c', resources: { limits: own } };
    const pod = { spec: { containers: [container], ...(whole ? { resources: { limits: whole } } : {}) } } as Pick<
      Pod,
      'spec'
    >;
    return resourceField(pod, container, { resource }, node);
  };
  assert.equal(limit({ cpu: '1' }, { cpu: '2' }), '1');
  assert.equal(limit({}, { cpu: '2' }), '2');
  assert.equal(limit({}, { memory: '500' }), '4');
  assert.equal(limit({}), '4');
  assert.equal(limit({}, { cpu: '2' }, 'requests.cpu'), '0');
});

test('the node by the name that the oldest clients give it', () => {
  const pod: Pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p' }, spec: { nodeName: 'n', containers: [] } };
  for (const path of ['spec.nodeName', 'spec.host'])
    assert.equal(podField(pod, path, { podIps: [], hostIps: [] }), 'n');
});
