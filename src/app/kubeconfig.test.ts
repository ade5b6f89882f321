import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { mergeKubeconfig, unmergeKubeconfig, writeKubeconfig } from './kubeconfig.ts';

test('merging adds a context beside others and unmerging takes only it out', t => {
  const folder = mkdtempSync(join(tmpdir(), 'cox-kubeconfig-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [own, user] = [join(folder, 'own'), join(folder, 'user')];
  writeKubeconfig(own, {
    name: 'dev',
    server: 'https://127.0.0.1:6443',
    ca: 'CA',
    credentials: { certificate: 'C', key: 'K' },
  });
  assert.equal(statSync(own).mode & 0o777, 0o600);
  const others = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'work', cluster: {} }],
    users: [{ name: 'me', user: {} }],
    contexts: [{ name: 'work', context: {} }],
    'current-context': 'work',
    preferences: { colors: true },
  };
  writeFileSync(user, JSON.stringify(others));
  mergeKubeconfig(own, 'dev', user);
  mergeKubeconfig(own, 'dev', user);
  const merged = parse(readFileSync(user, 'utf8'));
  assert.deepEqual(
    merged.contexts.map((item: { name: string }) => item.name),
    ['work', 'coxswain-dev'],
  );
  assert.equal(merged['current-context'], 'coxswain-dev');
  assert.deepEqual(merged.preferences, { colors: true });
  assert.equal(Buffer.from(merged.users[1].user['client-key-data'], 'base64').toString(), 'K');
  unmergeKubeconfig('dev', user);
  const after = parse(readFileSync(user, 'utf8'));
  assert.deepEqual(after.contexts, [{ name: 'work', context: {} }]);
  assert.equal(after['current-context'], '');
});
