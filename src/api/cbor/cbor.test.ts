import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeCbor } from './decoder.ts';
import { encodeCbor } from './encoder.ts';

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');

test('items are written as upstream writes them', () => {
  const cases: [unknown, string][] = [
    [{ a: 1 }, 'a1 4161 01'],
    [[-1, 24, 256, 65536, 2 ** 40], '85 20 1818 190100 1a00010000 1b0000010000000000'],
    ['ü', '42c3bc'],
    [1.5, 'fa3fc00000'],
    [0.1, 'fb3fb999999999999a'],
    [[true, false, null], '83f5f4f6'],
  ];
  for (const [value, bytes] of cases)
    assert.equal(encodeCbor(value).toString('hex'), `d9d9f7${bytes.replaceAll(' ', '')}`);
});

test('what other encoders write is read: text, tags, indefinite lengths, half floats', () => {
  const cases: [string, unknown][] = [
    ['62c3bc', 'ü'],
    ['d6 43 00ff0a', 'AP8K'],
    ['d7 42 00ff', '00ff'],
    ['c0 74 323032362d30312d30325430333a30343a30355a', '2026-01-02T03:04:05Z'],
    ['c1 1a 69573425', '2026-01-02T02:57:41Z'],
    ['9f 01 02 ff', [1, 2]],
    ['bf 6161 5f 4162 4163 ff ff', { a: 'bc' }],
    ['f93e00', 1.5],
    ['d9d9f7 d9d9f7 01', 1],
    ['a1 69 5f5f70726f746f5f5f 01', JSON.parse('{"__proto__":1}')],
  ];
  for (const [bytes, value] of cases) assert.deepEqual(decodeCbor(hex(bytes)), value, bytes);
});

test('what JSON cannot say, and what is no CBOR, is refused', () => {
  const cases: [string, RegExp][] = [
    ['a2 6161 01 4161 02', /duplicate map key "a"/],
    ['f97e00', /no JSON form/],
    ['fa7f800000', /no JSON form/],
    ['c2 4101', /bignums/],
    ['a1 01 02', /map key is not a string/],
    ['61ff', /invalid UTF-8/],
    ['f7', /simple value 23/],
    ['1bffffffffffffffff', /overflows/],
    ['9bffffffffffffffff', /unexpected EOF/],
    ['82 01', /unexpected EOF/],
    ['01 02', /extraneous/],
    ['ff', /unexpected "break"/],
    ['', /unexpected EOF/],
    ['81'.repeat(2000), /max nested level|unexpected EOF/],
  ];
  for (const [bytes, why] of cases) assert.throws(() => decodeCbor(hex(bytes)), why, bytes);
});
