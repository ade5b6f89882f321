import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TwoLines } from './two-lines.ts';

test('both lines are served in turn, each in order; one alone without a pause', () => {
  const lines = new TwoLines<string>();
  for (const again of ['a1', 'a2', 'a3', 'a4']) lines.push(again, { isFirst: false });
  assert.equal(lines.shift(), 'a1');
  for (const first of ['f1', 'f2', 'f3']) lines.push(first, { isFirst: true });
  assert.deepEqual(
    Array.from({ length: 7 }, () => lines.shift()),
    ['f1', 'a2', 'f2', 'a3', 'f3', 'a4', undefined],
  );
  lines.push('f4', { isFirst: true });
  lines.push('f5', { isFirst: true });
  assert.deepEqual([lines.shift(), lines.shift(), lines.shift()], ['f4', 'f5', undefined]);
});
