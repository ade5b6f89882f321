import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { tryLockFile } from './file-lock.ts';

test('one holder at a time, and nothing left', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cox-lock-'));
  try {
    const path = join(folder, 'l');
    const release = tryLockFile(path);
    assert.ok(release);
    assert.equal(tryLockFile(path), undefined);
    release();
    assert.equal(existsSync(path), false);
    const again = tryLockFile(path);
    assert.ok(again);
    again();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
