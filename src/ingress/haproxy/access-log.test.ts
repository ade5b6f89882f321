import assert from 'node:assert/strict';
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { AccessLog } from './access-log.ts';

test('a full access log moves aside, with what is written meanwhile', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cox-log-'));
  try {
    const path = join(folder, 'ingress.log');
    const log = new AccessLog(folder, path);
    await log.bound(100);
    writeFileSync(path, 'short\n');
    await log.bound(100);
    assert.equal(existsSync(`${path}.1`), false);
    const lines = Array.from({ length: 100_000 }, (_, at) => `line ${at}\n`);
    writeFileSync(path, lines.join(''));
    const moved = log.bound(100);
    appendFileSync(path, 'late\n');
    await moved;
    appendFileSync(path, 'new\n');
    assert.equal(readFileSync(`${path}.1`, 'utf8'), `${lines.join('')}late\n`);
    assert.equal(readFileSync(path, 'utf8'), 'new\n');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
