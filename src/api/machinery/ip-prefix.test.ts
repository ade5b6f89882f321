import assert from 'node:assert/strict';
import test from 'node:test';
import { formatIp, IpPrefix, parseIp } from './ip-prefix.ts';

test('text to number and back, in the one spelling', () => {
  for (const [text, canonical] of [
    ['10.0.255.1', '10.0.255.1'],
    ['::', '::'],
    ['::1', '::1'],
    ['FD00:0:0:1::', 'fd00:0:0:1::'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7:8'],
    ['::ffff:10.0.0.1', '::ffff:a00:1'],
  ] as const)
    assert.equal(formatIp(parseIp(text)), canonical);
});

test('ranges', () => {
  const range = new IpPrefix('10.96.0.0/12');
  assert.ok(range.has('10.111.255.255') && !range.has('10.112.0.0') && !range.has('::1'));
  assert.ok(range.covers(new IpPrefix('10.96.0.0/12')) && range.covers(new IpPrefix('10.100.0.0/16')));
  assert.ok(!new IpPrefix('10.100.0.0/16').covers(range) && new IpPrefix('10.100.0.0/16').overlaps(range));
  const six = new IpPrefix('fd00:10:96::/112');
  assert.ok(six.has('fd00:10:96::ffff') && !six.has('fd00:10:96::1:0') && !six.overlaps(range));
  assert.equal(formatIp({ value: new IpPrefix('fd00::77/64').base, bits: 128 }), 'fd00::');
});
