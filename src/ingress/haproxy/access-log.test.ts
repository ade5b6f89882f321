import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { boundAccessLog } from './access-log.ts';

test('a full access log moves aside, with what is written meanwhile, and goes on from its beginning', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cox-log-'));
  const path = join(folder, 'ingress.log');
  // As HAProxy: not appending, and standing where its last line ended.
  const writer = spawn('/usr/bin/perl', ['-pe', 'BEGIN { $| = 1; open(STDOUT, ">", $ARGV[0]); @ARGV = () }', path]);
  try {
    const says = async (line: string) => {
      const before = existsSync(path) ? readFileSync(path).length : 0;
      writer.stdin.write(`${line}\n`);
      while (!existsSync(path) || readFileSync(path).length === before) await new Promise(done => setTimeout(done, 5));
    };
    const bound = () => boundAccessLog(path, { bytesMax: 100, pid: writer.pid! });
    await bound();
    await says('short');
    await bound();
    assert.equal(existsSync(`${path}.1`), false);
    const long = 'x'.repeat(60_000);
    await says(long);
    const moved = bound();
    appendFileSync(path, 'late\n');
    await moved;
    assert.equal(readFileSync(`${path}.1`, 'utf8'), `short\n${long}\nlate\n`);
    await says('new');
    assert.equal(readFileSync(path, 'utf8'), 'new\n');
  } finally {
    writer.kill();
    await once(writer, 'exit');
    rmSync(folder, { recursive: true, force: true });
  }
});
