import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import type { KubeObject } from '../api/meta.ts';
import { ResourceTable } from './resource-table.ts';
import { tableOf } from './table.ts';

const resources = new ResourceTable();
const show = (group: string, resource: string, objects: object[]) =>
  tableOf(resources.find(group, 'v1', resource)!, objects as KubeObject[], {
    includeObject: 'None',
    metadata: {},
    shown: object => object,
    nowMs: 0,
    version: 'v1',
  });

test('rows of pods that have run to their end say so', () => {
  const pod = (phase: string) => ({ metadata: { name: phase }, status: { phase } });
  const { rows } = show('', 'pods', ['Running', 'Succeeded', 'Failed'].map(pod));
  assert.deepEqual(
    rows.map(({ conditions }) => conditions?.map(({ type, status, reason }) => `${type}=${status} ${reason}`)),
    [undefined, ['Completed=True Succeeded'], ['Completed=True Failed']],
  );
});

test('flow schemas stand in the order in which they are matched', () => {
  const schema = (name: string, matchingPrecedence: number) => ({ metadata: { name }, spec: { matchingPrecedence } });
  const { rows } = show('flowcontrol.apiserver.k8s.io', 'flowschemas', [
    schema('b', 200),
    schema('c', 100),
    schema('a', 200),
  ]);
  assert.deepEqual(
    rows.map(({ cells }) => cells[0]),
    ['c', 'a', 'b'],
  );
});

test('columns say what they mean', () => {
  const { columnDefinitions } = show('', 'pods', []);
  const [name, ready] = columnDefinitions as { name: string; format: string; description: string; priority: number }[];
  assert.equal(name!.format, 'name');
  assert.match(name!.description, /^Name must be unique/);
  assert.deepEqual(ready, {
    name: 'Ready',
    type: 'string',
    format: '',
    description: 'The aggregate readiness state of this pod for accepting traffic.',
    priority: 0,
  });
});
