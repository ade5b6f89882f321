import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requestHead } from './request-head.ts';

const REQUEST = { ':method': 'GET', ':scheme': 'https', ':path': '/' };
const head = (fields: Record<string, string>) =>
  requestHead(Object.entries({ ...REQUEST, ...fields }).map(([name, value]) => ({ name, value })));

test('blanks around a value are stripped, as upstream takes them; what breaks lines is refused', () => {
  assert.equal(head({ 'user-agent': ' e2e.test/v1 -- proxy logs \t' })!['user-agent'], 'e2e.test/v1 -- proxy logs');
  assert.equal(head({ 'x-any': '' })!['x-any'], '');
  for (const value of ['a\nb', 'a\r', '\0', ' a\n']) assert.equal(head({ 'x-any': value }), undefined);
  assert.equal(head({ ':path': '/ ' }), undefined);
  assert.equal(head({ 'Upper-Case': 'a' }), undefined);
});
