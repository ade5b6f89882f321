/** Fields whose JSON is one of several forms, though Go and protobuf have a message for them. */

/** A schema or a list of schemas, a schema or a bool, a schema or property names; a named slice of strings. */
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
