import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MountPoints } from './mount-points.ts';

test('a layer has just the mount points that are asked for, and is made once', t => {
  const dir = mkdtempSync(join(tmpdir(), 'cox-points-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const points = new MountPoints(dir);
  const plain = points.layer(['/proc', '/etc/hosts', '/data']);
  assert.deepEqual(readdirSync(plain).sort(), ['etc', 'proc']);
  assert.ok(statSync(join(plain, 'etc/hosts')).isFile());
  assert.equal(new MountPoints(dir).layer(['/etc/hosts', '/proc']), plain);
  const full = points.layer(['/proc', '/etc/hosts', '/var/run/secrets/kubernetes.io/serviceaccount']);
  assert.notEqual(full, plain);
  assert.ok(statSync(join(full, 'var/run/secrets/kubernetes.io/serviceaccount')).isDirectory());
  assert.deepEqual(readdirSync(dir).length, 2);
});
