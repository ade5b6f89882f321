/**
 * Answers as lists of records and back: for what comes from other servers, is remembered for a while, or is told under
 * another name. An Answer's bytes point into the question they were made for, so they move between names only through here.
 */

import {
  type Answer,
  AnswerWriter,
  bareAnswer,
  type DecodedRecord,
  decodeMessage,
  FLAG,
  HEADER_BYTES,
  RCODE,
  TYPE,
} from './message.ts';
import { decodeName, encodeName, endOfName } from './name.ts';

/** Records of an answer made for the question `name`, in wire form as latin1. */
export function recordsOf(answer: Answer, name: string): readonly DecodedRecord[] {
  if (answer.body.length === 0) return [];
  const question = Buffer.from(`${name}\0\x01\0\x01`, 'latin1');
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(answer.answers, 6);
  header.writeUInt16BE(answer.authorities, 8);
  header.writeUInt16BE(answer.additionals, 10);
  return decodeMessage(Buffer.concat([header, question, answer.body])).records;
}

/** An answer to the question `name` (wire form). Records keep their order within a section; OPT records are left out. */
export function answerOf(
  name: string,
  records: readonly DecodedRecord[],
  options: { readonly rcode?: number; readonly flags?: number } = {},
): Answer {
  const kept = records.filter(record => record.type !== TYPE.OPT);
  const { rcode = RCODE.NOERROR, flags = 0 } = options;
  if (kept.length === 0) return { ...bareAnswer(rcode), flags };
  const text = textOf(name);
  const writer = new AnswerWriter(text);
  for (const section of ['answer', 'authority', 'additional'] as const)
    for (const record of kept)
      if (record.section === section)
        writer.record(
          section,
          record.name,
          record.type,
          record.ttlSeconds,
          out => out.bytes(record.data),
          record.class,
        );
  const first = kept[0]!;
  // Interchangeable, so that each may come first: addresses of one type, all owned by the question.
  const rotate =
    kept.every(
      record =>
        record.section === 'answer' && record.type === first.type && record.name.toLowerCase() === text.toLowerCase(),
    ) &&
    (first.type === TYPE.A || first.type === TYPE.AAAA);
  return { ...writer.finish({ rcode, rotate }), flags };
}

/** An upstream's reply as an answer to the question `name`. Throws FormatError. */
export function answerFromReply(reply: Buffer, name: string): Answer {
  const message = decodeMessage(reply);
  return answerOf(name, message.records, {
    rcode: message.rcode,
    flags: FLAG.RA | (message.flags & (FLAG.AD | FLAG.TC)),
  });
}

/** The smallest TTL among the records, in seconds; undefined without records. */
export function shortestTtl(answer: Answer): number | undefined {
  let shortest: number | undefined;
  eachTtl(answer, at => {
    const ttl = answer.body.readUInt32BE(at);
    shortest = shortest === undefined ? ttl : Math.min(shortest, ttl);
  });
  return shortest;
}

/** How long a denial holds (RFC 2308 §5): its SOA record's own time or the one it states, whichever is less; undefined without one. */
export function denialTtl(answer: Answer, name: string): number | undefined {
  const soa = recordsOf(answer, name).find(record => record.section === 'authority' && record.type === TYPE.SOA);
  return soa && soa.data.length >= 4 ? Math.min(soa.ttlSeconds, soa.data.readUInt32BE(soa.data.length - 4)) : undefined;
}

/** The same answer with every TTL at `seconds`. */
export function withTtl(answer: Answer, seconds: number): Answer {
  const body = Buffer.from(answer.body);
  eachTtl(answer, at => body.writeUInt32BE(seconds, at));
  return { ...answer, body };
}

function eachTtl({ body, ends }: Answer, visit: (at: number) => void): void {
  let start = 0;
  for (const end of ends) {
    visit(endOfName(body, start, end) + 4);
    start = end;
  }
}

/** Text form of a name in wire form. */
export const textOf = (name: string): string => decodeName(Buffer.from(name, 'latin1'), 0).name;
/** Wire form, as the key that questions have: lower case. Throws FormatError. */
export const wireOf = (text: string): string => encodeName(text.toLowerCase()).toString('latin1');

/** Whether the name lies in the zone or is it; both in wire form, lower case. */
export function isWithin(name: string, zone: string): boolean {
  for (let at = 0; ; at += name.charCodeAt(at) + 1) {
    if (name.length - at === zone.length) return name.endsWith(zone);
    if (name.length - at < zone.length) return false;
  }
}
