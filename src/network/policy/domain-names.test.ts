import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ClusterPolicy } from '../../api/networkpolicy/kinds.ts';
import { VirtualClock } from '../../base/clock.ts';
import { createLogger } from '../../base/log.ts';
import { readClusterPolicy } from './cluster-policy.ts';
import { DomainNames, nameMatches } from './domain-names.ts';
import type { BlockPeer } from './statement.ts';

function open(t: { after(fn: () => void): void }, path?: string) {
  const folder = mkdtempSync(join(tmpdir(), 'cox-names-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const clock = new VirtualClock();
  const used = new Set<string>();
  const seen = { changes: 0 };
  const at = path ?? join(folder, 'state', 'names.json');
  const names = new DomainNames({
    path: at,
    changed: () => void seen.changes++,
    inUse: () => used,
    isPods: address => address.startsWith('10.244.'),
    clock,
    log: createLogger('test', { level: 'error' }),
  });
  return { names, clock, used, seen, path: at };
}
const answer = (address: string, ttlSeconds = 60) => [{ address, ttlSeconds }];

test('a name is itself, with a star what lies below it, in whatever case', () => {
  assert.ok(nameMatches('Example.com.', 'example.com'));
  assert.ok(!nameMatches('example.com', 'www.example.com'));
  for (const name of ['www.example.com', 'a.b.example.com']) assert.ok(nameMatches('*.example.com', name), name);
  for (const name of ['example.com', '.example.com', 'myexample.com', 'example.org'])
    assert.ok(!nameMatches('*.example.com', name), name);
});

test('addresses are those of the last answers, and stay while a connection lasts', async t => {
  const { names, clock, used, seen } = open(t);
  assert.ok(!names.isListening);
  names.follow(new Set(['*.example.com']));
  assert.ok(names.isListening);
  names.hear(['www.example.org'], answer('192.0.2.9'));
  names.hear(['WWW.example.com.', 'edge.cdn.test'], [...answer('192.0.2.1'), ...answer('10.244.0.7')]);
  assert.deepEqual([names.addressesOf('*.example.com'), seen.changes], [['192.0.2.1'], 1]);
  assert.deepEqual(names.addressesOf('*.cdn.test'), [], 'nobody speaks of it');
  await clock.advance(50_000);
  names.hear(['www.example.com'], answer('192.0.2.1', 600));
  assert.equal(seen.changes, 1, 'nothing new');
  names.hear(['api.example.com'], answer('2001:db8::1', 1));
  used.add('2001:db8::1');
  await clock.advance(200_000);
  assert.deepEqual(names.addressesOf('*.example.com'), ['192.0.2.1', '2001:db8::1']);
  used.clear();
  await clock.advance(100_000);
  assert.deepEqual(names.addressesOf('*.example.com'), ['192.0.2.1']);
  await clock.advance(600_000);
  assert.deepEqual(names.addressesOf('*.example.com'), []);
});

test('they survive the process, and are bounded', t => {
  const { names, path } = open(t);
  names.follow(new Set(['example.com']));
  for (let i = 0; i < 1000; i++) names.hear(['example.com'], answer(`192.0.${i >> 8}.${i & 255}`));
  assert.equal(names.addressesOf('example.com').length, 256);
  assert.ok(names.addressesOf('example.com').includes('192.0.3.231'), 'the newest');
  const { names: next } = open(t, path);
  assert.equal(next.addressesOf('example.com').length, 256);
});

test('an accepting rule takes in what its names have; any other is not understood and denies', () => {
  const read = (action: string) =>
    readClusterPolicy(
      'ClusterNetworkPolicy',
      {
        metadata: { name: 'p' },
        spec: {
          tier: 'Admin',
          priority: 1,
          subject: { namespaces: {} },
          egress: [{ action, to: [{ domainNames: ['a.test', 'b.test'] }] }],
        },
      } as unknown as ClusterPolicy,
      [],
      name => (name === 'a.test' ? ['192.0.2.1', '2001:db8::1'] : []),
    ).statements.egress![0]!;
  const { peers } = read('Accept');
  assert.deepEqual(
    (peers as readonly BlockPeer[]).map(({ cidr }) => cidr),
    ['192.0.2.1/32', '2001:db8::1/128'],
  );
  for (const action of ['Deny', 'Pass']) assert.deepEqual([read(action).action, read(action).peers], ['deny', 'all']);
});
