/**
 * The Kubernetes protobuf content type, both ways, driven by the field numbers of the schema: what typed Go clients send.
 * A message is `k8s\0` and a `runtime.Unknown` that names the kind and carries the object. Source: apimachinery
 * `runtime/serializer/protobuf` and each API group's generated.proto. Unknown field numbers are skipped, as Go does; it
 * refuses types that are not built in.
 */

import { badRequest } from '../base/errors.ts';
import type { KubeObject } from './meta.ts';
import { type BuiltinField, hasType, typeOfKind, typeSchema } from './schema-registry.ts';

export const PROTOBUF = 'application/vnd.kubernetes.protobuf';

const MAGIC = Buffer.from('k8s\0', 'latin1');
const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;
const NESTING_MAX = 100;

class Reader {
  readonly bytes: Buffer;
  at: number;
  readonly end: number;
  constructor(bytes: Buffer, at = 0, end = bytes.length) {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
  }
  varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (this.at >= this.end) throw malformed('unexpected EOF');
      const byte = this.bytes[this.at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw malformed('integer overflow');
  }
  number(): number {
    let value = 0;
    for (let factor = 1, i = 0; i < 4; i++, factor *= 128) {
      if (this.at >= this.end) throw malformed('unexpected EOF');
      const byte = this.bytes[this.at++]!;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
    this.at -= 4;
    return Number(BigInt.asIntN(64, this.varint()));
  }
  /** A part with a length in front. */
  part(): Reader {
    const length = this.number();
    const start = this.at;
    if (length < 0 || start + length > this.end) throw malformed('unexpected EOF');
    this.at = start + length;
    return new Reader(this.bytes, start, start + length);
  }
  double(): number {
    if (this.at + 8 > this.end) throw malformed('unexpected EOF');
    const value = this.bytes.readDoubleLE(this.at);
    this.at += 8;
    return value;
  }
  text(): string {
    return this.bytes.toString('utf8', this.at, this.end);
  }
  raw(): Buffer {
    return this.bytes.subarray(this.at, this.end);
  }
  skip(wire: number): void {
    if (wire === VARINT) this.varint();
    else if (wire === FIXED64) this.at += 8;
    else if (wire === BYTES) this.part();
    else if (wire === FIXED32) this.at += 4;
    else throw malformed(`illegal wireType ${wire}`);
    if (this.at > this.end) throw malformed('unexpected EOF');
  }
}

const malformed = (why: string) => badRequest(`unable to decode protobuf: ${why}`);

/** Calls `visit` for each field; it reads the value or returns false to have it skipped. */
function eachField(reader: Reader, visit: (number: number, wire: number) => boolean | undefined): void {
  while (reader.at < reader.end) {
    const tag = reader.number();
    if (visit(tag >>> 3, tag & 7) === false) reader.skip(tag & 7);
  }
}

const byNumber = new Map<string, ReadonlyMap<number, BuiltinField>>();

function numbered(type: string): ReadonlyMap<number, BuiltinField> {
  let fields = byNumber.get(type);
  if (!fields) byNumber.set(type, (fields = new Map(typeSchema(type).fields.map(field => [field.number, field]))));
  return fields;
}

/** Decodes a request body. Throws BadRequest for what is not protobuf or not a known kind. */
export function decodeProtobuf(bytes: Buffer): KubeObject {
  if (!bytes.subarray(0, 4).equals(MAGIC))
    throw malformed('provided data does not appear to be a protobuf message, expected prefix "k8s\\0"');
  const reader = new Reader(bytes, 4);
  const type = { apiVersion: '', kind: '' };
  let raw: Reader | undefined;
  eachField(reader, (number, wire) => {
    if (wire !== BYTES) return false;
    if (number === 1) {
      const meta = reader.part();
      eachField(meta, (field, fieldWire) => {
        if (fieldWire !== BYTES || field > 2) return false;
        type[field === 1 ? 'apiVersion' : 'kind'] = meta.part().text();
        return true;
      });
      return true;
    }
    if (number === 2) {
      raw = reader.part();
      return true;
    }
    return false;
  });
  const [group, version] = type.apiVersion.includes('/')
    ? (type.apiVersion.split('/', 2) as [string, string])
    : ['', type.apiVersion];
  const name = typeOfKind(group, version, type.kind);
  if (!name) throw badRequest(`no kind "${type.kind}" is registered for version "${type.apiVersion}"`);
  return { apiVersion: type.apiVersion, kind: type.kind, ...(raw ? decodeMessage(name, raw, 0) : {}) } as KubeObject;
}

function decodeMessage(
  type: string,
  reader: Reader,
  depth: number,
  into: Record<string, unknown> = {},
): Record<string, unknown> {
  if (depth > NESTING_MAX) throw malformed('nested too deep');
  const fields = numbered(type);
  eachField(reader, (number, wire) => {
    const field = fields.get(number);
    if (!field || number === 0) return false;
    if (field.name === '') {
      if (wire !== BYTES) return false;
      decodeMessage(field.type, reader.part(), depth + 1, into);
    } else if (field.type.startsWith('[]') && field.type !== 'bytes') {
      const element = field.type.slice(2);
      const list = (into[field.name] ??= []) as unknown[];
      // Numbers may come packed.
      if (wire === BYTES && wireOf(element) !== BYTES) {
        const packed = reader.part();
        while (packed.at < packed.end) list.push(decodeScalar(element, packed));
      } else list.push(decodeValue(element, reader, depth));
    } else if (field.type.startsWith('map[string]')) {
      const map = (into[field.name] ??= {}) as Record<string, unknown>;
      const [key, value] = decodeMapEntry(field.type.slice('map[string]'.length), reader.part(), depth);
      Object.defineProperty(map, key, { value, enumerable: true, configurable: true, writable: true });
    } else {
      const value = decodeValue(field.type, reader, depth);
      if (value !== undefined) into[field.name] = value;
    }
    return true;
  });
  return into;
}

function decodeMapEntry(type: string, reader: Reader, depth: number): [string, unknown] {
  let key = '';
  let value: unknown;
  eachField(reader, (number, wire) => {
    if (number === 1 && wire === BYTES) key = reader.part().text();
    else if (number === 2)
      value = type.startsWith('[]') ? decodeItems(reader.part()) : decodeValue(type, reader, depth);
    else return false;
    return true;
  });
  return [key, value ?? (type.startsWith('[]') ? [] : zeroOf(type))];
}

/** A named slice of strings inside a map (`ExtraValue`) is a message of its own. */
function decodeItems(reader: Reader): string[] {
  const items: string[] = [];
  eachField(reader, (number, wire) => {
    if (number !== 1 || wire !== BYTES) return false;
    items.push(reader.part().text());
    return true;
  });
  return items;
}

function zeroOf(type: string): unknown {
  return type === 'string' || type === 'bytes' ? '' : type === 'bool' ? false : wireOf(type) === BYTES ? {} : 0;
}

function wireOf(type: string): number {
  if (type === 'bool' || type === 'int32' || type === 'int64') return VARINT;
  return type === 'double' ? FIXED64 : BYTES;
}

function decodeScalar(type: string, reader: Reader): unknown {
  if (type === 'bool') return reader.number() !== 0;
  if (type === 'double') return reader.double();
  return reader.number();
}

function decodeValue(type: string, reader: Reader, depth: number): unknown {
  if (wireOf(type) !== BYTES) return decodeScalar(type, reader);
  const part = reader.part();
  switch (type) {
    case 'string':
      return part.text();
    case 'bytes':
      return part.raw().toString('base64');
    case 'time':
    case 'microtime':
      return decodeTime(part, type === 'microtime');
    case 'duration':
      return formatDuration(firstNumber(part));
    case 'quantity':
      return firstText(part) || '0';
    case 'intOrString':
      return decodeIntOrString(part);
    case 'raw':
    case 'json':
    case 'fieldsV1': {
      const text = firstText(part);
      if (text === '') return undefined;
      try {
        return JSON.parse(text);
      } catch {
        throw malformed('an embedded object is not JSON');
      }
    }
    default:
      return decodeMessage(type, part, depth + 1);
  }
}

function firstText(reader: Reader): string {
  let text = '';
  eachField(reader, (number, wire) => {
    if (number !== 1 || wire !== BYTES) return false;
    text = reader.part().text();
    return true;
  });
  return text;
}

function firstNumber(reader: Reader): number {
  let value = 0;
  eachField(reader, (number, wire) => {
    if (number !== 1 || wire !== VARINT) return false;
    value = reader.number();
    return true;
  });
  return value;
}

function decodeTime(reader: Reader, micro: boolean): string | undefined {
  let seconds = 0;
  let nanos = 0;
  eachField(reader, (number, wire) => {
    if (wire !== VARINT || number > 2) return false;
    if (number === 1) seconds = reader.number();
    else nanos = reader.number();
    return true;
  });
  // Go's zero time: null in JSON.
  if (seconds === 0 && nanos === 0) return undefined;
  const text = new Date(seconds * 1000).toISOString().slice(0, 19);
  return micro ? `${text}.${String(Math.floor(nanos / 1000)).padStart(6, '0')}Z` : `${text}Z`;
}

function decodeIntOrString(reader: Reader): number | string {
  let isText = false;
  let number = 0;
  let text = '';
  eachField(reader, (field, wire) => {
    if (field === 1 && wire === VARINT) isText = reader.number() === 1;
    else if (field === 2 && wire === VARINT) number = reader.number();
    else if (field === 3 && wire === BYTES) text = reader.part().text();
    else return false;
    return true;
  });
  return isText ? text : number;
}

/** Go's `time.Duration.String` for whole and fractional seconds: `1h2m3.5s`. */
function formatDuration(nanos: number): string {
  if (nanos === 0) return '0s';
  const sign = nanos < 0 ? '-' : '';
  const seconds = Math.abs(nanos) / 1e9;
  if (seconds < 1) return seconds >= 1e-3 ? `${sign}${seconds * 1e3}ms` : `${sign}${seconds * 1e6}µs`;
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return `${sign}${hours ? `${hours}h` : ''}${hours || minutes ? `${minutes}m` : ''}${Number((seconds % 60).toFixed(9))}s`;
}

const DURATION_PART = /([\d.]+)(ns|us|µs|ms|s|m|h)/g;
const NANOS: Readonly<Record<string, number>> = { ns: 1, us: 1e3, µs: 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 };

function parseDuration(text: string): number {
  let nanos = 0;
  for (const [, amount, unit] of text.matchAll(DURATION_PART)) nanos += Number(amount) * NANOS[unit!]!;
  return text.startsWith('-') ? -nanos : nanos;
}

class Writer {
  #chunks: Buffer[] = [];
  length = 0;
  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.length += chunk.length;
  }
  tag(number: number, wire: number): void {
    this.varint((number << 3) | wire);
  }
  varint(value: number): void {
    this.push(encodeVarint(value));
  }
  bytes(number: number, content: Buffer): void {
    this.tag(number, BYTES);
    this.varint(content.length);
    this.push(content);
  }
  finish(): Buffer {
    return Buffer.concat(this.#chunks, this.length);
  }
}

function encodeVarint(value: number): Buffer {
  if (value >= 0 && value < 128) return Buffer.from([value]);
  let rest = BigInt.asUintN(64, BigInt(Math.trunc(value)));
  const out: number[] = [];
  while (rest > 127n) {
    out.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  out.push(Number(rest));
  return Buffer.from(out);
}

/** Encodes an object of a built-in kind, or a list of them (`PodList`). Throws for kinds without a schema. */
export function encodeProtobuf(object: { readonly apiVersion: string; readonly kind: string }): Buffer {
  const { apiVersion, kind } = object;
  const [group, version] = apiVersion.includes('/') ? (apiVersion.split('/', 2) as [string, string]) : ['', apiVersion];
  const name = typeOfKind(group, version, kind);
  if (!name) throw badRequest(`no kind "${kind}" is registered for version "${apiVersion}"`);
  const meta = new Writer();
  meta.bytes(1, Buffer.from(apiVersion));
  meta.bytes(2, Buffer.from(kind));
  const unknown = new Writer();
  unknown.bytes(1, meta.finish());
  unknown.bytes(2, encodeMessage(name, object as unknown as Record<string, unknown>));
  unknown.bytes(3, Buffer.alloc(0));
  unknown.bytes(4, Buffer.alloc(0));
  return Buffer.concat([MAGIC, unknown.finish()]);
}

function encodeMessage(type: string, object: Record<string, unknown>): Buffer {
  const writer = new Writer();
  for (const field of typeSchema(type).fields) {
    if (field.number === 0) continue;
    if (field.name === '') {
      writer.bytes(field.number, encodeMessage(field.type, object));
      continue;
    }
    const value = object[field.name];
    if (value === undefined || value === null) {
      // Go writes structs that are not pointers even when empty, and so do we: a decoder then sees the same presence.
      if (field.alwaysPresent && hasType(field.type)) writer.bytes(field.number, encodeMessage(field.type, {}));
    } else if (field.type.startsWith('[]')) {
      for (const item of value as unknown[]) encodeField(writer, field.number, field.type.slice(2), item);
    } else if (field.type.startsWith('map[string]')) {
      const element = field.type.slice('map[string]'.length);
      for (const [key, item] of Object.entries(value as object)) {
        const entry = new Writer();
        entry.bytes(1, Buffer.from(key));
        if (element.startsWith('[]')) {
          const items = new Writer();
          for (const text of item as string[]) items.bytes(1, Buffer.from(text));
          entry.bytes(2, items.finish());
        } else encodeField(entry, 2, element, item);
        writer.bytes(field.number, entry.finish());
      }
    } else encodeField(writer, field.number, field.type, value);
  }
  return writer.finish();
}

function encodeField(writer: Writer, number: number, type: string, value: unknown): void {
  switch (wireOf(type)) {
    case VARINT:
      writer.tag(number, VARINT);
      writer.varint(Number(value));
      return;
    case FIXED64: {
      const bytes = Buffer.allocUnsafe(8);
      bytes.writeDoubleLE(Number(value));
      writer.tag(number, FIXED64);
      writer.push(bytes);
      return;
    }
    default:
      writer.bytes(number, encodeBytes(type, value));
  }
}

function encodeBytes(type: string, value: unknown): Buffer {
  switch (type) {
    case 'string':
      return Buffer.from(String(value));
    case 'bytes':
      return Buffer.from(String(value), 'base64');
    case 'time':
    case 'microtime':
      return encodeTime(String(value));
    case 'duration':
      return numbers([[1, parseDuration(String(value))]]);
    case 'quantity':
      return textMessage(String(value));
    case 'intOrString':
      return typeof value === 'number'
        ? numbers([
            [1, 0],
            [2, value],
          ])
        : Buffer.concat([
            numbers([
              [1, 1],
              [2, 0],
            ]),
            Buffer.from([0x1a]),
            encodeVarint(Buffer.byteLength(String(value))),
            Buffer.from(String(value)),
          ]);
    case 'raw':
    case 'json':
    case 'fieldsV1':
      return textMessage(JSON.stringify(value));
    default:
      return encodeMessage(type, value as Record<string, unknown>);
  }
}

function textMessage(text: string): Buffer {
  const writer = new Writer();
  writer.bytes(1, Buffer.from(text));
  return writer.finish();
}

function numbers(values: readonly (readonly [number: number, value: number])[]): Buffer {
  const writer = new Writer();
  for (const [number, value] of values) {
    writer.tag(number, VARINT);
    writer.varint(value);
  }
  return writer.finish();
}

function encodeTime(text: string): Buffer {
  const seconds = Math.floor(Date.parse(text) / 1000);
  const fraction = /\.(\d+)/.exec(text)?.[1] ?? '';
  return numbers([
    [1, seconds],
    [2, Number(fraction.padEnd(9, '0').slice(0, 9))],
  ]);
}
