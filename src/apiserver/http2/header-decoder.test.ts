import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type ServerHttp2Stream } from 'node:http2';
import { type AddressInfo, connect as dial, createServer as tcp } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import { ConnectionError } from './frame.ts';
import { HeaderDecoder } from './header-decoder.ts';
import { encodeHeaders } from './header-encoder.ts';
import { STATIC_FIELDS } from './header-table.ts';
import { requestHead } from './request-head.ts';

const bytes = (hex: string) => Buffer.from(hex.replaceAll(' ', ''), 'hex');
const decoded = (decoder: HeaderDecoder, hex: string) =>
  decoder.decode(bytes(hex)).fields.map(({ name, value }) => `${name}: ${value}`);

test('the static table has its 61 entries', () => {
  assert.equal(STATIC_FIELDS.length, 61);
  assert.deepEqual(STATIC_FIELDS[60], { name: 'www-authenticate', value: '' });
  assert.deepEqual(STATIC_FIELDS[15], { name: 'accept-encoding', value: 'gzip, deflate' });
});

test("RFC 7541's examples C.3 and C.4: the table grows from block to block, plain and in Huffman code", () => {
  const plain = new HeaderDecoder(65_536);
  const first = [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com'];
  const second = [...first, 'cache-control: no-cache'];
  const third = [
    ':method: GET',
    ':scheme: https',
    ':path: /index.html',
    ':authority: www.example.com',
    'custom-key: custom-value',
  ];
  assert.deepEqual(decoded(plain, '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d'), first);
  assert.deepEqual(decoded(plain, '8286 84be 5808 6e6f 2d63 6163 6865'), second);
  assert.deepEqual(decoded(plain, '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65'), third);
  const huffman = new HeaderDecoder(65_536);
  assert.deepEqual(decoded(huffman, '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff'), first);
  assert.deepEqual(decoded(huffman, '8286 84be 5886 a8eb 1064 9cbf'), second);
  assert.deepEqual(decoded(huffman, '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf'), third);
});

test("RFC 7541's example C.6: the table forgets what does not fit", () => {
  const decoder = new HeaderDecoder(65_536);
  // A table of 256 bytes.
  decoder.decode(bytes('3fe101'));
  assert.deepEqual(
    decoded(
      decoder,
      '4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3',
    ),
    [
      ':status: 302',
      'cache-control: private',
      'date: Mon, 21 Oct 2013 20:13:21 GMT',
      'location: https://www.example.com',
    ],
  );
  assert.deepEqual(decoded(decoder, '4883 640e ffc1 c0bf'), [
    ':status: 307',
    'cache-control: private',
    'date: Mon, 21 Oct 2013 20:13:21 GMT',
    'location: https://www.example.com',
  ]);
  // `:status: 302`, the oldest, had to go.
  assert.throws(() => decoder.decode(bytes('c2')), ConnectionError);
});

test('broken blocks are refused', () => {
  for (const hex of [
    '80', // index 0
    'be', // nothing in the dynamic table
    '41', // no value
    '410a6162', // a value cut off
    '3fe21f', // a table of 4097 bytes
    '8220', // resized after a field
    'ffffffffffff', // a number without end
    '00 81ff 00', // padding of eight bits
    '00 8100 00', // padding of zeros
    '00 84ffffffff 00', // the end of strings in a string
  ])
    assert.throws(() => new HeaderDecoder(65_536).decode(bytes(hex)), ConnectionError, hex);
});

test('a small block that stands for a large list is decoded and not kept', () => {
  const decoder = new HeaderDecoder(16_384);
  const name = Buffer.from('x'.repeat(4000));
  decoder.decode(Buffer.concat([bytes('40 01 61 7f a11e'), name]));
  const { fields, tooLarge } = decoder.decode(Buffer.alloc(10_000, 0xbe));
  assert.equal(tooLarge, true);
  assert.ok(fields.length <= 5);
});

test('what the encoder writes is what the decoder reads', () => {
  const value = fc.string({ unit: fc.integer({ min: 32, max: 255 }).map(code => String.fromCharCode(code)) });
  const name = fc.stringMatching(/^[a-z][a-z-]{0,20}$/);
  const decoder = new HeaderDecoder(2 ** 20);
  fc.assert(
    fc.property(
      fc.integer({ min: 200, max: 599 }),
      fc.dictionary(name, fc.oneof(value, fc.array(value, { maxLength: 3 }), fc.nat())),
      (status, given) => {
        const headers = { ...given, date: 'today' };
        const expected = Object.entries(headers).flatMap(([key, values]) =>
          (Array.isArray(values) ? values : [values]).map(one => `${key}: ${one}`),
        );
        const block = Buffer.from(encodeHeaders(status, headers, { afterSettings: true }));
        const fields = decoder.decode(block).fields.map(field => `${field.name}: ${field.value}`);
        assert.deepEqual(fields, [`:status: ${status}`, ...expected]);
      },
    ),
  );
});

test('any bytes are a list or a ConnectionError', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 5 }), blocks => {
      const decoder = new HeaderDecoder(65_536);
      try {
        for (const block of blocks) decoder.decode(Buffer.from(block));
      } catch (error) {
        assert.ok(error instanceof ConnectionError);
      }
    }),
    { numRuns: 2000 },
  );
});

// nghttp2, which node:http2 is made of, is the judge of the Huffman code: it writes every string in the shorter form.
test('nghttp2 writes headers of all letters that we read', async () => {
  const seen: Buffer[] = [];
  const server = createServer();
  server.on('stream', (stream: ServerHttp2Stream) => stream.respond({ ':status': 200 }, { endStream: true }));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  // A relay that listens in.
  const relay = tcp(client => {
    const upstream = dial((server.address() as AddressInfo).port, '127.0.0.1');
    client.on('data', chunk => seen.push(chunk as Buffer));
    client.pipe(upstream).pipe(client);
    for (const side of [client, upstream]) side.on('error', () => {});
  });
  relay.listen(0, '127.0.0.1');
  await once(relay, 'listening');
  const session = connect(`http://127.0.0.1:${(relay.address() as AddressInfo).port}`);
  const letters = Array.from({ length: 224 }, (_, i) => String.fromCharCode(i + 32)).filter(
    letter => letter !== '\x7f',
  );
  const sent: string[] = [];
  for (const letter of letters) {
    // Zeros have the shortest code, so that the string is sent in Huffman code whatever the letter costs.
    const value = `0${letter.repeat(2)}${'0'.repeat(60)}`;
    sent.push(value);
    const stream = session.request({ ':path': '/', 'x-letter': value });
    stream.resume();
    await once(stream, 'close');
  }
  session.close();
  relay.close();
  server.close();
  const decoder = new HeaderDecoder(65_536);
  const all = Buffer.concat(seen).subarray(24);
  const read: string[] = [];
  for (let at = 0; at + 9 <= all.length; ) {
    const length = all.readUIntBE(at, 3);
    const payload = all.subarray(at + 9, at + 9 + length);
    if (all[at + 3] === 1) {
      const priority = all[at + 4]! & 0x20 ? 5 : 0;
      const { fields } = decoder.decode(payload.subarray(priority));
      read.push(fields.find(field => field.name === 'x-letter')!.value);
    }
    at += 9 + length;
  }
  assert.deepEqual(read, sent);
});

test('request heads', () => {
  const fields = (...lines: string[]) =>
    lines.map(line => {
      const colon = line.indexOf(':', 1);
      return { name: line.slice(0, colon), value: line.slice(colon + 1) };
    });
  const head = [':method:GET', ':scheme:https', ':path:/x'];
  assert.equal(requestHead(fields(...head, 'accept:a', 'accept:b'))!.accept, 'a, b');
  assert.equal(requestHead(fields(...head, 'cookie:a', 'cookie:b'))!.cookie, 'a; b');
  assert.equal(requestHead(fields(...head, 'authorization:a', 'authorization:b'))!.authorization, 'a');
  for (const bad of [
    [':method:GET', ':scheme:https'],
    [':method:GET', ':path:/', 'a:b', ':scheme:https'],
    [...head, ':path:/y'],
    [...head, ':status:200'],
    [...head, 'Accept:a'],
    [...head, 'a b:c'],
    [...head, 'connection:close'],
    [...head, 'te:gzip'],
    [...head, 'a:x\r\ny: z'],
    [...head, 'content-length:1', 'content-length:2'],
    [...head, 'content-length:-1'],
    [':method:GET', ':scheme:https', ':path:http://elsewhere/'],
  ])
    assert.equal(requestHead(fields(...bad)), undefined, bad.join(' '));
  const odd = requestHead(fields(...head, '__proto__:x', 'constructor:y'))!;
  assert.equal(Object.getPrototypeOf(odd), Object.prototype);
});
