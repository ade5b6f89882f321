import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatIndexes, parseIndexes } from './indexes.ts';

test('indexes are compressed as upstream, and read back', () => {
  for (const text of ['', '0', '0,1', '0-2', '1,3-5,7,8']) assert.equal(formatIndexes(parseIndexes(text)), text);
});
