import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { AddressPool } from './address-pool.ts';
import { renderMasquerade } from './masquerade.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cox-pool-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

test('addresses are given in turn, once each, and never network, gateway or broadcast', () => {
  const pool = new AddressPool(directory);
  const given = Array.from({ length: 5 }, (_, i) => pool.assign(`p${i}`, '10.0.0.0/29'));
  assert.deepEqual(given, ['10.0.0.2', '10.0.0.3', '10.0.0.4', '10.0.0.5', '10.0.0.6']);
  assert.throws(() => pool.assign('p5', '10.0.0.0/29'), /no IP addresses available in range 10.0.0.0\/29/);
  assert.equal(pool.assign('p2', '10.0.0.0/29'), '10.0.0.4');
  pool.release('p1');
  pool.release('p1');
  assert.equal(pool.assign('p5', '10.0.0.0/29'), '10.0.0.3');
});

test('a freed address is the last to be reused, also across a restart', () => {
  let pool = new AddressPool(directory);
  pool.assign('a', '10.0.0.0/29');
  pool.release('a');
  pool = new AddressPool(directory);
  assert.deepEqual(
    ['b', 'c', 'd', 'e', 'f'].map(uid => pool.assign(uid, '10.0.0.0/29')),
    ['10.0.0.3', '10.0.0.4', '10.0.0.5', '10.0.0.6', '10.0.0.2'],
  );
});

test('a restart keeps owners, drops what was never handed out, and survives debris', () => {
  new AddressPool(directory).assign('a', '10.0.0.0/24');
  writeFileSync(join(directory, '10.0.0.3~'), '');
  writeFileSync(join(directory, 'debris'), 'x');
  const pool = new AddressPool(directory);
  assert.deepEqual([...pool.owners()], [['a', '10.0.0.2']]);
  assert.deepEqual(readdirSync(directory).sort(), ['10.0.0.2~a', 'last']);
  assert.equal(pool.assign('b', '10.0.0.0/24'), '10.0.0.3');
});

test('a node with a new range gives new addresses', () => {
  const pool = new AddressPool(directory);
  pool.assign('a', '10.0.0.0/24');
  assert.equal(pool.assign('a', '10.0.7.0/24'), '10.0.7.2');
  assert.equal(pool.owners().size, 1);
});

test('masquerade spares pods, nodes and multicast', () => {
  const text = renderMasquerade({
    podCidrs: ['10.244.1.0/24', 'fd00:0:0:1::/64'],
    clusterCidrs: ['10.244.0.0/16', 'fd00::/48'],
    nodeIps: ['172.30.0.3', '172.30.0.2', '172.30.0.2', 'fd00:172::2'],
  });
  assert.match(text, /elements = \{ 10\.244\.0\.0\/16, 172\.30\.0\.2, 172\.30\.0\.3, 224\.0\.0\.0\/4 \}/);
  assert.match(text, /\tip saddr 10\.244\.1\.0\/24 ip daddr != @internal masquerade fully-random/);
  assert.match(text, /elements = \{ fd00:172::2, fd00::\/48, ff00::\/8 \}/);
  assert.match(text, /\tip6 saddr fd00:0:0:1::\/64 ip6 daddr != @internal masquerade fully-random/);
  const single = renderMasquerade({ podCidrs: ['10.244.1.0/24'], clusterCidrs: [], nodeIps: [] });
  assert.doesNotMatch(single, /ip6/);
});
