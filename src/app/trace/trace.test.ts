import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { STEPS } from './registry.ts';
import { parseTarget } from './trace.ts';

test('every step of the folder is in the list, once', () => {
  const files = readdirSync(join(import.meta.dirname, 'steps')).map(file => file.replace('.ts', ''));
  assert.deepEqual(STEPS.map(({ name }) => (name === 'from' ? 'origin' : name)).sort(), files.sort());
});

test('targets as people write them', () => {
  const of = (text: string) => {
    const { host, port, protocol, isService } = parseTarget(text);
    return [host, port, protocol, isService];
  };
  assert.deepEqual(of('web'), ['web', undefined, 'TCP', false]);
  assert.deepEqual(of('svc/web:http'), ['web', 'http', 'TCP', true]);
  assert.deepEqual(of('web.shop:8080'), ['web.shop', '8080', 'TCP', false]);
  assert.deepEqual(of('https://user@web.shop/path?x=1:2'), ['web.shop', '443', 'TCP', false]);
  assert.deepEqual(of('http://[fd00::1]:8080/'), ['fd00::1', '8080', 'TCP', false]);
  assert.deepEqual(of('kube-dns.kube-system:53/udp'), ['kube-dns.kube-system', '53', 'UDP', false]);
  assert.deepEqual(of('udp://web:53'), ['web', '53', 'UDP', false]);
  assert.deepEqual(of('10.96.0.1:443'), ['10.96.0.1', '443', 'TCP', false]);
  assert.deepEqual(of('fd00::1'), ['fd00::1', undefined, 'TCP', false]);
  assert.deepEqual(of('example.com.'), ['example.com.', undefined, 'TCP', false]);
  for (const text of ['', 'a b', '-x', 'web:99999', 'http://']) assert.throws(() => parseTarget(text), text);
});
