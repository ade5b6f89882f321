/** One resource record written as in a zone file (RFC 1035 §5): `example.org. 60 IN MX 10 mail.example.org.`. Pure. */

import { isIPv4, isIPv6 } from 'node:net';
import { parseAddress } from '../sys/address.ts';
import { CLASS_IN, type DecodedRecord, type Section, TYPE } from './message.ts';
import { encodeName, FormatError } from './name.ts';

const TTL_SECONDS = 3600;

/** Names count as complete, with or without the final dot. Throws FormatError. */
export function parseRecord(section: Section, text: string): DecodedRecord {
  const words = [...text.matchAll(/"((?:\\.|[^"])*)"|[^\s"()]+/g)].map(([word, quoted]) => quoted ?? word);
  const [name, ...rest] = words;
  let ttlSeconds = TTL_SECONDS;
  while (rest.length > 0 && (/^\d+$/.test(rest[0]!) || rest[0]!.toUpperCase() === 'IN')) {
    const word = rest.shift()!;
    if (/^\d+$/.test(word)) ttlSeconds = Number(word);
  }
  const kind = (rest.shift() ?? '').toUpperCase();
  const type = (TYPE as Readonly<Record<string, number>>)[kind];
  if (name === undefined || type === undefined) throw new FormatError(`not a resource record: "${text}"`);
  encodeName(name);
  return { section, name: name.replace(/\.$/, ''), type, class: CLASS_IN, ttlSeconds, data: dataOf(kind, rest, text) };
}

const LAYOUTS: Readonly<Record<string, readonly ('name' | 'uint16' | 'uint32')[]>> = {
  CNAME: ['name'],
  DNAME: ['name'],
  NS: ['name'],
  PTR: ['name'],
  MX: ['uint16', 'name'],
  SRV: ['uint16', 'uint16', 'uint16', 'name'],
  SOA: ['name', 'name', 'uint32', 'uint32', 'uint32', 'uint32', 'uint32'],
};

function dataOf(kind: string, words: readonly string[], text: string): Buffer {
  if (kind === 'A' && words.length === 1 && isIPv4(words[0]!)) return parseAddress(words[0]!);
  if (kind === 'AAAA' && words.length === 1 && isIPv6(words[0]!)) return parseAddress(words[0]!);
  if (kind === 'TXT' && words.length > 0 && words.every(word => word.length < 256))
    return Buffer.concat(words.map(word => Buffer.concat([Buffer.from([word.length]), Buffer.from(word, 'latin1')])));
  const layout = LAYOUTS[kind];
  if (!layout || layout.length !== words.length) throw new FormatError(`data does not fit its type: "${text}"`);
  return Buffer.concat(
    layout.map((part, index) => {
      const word = words[index]!;
      if (part === 'name') return encodeName(word);
      const out = Buffer.alloc(part === 'uint16' ? 2 : 4);
      if (!/^\d+$/.test(word) || Number(word) >= 2 ** (out.length * 8))
        throw new FormatError(`not a number: "${word}"`);
      out.writeUIntBE(Number(word), 0, out.length);
      return out;
    }),
  );
}
