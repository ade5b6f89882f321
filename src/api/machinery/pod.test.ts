import assert from 'node:assert/strict';
import test from 'node:test';
import type { Pod, PodSpec } from '../core/v1.gen.ts';
import { findPort, podLimits, podQosClass, podRequests, podTemplateHash } from './pod.ts';

const container = (requests: Record<string, string>, more: object = {}) => ({
  name: 'c',
  resources: { requests },
  ...more,
});

test('requests: the larger of the running sum and of each init step', () => {
  const spec = {
    containers: [container({ cpu: '100m', memory: '1Ki' }), container({ cpu: '0.2' })],
    initContainers: [
      container({ cpu: '50m' }, { restartPolicy: 'Always' }),
      container({ cpu: '1' }),
      container({ memory: '10Ki' }),
    ],
    overhead: { cpu: '5m' },
  } as PodSpec;
  assert.deepEqual(podRequests(spec), { cpu: 1055, memory: 10_240 });
});

test('pod-level resources win', () => {
  const spec = {
    containers: [container({ cpu: '100m' })],
    resources: { requests: { cpu: '2' }, limits: { cpu: '3' } },
  } as PodSpec;
  assert.equal(podRequests(spec)['cpu'], 2000);
  assert.equal(podLimits(spec)['cpu'], 3000);
});

test('quality of service', () => {
  const of = (resources: object): string => podQosClass({ containers: [{ name: 'c', resources }] } as PodSpec);
  assert.equal(of({}), 'BestEffort');
  assert.equal(of({ requests: { cpu: '1' } }), 'Burstable');
  assert.equal(of({ requests: { cpu: '1', memory: '1Gi' }, limits: { cpu: '1000m', memory: '1024Mi' } }), 'Guaranteed');
  assert.equal(of({ limits: { cpu: '1' } }), 'Burstable');
});

test('ports by name', () => {
  const pod = {
    spec: {
      containers: [
        {
          name: 'c',
          ports: [
            { name: 'dns', containerPort: 53, protocol: 'UDP' },
            { name: 'web', containerPort: 80 },
          ],
        },
      ],
    },
  } as unknown as Pod;
  assert.equal(findPort(pod, 'web'), 80);
  assert.equal(findPort(pod, 'dns'), undefined);
  assert.equal(findPort(pod, 'dns', 'UDP'), 53);
  assert.equal(findPort(pod, 8080), 8080);
});

test('template hash: shape, and independence of key order', () => {
  const a = podTemplateHash({ metadata: { labels: { a: '1', b: '2' } }, spec: {} });
  assert.match(a, /^[bcdfghjklmnpqrstvwxz2456789]{5,10}$/);
  assert.equal(a, podTemplateHash({ spec: {}, metadata: { labels: { b: '2', a: '1' } } }));
  assert.notEqual(a, podTemplateHash({ metadata: { labels: { a: '1', b: '2' } }, spec: {} }, 1));
});
