/**
 * The Kubernetes protobuf content type, written: objects, lists and watch events of built-in kinds, by the field numbers of
 * the schema. A type is compiled once into its fields in order. Kinds without a schema are refused, which is for the
 * negotiation to prevent.
 */

import { assert } from '../../base/assert.ts';
import { typeOfKind, typeSchema } from '../schema-registry.ts';
import { SCHEMA, type Wrapper, wrapperOf } from '../wrapped-fields.ts';
import { parseDuration } from './duration.ts';
import { BYTES, MAGIC, splitGroupVersion, VARINT, wireOf } from './wire.ts';
import { ReverseWriter } from './writer.ts';

interface Versioned {
  readonly apiVersion?: string;
  readonly kind: string;
}

/** Writes one value as the content of a field. */
type Write = (writer: ReverseWriter, value: unknown) => void;

interface FieldPlan {
  readonly name: string;
  readonly number: number;
  /** `part` is a struct whose fields lie in the object itself. */
  readonly shape: 'one' | 'list' | 'map' | 'part';
  readonly wire: number;
  readonly write: Write;
}

// Encoding never yields, so one writer serves all.
const shared = new ReverseWriter();

/** An object of a built-in kind, a list of them (`PodList`), a Status or a kind of meta.k8s.io, in its envelope. */
export function encodeProtobuf(object: Versioned): Buffer {
  writeObject(shared, object);
  return shared.take();
}

/** One event of a watch: four bytes of length, and a `WatchEvent` without an envelope, whose object has one. */
export function encodeWatchFrame(type: string, object: Versioned): Buffer {
  const embedded = shared;
  const end = embedded.length;
  writeObject(embedded, object);
  embedded.close(1, end);
  embedded.close(2, end);
  embedded.textField(1, type);
  const size = Buffer.allocUnsafe(4);
  size.writeUInt32BE(embedded.length);
  embedded.raw(size);
  return embedded.take();
}

function writeObject(writer: ReverseWriter, object: Versioned): void {
  const { apiVersion = 'v1', kind } = object;
  const type = typeOfKind(...splitGroupVersion(apiVersion), kind);
  assert(type !== undefined, `no protobuf form of ${apiVersion} ${kind}`);
  try {
    writer.textField(4, '');
    writer.textField(3, '');
    let end = writer.length;
    writeMessage(writer, planOf(type), object as unknown as Record<string, unknown>);
    writer.close(2, end);
    end = writer.length;
    writer.textField(2, kind);
    writer.textField(1, apiVersion);
    writer.close(1, end);
    writer.raw(MAGIC);
  } catch (error) {
    writer.reset();
    throw error;
  }
}

const plans = new Map<string, readonly FieldPlan[]>();

/** The fields of a type, last number first. */
function planOf(type: string): readonly FieldPlan[] {
  let plan = plans.get(type);
  if (!plan) {
    const fields = typeSchema(type).fields.filter(field => field.number > 0);
    plan = fields.map(field => fieldPlan(type, field)).sort((a, b) => b.number - a.number);
    plans.set(type, plan);
  }
  return plan;
}

function fieldPlan(owner: string, field: { name: string; type: string; number: number }): FieldPlan {
  const { name, number, type } = field;
  const wrapper = wrapperOf(owner, name);
  const plan = (shape: FieldPlan['shape'], element: string): FieldPlan => ({
    name,
    number,
    shape,
    wire: wrapper ? BYTES : wireOf(element),
    write: wrapper ? wrapped(wrapper) : writerOf(element),
  });
  if (name === '') return plan('part', type);
  if (type.startsWith('map[string]')) return plan('map', type.slice('map[string]'.length));
  if (type.startsWith('[]') && !wrapper) return plan('list', type.slice(2));
  return plan('one', type);
}

function writeMessage(writer: ReverseWriter, plan: readonly FieldPlan[], object: Record<string, unknown>): void {
  for (const field of plan) {
    if (field.shape === 'part') {
      writeField(writer, field, object);
      continue;
    }
    const value = object[field.name];
    if (value === undefined || value === null) continue;
    if (field.shape === 'one') writeField(writer, field, value);
    else if (field.shape === 'list') {
      const items = value as readonly unknown[];
      for (let i = items.length - 1; i >= 0; i--) writeField(writer, field, items[i]);
    } else writeMap(writer, field, value as Record<string, unknown>);
  }
}

function writeField(writer: ReverseWriter, { number, wire, write }: FieldPlan, value: unknown): void {
  if (wire === BYTES) {
    const end = writer.length;
    write(writer, value);
    writer.close(number, end);
  } else {
    write(writer, value);
    writer.tag(number, wire);
  }
}

function writeMap(writer: ReverseWriter, field: FieldPlan, map: Record<string, unknown>): void {
  const value = { ...field, number: 2 };
  const keys = Object.keys(map);
  for (let i = keys.length - 1; i >= 0; i--) {
    const end = writer.length;
    const key = keys[i]!;
    if (map[key] !== null) writeField(writer, value, map[key]);
    writer.textField(1, key);
    writer.close(field.number, end);
  }
}

const writers: Readonly<Record<string, Write>> = {
  bool: (writer, value) => writer.varint(value ? 1 : 0),
  int32: (writer, value) => writer.varint(value as number),
  int64: (writer, value) => writer.varint(value as number),
  double: (writer, value) => writer.double(value as number),
  string: (writer, value) => writer.text(value as string),
  bytes: (writer, value) => writer.raw(Buffer.from(value as string, 'base64')),
  time: writeTime,
  microtime: writeTime,
  duration(writer, value) {
    writer.varint(parseDuration(value as string));
    writer.tag(1, VARINT);
  },
  quantity: (writer, value) => writer.textField(1, String(value)),
  intOrString(writer, value) {
    const isText = typeof value === 'string';
    writer.textField(3, isText ? value : '');
    writer.varint(isText ? 0 : (value as number));
    writer.tag(2, VARINT);
    writer.varint(isText ? 1 : 0);
    writer.tag(1, VARINT);
  },
  raw: writeJson,
  json: writeJson,
  fieldsV1: writeJson,
};

function writerOf(type: string): Write {
  // A named slice in a map (`ExtraValue`) is a message with its items.
  if (type.startsWith('[]')) return wrapped('items');
  const scalar = writers[type];
  if (scalar) return scalar;
  let plan: readonly FieldPlan[] | undefined;
  return (writer, value) => {
    if (value !== null) writeMessage(writer, (plan ??= planOf(type)), value as Record<string, unknown>);
  };
}

function writeJson(writer: ReverseWriter, value: unknown): void {
  writer.textField(1, JSON.stringify(value));
}

function writeTime(writer: ReverseWriter, value: unknown): void {
  const text = value as string;
  const fraction = /\.(\d+)/.exec(text)?.[1];
  if (fraction) {
    writer.varint(Number(fraction.padEnd(9, '0').slice(0, 9)));
    writer.tag(2, VARINT);
  }
  writer.varint(Math.floor(Date.parse(text) / 1000));
  writer.tag(1, VARINT);
}

function wrapped(wrapper: Wrapper): Write {
  if (wrapper === 'items')
    return (writer, value) => {
      const items = value as readonly string[];
      for (let i = items.length - 1; i >= 0; i--) writer.textField(1, items[i]!);
    };
  const schema = { name: '', number: 1, shape: 'one', wire: BYTES, write: writerOf(SCHEMA) } as const;
  if (wrapper === 'schemaOrBool')
    return (writer, value) => {
      const isBool = typeof value === 'boolean';
      if (!isBool) writeField(writer, { ...schema, number: 2 }, value);
      writer.varint(value === false ? 0 : 1);
      writer.tag(1, VARINT);
    };
  return (writer, value) => {
    if (!Array.isArray(value)) return writeField(writer, schema, value);
    for (let i = value.length - 1; i >= 0; i--)
      if (wrapper === 'schemaOrStrings') writer.textField(2, value[i]);
      else writeField(writer, { ...schema, number: 2 }, value[i]);
  };
}
