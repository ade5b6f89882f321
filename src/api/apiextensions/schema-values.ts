/**
 * Objects as rules see them: fields by their schema, so that a `date-time` is a time and a whole `number` is a double. What the
 * schema does not know is not there.
 */

import {
  Duration,
  fromJson,
  ListValue,
  MapValue,
  parseDuration,
  parseTimestamp,
  Timestamp,
  type Value,
} from '../cel/values.ts';
import { fieldNode, isObject, type JsonObject, type SchemaNode } from './structural-schema.ts';

const METADATA_FIELDS = ['name', 'generateName'];
const OBJECT_FIELDS = ['apiVersion', 'kind', 'metadata'];

/** The value of a field with that schema; `isResource` for the root and what embeds an object. */
export function schemaValue(node: SchemaNode, value: unknown, isResource = node.embedded): Value {
  if (value === null || value === undefined) return null;
  if (node.intOrString) return typeof value === 'number' ? BigInt(Math.trunc(value)) : String(value);
  if (Array.isArray(value)) return new SchemaList(node, value);
  if (isObject(value)) return new SchemaMap(node, value, isResource);
  if (typeof value === 'number')
    return node.type === 'number' ? value : Number.isInteger(value) ? BigInt(value) : value;
  if (typeof value === 'string') return textValue(node.source.format, value);
  return fromJson(value);
}

function textValue(format: string | undefined, text: string): Value {
  switch (format) {
    case 'date-time':
      return parseTimestamp(text) ?? text;
    case 'date': {
      const ms = Date.parse(text);
      return Number.isNaN(ms) ? text : new Timestamp(BigInt(ms) * 1_000_000n);
    }
    case 'duration':
      return parseDuration(text) ?? new Duration(0n);
    case 'byte':
      return Uint8Array.from(Buffer.from(text, 'base64'));
    default:
      return text;
  }
}

class SchemaList extends ListValue {
  readonly #node: SchemaNode;
  readonly #items: readonly unknown[];
  override readonly unordered: boolean;
  override readonly keys: readonly string[] | undefined;

  constructor(node: SchemaNode, items: readonly unknown[]) {
    super();
    this.#node = node;
    this.#items = items;
    this.unordered = node.listType !== 'atomic';
    this.keys = node.listType === 'map' ? node.listKeys : undefined;
  }
  get size(): number {
    return this.#items.length;
  }
  at(index: number): Value {
    const item = this.#items[index];
    return this.#node.items ? schemaValue(this.#node.items, item) : fromJson(item);
  }
}

class SchemaMap extends MapValue {
  readonly #node: SchemaNode;
  readonly #fields: JsonObject;
  readonly #isResource: boolean;

  constructor(node: SchemaNode, fields: JsonObject, isResource: boolean) {
    super();
    this.#node = node;
    this.#fields = fields;
    this.#isResource = isResource;
  }
  get size(): number {
    return [...this.keys()].length;
  }
  get(key: Value): Value | undefined {
    if (typeof key !== 'string' || !Object.hasOwn(this.#fields, key)) return undefined;
    const value = this.#fields[key];
    if (this.#isResource && OBJECT_FIELDS.includes(key))
      return key === 'metadata' ? metadataValue(value) : fromJson(value);
    const known = fieldNode(this.#node, key);
    if (known === undefined || known === true) return undefined;
    // A null that the schema does not allow was dropped before; one that it allows is a value.
    return schemaValue(known, value);
  }
  *keys(): Iterable<Value> {
    for (const name of Object.keys(this.#fields)) if (this.get(name) !== undefined) yield name;
  }
}

function metadataValue(metadata: unknown): Value {
  if (!isObject(metadata)) return fromJson({});
  return fromJson(
    Object.fromEntries(
      METADATA_FIELDS.filter(name => metadata[name] !== undefined).map(name => [name, metadata[name]]),
    ),
  );
}
