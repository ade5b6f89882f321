/**
 * The protobuf form of the OpenAPI v2 document (gnostic's `openapi.v2.Document`), in which clients read it: kubectl looks
 * there for kinds that no v3 document has. Carries paths with their operations and parameters, and definitions; what no
 * client reads (responses, security) is left out. Pure.
 */

import type { JsonSchema } from './openapi-schema.ts';
import { ReverseWriter } from './protobuf/writer.ts';

type Json = Record<string, unknown>;
/** Writes a message's fields, the last first. */
type Write = (writer: ReverseWriter, of: Json) => void;

const METHODS: readonly (readonly [string, number])[] = [
  ['patch', 8],
  ['head', 7],
  ['options', 6],
  ['delete', 5],
  ['post', 4],
  ['put', 3],
  ['get', 2],
];
const PLACES: Readonly<Record<string, number>> = { header: 1, query: 3, path: 4 };
const PATHS = 8;
const DEFINITIONS = 9;

export function openapiV2Protobuf(document: JsonSchema): Buffer {
  const { paths, definitions } = document as Record<string, Json>;
  const entries = (of: Json, encode: (name: string, value: JsonSchema) => Buffer) =>
    Object.entries(of).map(([name, value]) => encode(name, value as JsonSchema));
  const parts = { paths: entries(paths!, pathEntry), definitions: entries(definitions!, definitionEntry) };
  return Buffer.concat(openapiV2Message(document, parts));
}

/** The document around entries of paths and definitions that are encoded already, as buffers that follow each other. */
export function openapiV2Message(
  { swagger, info }: JsonSchema,
  { paths, definitions }: { readonly paths: readonly Buffer[]; readonly definitions: readonly Buffer[] },
): Buffer[] {
  const writer = new ReverseWriter();
  const opened = (number: number, entries: readonly Buffer[]) => {
    writer.varint(entries.reduce((sum, { length }) => sum + length, 0));
    writer.tag(number, 2);
    return writer.take();
  };
  const [ofDefinitions, ofPaths] = [opened(DEFINITIONS, definitions), opened(PATHS, paths)];
  inside(writer, 2, () => {
    text(writer, 2, (info as Json)['version']);
    text(writer, 1, (info as Json)['title']);
  });
  text(writer, 1, swagger);
  return [writer.take(), ofPaths, ...paths, ofDefinitions, ...definitions];
}

const shared = new ReverseWriter();

/** An entry of the document's paths. */
export function pathEntry(path: string, item: JsonSchema): Buffer {
  entry(shared, 2, path, item, pathItem);
  return shared.take();
}
/** An entry of the document's definitions. */
export function definitionEntry(name: string, definition: JsonSchema): Buffer {
  entry(shared, 1, name, definition, schema);
  return shared.take();
}

function inside(writer: ReverseWriter, number: number, write: () => void): void {
  const end = writer.length;
  write();
  writer.close(number, end);
}
function text(writer: ReverseWriter, number: number, value: unknown): void {
  if (typeof value === 'string' && value !== '') writer.textField(number, value);
}
function flag(writer: ReverseWriter, number: number, value: unknown): void {
  if (value !== true) return;
  writer.varint(1);
  writer.tag(number, 0);
}
function texts(writer: ReverseWriter, number: number, values: unknown): void {
  for (const value of ((values ?? []) as string[]).toReversed()) text(writer, number, value);
}
function each(writer: ReverseWriter, number: number, values: unknown, write: Write): void {
  for (const value of ((values ?? []) as Json[]).toReversed()) inside(writer, number, () => write(writer, value));
}
/** An entry of a map is a message of name and value. */
function entry(writer: ReverseWriter, number: number, name: string, value: Json, write: Write): void {
  inside(writer, number, () => {
    inside(writer, 2, () => write(writer, value));
    text(writer, 1, name);
  });
}
function named(writer: ReverseWriter, number: number, of: Json, write: Write): void {
  for (const [name, value] of Object.entries(of).reverse()) entry(writer, number, name, value as Json, write);
}
/** JSON is YAML. */
function any(writer: ReverseWriter, number: number, value: unknown): void {
  inside(writer, number, () => text(writer, 2, JSON.stringify(value)));
}
function extensions(writer: ReverseWriter, number: number, of: Json): void {
  for (const name of Object.keys(of).reverse()) {
    if (!name.startsWith('x-')) continue;
    inside(writer, number, () => {
      any(writer, 2, of[name]);
      text(writer, 1, name);
    });
  }
}

function pathItem(writer: ReverseWriter, item: Json): void {
  each(writer, 9, item['parameters'], parameter);
  for (const [method, number] of METHODS)
    if (item[method] !== undefined) inside(writer, number, () => operation(writer, item[method] as Json));
}

function operation(writer: ReverseWriter, of: Json): void {
  extensions(writer, 13, of);
  each(writer, 8, of['parameters'], parameter);
  texts(writer, 7, of['consumes']);
  texts(writer, 6, of['produces']);
  text(writer, 5, of['operationId']);
  text(writer, 3, of['description']);
  texts(writer, 1, of['tags']);
}

function parameter(writer: ReverseWriter, of: Json): void {
  if (of['$ref']) return inside(writer, 2, () => text(writer, 1, of['$ref']));
  inside(writer, 1, () => {
    const place = PLACES[String(of['in'])];
    if (place === undefined) return inside(writer, 1, () => bodyParameter(writer, of));
    inside(writer, 2, () => inside(writer, place, () => plainParameter(writer, of, place)));
  });
}
function bodyParameter(writer: ReverseWriter, of: Json): void {
  inside(writer, 5, () => inside(writer, 1, () => schema(writer, of['schema'] as Json)));
  flag(writer, 4, of['required']);
  text(writer, 3, of['in']);
  text(writer, 2, of['name']);
  text(writer, 1, of['description']);
}
function plainParameter(writer: ReverseWriter, of: Json, place: number): void {
  // Parameters of queries have a flag before their type.
  const [type, format] = place === 3 ? [6, 7] : [5, 6];
  text(writer, format, of['format']);
  text(writer, type, of['type']);
  text(writer, 4, of['name']);
  text(writer, 3, of['description']);
  text(writer, 2, of['in']);
  flag(writer, 1, of['required']);
}

function schema(writer: ReverseWriter, of: Json = {}): void {
  const { items, properties, additionalProperties, type } = of as Record<string, Json | undefined>;
  extensions(writer, 31, of);
  if (properties !== undefined) inside(writer, 25, () => named(writer, 1, properties, schema));
  each(writer, 24, of['allOf'], schema);
  if (items !== undefined) inside(writer, 23, () => inside(writer, 1, () => schema(writer, items)));
  if (type !== undefined) inside(writer, 22, () => texts(writer, 1, [type].flat()));
  if (additionalProperties !== undefined) inside(writer, 21, () => additional(writer, additionalProperties));
  for (const value of ((of['enum'] ?? []) as unknown[]).toReversed()) any(writer, 20, value);
  texts(writer, 19, of['required']);
  if (of['default'] !== undefined) any(writer, 5, of['default']);
  text(writer, 4, of['description']);
  text(writer, 3, of['title']);
  text(writer, 2, of['format']);
  text(writer, 1, of['$ref']);
}

function additional(writer: ReverseWriter, of: Json | boolean): void {
  if (typeof of === 'boolean') flag(writer, 2, of);
  else inside(writer, 1, () => schema(writer, of));
}
