/**
 * DNS messages (RFC 1035, EDNS0 of RFC 6891): reads queries without allocating, writes resource records with name
 * compression, and decodes whole messages for the forwarder, tests and benchmarks. Every read is checked against the
 * message's length; malformed input gives FormatError or a FORMERR, never an exception of the runtime.
 */

import { isIPv4 } from 'node:net';
import { parseAddress } from '../sys/address.ts';
import { decodeName, encodeName, endOfName, endOfPlainName, FormatError, labelsOf } from './name.ts';

export const TYPE = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  DNAME: 39,
  OPT: 41,
  HINFO: 13,
  IXFR: 251,
  AXFR: 252,
  ANY: 255,
} as const;
export const CLASS_IN = 1;
export const RCODE = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5, BADVERS: 16 } as const;
export const FLAG = { QR: 0x8000, AA: 0x0400, TC: 0x0200, RD: 0x0100, RA: 0x0080, AD: 0x0020, CD: 0x0010 } as const;

export const HEADER_BYTES = 12;
/** Size of an OPT record without options. */
export const OPT_BYTES = 11;
/** What a client without EDNS accepts over UDP. */
export const UDP_BYTES_MIN = 512;
/** The most that is sent in one datagram, whatever the client offers; two Ethernet frames and a bit. */
export const UDP_BYTES_MAX = 4096;
export const TCP_BYTES_MAX = 65_535;
const OPCODE_MASK = 0x7800;
const POINTER_OFFSET_MAX = 0x3fff;

/**
 * One query, parsed in place; reuse one object for many. After `parse` returns NOERROR all fields are valid, after
 * another code only `id`, `flags` and, when `questionEnd` > 12, the question. `undefined` means: do not answer at all.
 */
export class Query {
  id = 0;
  flags = 0;
  /** Length of the name in wire form. */
  nameBytes = 0;
  /** The name in wire form as latin1, lower-cased: the key of answers. */
  name = '';
  type = 0;
  class = 0;
  /** Offset behind the question, from the message's start. */
  questionEnd = HEADER_BYTES;
  edns = false;
  /** What the client accepts over UDP. */
  udpBytesMax: number = UDP_BYTES_MIN;
  dnssecOk = false;

  parse(message: Buffer, start: number, end: number): number | undefined {
    if (end - start < HEADER_BYTES) return undefined;
    this.id = (message[start]! << 8) | message[start + 1]!;
    this.flags = (message[start + 2]! << 8) | message[start + 3]!;
    this.questionEnd = HEADER_BYTES;
    this.edns = false;
    this.dnssecOk = false;
    this.udpBytesMax = UDP_BYTES_MIN;
    if (this.flags & FLAG.QR) return undefined;
    if (this.flags & OPCODE_MASK) return RCODE.NOTIMP;
    if (message[start + 4] !== 0 || message[start + 5] !== 1) return RCODE.FORMERR;
    const answers = (message[start + 6]! << 8) | message[start + 7]!;
    const authorities = (message[start + 8]! << 8) | message[start + 9]!;
    const additionals = (message[start + 10]! << 8) | message[start + 11]!;
    // No honest query carries more: the limits of the DNS library that CoreDNS uses.
    if (answers > 1 || authorities > 1 || additionals > 2) return RCODE.FORMERR;
    const nameEnd = endOfPlainName(message, start + HEADER_BYTES, end);
    if (nameEnd < 0 || nameEnd + 4 > end) return RCODE.FORMERR;
    this.nameBytes = nameEnd - start - HEADER_BYTES;
    this.name = message.toString('latin1', start + HEADER_BYTES, nameEnd).toLowerCase();
    this.type = (message[nameEnd]! << 8) | message[nameEnd + 1]!;
    this.class = (message[nameEnd + 2]! << 8) | message[nameEnd + 3]!;
    this.questionEnd = nameEnd + 4 - start;
    if (answers + authorities + additionals === 0) return RCODE.NOERROR;
    return this.#parseRecords(message, nameEnd + 4, end, answers + authorities + additionals);
  }

  #parseRecords(message: Buffer, at: number, end: number, count: number): number {
    for (; count > 0; count--) {
      const fields = endOfName(message, at, end);
      if (fields < 0 || fields + 10 > end) return RCODE.FORMERR;
      const type = (message[fields]! << 8) | message[fields + 1]!;
      const next = fields + 10 + ((message[fields + 8]! << 8) | message[fields + 9]!);
      if (next > end) return RCODE.FORMERR;
      if (type === TYPE.OPT) {
        if (this.edns || message[at] !== 0) return RCODE.FORMERR;
        this.edns = true;
        this.udpBytesMax = Math.max(UDP_BYTES_MIN, (message[fields + 2]! << 8) | message[fields + 3]!);
        this.dnssecOk = (message[fields + 6]! & 0x80) !== 0;
        if (message[fields + 5] !== 0) return RCODE.BADVERS;
      }
      at = next;
    }
    return RCODE.NOERROR;
  }
}

/**
 * Everything of a reply behind its question, ready to copy: it depends on the question's name and type only. Offsets
 * inside `body` assume that it starts right behind the question.
 */
export interface Answer {
  readonly rcode: number;
  readonly answers: number;
  readonly authorities: number;
  readonly additionals: number;
  readonly body: Buffer;
  /** End of each record within `body`, for truncation at a record's border. */
  readonly ends: readonly number[];
  /** Size of each of the answers when they are interchangeable and may be rotated, else 0. */
  readonly stride: number;
  /** The name outside the zone where a CNAME chain goes on. */
  readonly chase?: string;
  /** Header flags beyond those that follow from the query: AA, RA, AD, TC. */
  readonly flags?: number;
}

/** Writes the reply to `query` (read from `message` at `start`) into `out` at `at`; returns its size. `turn` rotates equal answers. */
export function writeReply(
  query: Query,
  answer: Answer,
  message: Buffer,
  start: number,
  out: Buffer,
  at: number,
  options: { readonly bytesMax: number; readonly turn: number },
): number {
  const { body } = answer;
  const bodyMax = options.bytesMax - query.questionEnd - (query.edns ? OPT_BYTES : 0);
  let { answers, authorities, additionals } = answer;
  let bodyBytes = body.length;
  let flags = FLAG.QR | (answer.flags ?? 0) | (query.flags & (OPCODE_MASK | FLAG.RD | FLAG.CD)) | (answer.rcode & 15);
  if (bodyBytes > bodyMax) {
    let kept = 0;
    while (kept < answer.ends.length && answer.ends[kept]! <= bodyMax) kept++;
    bodyBytes = kept === 0 ? 0 : answer.ends[kept - 1]!;
    additionals = Math.max(0, kept - answers - authorities);
    authorities = Math.min(authorities, Math.max(0, kept - answers));
    answers = Math.min(answers, kept);
    flags |= FLAG.TC;
  }
  message.copy(out, at + HEADER_BYTES, start + HEADER_BYTES, start + query.questionEnd);
  let end = at + query.questionEnd;
  const { stride } = answer;
  if (stride > 0 && bodyBytes === body.length) {
    const turned = (options.turn % answers) * stride;
    body.copy(out, end, turned, bodyBytes);
    body.copy(out, end + bodyBytes - turned, 0, turned);
  } else {
    body.copy(out, end, 0, bodyBytes);
  }
  end += bodyBytes;
  if (query.edns) {
    out[end] = 0;
    out[end + 1] = 0;
    out[end + 2] = TYPE.OPT;
    out[end + 3] = query.udpBytesMax >> 8;
    out[end + 4] = query.udpBytesMax & 255;
    out[end + 5] = answer.rcode >> 4;
    out[end + 6] = 0;
    out[end + 7] = query.dnssecOk ? 0x80 : 0;
    out[end + 8] = 0;
    out[end + 9] = 0;
    out[end + 10] = 0;
    end += OPT_BYTES;
    additionals++;
  }
  out[at] = query.id >> 8;
  out[at + 1] = query.id & 255;
  out[at + 2] = flags >> 8;
  out[at + 3] = flags & 255;
  out[at + 4] = 0;
  out[at + 5] = query.questionEnd > HEADER_BYTES ? 1 : 0;
  out[at + 6] = answers >> 8;
  out[at + 7] = answers & 255;
  out[at + 8] = authorities >> 8;
  out[at + 9] = authorities & 255;
  out[at + 10] = additionals >> 8;
  out[at + 11] = additionals & 255;
  return end - at;
}

const EMPTY = Buffer.alloc(0);

/** A reply without records. */
export function bareAnswer(rcode: number): Answer {
  return { rcode, answers: 0, authorities: 0, additionals: 0, body: EMPTY, ends: [], stride: 0 };
}

export type Section = 'answer' | 'authority' | 'additional';
const SECTIONS: readonly Section[] = ['answer', 'authority', 'additional'];

/** Builds an Answer, record by record, sections in order. Names in text form; those of the question are pointed at. */
export class AnswerWriter {
  readonly #base: number;
  readonly #counts = [0, 0, 0];
  readonly #offsets = new Map<string, number>();
  readonly #ends: number[] = [];
  #bytes = Buffer.allocUnsafe(512);
  #size = 0;

  constructor(questionName: string) {
    let offset = HEADER_BYTES;
    const labels = labelsOf(questionName);
    for (let index = 0; index < labels.length; index++) {
      this.#offsets.set(labels.slice(index).join('\0').toLowerCase(), offset);
      offset += labels[index]!.length + 1;
    }
    this.#base = offset + 1 + 4;
  }
  /** `data` writes the record's data through this writer. */
  record(
    section: Section,
    owner: string,
    type: number,
    ttlSeconds: number,
    data: (writer: AnswerWriter) => void,
    ofClass: number = CLASS_IN,
  ): this {
    this.#counts[SECTIONS.indexOf(section)]!++;
    this.name(owner).uint16(type).uint16(ofClass).uint32(ttlSeconds);
    const lengthAt = this.#size;
    this.uint16(0);
    data(this);
    this.#bytes.writeUInt16BE(this.#size - lengthAt - 2, lengthAt);
    this.#ends.push(this.#size);
    return this;
  }
  /** Compressed where a pointer can reach, unless `compress` is false (RFC 3597: only in the types of RFC 1035). */
  name(text: string, options: { compress: boolean } = { compress: true }): this {
    const labels = labelsOf(text);
    for (let index = 0; index < labels.length; index++) {
      const suffix = labels.slice(index).join('\0').toLowerCase();
      const known = this.#offsets.get(suffix);
      if (known !== undefined && options.compress) return this.uint16(0xc000 | known);
      const offset = this.#base + this.#size;
      if (known === undefined && offset <= POINTER_OFFSET_MAX) this.#offsets.set(suffix, offset);
      this.#reserve(labels[index]!.length + 1);
      this.#bytes[this.#size] = labels[index]!.length;
      this.#bytes.write(labels[index]!, this.#size + 1, 'latin1');
      this.#size += labels[index]!.length + 1;
    }
    this.#reserve(1);
    this.#bytes[this.#size++] = 0;
    return this;
  }
  uint16(value: number): this {
    this.#reserve(2);
    this.#size = this.#bytes.writeUInt16BE(value, this.#size);
    return this;
  }
  uint32(value: number): this {
    this.#reserve(4);
    this.#size = this.#bytes.writeUInt32BE(value >>> 0, this.#size);
    return this;
  }
  bytes(data: Uint8Array): this {
    this.#reserve(data.length);
    this.#bytes.set(data, this.#size);
    this.#size += data.length;
    return this;
  }
  address(section: Section, owner: string, ip: string, ttlSeconds: number): this {
    return this.record(section, owner, isIPv4(ip) ? TYPE.A : TYPE.AAAA, ttlSeconds, writer =>
      writer.bytes(parseAddress(ip)),
    );
  }
  /** `rotate`: all records are answers owned by the question's name and of one size. */
  finish(options: { rcode?: number; rotate?: boolean; chase?: string; flags?: number } = {}): Answer {
    const [answers, authorities, additionals] = this.#counts as [number, number, number];
    return {
      rcode: options.rcode ?? RCODE.NOERROR,
      answers,
      authorities,
      additionals,
      body: Buffer.from(this.#bytes.subarray(0, this.#size)),
      ends: this.#ends,
      stride: options.rotate && answers > 1 ? this.#size / answers : 0,
      ...(options.chase === undefined ? {} : { chase: options.chase }),
      ...(options.flags ? { flags: options.flags } : {}),
    };
  }
  #reserve(bytes: number): void {
    if (this.#size + bytes <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#size + bytes));
    this.#bytes.copy(grown, 0, 0, this.#size);
    this.#bytes = grown;
  }
}

/** A record as decoded: `data` has its names uncompressed, so it may be written into another message. */
export interface DecodedRecord {
  readonly section: Section;
  readonly name: string;
  readonly type: number;
  readonly class: number;
  readonly ttlSeconds: number;
  readonly data: Buffer;
}

export interface DecodedMessage {
  readonly id: number;
  readonly flags: number;
  /** Without EDNS's upper bits. */
  readonly rcode: number;
  readonly questions: readonly { readonly name: string; readonly type: number; readonly class: number }[];
  readonly records: readonly DecodedRecord[];
}

// Bytes before the first name in a record's data, and how many names follow, for the types whose names may be compressed.
const NAMES_IN_DATA: ReadonlyMap<number, readonly [skip: number, names: number]> = new Map([
  [TYPE.NS, [0, 1]],
  [TYPE.CNAME, [0, 1]],
  [TYPE.PTR, [0, 1]],
  [TYPE.DNAME, [0, 1]],
  [TYPE.MX, [2, 1]],
  [TYPE.SOA, [0, 2]],
  [TYPE.SRV, [6, 1]],
]);

/** Decodes a whole message. Throws FormatError. */
export function decodeMessage(message: Buffer): DecodedMessage {
  if (message.length < HEADER_BYTES) throw new FormatError('message shorter than its header');
  const flags = message.readUInt16BE(2);
  let at = HEADER_BYTES;
  const questions = [];
  for (let left = message.readUInt16BE(4); left > 0; left--) {
    const { name, end } = decodeName(message, at);
    if (end + 4 > message.length) throw new FormatError('question outside message');
    questions.push({ name, type: message.readUInt16BE(end), class: message.readUInt16BE(end + 2) });
    at = end + 4;
  }
  const records: DecodedRecord[] = [];
  for (const [index, section] of SECTIONS.entries()) {
    for (let left = message.readUInt16BE(6 + index * 2); left > 0; left--) {
      const { name, end } = decodeName(message, at);
      if (end + 10 > message.length) throw new FormatError('record outside message');
      const type = message.readUInt16BE(end);
      const dataEnd = end + 10 + message.readUInt16BE(end + 8);
      if (dataEnd > message.length) throw new FormatError('record data outside message');
      records.push({
        section,
        name,
        type,
        class: message.readUInt16BE(end + 2),
        ttlSeconds: message.readUInt32BE(end + 4),
        data: decodeData(message, type, end + 10, dataEnd),
      });
      at = dataEnd;
    }
  }
  return { id: message.readUInt16BE(0), flags, rcode: flags & 15, questions, records };
}

function decodeData(message: Buffer, type: number, start: number, end: number): Buffer {
  const layout = NAMES_IN_DATA.get(type);
  if (!layout) return Buffer.from(message.subarray(start, end));
  let at = start + layout[0];
  const parts = [message.subarray(start, at)];
  for (let left = layout[1]; left > 0; left--) {
    const decoded = decodeName(message, at);
    parts.push(encodeName(decoded.name));
    at = decoded.end;
  }
  if (at > end) throw new FormatError('name outside record data');
  parts.push(message.subarray(at, end));
  return Buffer.concat(parts);
}

/** A query message; for the forwarder, tests and benchmarks. `name` in text form. */
export function encodeQuery(query: {
  id: number;
  name: string;
  type: number;
  class?: number;
  recursionDesired?: boolean;
  checkingDisabled?: boolean;
  udpBytesMax?: number;
  dnssecOk?: boolean;
}): Buffer {
  const name = encodeName(query.name);
  const out = Buffer.alloc(HEADER_BYTES + name.length + 4 + (query.udpBytesMax === undefined ? 0 : OPT_BYTES));
  out.writeUInt16BE(query.id, 0);
  const flags = (query.recursionDesired === false ? 0 : FLAG.RD) | (query.checkingDisabled ? FLAG.CD : 0);
  out.writeUInt16BE(flags, 2);
  out.writeUInt16BE(1, 4);
  name.copy(out, HEADER_BYTES);
  out.writeUInt16BE(query.type, HEADER_BYTES + name.length);
  out.writeUInt16BE(query.class ?? CLASS_IN, HEADER_BYTES + name.length + 2);
  if (query.udpBytesMax !== undefined) {
    out.writeUInt16BE(1, 10);
    out.writeUInt16BE(TYPE.OPT, HEADER_BYTES + name.length + 5);
    out.writeUInt16BE(query.udpBytesMax, HEADER_BYTES + name.length + 7);
    if (query.dnssecOk) out[HEADER_BYTES + name.length + 11] = 0x80;
  }
  return out;
}
