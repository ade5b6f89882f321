import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { RecordFolder } from './records.ts';

test('the last state that was written whole is found again', t => {
  const dir = mkdtempSync(join(tmpdir(), 'cox-records-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const records = new RecordFolder<{ id: string; state: string }>(dir);
  records.save({ id: 'a', state: 'made' });
  records.save({ id: 'a', state: 'started' });
  appendFileSync(join(dir, 'a.json'), '{"id":"a","sta');
  records.save({ id: 'b', state: 'made' });
  records.delete('b');
  writeFileSync(join(dir, 'c.json'), '{"id');
  assert.deepEqual(new RecordFolder(dir).load(), [{ id: 'a', state: 'started' }]);
  assert.deepEqual(readdirSync(dir), ['a.json']);
});
