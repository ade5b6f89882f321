import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { RecordLog } from './records.ts';

test('the last state that was written whole is found again', t => {
  const dir = mkdtempSync(join(tmpdir(), 'cox-records-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const path = join(dir, 'log');
  const records = new RecordLog<{ id: string; state: string }>(path);
  assert.deepEqual(records.load(), []);
  records.save({ id: 'a', state: 'made' });
  records.save({ id: 'a', state: 'started' });
  records.save({ id: 'b', state: 'made' });
  appendFileSync(path, '{"id":"a","sta');
  records.delete('b');
  records.save({ id: 'c', state: 'made' });
  appendFileSync(path, '{"id":"c","sta');
  assert.deepEqual(new RecordLog(path).load(), [
    { id: 'a', state: 'started' },
    { id: 'c', state: 'made' },
  ]);
  assert.equal(readFileSync(path, 'utf8').split('\n').length, 3);
});

test('the log does not grow with the number of states', t => {
  const dir = mkdtempSync(join(tmpdir(), 'cox-records-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const records = new RecordLog<{ id: string; n: number }>(join(dir, 'log'));
  for (let n = 0; n < 9000; n++) records.save({ id: 'a', n });
  assert.ok(readFileSync(join(dir, 'log')).length < 200_000);
  assert.deepEqual(new RecordLog(join(dir, 'log')).load(), [{ id: 'a', n: 8999 }]);
});
