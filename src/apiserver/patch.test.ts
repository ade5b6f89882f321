import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { mergePatch, strategicMergePatch } from './patch.ts';

const POD = 'core.v1.Pod';
const pod = (spec: unknown, metadata: unknown = { name: 'p' }) => ({ apiVersion: 'v1', kind: 'Pod', metadata, spec });
const specOf = (original: unknown, patch: unknown) =>
  (strategicMergePatch(pod(original), { spec: patch }, POD) as { spec: Record<string, unknown> }).spec;

test('merge patch: nulls delete, lists replace', () => {
  assert.deepEqual(mergePatch({ a: 1, b: { c: 1, d: 2 }, l: [1, 2] }, { a: null, b: { c: 3 }, l: [3] }), {
    b: { c: 3, d: 2 },
    l: [3],
  });
});

test('merge patch: lists lose nulls, as upstream’s do', () => {
  assert.deepEqual(mergePatch({ l: [1], o: {} }, { l: [1, null, { a: null, b: [null] }], n: [null, 2], o: [null] }), {
    l: [1, { b: [] }],
    n: [2],
    o: [null],
  });
});

test('a key that is called __proto__ is one like others', () => {
  const patch = JSON.parse('{"data":{"__proto__":"x","o":{"__proto__":{"y":1}},"l":[1]}}');
  for (const merged of [mergePatch({ data: { a: '1' } }, patch), strategicMergePatch({ data: { a: '1' } }, patch, POD)])
    assert.equal(JSON.stringify(merged), '{"data":{"a":"1","__proto__":"x","o":{"__proto__":{"y":1}},"l":[1]}}');
  assert.equal(({} as { y?: unknown }).y, undefined);
});

test('strategic: containers merge by name', () => {
  const spec = specOf(
    {
      containers: [
        { name: 'a', image: '1', env: [{ name: 'X', value: '1' }] },
        { name: 'b', image: '1' },
      ],
    },
    {
      containers: [
        { name: 'a', image: '2', env: [{ name: 'Y', value: '2' }] },
        { name: 'c', image: '3', command: null },
      ],
    },
  );
  assert.deepEqual(spec['containers'], [
    {
      name: 'a',
      image: '2',
      env: [
        { name: 'Y', value: '2' },
        { name: 'X', value: '1' },
      ],
    },
    // Upstream puts what the patch adds before what only the server has, unless an order is given.
    { name: 'c', image: '3' },
    { name: 'b', image: '1' },
  ]);
});

test('strategic: directives', () => {
  const containers = [
    { name: 'a', image: '1' },
    { name: 'b', image: '1' },
    { name: 'c', image: '1' },
  ];
  assert.deepEqual(specOf({ containers }, { containers: [{ name: 'b', $patch: 'delete' }] })['containers'], [
    containers[0],
    containers[2],
  ]);
  assert.deepEqual(specOf({ containers }, { containers: [{ $patch: 'replace' }, { name: 'z' }] })['containers'], [
    { name: 'z' },
  ]);
  assert.deepEqual(
    specOf({ containers }, { '$setElementOrder/containers': [{ name: 'c' }, { name: 'a' }, { name: 'b' }] })[
      'containers'
    ],
    [containers[2], containers[0], containers[1]],
  );
  assert.deepEqual(
    specOf({ nodeSelector: { a: '1', b: '2' } }, { nodeSelector: { $patch: 'replace', c: '3' } })['nodeSelector'],
    { c: '3' },
  );
});

test('strategic: retained keys replace a union', () => {
  const spec = specOf(
    { volumes: [{ name: 'v', emptyDir: {} }] },
    { volumes: [{ name: 'v', $retainKeys: ['name', 'hostPath'], hostPath: { path: '/x' } }] },
  );
  assert.deepEqual(spec['volumes'], [{ name: 'v', hostPath: { path: '/x' } }]);
});

test('strategic: primitive lists', () => {
  const patch = (finalizers: unknown) =>
    (
      strategicMergePatch(pod({}, { name: 'p', finalizers: ['a/1', 'b/2'] }), { metadata: finalizers }, POD) as {
        metadata: { finalizers: string[] };
      }
    ).metadata.finalizers;
  assert.deepEqual(patch({ finalizers: ['c/3'] }), ['c/3', 'a/1', 'b/2']);
  assert.deepEqual(patch({ '$deleteFromPrimitiveList/finalizers': ['a/1'] }), ['b/2']);
});

test('strategic: lists without a merge strategy are replaced', () => {
  const spec = specOf({ containers: [{ name: 'a', args: ['1', '2'] }] }, { containers: [{ name: 'a', args: ['3'] }] });
  assert.deepEqual(spec['containers'], [{ name: 'a', args: ['3'] }]);
});
