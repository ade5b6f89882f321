import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../meta.ts';
import { configMap } from './config-map.ts';
import { node } from './node.ts';
import { pod } from './pod.ts';

const object = (parts: object): KubeObject => ({ metadata: { name: 'x' }, ...parts }) as unknown as KubeObject;

test('a pod with gates says so from the start', () => {
  const gated = object({ spec: { containers: [], schedulingGates: [{ name: 'a.b/c' }] } }) as KubeObject & {
    status?: { conditions?: { type: string; reason: string }[] };
  };
  pod.prepareCreate!(gated);
  assert.deepEqual(
    gated.status!.conditions!.map(({ type, reason }) => [type, reason]),
    [['PodScheduled', 'SchedulingGated']],
  );
});

test('a range that a node has does not change by its old name either', () => {
  const ranges = (podCIDR: string) => object({ spec: { podCIDR, podCIDRs: ['10.244.0.0/24'] } });
  const changed = ranges('1.2.3.0/24');
  node.defaults!(changed);
  assert.deepEqual(
    node.validateUpdate!(changed, ranges('10.244.0.0/24')).map(({ field, message }) => `${field}: ${message}`),
    ['spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid'],
  );
});

test('a config map that is too large is at fault as a whole', () => {
  const [error] = configMap.validate!(object({ data: { a: 'x'.repeat(1024 * 1024 + 1) } }));
  assert.equal(`${error!.field}: ${error!.message}`, '[]: Too long: may not be more than 1048576 bytes');
});
