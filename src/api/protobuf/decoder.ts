/**
 * The Kubernetes protobuf content type, read: what typed Go clients send. `k8s\0`, then a `runtime.Unknown` that names the
 * kind and carries the object. The object that comes out is the one that Go would write as JSON: no empty optional values.
 * Unknown field numbers are skipped, as Go does; types that are not built in are refused.
 */

import { badRequest } from '../../base/errors.ts';
import type { KubeObject } from '../meta.ts';
import { type BuiltinField, typeOfKind, typeSchema } from '../schema-registry.ts';
import { SCHEMA, type Wrapper, wrapperOf } from '../wrapped-fields.ts';
import { formatDuration } from './duration.ts';
import { eachField, malformed, Reader } from './reader.ts';
import { BYTES, MAGIC, splitGroupVersion, VARINT, wireOf } from './wire.ts';

const NESTING_MAX = 100;
/** Times that RFC 3339 has a form of: the years 1 to 9999. */
const FIRST_SECOND = -62_135_596_800;
const LAST_SECOND = 253_402_300_799;

const byNumber = new Map<string, ReadonlyMap<number, BuiltinField>>();

function numbered(type: string): ReadonlyMap<number, BuiltinField> {
  let fields = byNumber.get(type);
  if (!fields) byNumber.set(type, (fields = new Map(typeSchema(type).fields.map(field => [field.number, field]))));
  return fields;
}

/** What upstream still takes in a version that it no longer serves; its fields are those of today's. */
const STILL_TAKEN: Readonly<Record<string, string>> = { 'policy/v1beta1 Eviction': 'policy.v1.Eviction' };

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
  const name =
    STILL_TAKEN[`${type.apiVersion} ${type.kind}`] ?? typeOfKind(...splitGroupVersion(type.apiVersion), type.kind);
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
    } else if (wrapperOf(type, field.name) !== undefined) {
      if (wire !== BYTES) return false;
      decodeWrapped(wrapperOf(type, field.name)!, field, reader.part(), { depth, into });
    } else if (field.type.startsWith('[]')) {
      const element = field.type.slice(2);
      const list = (into[field.name] ??= []) as unknown[];
      // Numbers may come packed.
      if (wire === BYTES && wireOf(element) !== BYTES) {
        const packed = reader.part();
        while (packed.at < packed.end) list.push(decodeScalar(element, packed));
      } else {
        if (wire !== wireOf(element)) return false;
        list.push(decodeValue(element, reader, depth));
      }
    } else if (field.type.startsWith('map[string]')) {
      const map = (into[field.name] ??= {}) as Record<string, unknown>;
      if (wire !== BYTES) return false;
      const [key, value] = decodeMapEntry(field.type.slice('map[string]'.length), reader.part(), depth);
      setKey(map, key, value);
    } else {
      if (wire !== wireOf(field.type)) return false;
      const value = decodeValue(field.type, reader, depth);
      // Go's clients send every value that is no pointer.
      if (value === undefined || (field.omitEmpty && (value === '' || value === 0 || value === false))) return true;
      into[field.name] = value;
    }
    return true;
  });
  return into;
}

function decodeWrapped(
  wrapper: Wrapper,
  { name }: BuiltinField,
  reader: Reader,
  { depth, into }: { depth: number; into: Record<string, unknown> },
): void {
  if (wrapper === 'items') {
    into[name] = decodeItems(reader);
    return;
  }
  if (wrapper === 'schemaOrStrings') {
    const [key, value] = decodeMapEntry('schemaOrStrings', reader, depth);
    setKey((into[name] ??= {}) as object, key, value);
    return;
  }
  into[name] = decodeSchemaOr(reader, depth);
}

/** One schema (1), several or the names (2), or whether anything is allowed (1 as a number, then the schema is 2). */
function decodeSchemaOr(reader: Reader, depth: number): unknown {
  let allowed: boolean | undefined;
  let schema: unknown;
  const several: unknown[] = [];
  eachField(reader, (number, wire) => {
    if (number === 1 && wire === VARINT) allowed = reader.number() !== 0;
    else if (number === 1 && wire === BYTES) schema = decodeMessage(SCHEMA, reader.part(), depth + 1);
    else if (number === 2 && wire === BYTES) several.push(decodeMessage(SCHEMA, reader.part(), depth + 1));
    else return false;
    return true;
  });
  if (allowed !== undefined) return several[0] ?? allowed;
  return schema ?? several;
}

function decodeSchemaOrNames(reader: Reader, depth: number): unknown {
  let schema: unknown;
  const names: string[] = [];
  eachField(reader, (number, wire) => {
    if (wire !== BYTES || number > 2) return false;
    if (number === 1) schema = decodeMessage(SCHEMA, reader.part(), depth + 1);
    else names.push(reader.part().text());
    return true;
  });
  return schema ?? names;
}

function setKey(map: object, key: string, value: unknown): void {
  Object.defineProperty(map, key, { value, enumerable: true, configurable: true, writable: true });
}

function decodeMapEntry(type: string, reader: Reader, depth: number): [string, unknown] {
  let key = '';
  let value: unknown;
  eachField(reader, (number, wire) => {
    if (number === 1 && wire === BYTES) key = reader.part().text();
    else if (number === 2)
      value =
        type === 'schemaOrStrings'
          ? decodeSchemaOrNames(reader.part(), depth)
          : type.startsWith('[]')
            ? decodeItems(reader.part())
            : decodeValue(type, reader, depth);
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
  if (!(seconds >= FIRST_SECOND && seconds <= LAST_SECOND) || nanos < 0 || nanos >= 1e9)
    throw malformed('a time is out of range');
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
