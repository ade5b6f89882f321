import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeStateFolder } from './state-folder.ts';

test('made with what is missing above it, or refused with the reason', t => {
  const folder = mkdtempSync(join(tmpdir(), 'cox-state-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const state = join(folder, 'a', 'b');
  makeStateFolder(state);
  makeStateFolder(state);
  assert.equal(statSync(state).mode & 0o777, 0o700);
  writeFileSync(join(folder, 'file'), '');
  assert.throws(
    () => makeStateFolder(join(folder, 'file', 'x')),
    /--state-dir: Invalid value: ".*": .*file is not a folder/,
  );
  assert.throws(
    () => makeStateFolder('/proc/no-such-folder/x'),
    /--state-dir: Invalid value: "\/proc\/no-such-folder\/x": ENOENT/,
  );
});
