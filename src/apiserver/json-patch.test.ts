import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import fc from 'fast-check';
import { jsonPatch } from './json-patch.ts';

const DOCUMENT = { a: { b: [1, 2, 3], c: null, 'd/e': { '~': 'x' } } };
const patched = (...patch: object[]): unknown => (jsonPatch(DOCUMENT, patch) as typeof DOCUMENT).a;
const refused = (...patch: unknown[]): void => assert.throws(() => jsonPatch(DOCUMENT, patch), { code: 422 });

test('operations of the standard', () => {
  const { a } = DOCUMENT;
  assert.deepEqual(patched({ op: 'add', path: '/a/b/-', value: 4 }), { ...a, b: [1, 2, 3, 4] });
  assert.deepEqual(patched({ op: 'add', path: '/a/b/1', value: [9] }), { ...a, b: [1, [9], 2, 3] });
  assert.deepEqual(patched({ op: 'add', path: '/a/d~1e/~0', value: 1 }), { ...a, 'd/e': { '~': 1 } });
  assert.deepEqual(patched({ op: 'remove', path: '/a/b/0' }), { ...a, b: [2, 3] });
  assert.deepEqual(patched({ op: 'replace', path: '/a/b/0', value: 0 }), { ...a, b: [0, 2, 3] });
  assert.deepEqual(patched({ op: 'move', from: '/a/b/0', path: '/a/c' }), { ...a, b: [2, 3], c: 1 });
  assert.deepEqual(patched({ op: 'copy', from: '/a/b', path: '/a/c' }, { op: 'add', path: '/a/c/-', value: 4 }), {
    ...a,
    c: [1, 2, 3, 4],
  });
  assert.deepEqual(patched({ op: 'test', path: '/a/b', value: [1, 2, 3] }), a);
  assert.deepEqual(jsonPatch(DOCUMENT, [{ op: 'replace', path: '', value: { x: 1 } }]), { x: 1 });
  assert.deepEqual(jsonPatch(DOCUMENT, [{ op: 'test', path: '', value: DOCUMENT }]), DOCUMENT);
  assert.deepEqual(jsonPatch(DOCUMENT, null), DOCUMENT);
});

test('liberties that upstream takes', () => {
  const { a } = DOCUMENT;
  assert.deepEqual(patched({ op: 'replace', path: '/a/new', value: 1 }), { ...a, new: 1 });
  assert.deepEqual(patched({ op: 'remove', path: '/a/b/-1' }), { ...a, b: [1, 2] });
  assert.deepEqual(patched({ op: 'replace', path: '/a/b/-3', value: 0 }), { ...a, b: [0, 2, 3] });
  assert.deepEqual(patched({ op: 'add', path: '/a/b/-1', value: 4 }), { ...a, b: [1, 2, 3, 4] });
  assert.deepEqual(patched({ op: 'remove', path: '/a/b/00' }), { ...a, b: [2, 3] });
  assert.deepEqual(patched({ op: 'add', path: '/a/n' }), { ...a, n: null });
  for (const path of ['/a/nothing', '/a/c']) assert.deepEqual(patched({ op: 'test', path, value: null }), a);
  assert.deepEqual(patched({ op: 'test', path: '/a/nothing' }), a);
  assert.deepEqual(patched({ op: 'copy', from: '/a/nothing', path: '/a/c' }), a);
});

test('what does not fit is refused, and what is no patch', () => {
  for (const path of ['', '/a/x/y', '/a/b/3', '/a/b/-4', '/a/b/-', '/a/b/one', '/a/x', '/a/b/0/x', '/a/c/x'])
    refused({ op: 'remove', path });
  for (const path of ['', '/a/b/4', '/a/b/-5', '/a/x/y', '/a/b/x']) refused({ op: 'add', path, value: 1 });
  refused({ op: 'replace', path: '/a/b/3', value: 1 });
  refused({ op: 'replace', path: '', value: 'text' });
  refused({ op: 'move', from: '/a/x', path: '/a/y' });
  refused({ op: 'move', from: '/a', path: '/a/b' });
  refused({ op: 'copy', from: '/a/b/7', path: '/a/c' });
  refused({ op: 'test', path: '/a/b', value: [1, 2] });
  refused({ op: 'test', path: '/a/b' });
  refused({ op: 'test', path: '', value: { toString: [] } });
  refused({ op: 'Add', path: '/a/x', value: 1 });
  refused({ op: 1, path: '/a' });
  refused({ path: '/a' });
  refused({ op: 'add', path: 1 });
  refused(null);
  for (const [patch, type] of [
    [{}, 'object into Go value of type jsonpatch.Patch'],
    ['text', 'string into Go value of type jsonpatch.Patch'],
    [[1], 'number into Go value of type jsonpatch.Operation'],
  ] as const)
    assert.throws(() => jsonPatch(DOCUMENT, patch), { code: 400, message: `json: cannot unmarshal ${type}` });
  assert.throws(() => jsonPatch(DOCUMENT, Array(10_001).fill({})), { code: 413 });
});

test('whatever comes, it is applied or refused, and the object stays as it is', () => {
  const path = fc.constantFrom(
    '',
    '/',
    '/a',
    '/a/b',
    '/a/b/-1',
    '/a/b/0',
    '/__proto__',
    '/a/__proto__/x',
    'a/b',
    '/a//',
  );
  const operation = fc.record(
    {
      op: fc.constantFrom('add', 'remove', 'replace', 'test', 'move', 'copy'),
      path,
      from: path,
      value: fc.oneof(fc.jsonValue(), fc.constant(JSON.parse('{"__proto__":{"x":1}}'))),
    },
    { requiredKeys: ['op'] },
  );
  const before = JSON.stringify(DOCUMENT);
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 6 }), patch => {
      try {
        JSON.stringify(jsonPatch(DOCUMENT, patch));
      } catch (error) {
        assert.equal((error as { code?: number }).code, 422);
      }
      assert.equal(JSON.stringify(DOCUMENT), before);
      assert.equal(({} as { x?: unknown }).x, undefined);
    }),
  );
});
