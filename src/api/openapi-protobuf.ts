/**
 * The protobuf form of the OpenAPI v2 document (gnostic's `openapi.v2.Document`), in which clients read it: kubectl looks
 * there for kinds that no v3 document has. Carries paths with their operations and parameters, and definitions; what no
 * client reads (responses, security) is left out. Pure.
 */

import type { JsonSchema } from './openapi-schema.ts';

type Value = string | boolean | Buffer | undefined;
type Json = Record<string, unknown>;

const METHODS: readonly (readonly [string, number])[] = [
  ['get', 2],
  ['put', 3],
  ['post', 4],
  ['delete', 5],
  ['options', 6],
  ['head', 7],
  ['patch', 8],
];
const PLACES: Readonly<Record<string, number>> = { header: 1, query: 3, path: 4 };

export function openapiV2Protobuf(document: JsonSchema): Buffer {
  const { swagger, info, paths, definitions } = document as Record<string, Json>;
  return message([
    [1, String(swagger)],
    [2, message(pairs(info!, [1, 'title'], [2, 'version']))],
    [8, message(named(paths!, 2, pathItem))],
    [9, message(named(definitions!, 1, schema))],
  ]);
}

type Field = readonly [number, Value];

function message(fields: readonly Field[]): Buffer {
  const parts: Buffer[] = [];
  for (const [number, value] of fields) {
    if (value === undefined || value === '' || value === false) continue;
    if (value === true) parts.push(varint(number << 3), varint(1));
    else {
      const bytes = typeof value === 'string' ? Buffer.from(value) : value;
      parts.push(varint((number << 3) | 2), varint(bytes.length), bytes);
    }
  }
  return Buffer.concat(parts);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    bytes.push(rest > 127 ? (rest & 127) | 128 : rest);
    if (rest <= 127) return Buffer.from(bytes);
  }
}

function pairs(from: Json, ...fields: readonly (readonly [number, string])[]): Field[] {
  return fields.map(([number, name]) => [number, from[name] as Value]);
}
const each = (number: number, values: unknown, encode: (value: Json) => Buffer): Field[] =>
  ((values ?? []) as Json[]).map(value => [number, encode(value)]);
const strings = (number: number, values: unknown): Field[] =>
  ((values ?? []) as string[]).map(value => [number, value]);
/** Each entry of a map as a message of name and value. */
const named = (of: Json, number: number, encode: (value: Json) => Buffer): Field[] =>
  Object.entries(of).map(([name, value]) => [
    number,
    message([
      [1, name],
      [2, encode(value as Json)],
    ]),
  ]);
/** JSON is YAML. */
const any = (value: unknown): Buffer => message([[2, JSON.stringify(value)]]);
const extensions = (of: Json, number: number): Field[] =>
  Object.entries(of)
    .filter(([name]) => name.startsWith('x-'))
    .map(([name, value]) => [
      number,
      message([
        [1, name],
        [2, any(value)],
      ]),
    ]);

function pathItem(item: Json): Buffer {
  const operations = METHODS.filter(([method]) => item[method] !== undefined);
  return message([
    ...operations.map(([method, number]): Field => [number, operation(item[method] as Json)]),
    ...each(9, item['parameters'], parameter),
  ]);
}

function operation(of: Json): Buffer {
  return message([
    ...strings(1, of['tags']),
    ...pairs(of, [3, 'description'], [5, 'operationId']),
    ...strings(6, of['produces']),
    ...strings(7, of['consumes']),
    ...each(8, of['parameters'], parameter),
    ...extensions(of, 13),
  ]);
}

function parameter(of: Json): Buffer {
  if (of['$ref']) return message([[2, message(pairs(of, [1, '$ref']))]]);
  const place = PLACES[String(of['in'])];
  if (place === undefined) {
    const body = [...pairs(of, [1, 'description'], [2, 'name'], [3, 'in'], [4, 'required'])];
    return message([[1, message([[1, message([...body, [5, message([[1, schema(of['schema'] as Json)]])]])]])]]);
  }
  const fields = pairs(of, [1, 'required'], [2, 'in'], [3, 'description'], [4, 'name']);
  // Parameters of queries have a flag before their type.
  const [type, format] = place === 3 ? [6, 7] : [5, 6];
  const sub = message([...fields, [type, of['type'] as Value], [format, of['format'] as Value]]);
  return message([[1, message([[2, message([[place, sub]])]])]]);
}

function schema(of: Json = {}): Buffer {
  const { items, properties, additionalProperties, type } = of as Record<string, Json | undefined>;
  return message([
    ...pairs(of, [1, '$ref'], [2, 'format'], [3, 'title'], [4, 'description']),
    [5, of['default'] === undefined ? undefined : any(of['default'])],
    ...strings(19, of['required']),
    ...((of['enum'] ?? []) as unknown[]).map((value): Field => [20, any(value)]),
    [21, additionalProperties === undefined ? undefined : additional(additionalProperties)],
    [22, type === undefined ? undefined : message(strings(1, [type].flat()))],
    [23, items === undefined ? undefined : message([[1, schema(items)]])],
    ...each(24, of['allOf'], schema),
    [25, properties === undefined ? undefined : message(named(properties, 1, schema))],
    ...extensions(of, 31),
  ]);
}

function additional(of: Json | boolean): Buffer {
  return typeof of === 'boolean' ? message([[2, of]]) : message([[1, schema(of)]]);
}
