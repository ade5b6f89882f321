import assert from 'node:assert/strict';
import { test } from 'node:test';
import { variableIn } from './environment-file.ts';

const TEXT = "# settings\n\n  A='1'\nB='two\nlines' # said\nC=\nD='$X \\n \"'\n";

test('values stand in single quotes, are literal, and may have several lines', () => {
  assert.deepEqual(
    ['A', 'B', 'C', 'D', 'E'].map(name => variableIn(TEXT, name)),
    ['1', 'two\nlines', '', '$X \\n "', undefined],
  );
});

test('another format is refused with its line', () => {
  assert.throws(() => variableIn('A=1', 'A'), /line 1: no single quotes/);
  assert.throws(() => variableIn("A='1'\nB = 'x'", 'B'), /line 2/);
  assert.throws(() => variableIn("A='1\n", 'A'), /unclosed single quote that began at line 1/);
  assert.throws(() => variableIn("A='1' B='2'", 'A'), /line 1: more behind/);
  assert.throws(() => variableIn("A='x\ny'\nnothing", 'B'), /line 3/);
});
