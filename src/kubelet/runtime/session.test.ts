import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { runExec } from './session.ts';

test('a size that comes while the runtime does not listen yet reaches the terminal', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'cox-session-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const program = join(folder, 'runtime');
  writeFileSync(program, `#!/bin/sh\nsleep 0.15\ntrap 'stty size; exit 0' WINCH\nwhile :; do sleep 0.01; done\n`);
  chmodSync(program, 0o755);
  async function* sizes() {
    await sleep(50);
    yield { width: 77, height: 22 };
  }
  const stdout = new PassThrough();
  let output = '';
  stdout.on('data', chunk => {
    output += chunk;
  });
  const { exitCode } = await runExec({
    oci: { program, root: folder },
    id: 'c',
    process: {},
    scratch: folder,
    name: 'exec',
    options: { command: [], tty: true, stdout, resize: sizes(), signal: AbortSignal.timeout(5000) },
  });
  assert.equal(exitCode, 0);
  assert.match(output, /22 77/);
});
