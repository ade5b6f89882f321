import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { terminationFile } from './container-config.ts';

test('any user of a container may write its termination message, whatever the umask of the kubelet', t => {
  const folder = mkdtempSync(join(tmpdir(), 'cox-termination-'));
  const umask = process.umask(0o077);
  t.after(() => {
    process.umask(umask);
    rmSync(folder, { recursive: true });
  });
  const file = terminationFile(folder, { name: 'main', terminationMessagePath: '/dev/own' }, 0);
  assert.equal(file.containerPath, '/dev/own');
  assert.equal(statSync(file.hostPath).mode & 0o777, 0o666);
});
