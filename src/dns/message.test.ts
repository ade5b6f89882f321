import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  AnswerWriter,
  bareAnswer,
  decodeMessage,
  encodeQuery,
  FLAG,
  Query,
  RCODE,
  TYPE,
  writeReply,
} from './message.ts';
import { decodeName, encodeName, endOfName, endOfPlainName, FormatError } from './name.ts';

const label = fc.uint8Array({ minLength: 1, maxLength: 20 });
const wireName = fc
  .array(label, { maxLength: 8 })
  .map(labels => Buffer.concat([...labels.map(bytes => Buffer.from([bytes.length, ...bytes])), Buffer.from([0])]));

test('a wire name survives text and back', () => {
  fc.assert(
    fc.property(wireName, wire => {
      const { name, end } = decodeName(wire, 0);
      assert.equal(end, wire.length);
      assert.deepEqual(encodeName(name), wire);
      assert.equal(endOfPlainName(wire, 0, wire.length), wire.length);
    }),
  );
});

test('names over the limits are refused', () => {
  assert.throws(() => encodeName('x'.repeat(64)), FormatError);
  assert.throws(() => encodeName(Array(5).fill('x'.repeat(60)).join('.')), FormatError);
  assert.throws(() => encodeName('a..b'), FormatError);
  assert.equal(encodeName('').length, 1);
  assert.deepEqual(encodeName('a.b.'), encodeName('a.b'));
});

test('pointers that do not lead backwards are refused', () => {
  assert.throws(() => decodeName(Buffer.from([0xc0, 0]), 0), FormatError);
  assert.throws(() => decodeName(Buffer.from([1, 97, 0xc0, 0]), 0), FormatError);
  assert.throws(() => decodeName(Buffer.from([0xc0, 2, 0xc0, 0]), 0), FormatError);
});

test('random bytes never break the readers', () => {
  const read = (bytes: Uint8Array): void => {
    const message = Buffer.from(bytes);
    const query = new Query();
    const code = query.parse(message, 0, message.length);
    if (code !== undefined) {
      assert.ok(query.questionEnd <= message.length);
      const out = Buffer.alloc(message.length + 32);
      const size = writeReply(query, bareAnswer(code), message, 0, out, 0, { bytesMax: 512, turn: 0 });
      assert.equal(decodeMessage(out.subarray(0, size)).id, message.readUInt16BE(0));
    }
    assert.ok(endOfName(message, 0, message.length) <= message.length);
    try {
      decodeMessage(message);
    } catch (error) {
      assert.ok(error instanceof FormatError);
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), read));
  // Closer to the truth: a good query with some bytes changed or cut.
  const good = encodeQuery({ id: 7, name: 'web.default.svc.cluster.local', type: TYPE.A, udpBytesMax: 1232 });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 4 }),
      fc.nat(good.length),
      (changes, length) => {
        const bytes = Buffer.from(good);
        for (const [at, value] of changes) bytes[at] = value;
        read(bytes.subarray(0, length));
      },
    ),
  );
});

test('a query is parsed where it lies in a larger buffer', () => {
  const bytes = encodeQuery({ id: 0x1234, name: 'Web.Default', type: TYPE.SRV, udpBytesMax: 4000 });
  const query = new Query();
  assert.equal(
    query.parse(Buffer.concat([Buffer.alloc(9, 0xff), bytes, Buffer.alloc(5)]), 9, 9 + bytes.length),
    RCODE.NOERROR,
  );
  assert.equal(query.id, 0x1234);
  assert.equal(query.name, '\x03web\x07default\0');
  assert.equal(query.type, TYPE.SRV);
  assert.equal(query.udpBytesMax, 4000);
  assert.equal(query.edns, true);
});

test('what is no query gets the right refusal', () => {
  const query = new Query();
  const parse = (change: (bytes: Buffer) => void): number | undefined => {
    const bytes = encodeQuery({ id: 1, name: 'a', type: TYPE.A, udpBytesMax: 1232 });
    change(bytes);
    return query.parse(bytes, 0, bytes.length);
  };
  assert.equal(
    parse(bytes => bytes.writeUInt16BE(FLAG.QR, 2)),
    undefined,
  );
  assert.equal(
    parse(bytes => bytes.writeUInt16BE(0x2800, 2)),
    RCODE.NOTIMP,
  );
  assert.equal(
    parse(bytes => bytes.writeUInt16BE(2, 4)),
    RCODE.FORMERR,
  );
  assert.equal(
    parse(bytes => bytes.writeUInt16BE(0, 4)),
    RCODE.FORMERR,
  );
  assert.equal(
    parse(bytes => bytes.writeUInt16BE(3, 10)),
    RCODE.FORMERR,
  );
  assert.equal(
    parse(bytes => (bytes[bytes.length - 5] = 1)),
    RCODE.BADVERS,
  );
  assert.equal(query.parse(Buffer.alloc(11), 0, 11), undefined);
});

test('a refusal repeats the operation that was asked for, or clients take it for somebody else’s', () => {
  const bytes = encodeQuery({ id: 1, name: 'a', type: TYPE.A });
  bytes.writeUInt16BE(0x1000, 2);
  const query = new Query();
  const code = query.parse(bytes, 0, bytes.length)!;
  const out = Buffer.alloc(512);
  const size = writeReply(query, bareAnswer(code), bytes, 0, out, 0, { bytesMax: 512, turn: 0 });
  assert.equal(decodeMessage(out.subarray(0, size)).flags, FLAG.QR | 0x1000 | RCODE.NOTIMP);
});

test('records written are the records read', () => {
  const name = 'web.default.svc.cluster.local';
  const question = encodeQuery({ id: 9, name, type: TYPE.SRV });
  const writer = new AnswerWriter(name)
    .record('answer', name, TYPE.SRV, 30, out =>
      out.uint16(0).uint16(100).uint16(80).name('a.web.default.svc.cluster.local', { compress: false }),
    )
    .record('authority', 'cluster.local', TYPE.NS, 30, out => out.name('ns.dns.cluster.local'))
    .address('additional', 'a.web.default.svc.cluster.local', '10.0.0.1', 30)
    .address('additional', 'a.web.default.svc.cluster.local', 'fd00::1', 30);
  const query = new Query();
  query.parse(question, 0, question.length);
  const out = Buffer.alloc(1024);
  const answer = writer.finish({ flags: FLAG.AA });
  const size = writeReply(query, answer, question, 0, out, 0, { bytesMax: 512, turn: 0 });
  const message = decodeMessage(out.subarray(0, size));
  assert.equal(message.flags, FLAG.QR | FLAG.AA | FLAG.RD);
  assert.deepEqual(message.questions, [{ name, type: TYPE.SRV, class: 1 }]);
  assert.deepEqual(
    message.records.map(record => [record.section, record.name, record.type, record.data.toString('hex')]),
    [
      ['answer', name, TYPE.SRV, `000000640050${encodeName('a.web.default.svc.cluster.local').toString('hex')}`],
      ['authority', 'cluster.local', TYPE.NS, encodeName('ns.dns.cluster.local').toString('hex')],
      ['additional', 'a.web.default.svc.cluster.local', TYPE.A, '0a000001'],
      ['additional', 'a.web.default.svc.cluster.local', TYPE.AAAA, 'fd000000000000000000000000000001'],
    ],
  );
});

test('a reply that does not fit is cut at a record and says so', () => {
  const name = 'many.default.svc.cluster.local';
  const writer = new AnswerWriter(name);
  for (let index = 0; index < 100; index++) writer.address('answer', name, `10.0.0.${index}`, 30);
  const answer = writer.finish({ rotate: true });
  const query = new Query();
  const reply = (question: Buffer, bytesMax: number, turn: number) => {
    query.parse(question, 0, question.length);
    const out = Buffer.alloc(4096);
    const size = writeReply(query, answer, question, 0, out, 0, { bytesMax, turn });
    assert.ok(size <= bytesMax);
    return decodeMessage(out.subarray(0, size));
  };
  const plain = encodeQuery({ id: 1, name, type: TYPE.A });
  const cut = reply(plain, 512, 0);
  assert.ok(cut.flags & FLAG.TC);
  assert.equal(cut.records.length, Math.floor((512 - plain.length) / 16));
  const withEdns = encodeQuery({ id: 1, name, type: TYPE.A, udpBytesMax: 512 });
  assert.equal(reply(withEdns, 512, 0).records.at(-1)!.type, TYPE.OPT);
  const whole = reply(plain, 4096, 3);
  assert.equal(whole.flags & FLAG.TC, 0);
  assert.equal(whole.records[0]!.data.join('.'), '10.0.0.3');
  assert.equal(new Set(whole.records.map(record => record.data.join('.'))).size, 100);
});
