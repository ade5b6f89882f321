import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { validateSchema } from './schema-validation.ts';

test('a number is within what its format holds', () => {
  const problems = (format: string, value: number, type = 'integer') =>
    validateSchema({ type: 'object', properties: { n: { type, format } } } as never, { n: value }).map(
      one => one.message,
    );
  assert.deepEqual(problems('int32', 2 ** 31 - 1), []);
  assert.match(problems('int32', 2 ** 31)[0]!, /^Invalid value: 2147483648: n in body should be a valid int32 value$/);
  assert.deepEqual(problems('int64', 2 ** 53), []);
  assert.equal(problems('int64', 2 ** 64).length, 1);
  assert.deepEqual(problems('float', 1e38, 'number'), []);
  assert.match(problems('float', 1e39, 'number')[0]!, /should be a valid float value$/);
  assert.deepEqual(problems('double', 1e300, 'number'), []);
});
