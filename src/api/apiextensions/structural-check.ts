/**
 * Whether a schema is structural, in upstream's words: every field has one type, said once and outside of the combinators,
 * and the `x-kubernetes-*` extensions fit what they stand on. Rules in CEL are checked elsewhere.
 */

import { type FieldError, fieldErrors } from '../../base/errors.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { addForbidden, addInvalid, addRequired, type Errors, eachAt } from '../machinery/validation.ts';
import { compilePattern } from './patterns.ts';
import { pruneUnknown, withDefaults } from './schema-fields.ts';
import { ruleDefinitionProblems } from './schema-rules.ts';
import { validateSchema } from './schema-validation.ts';
import { compileSchema, isObject } from './structural-schema.ts';
import type { JSONSchemaProps } from './v1.gen.ts';

type Level = 'root' | 'item' | 'field';

const TYPES = ['array', 'boolean', 'integer', 'number', 'object', 'string'];
const SCALARS = ['boolean', 'integer', 'number', 'string'];
/** Deeper schemas are refused: no walk over them may exhaust the stack. */
const DEPTH_MAX = 200;

/** Keywords that only structure may use, with what upstream says when a combinator has them. */
const STRUCTURE_ONLY: readonly (readonly [keyof JSONSchemaProps, string])[] = [
  ['type', 'must be empty to be structural'],
  ['additionalProperties', 'must be undefined to be structural'],
  ['default', 'must be undefined to be structural'],
  ['title', 'must be empty to be structural'],
  ['description', 'must be empty to be structural'],
  ['nullable', 'must be false to be structural'],
  ['externalDocs', 'must be undefined to be structural'],
  ['x-kubernetes-preserve-unknown-fields', 'must be false to be structural'],
  ['x-kubernetes-embedded-resource', 'must be false to be structural'],
  ['x-kubernetes-int-or-string', 'must be false to be structural'],
  ['x-kubernetes-list-map-keys', 'must be empty to be structural'],
  ['x-kubernetes-list-type', 'must be undefined to be structural'],
  ['x-kubernetes-map-type', 'must be undefined to be structural'],
  ['x-kubernetes-validations', 'must be empty to be structural'],
];

const UNSUPPORTED: readonly (readonly [keyof JSONSchemaProps, string])[] = [
  ['id', 'id is not supported'],
  ['$ref', '$ref is not supported'],
  ['patternProperties', 'patternProperties is not supported'],
  ['additionalItems', 'additionalItems is not supported'],
  ['definitions', 'definitions is not supported'],
  ['dependencies', 'dependencies is not supported'],
];

/** Findings about the `openAPIV3Schema` at the path. */
export function structuralProblems(schema: JSONSchemaProps, path: string): FieldError[] {
  const errors: Errors = [];
  if (isTooDeep(schema, 0)) {
    addInvalid(errors, path, '', `must not be nested more than ${DEPTH_MAX} levels deep`);
    return errors;
  }
  checkNode(schema, 'root', path, errors);
  checkComplete(schema, schema, path, path, errors);
  if (errors.length === 0) {
    checkDefaults(schema, path, 'root', errors);
    errors.push(...ruleDefinitionProblems(schema, path));
  }
  return errors;
}

function isTooDeep(value: unknown, depth: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return depth > DEPTH_MAX || Object.values(value).some(below => isTooDeep(below, depth + 1));
}

const asSchema = (value: unknown): JSONSchemaProps | undefined =>
  isObject(value) ? (value as JSONSchemaProps) : undefined;

const isSet = (value: unknown): boolean =>
  value !== undefined &&
  value !== null &&
  value !== false &&
  value !== '' &&
  !(Array.isArray(value) && value.length === 0);

function checkSupported(schema: JSONSchemaProps, path: string, errors: Errors): void {
  for (const [keyword, says] of UNSUPPORTED)
    if (isSet(schema[keyword])) addForbidden(errors, `${path}.${keyword}`, says);
  if (schema.uniqueItems)
    addForbidden(
      errors,
      `${path}.uniqueItems`,
      'uniqueItems cannot be set to true since the runtime complexity becomes quadratic',
    );
}

function checkNode(schema: JSONSchemaProps, level: Level, path: string, errors: Errors): void {
  const { type, items, properties, additionalProperties } = schema;
  checkSupported(schema, path, errors);
  checkType(schema, level, path, errors);
  if (Array.isArray(items)) addForbidden(errors, `${path}.items`, 'items must be a schema object and not an array');
  else if (type === 'array' && !isObject(items)) addRequired(errors, `${path}.items`, 'must be specified');
  if (additionalProperties !== undefined && additionalProperties !== null) {
    if (level === 'root') addForbidden(errors, `${path}.additionalProperties`, 'must not be used at the root');
    if (properties && Object.keys(properties).length > 0 && additionalProperties !== true)
      addForbidden(errors, `${path}.additionalProperties`, 'additionalProperties and properties are mutual exclusive');
  }
  checkExtensions(schema, path, errors);
  checkEmbedded(schema, level, path, errors);
  checkValues(schema, path, errors);
  const itemSchema = asSchema(items);
  if (itemSchema) checkNode(itemSchema, 'item', `${path}.items`, errors);
  for (const [name, property] of Object.entries(properties ?? {}))
    checkNode(asSchema(property) ?? {}, 'field', `${path}.properties[${name}]`, errors);
  const rest = asSchema(additionalProperties);
  if (rest) checkNode(rest, 'field', `${path}.additionalProperties`, errors);
}

function checkType(schema: JSONSchemaProps, level: Level, path: string, errors: Errors): void {
  const { type } = schema;
  if (type === 'null')
    addForbidden(errors, `${path}.type`, 'type cannot be set to null, use nullable as an alternative');
  else if (type && !TYPES.includes(type)) errors.push(fieldErrors.notSupported(`${path}.type`, type, TYPES));
  if (schema['x-kubernetes-embedded-resource'] && type !== 'object') {
    const says = 'must be object if x-kubernetes-embedded-resource is true';
    if (type) addInvalid(errors, `${path}.type`, type, says);
    else addRequired(errors, `${path}.type`, says);
  } else if (!type && !schema['x-kubernetes-int-or-string'] && !schema['x-kubernetes-preserve-unknown-fields']) {
    const where = { root: 'at the root', item: 'for specified array items', field: 'for specified object fields' };
    addRequired(errors, `${path}.type`, `must not be empty ${where[level]}`);
  }
  if (level === 'root' && type && type !== 'object')
    addInvalid(errors, `${path}.type`, type, 'must be object at the root');
}

function checkExtensions(schema: JSONSchemaProps, path: string, errors: Errors): void {
  const preserve = schema['x-kubernetes-preserve-unknown-fields'];
  if (preserve === false)
    addInvalid(errors, `${path}.x-kubernetes-preserve-unknown-fields`, false, 'must be true or undefined');
  if (schema['x-kubernetes-int-or-string']) {
    const says = 'must be false if x-kubernetes-int-or-string is true';
    if (schema.type)
      addInvalid(errors, `${path}.type`, schema.type, 'must be empty if x-kubernetes-int-or-string is true');
    if (preserve) addInvalid(errors, `${path}.x-kubernetes-preserve-unknown-fields`, true, says);
    if (schema['x-kubernetes-embedded-resource'])
      addInvalid(errors, `${path}.x-kubernetes-embedded-resource`, true, says);
  }
  const mapType = schema['x-kubernetes-map-type'];
  if (mapType) {
    if (!['atomic', 'granular'].includes(mapType))
      errors.push(fieldErrors.notSupported(`${path}.x-kubernetes-map-type`, mapType, ['atomic', 'granular']));
    requireType(schema, 'object', 'must be object if x-kubernetes-map-type is specified', path, errors);
  }
  checkListType(schema, path, errors);
}

function requireType(schema: JSONSchemaProps, type: string, says: string, path: string, errors: Errors): void {
  if (schema.type === type) return;
  if (schema.type) addInvalid(errors, `${path}.type`, schema.type, says);
  else addRequired(errors, `${path}.type`, says);
}

function checkListType(schema: JSONSchemaProps, path: string, errors: Errors): void {
  const listType = schema['x-kubernetes-list-type'];
  const keys = schema['x-kubernetes-list-map-keys'] ?? [];
  const items = asSchema(schema.items);
  if (keys.length > 0 && listType !== 'map') {
    const says = 'must be map if x-kubernetes-list-map-keys is non-empty';
    if (listType) addInvalid(errors, `${path}.x-kubernetes-list-type`, listType, says);
    else addRequired(errors, `${path}.x-kubernetes-list-type`, says);
  }
  if (!listType) return;
  if (!['atomic', 'set', 'map'].includes(listType))
    errors.push(fieldErrors.notSupported(`${path}.x-kubernetes-list-type`, listType, ['atomic', 'set', 'map']));
  requireType(schema, 'array', 'must be array if x-kubernetes-list-type is specified', path, errors);
  if (listType === 'atomic') return;
  if (!items) {
    addRequired(errors, `${path}.items`, `must have a schema if x-kubernetes-list-type is ${listType}`);
    return;
  }
  if (items.nullable)
    addForbidden(errors, `${path}.items.nullable`, `cannot be nullable when x-kubernetes-list-type is ${listType}`);
  if (listType === 'set') checkSetItems(items, path, errors);
  else checkMapKeys(items, keys, path, errors);
}

function checkSetItems(items: JSONSchemaProps, path: string, errors: Errors): void {
  const says = 'must be atomic as item of a list with x-kubernetes-list-type=set';
  if (items.type === 'object' && items['x-kubernetes-map-type'] !== 'atomic')
    addInvalid(errors, `${path}.items.x-kubernetes-map-type`, items['x-kubernetes-map-type'], says);
  const inner = items['x-kubernetes-list-type'];
  if (items.type === 'array' && inner && inner !== 'atomic')
    addInvalid(errors, `${path}.items.x-kubernetes-list-type`, inner, says);
}

function checkMapKeys(items: JSONSchemaProps, keys: readonly string[], path: string, errors: Errors): void {
  const at = `${path}.x-kubernetes-list-map-keys`;
  if (keys.length === 0) addRequired(errors, at, 'must not be empty if x-kubernetes-list-type is map');
  if (items.type !== 'object')
    addInvalid(
      errors,
      `${path}.items.type`,
      items.type ?? '',
      "must be object if parent array's x-kubernetes-list-type is map",
    );
  if (new Set(keys).size < keys.length) addInvalid(errors, at, keys, 'must not contain duplicate entries');
  for (const key of keys) {
    const property = items.properties && Object.hasOwn(items.properties, key) ? items.properties[key] : undefined;
    if (!property) {
      addInvalid(errors, at, keys, 'entries must all be names of item properties');
      continue;
    }
    const where = `${path}.items.properties[${key}]`;
    if (!SCALARS.includes(property.type ?? '') && !property['x-kubernetes-int-or-string'])
      addInvalid(
        errors,
        `${where}.type`,
        property.type ?? '',
        "must be a scalar type if parent array's x-kubernetes-list-type is map",
      );
    if (property.nullable)
      addForbidden(
        errors,
        `${where}.nullable`,
        'this property is in x-kubernetes-list-map-keys, so it cannot be nullable',
      );
    if (property.default === undefined && !items.required?.includes(key))
      addRequired(
        errors,
        `${where}.default`,
        'this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property',
      );
  }
}

function checkEmbedded(schema: JSONSchemaProps, level: Level, path: string, errors: Errors): void {
  const embedded = schema['x-kubernetes-embedded-resource'] === true;
  const properties: Readonly<Record<string, JSONSchemaProps>> = schema.properties ?? {};
  if (embedded && schema.additionalProperties !== undefined)
    addForbidden(errors, `${path}.additionalProperties`, 'must not be used if x-kubernetes-embedded-resource is set');
  if (embedded && !schema['x-kubernetes-preserve-unknown-fields'] && Object.keys(properties).length === 0)
    addRequired(
      errors,
      `${path}.properties`,
      'must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields',
    );
  if (level !== 'root' && !embedded) return;
  for (const name of ['kind', 'apiVersion'])
    if (properties[name] && properties[name].type !== 'string')
      addInvalid(errors, `${path}.properties[${name}].type`, properties[name].type ?? '', 'must be string');
  const { metadata } = properties;
  if (!metadata) return;
  if (metadata.type !== 'object')
    addInvalid(errors, `${path}.properties[metadata].type`, metadata.type ?? '', 'must be object');
  if (level !== 'root') return;
  const { type: _, properties: fields = {}, description: __, ...others } = metadata;
  const isPlain = Object.keys(fields).every(name => name === 'name' || name === 'generateName');
  if (!isPlain || Object.values(others).some(isSet))
    addForbidden(
      errors,
      `${path}.properties[metadata]`,
      'must not specify anything other than name and generateName, but metadata is implicitly specified',
    );
}

const INT_OR_STRING = [{ type: 'integer' }, { type: 'string' }];
const isIntOrString = (anyOf: unknown): boolean => semanticEqual(anyOf, INT_OR_STRING);

function checkValues(schema: JSONSchemaProps, path: string, errors: Errors): void {
  const { anyOf, allOf, oneOf, not, pattern } = schema;
  if (pattern && !compilePattern(pattern))
    addInvalid(
      errors,
      `${path}.pattern`,
      pattern,
      "must be a valid regular expression, but isn't: error parsing regexp",
    );
  if (!isIntOrString(anyOf)) eachAt(anyOf, `${path}.anyOf`, (one, at) => checkNested(one, at, errors));
  eachAt(allOf, `${path}.allOf`, (one, at, index) => {
    const { anyOf: _, ...rest } = one;
    checkNested(index === 0 && isIntOrString(one.anyOf) ? rest : one, at, errors);
  });
  eachAt(oneOf, `${path}.oneOf`, (one, at) => checkNested(one, at, errors));
  if (not) checkNested(not, `${path}.not`, errors);
}

function checkNested(schema: JSONSchemaProps, path: string, errors: Errors): void {
  if (!isObject(schema)) return;
  checkSupported(schema, path, errors);
  for (const [keyword, says] of STRUCTURE_ONLY)
    if (isSet(schema[keyword])) addForbidden(errors, `${path}.${keyword}`, says);
  if (schema.properties && Object.hasOwn(schema.properties, 'metadata'))
    addForbidden(errors, `${path}.properties[metadata]`, 'must not be specified in a nested context');
  checkValues(schema, path, errors);
  const items = asSchema(schema.items);
  if (items) checkNested(items, `${path}.items`, errors);
  for (const [name, property] of Object.entries(schema.properties ?? {}))
    checkNested(property, `${path}.properties[${name}]`, errors);
}

/** Every field that combinators speak of is a field of the structure. */
function checkComplete(
  structure: JSONSchemaProps | undefined,
  values: JSONSchemaProps,
  path: string,
  from: string,
  errors: Errors,
): void {
  const nested: [JSONSchemaProps, string][] = [];
  for (const keyword of ['allOf', 'anyOf', 'oneOf'] as const)
    values[keyword]?.forEach((one, at) => {
      if (isObject(one)) nested.push([one as JSONSchemaProps, `${from}.${keyword}[${at}]`]);
    });
  if (values.not) nested.push([values.not, `${from}.not`]);
  for (const [schema, at] of nested) checkCovered(structure, schema, path, at, errors);
  if (structure !== values) return;
  const items = asSchema(values.items);
  if (items) checkComplete(items, items, `${path}.items`, `${from}.items`, errors);
  for (const [name, property] of Object.entries(values.properties ?? {})) {
    const below = `properties[${name}]`;
    if (isObject(property)) checkComplete(property, property, `${path}.${below}`, `${from}.${below}`, errors);
  }
  const rest = asSchema(values.additionalProperties);
  if (rest) checkComplete(rest, rest, `${path}.additionalProperties`, `${from}.additionalProperties`, errors);
}

function checkCovered(
  structure: JSONSchemaProps | undefined,
  nested: JSONSchemaProps,
  path: string,
  from: string,
  errors: Errors,
): void {
  const need = (found: unknown, where: string, why: string) => {
    if (!found) addRequired(errors, where, `because it is defined in ${why}`);
  };
  const items = asSchema(nested.items);
  if (items) {
    const own = asSchema(structure?.items);
    need(own, `${path}.items`, `${from}.items`);
    if (own) checkCovered(own, items, `${path}.items`, `${from}.items`, errors);
  }
  for (const [name, property] of Object.entries(nested.properties ?? {})) {
    const own =
      structure?.properties && Object.hasOwn(structure.properties, name) ? structure.properties[name] : undefined;
    const below = `properties[${name}]`;
    need(own, `${path}.${below}`, `${from}.${below}`);
    if (own) checkCovered(own, property, `${path}.${below}`, `${from}.${below}`, errors);
  }
  checkComplete(
    structure,
    {
      allOf: nested.allOf ?? [],
      anyOf: nested.anyOf ?? [],
      oneOf: nested.oneOf ?? [],
      ...(nested.not ? { not: nested.not } : {}),
    },
    path,
    from,
    errors,
  );
}

/** Defaults have no fields that would be pruned, and are valid themselves. */
function checkDefaults(schema: JSONSchemaProps, path: string, level: Level, errors: Errors): void {
  const at = `${path}.default`;
  if (schema.default !== undefined && schema.default !== null) {
    if (level === 'root') addForbidden(errors, at, 'must not be set at the root');
    else {
      const node = compileSchema(schema);
      const wrapped = { value: schema.default };
      const holder = compileSchema({ type: 'object', properties: { value: schema } });
      const pruned = pruneUnknown(holder, wrapped);
      if (pruned !== wrapped && !schema['x-kubernetes-embedded-resource'])
        addInvalid(errors, at, schema.default, 'must not have unknown fields');
      errors.push(...validateSchema(schema, withDefaults(node, schema.default), at));
    }
  }
  const items = asSchema(schema.items);
  if (items) checkDefaults(items, `${path}.items`, 'item', errors);
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const where = `${path}.properties[${name}]`;
    if (!isObject(property)) continue;
    if (level === 'root' && name === 'metadata' && property['default'] !== undefined)
      addForbidden(errors, `${where}.default`, 'must not be set for metadata');
    checkDefaults(property as JSONSchemaProps, where, 'field', errors);
  }
  const rest = asSchema(schema.additionalProperties);
  if (rest) checkDefaults(rest, `${path}.additionalProperties`, 'field', errors);
}
