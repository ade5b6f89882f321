import assert from 'node:assert/strict';
import { test } from 'node:test';
import { warningHeaders } from './warnings.ts';

const read = (messages: string[]): string[] =>
  warningHeaders(messages).map(header => Buffer.from(header, 'latin1').toString());

test('quoted, in UTF-8, without what cannot be in a header', () => {
  assert.deepEqual(read(['plain', 'a "b" \\c', 'für 日本', 'two\nlines', '']), [
    '299 - "plain"',
    '299 - "a \\"b\\" \\\\c"',
    '299 - "für 日本"',
  ]);
});

test('too many letters: each message is cut, and in the end left out', () => {
  const lengths = (messages: string[]): number[] => read(messages).map(header => header.length - '299 - ""'.length);
  const of = (length: number, at: number) => `${at}`.padEnd(length, 'x');
  assert.deepEqual(lengths([of(2048, 1), of(2048, 2)]), [2048, 2048]);
  assert.deepEqual(lengths([of(2048, 1), of(2048, 2), 'short']), [256, 256, 5]);
  assert.deepEqual(
    lengths(Array.from({ length: 30 }, (_, at) => of(300, at))),
    Array.from({ length: 16 }, () => 256),
  );
  // All that were there when it got too much stay, shortened.
  assert.equal(lengths(Array.from({ length: 30 }, (_, at) => of(200, at))).length, 21);
});
