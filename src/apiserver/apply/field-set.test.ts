import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import fc from 'fast-check';
import { difference, type FieldSet, intersection, isFieldSet, pathsOf, union } from './field-set.ts';

const set = (value: unknown) => value as FieldSet;
const a = set({ 'f:spec': { 'f:x': {}, 'f:m': { '.': {}, 'f:k': {} } } });

test('union, difference and intersection go by members', () => {
  const cases: [FieldSet | undefined, FieldSet | undefined, unknown, unknown, unknown][] = [
    // a, b, a ∪ b, a − b, a ∩ b
    [a, undefined, a, a, undefined],
    [a, a, a, undefined, a],
    [set({ 'f:a': {} }), set({ 'f:a': { 'f:b': {} } }), { 'f:a': { '.': {}, 'f:b': {} } }, { 'f:a': {} }, undefined],
    [
      set({ 'f:a': { '.': {}, 'f:b': {} } }),
      set({ 'f:a': {} }),
      { 'f:a': { '.': {}, 'f:b': {} } },
      { 'f:a': { 'f:b': {} } },
      { 'f:a': {} },
    ],
    [
      set({ 'f:a': { '.': {}, 'f:b': {} } }),
      set({ 'f:a': { 'f:b': {} } }),
      { 'f:a': { '.': {}, 'f:b': {} } },
      { 'f:a': {} },
      { 'f:a': { 'f:b': {} } },
    ],
    [
      set({ 'f:l': { 'k:{"name":"b"}': { '.': {}, 'f:name': {} } } }),
      set({ 'f:l': { 'k:{"name":"a"}': { '.': {} } } }),
      { 'f:l': { 'k:{"name":"a"}': { '.': {} }, 'k:{"name":"b"}': { '.': {}, 'f:name': {} } } },
      { 'f:l': { 'k:{"name":"b"}': { '.': {}, 'f:name': {} } } },
      undefined,
    ],
  ];
  for (const [left, right, all, rest, both] of cases) {
    const name = `${JSON.stringify(left)} ${JSON.stringify(right)}`;
    assert.deepEqual(union(left, right), all, `union ${name}`);
    assert.deepEqual(difference(left, right), rest, `difference ${name}`);
    assert.deepEqual(intersection(left, right), both, `intersection ${name}`);
  }
});

const trie: fc.Arbitrary<FieldSet | undefined> = fc
  .array(fc.array(fc.constantFrom('f:a', 'f:b', 'v:"x"', 'k:{"n":1}'), { minLength: 1, maxLength: 3 }), {
    maxLength: 5,
  })
  .map(paths => {
    let whole: FieldSet | undefined;
    for (const path of paths)
      whole = union(
        whole,
        path.reduceRight<FieldSet>((below, element) => ({ [element]: below }), {}),
      );
    return whole;
  });
const members = (value: FieldSet | undefined) => new Set(pathsOf(value));

test('the operations are those of sets of paths', () => {
  fc.assert(
    fc.property(trie, trie, (left, right) => {
      const [l, r] = [members(left), members(right)];
      assert.deepEqual(members(union(left, right)), l.union(r));
      assert.deepEqual(members(difference(left, right)), l.difference(r));
      assert.deepEqual(members(intersection(left, right)), l.intersection(r));
      if (l.isDisjointFrom(r)) assert.equal(difference(left, right), left);
    }),
    { numRuns: 300 },
  );
});

test('paths read as upstream prints them', () => {
  assert.deepEqual(
    pathsOf(
      set({
        'f:metadata': { 'f:finalizers': { 'v:"a"': {} }, 'f:labels': { 'f:app.io/x': {} } },
        'f:spec': { 'f:ports': { 'k:{"containerPort":80,"protocol":"TCP"}': { '.': {}, 'f:name': {} } } },
      }),
    ),
    [
      '.metadata.finalizers[="a"]',
      '.metadata.labels.app.io/x',
      '.spec.ports[containerPort=80,protocol="TCP"]',
      '.spec.ports[containerPort=80,protocol="TCP"].name',
    ],
  );
});

test('what clients send is looked at', () => {
  for (const good of [{}, { 'f:a': { '.': {} } }, { 'k:{"a":1}': {}, 'v:3': {}, 'i:0': {} }])
    assert.ok(isFieldSet(good));
  for (const bad of [null, [], { a: {} }, { 'f:a': 1 }, { 'k:x': {} }, { 'k:1': {} }, { 'i:x': {} }, { 'x:y': {} }])
    assert.ok(!isFieldSet(bad), JSON.stringify(bad));
});
