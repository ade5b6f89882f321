import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  addressAfter,
  formatAddress,
  formatMac,
  networkOf,
  parseAddress,
  parseMac,
  parsePrefix,
  prefixContains,
  tryParseAddress,
} from './address.ts';

test('addresses go to bytes and back', () => {
  for (const text of [
    '0.0.0.0',
    '10.244.1.5',
    '255.255.255.255',
    '::',
    '::1',
    'fd00::a',
    '2001:db8:0:1:1:1:1:1',
    'fe80::1:0:0:2',
  ]) {
    assert.equal(formatAddress(parseAddress(text)), text);
  }
  assert.equal(formatAddress(parseAddress('::ffff:10.0.0.1')), '::ffff:a00:1');
});

test('what is no address is refused', () => {
  for (const text of [
    '',
    '1.2.3',
    '1.2.3.4.5',
    '256.1.1.1',
    '01.2.3.4',
    '1.2.3.x',
    '1..2.3',
    ':::',
    '1::2::3',
    '12345::',
    'g::',
    '1:2:3:4:5:6:7:8:9',
  ]) {
    assert.equal(tryParseAddress(text), undefined, text);
  }
  for (const text of ['10.0.0.0', '10.0.0.0/33', '10.0.0/8', '::/129']) assert.throws(() => parsePrefix(text), text);
});

test('prefixes mask and contain', () => {
  const prefix = parsePrefix('10.244.1.77/20');
  assert.equal(formatAddress(networkOf(prefix)), '10.244.0.0');
  assert.ok(prefixContains(prefix, parseAddress('10.244.15.255')));
  assert.ok(!prefixContains(prefix, parseAddress('10.244.16.0')));
  assert.ok(!prefixContains(prefix, parseAddress('fd00::1')));
  assert.ok(prefixContains(parsePrefix('::/0'), parseAddress('fd00::1')));
});

test('counting on carries', () => {
  assert.equal(formatAddress(addressAfter(parseAddress('10.244.0.255'), 2)), '10.244.1.1');
  assert.equal(formatAddress(addressAfter(parseAddress('fd00::ffff'), 1)), 'fd00::1:0');
});

test('MAC addresses', () => {
  assert.equal(formatMac(parseMac('0A:58:0a:f4:01:05')), '0a:58:0a:f4:01:05');
  assert.throws(() => parseMac('0a:58'));
});
