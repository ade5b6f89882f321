import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { checkClusterName, identify, isAlive } from './cluster-record.ts';

test('names that cannot be part of a namespace, path or context are refused with the rule', () => {
  for (const name of ['dev', 'ci-1', 'a']) assert.equal(checkClusterName(name), name);
  for (const name of ['', 'Dev', '-a', 'a-', 'a/b', '..', 'a b', 'x'.repeat(33)])
    assert.throws(() => checkClusterName(name), /--name: Invalid value: .*lower case letters/);
});

test('a process is known by pid and start time, not by pid alone', async () => {
  const child = spawn('sleep', ['60']);
  const identity = identify(child.pid!);
  assert.ok(isAlive(identity));
  assert.ok(!isAlive({ ...identity, startTicks: '1' }));
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.ok(!isAlive(identity));
});
