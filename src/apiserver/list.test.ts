/** What a list refuses, in upstream's words. */

import assert from 'node:assert/strict';
import test from 'node:test';
import { parseLabelSelector } from '../api/machinery/labels.ts';
import { ApiError } from '../base/errors.ts';
import { checkListQuery, type ListQuery } from './list.ts';

const query = (fields: Partial<ListQuery>): ListQuery => ({
  resourceVersion: '',
  resourceVersionMatch: '',
  limit: 0,
  continue: '',
  ...fields,
});
function refusal(action: () => unknown): ApiError {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof ApiError, String(error));
    return error;
  }
  throw new Error('nothing was refused');
}

test('resourceVersionMatch: every mistake is a cause', () => {
  const causes = (fields: Partial<ListQuery>) =>
    refusal(() => checkListQuery(query(fields))).status.details?.causes?.map(cause => cause.message);
  assert.deepEqual(causes({ resourceVersionMatch: 'Exact', continue: 'x' }), [
    'Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided',
    'Forbidden: resourceVersionMatch is forbidden when continue is provided',
  ]);
  assert.deepEqual(causes({ resourceVersionMatch: 'Foo', resourceVersion: '5' }), [
    'Unsupported value: "Foo": supported values: "Exact", "NotOlderThan", ""',
  ]);
  assert.deepEqual(causes({ resourceVersionMatch: 'Exact', resourceVersion: '0' }), [
    'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
  ]);
  checkListQuery(query({ resourceVersionMatch: 'NotOlderThan', resourceVersion: '0' }));
});

test('label selectors that cannot be read', () => {
  for (const [text, says] of [
    ['a===', "found '=', expected: identifier"],
    ['a in (b', "found '', expected: ',' or ')'"],
    ['a in ()', "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"],
    ['a>b', `values[0]: Invalid value: "b": for 'Gt', 'Lt' operators, the value must be an integer`],
  ] as const)
    assert.equal(refusal(() => parseLabelSelector(text)).message, `unable to parse requirement: ${says}`);
  assert.ok(parseLabelSelector('a=,b in (c,d),e>4')({ a: '', b: 'd', e: '5' }));
});
