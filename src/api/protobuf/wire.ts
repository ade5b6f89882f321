/** What both directions of the protobuf form know: wire types, the envelope, and where the wire differs from the JSON. */

export const PROTOBUF = 'application/vnd.kubernetes.protobuf';

export const MAGIC = Buffer.from('k8s\0', 'latin1');
export const VARINT = 0;
export const FIXED64 = 1;
export const BYTES = 2;
export const FIXED32 = 5;

export function wireOf(type: string): number {
  if (type === 'bool' || type === 'int32' || type === 'int64') return VARINT;
  return type === 'double' ? FIXED64 : BYTES;
}

/**
 * Fields whose JSON is one of several forms have a message of their own on the wire: a schema or a list of schemas, a schema
 * or a bool, a schema or property names; a named slice of strings.
 */
export type Wrapper = 'schemaOrArray' | 'schemaOrBool' | 'schemaOrStrings' | 'items';

export const SCHEMA = 'apiextensions.v1.JSONSchemaProps';

const WRAPPERS: Readonly<Record<string, Readonly<Record<string, Wrapper>>>> = {
  'meta.v1.APIResource': { verbs: 'items' },
  [SCHEMA]: {
    items: 'schemaOrArray',
    additionalItems: 'schemaOrBool',
    additionalProperties: 'schemaOrBool',
    dependencies: 'schemaOrStrings',
  },
};

export function wrapperOf(type: string, field: string): Wrapper | undefined {
  return WRAPPERS[type]?.[field];
}

export function splitGroupVersion(apiVersion: string): [group: string, version: string] {
  const slash = apiVersion.indexOf('/');
  return slash < 0 ? ['', apiVersion] : [apiVersion.slice(0, slash), apiVersion.slice(slash + 1)];
}
