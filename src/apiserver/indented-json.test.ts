import assert from 'node:assert/strict';
import { test } from 'node:test';
import { indentJson } from './indented-json.ts';

test('as JSON.stringify indents, without changing numbers or the order of keys', () => {
  const value = { a: [], b: {}, c: [1, 'x', null, [true], { d: {} }], 'e"f': '{"g":[1, 2]}\\', h: -1.5e3 };
  assert.equal(indentJson(JSON.stringify(value)), JSON.stringify(value, null, 2));
  assert.equal(indentJson('{"b":9223372036854775807,"1":"x"}'), '{\n  "b": 9223372036854775807,\n  "1": "x"\n}');
  for (const plain of ['[]', '{}', '1', '"a"', 'null']) assert.equal(indentJson(plain), plain);
});
