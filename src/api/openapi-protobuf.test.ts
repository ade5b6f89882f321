import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openapiV2Protobuf } from './openapi-protobuf.ts';

test('paths, parameters and definitions in their fields', () => {
  const bytes = openapiV2Protobuf({
    swagger: '2.0',
    info: { title: 'K', version: 'v' },
    paths: {
      '/p': { patch: { parameters: [{ in: 'query', name: 'dryRun', type: 'string' }], 'x-a': { kind: 'P' } } },
    },
    definitions: { D: { type: 'object', required: ['a'], properties: { a: { $ref: '#/definitions/E' } } } },
  });
  const hex = (text: string) => Buffer.from(text).toString('hex');
  const part = (number: number, inner: string) =>
    ((number << 3) | 2).toString(16).padStart(2, '0') + (inner.length / 2).toString(16).padStart(2, '0') + inner;
  const query = part(2, hex('query')) + part(4, hex('dryRun')) + part(6, hex('string'));
  const extension = part(1, hex('x-a')) + part(2, part(2, hex('{"kind":"P"}')));
  const operation = part(8, part(1, part(2, part(3, query)))) + part(13, extension);
  const reference = part(1, hex('#/definitions/E'));
  // Numbers above 15 take two bytes of tag.
  const wide = (tag: string, inner: string) => tag + (inner.length / 2).toString(16).padStart(2, '0') + inner;
  const definition =
    wide('9a01', hex('a')) +
    wide('b201', part(1, hex('object'))) +
    wide('ca01', part(1, part(1, hex('a')) + part(2, reference)));
  assert.equal(
    bytes.toString('hex'),
    part(1, hex('2.0')) +
      part(2, part(1, hex('K')) + part(2, hex('v'))) +
      part(8, part(2, part(1, hex('/p')) + part(2, part(8, operation)))) +
      part(9, part(1, part(1, hex('D')) + part(2, definition))),
  );
});
