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
const METADATA: Type = {
  is: 'object',
  field: name => (name === 'name' || name === 'generateName' ? plain('string') : undefined),
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
      return plain(FORMATS[schema.format ?? ''] ?? 'string');
    case 'array':
      return isObject(schema.items) ? listOf(schemaType(schema.items as JSONSchemaProps)) : DYN;
    case 'object':
      return objectType(schema, isResource);
    default:
      return DYN;
  }
}

function objectType(schema: JSONSchemaProps, isResource: boolean): Type {
  const { properties, additionalProperties } = schema;
  if (isObject(additionalProperties)) return mapOf(schemaType(additionalProperties as JSONSchemaProps));
  if (!isResource && (!properties || Object.keys(properties).length === 0)) return DYN;
  return {
    is: 'object',
    field(name) {
      if (isResource && (name === 'apiVersion' || name === 'kind')) return plain('string');
      if (isResource && name === 'metadata') return METADATA;
      return properties && Object.hasOwn(properties, name) ? schemaType(properties[name]!) : undefined;
    },
  };
}
