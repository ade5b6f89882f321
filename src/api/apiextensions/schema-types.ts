/** The types that a schema gives the variables of its rules. What it leaves open is `dyn`. */

import { DYN, listOf, mapOf, plain, type Type } from '../cel/checker.ts';
import { isObject } from './structural-schema.ts';
import type { JSONSchemaProps } from './v1.gen.ts';

const FORMATS: Readonly<Record<string, string>> = {
  'date-time': 'timestamp',
  date: 'timestamp',
  duration: 'duration',
  byte: 'bytes',
};
export function schemaType(
  schema: JSONSchemaProps,
  isResource = schema['x-kubernetes-embedded-resource'] === true,
): Type {
  if (schema['x-kubernetes-int-or-string'] || schema.nullable) return DYN;
  switch (schema.type) {
    case 'integer':
      return plain('int');
    case 'number':
      return plain('double');
    case 'boolean':
      return plain('bool');
    case 'string':
      return sized(plain(FORMATS[schema.format ?? ''] ?? 'string'), charactersMax(schema));
    case 'array':
      return isObject(schema.items)
        ? sized(listOf(schemaType(schema.items as JSONSchemaProps)), itemsMax(schema))
        : DYN;
    case 'object':
      return objectType(schema, isResource);
    default:
      return DYN;
  }
}

/** Upstream's: no object can be larger than a request. */
const REQUEST_BYTES_MAX = 3 * 1024 * 1024;
/** Of a character in UTF-8. */
const CHARACTER_BYTES_MAX = 4;

const sized = (type: Type, max: number): Type => ({ ...type, max }) as Type;

/** Upstream knows no bounds of these. */
const META_TEXT = sized(plain('string'), REQUEST_BYTES_MAX - 2);
const METADATA: Type = {
  is: 'object',
  field: name => (name === 'name' || name === 'generateName' ? META_TEXT : undefined),
};

function charactersMax({ maxLength, enum: values, format }: JSONSchemaProps): number {
  if (maxLength !== undefined) return maxLength * CHARACTER_BYTES_MAX;
  if (values?.length) return Math.max(...values.map(value => String(value).length));
  if (format && FORMATS[format] && format !== 'byte') return 32;
  return REQUEST_BYTES_MAX - 2;
}

export function itemsMax({ maxItems, items }: JSONSchemaProps): number {
  return maxItems ?? Math.floor((REQUEST_BYTES_MAX - 2) / (bytesMin(items as JSONSchemaProps) + 1));
}

export function entriesMax({ maxProperties, additionalProperties }: JSONSchemaProps): number {
  return maxProperties ?? Math.floor((REQUEST_BYTES_MAX - 2) / (bytesMin(additionalProperties as JSONSchemaProps) + 6));
}

/** How many values of a schema there can be at most, wherever they stand in an object. */
export function valuesMax(schema: JSONSchemaProps): number {
  return Math.floor(REQUEST_BYTES_MAX / (bytesMin(schema) + 1));
}

/** The fewest bytes of JSON that a value takes. */
function bytesMin(schema: JSONSchemaProps | undefined): number {
  if (!schema || schema['x-kubernetes-int-or-string']) return 1;
  if (schema.type === 'boolean') return 4;
  if (schema.type === 'integer' || schema.type === 'number') return 1;
  if (schema.type !== 'object') return 2;
  return (schema.required ?? []).reduce((sum, name) => sum + name.length + 4 + bytesMin(schema.properties?.[name]), 2);
}

function objectType(schema: JSONSchemaProps, isResource: boolean): Type {
  const { properties, additionalProperties } = schema;
  if (isObject(additionalProperties))
    return sized(mapOf(schemaType(additionalProperties as JSONSchemaProps)), entriesMax(schema));
  if (!isResource && (!properties || Object.keys(properties).length === 0)) return DYN;
  return {
    is: 'object',
    field(name) {
      if (isResource && (name === 'apiVersion' || name === 'kind')) return META_TEXT;
      if (isResource && name === 'metadata') return METADATA;
      return properties && Object.hasOwn(properties, name) ? schemaType(properties[name]!) : undefined;
    },
  };
}
