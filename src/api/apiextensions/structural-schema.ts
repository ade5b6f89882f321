/**
 * The structural schema of a custom resource's version, compiled once for every walk over its objects: pruning, defaulting,
 * validation and field ownership. Pure data; a schema that is not structural never gets here, because validation of the
 * definition refuses it. Properties are looked up in maps, so that a field called `__proto__` is a field like any other.
 */

import type { JSONSchemaProps, ValidationRule } from './v1.gen.ts';

export type JsonObject = Record<string, unknown>;

/** Keyword names with dashes, as the schema has them. */
const KEY = {
  preserve: 'x-kubernetes-preserve-unknown-fields',
  embedded: 'x-kubernetes-embedded-resource',
  intOrString: 'x-kubernetes-int-or-string',
  listType: 'x-kubernetes-list-type',
  listKeys: 'x-kubernetes-list-map-keys',
  mapType: 'x-kubernetes-map-type',
  rules: 'x-kubernetes-validations',
} as const;

export interface SchemaNode {
  readonly source: JSONSchemaProps;
  readonly type: string | undefined;
  readonly nullable: boolean;
  readonly properties: ReadonlyMap<string, SchemaNode>;
  /** Schema of all other fields; `true` when any are allowed without one. */
  readonly additional: SchemaNode | true | undefined;
  readonly items: SchemaNode | undefined;
  readonly preserves: boolean;
  readonly embedded: boolean;
  readonly intOrString: boolean;
  readonly listType: 'atomic' | 'set' | 'map';
  readonly listKeys: readonly string[];
  readonly mapAtomic: boolean;
  /** Undefined: none; a default may be any JSON value but null. */
  readonly default: unknown;
  readonly rules: readonly ValidationRule[];
  /** The node or one below it has a default, which saves walks over objects without any. */
  readonly hasDefaults: boolean;
}

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export function compileSchema(source: JSONSchemaProps): SchemaNode {
  const properties = new Map<string, SchemaNode>();
  for (const [name, property] of Object.entries(source.properties ?? {}))
    if (isObject(property)) properties.set(name, compileSchema(property as JSONSchemaProps));
  const { additionalProperties, items } = source;
  const additional = isObject(additionalProperties)
    ? compileSchema(additionalProperties as JSONSchemaProps)
    : additionalProperties === true
      ? true
      : undefined;
  const item = isObject(items) ? compileSchema(items as JSONSchemaProps) : undefined;
  const below = [
    ...properties.values(),
    ...(additional && additional !== true ? [additional] : []),
    ...(item ? [item] : []),
  ];
  return {
    source,
    type: source.type || undefined,
    nullable: source.nullable === true,
    properties,
    additional,
    items: item,
    preserves: source[KEY.preserve] === true,
    embedded: source[KEY.embedded] === true,
    intOrString: source[KEY.intOrString] === true,
    listType: (source[KEY.listType] as SchemaNode['listType'] | undefined) || 'atomic',
    listKeys: source[KEY.listKeys] ?? [],
    mapAtomic: source[KEY.mapType] === 'atomic',
    default: source.default ?? undefined,
    rules: source[KEY.rules] ?? [],
    hasDefaults: source.default !== undefined || below.some(node => node.hasDefaults),
  };
}

/** A schema that is compiled when it is first needed: of a thousand definitions few have objects, and compiled they are large. */
export interface LazySchema {
  readonly source: JSONSchemaProps;
  readonly node: SchemaNode;
}
export function lazySchema(source: JSONSchemaProps): LazySchema {
  let node: SchemaNode | undefined;
  return {
    source,
    get node() {
      return (node ??= compileSchema(source));
    },
  };
}

/** What a version without a schema would be: any fields. */
export const ANYTHING: SchemaNode = compileSchema({ type: 'object', [KEY.preserve]: true });

/** The schema of a field, whether named or of the rest; undefined for one that the schema does not know. */
export function fieldNode(node: SchemaNode, name: string): SchemaNode | true | undefined {
  return node.properties.get(name) ?? node.additional;
}

/** Assigns any key, also one that JavaScript would take for the prototype. */
export function setField(object: JsonObject, name: string, value: unknown): void {
  if (name === '__proto__')
    Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
  else object[name] = value;
}
