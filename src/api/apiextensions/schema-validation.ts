/**
 * An object against the value validations of its structural schema, with upstream's messages: type, limits, patterns, formats,
 * enumerations, required fields and the combinators. List sets and maps, whose items must differ, are judged here too.
 * CEL rules are not.
 */

import { type FieldError, fieldErrors } from '../../base/errors.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { isFormat } from './formats.ts';
import { compilePattern } from './patterns.ts';
import { isObject, type JsonObject, type SchemaNode } from './structural-schema.ts';
import type { JSONSchemaProps } from './v1.gen.ts';

/** Findings about the object at `path`; '' is the root. */
export function validateSchema(schema: JSONSchemaProps, value: unknown, path = ''): FieldError[] {
  const errors: FieldError[] = [];
  check(schema, value, path, errors);
  return errors;
}

const typeInvalid = (path: string, shown: unknown, message: string): FieldError => ({
  type: 'FieldValueTypeInvalid',
  field: path,
  message: `Invalid value: ${JSON.stringify(shown ?? null)}: ${message}`,
});

function jsonType(value: unknown): string {
  if (value === null || value === undefined) return 'null';
  if (Array.isArray(value)) return 'array';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  return typeof value;
}

function typesOf(schema: JSONSchemaProps): string[] {
  if (schema['x-kubernetes-int-or-string']) return ['integer', 'string'];
  return schema.type ? [schema.type] : [];
}

/** `spec.replicas in body` */
const inBody = (path: string): string => `${path} in body`;

function check(schema: JSONSchemaProps, value: unknown, path: string, errors: FieldError[]): void {
  const types = typesOf(schema);
  if (value === null || value === undefined) {
    if (types.length > 0 && !schema.nullable)
      errors.push(typeInvalid(path, 'null', `${inBody(path)} must be of type ${types.join(',')}: "null"`));
    if (schema.enum && !schema.nullable) checkEnum(schema.enum, null, path, errors);
    return;
  }
  const type = jsonType(value);
  if (types.length > 0 && !types.includes(type) && !(type === 'integer' && types.includes('number')))
    errors.push(typeInvalid(path, type, `${inBody(path)} must be of type ${types.join(',')}: ${JSON.stringify(type)}`));
  if (schema.allOf || schema.anyOf || schema.oneOf || schema.not) checkCombinators(schema, value, path, errors);
  if (typeof value === 'string') checkString(schema, value, path, errors);
  else if (typeof value === 'number') checkNumber(schema, value, path, errors);
  else if (Array.isArray(value)) checkArray(schema, value, path, errors);
  if (schema.enum) checkEnum(schema.enum, value, path, errors);
  if (isObject(value)) checkObject(schema, value, path, errors);
}

function checkEnum(allowed: readonly unknown[], value: unknown, path: string, errors: FieldError[]): void {
  if (allowed.some(one => semanticEqual(one, value))) return;
  const supported = allowed.map(one => (typeof one === 'string' ? one : JSON.stringify(one)));
  errors.push(fieldErrors.notSupported(path, value, supported));
}

function checkString(schema: JSONSchemaProps, value: string, path: string, errors: FieldError[]): void {
  const { minLength, maxLength, pattern, format } = schema;
  if (maxLength !== undefined && value.length > maxLength && lengthOf(value) > maxLength)
    errors.push({
      type: 'FieldValueTooLong',
      field: path,
      message: `Too long: may not be more than ${maxLength} bytes`,
    });
  if (minLength !== undefined && lengthOf(value) < minLength)
    errors.push(fieldErrors.invalid(path, value, `${inBody(path)} should be at least ${minLength} chars long`));
  if (pattern && compilePattern(pattern)?.test(value) === false)
    errors.push(fieldErrors.invalid(path, value, `${inBody(path)} should match '${pattern}'`));
  if (format && !isFormat(format, value))
    errors.push(typeInvalid(path, value, `${inBody(path)} must be of type ${format}: ${JSON.stringify(value)}`));
}

/** In characters, as Go counts runes. */
function lengthOf(text: string): number {
  let length = 0;
  for (const _ of text) length++;
  return length;
}

const FLOAT_MAX = (2 - 2 ** -23) * 2 ** 127;
/** What numbers of a format hold. A number read from JSON that is larger than any double is one no more. */
const RANGES: Readonly<Record<string, { readonly min: number; readonly max: number }>> = {
  int32: { min: -(2 ** 31), max: 2 ** 31 - 1 },
  int64: { min: -(2 ** 63), max: 2 ** 63 - 1 },
  float: { min: -FLOAT_MAX, max: FLOAT_MAX },
};

function checkNumber(schema: JSONSchemaProps, value: number, path: string, errors: FieldError[]): void {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf, format } = schema;
  const refuse = (what: string) => errors.push(fieldErrors.invalid(path, value, `${inBody(path)} ${what}`));
  if (multipleOf !== undefined && multipleOf > 0 && !isMultiple(value, multipleOf))
    refuse(`should be a multiple of ${multipleOf}`);
  if (maximum !== undefined && (exclusiveMaximum ? value >= maximum : value > maximum))
    refuse(`should be less than ${exclusiveMaximum ? '' : 'or equal to '}${maximum}`);
  if (minimum !== undefined && (exclusiveMinimum ? value <= minimum : value < minimum))
    refuse(`should be greater than ${exclusiveMinimum ? '' : 'or equal to '}${minimum}`);
  const range = RANGES[format ?? ''];
  if (range && (value < range.min || value > range.max)) refuse(`should be a valid ${format} value`);
}

function isMultiple(value: number, of: number): boolean {
  const ratio = value / of;
  return Math.abs(ratio - Math.round(ratio)) < 1e-9 * Math.max(1, Math.abs(ratio));
}

function checkArray(schema: JSONSchemaProps, value: readonly unknown[], path: string, errors: FieldError[]): void {
  const { minItems, maxItems, items, uniqueItems } = schema;
  if (isObject(items))
    for (let at = 0; at < value.length; at++) check(items as JSONSchemaProps, value[at], `${path}[${at}]`, errors);
  if (minItems !== undefined && value.length < minItems)
    errors.push(fieldErrors.invalid(path, value.length, `${inBody(path)} should have at least ${minItems} items`));
  if (maxItems !== undefined && value.length > maxItems) errors.push(fieldErrors.tooMany(path, value.length, maxItems));
  if (uniqueItems && value.some((item, at) => value.findIndex(other => semanticEqual(other, item)) !== at))
    errors.push(fieldErrors.invalid(path, value, `${inBody(path)} shouldn't contain duplicates`));
}

function checkObject(schema: JSONSchemaProps, value: JsonObject, path: string, errors: FieldError[]): void {
  const { minProperties, maxProperties, required, properties, additionalProperties } = schema;
  const names = Object.keys(value);
  const below = (name: string) => (path === '' ? name : `${path}.${name}`);
  if (minProperties !== undefined && names.length < minProperties)
    errors.push(
      fieldErrors.invalid(path, names.length, `${inBody(path)} should have at least ${minProperties} properties`),
    );
  if (maxProperties !== undefined && names.length > maxProperties)
    errors.push(fieldErrors.tooMany(path, names.length, maxProperties));
  for (const name of required ?? []) if (!Object.hasOwn(value, name)) errors.push(fieldErrors.required(below(name)));
  const rest = isObject(additionalProperties) ? (additionalProperties as JSONSchemaProps) : undefined;
  for (const name of names) {
    const property = properties && Object.hasOwn(properties, name) ? properties[name] : undefined;
    if (property) check(property, value[name], below(name), errors);
    else if (rest) check(rest, value[name], below(name), errors);
    else if (additionalProperties === false && !schema['x-kubernetes-preserve-unknown-fields'])
      errors.push(fieldErrors.invalid('', '', `${below(name)} in body is a forbidden property`));
  }
}

/** Findings of combinators have no path of their own upstream, which prints them as `<nil>`. */
const nowhere = (message: string): FieldError => fieldErrors.invalid('<nil>', '', message);

function checkCombinators(schema: JSONSchemaProps, value: unknown, path: string, errors: FieldError[]): void {
  const name = JSON.stringify(path);
  const outcomes = (schemas: readonly JSONSchemaProps[]) =>
    schemas.map(one => {
      const found: FieldError[] = [];
      check(one, value, path, found);
      return found;
    });
  const fewest = (found: readonly FieldError[][]) => found.reduce((a, b) => (b.length < a.length ? b : a));
  const { anyOf = [], oneOf = [], allOf = [], not } = schema;
  if (anyOf.length > 0) {
    const found = outcomes(anyOf);
    if (found.every(one => one.length > 0))
      errors.push(nowhere(`${name} must validate at least one schema (anyOf)`), ...fewest(found));
  }
  if (oneOf.length > 0) {
    const found = outcomes(oneOf);
    const valid = found.filter(one => one.length === 0).length;
    if (valid === 0)
      errors.push(...fewest(found), nowhere(`${name} must validate one and only one schema (oneOf). Found none valid`));
    else if (valid > 1)
      errors.push(nowhere(`${name} must validate one and only one schema (oneOf). Found ${valid} valid alternatives`));
  }
  if (allOf.length > 0) {
    const found = outcomes(allOf).filter(one => one.length > 0);
    for (const one of found) errors.push(...one);
    if (found.length > 0)
      errors.push(
        nowhere(
          `${name} must validate all the schemas (allOf)${found.length === allOf.length ? '. None validated' : ''}`,
        ),
      );
  }
  if (not) {
    const found: FieldError[] = [];
    check(not, value, path, found);
    if (found.length === 0) errors.push(nowhere(`${name} must not validate the schema (not)`));
  }
}

/** Items of list sets and maps that occur twice. */
export function duplicateItems(node: SchemaNode, value: unknown, path = ''): FieldError[] {
  const errors: FieldError[] = [];
  findDuplicates(node, value, path, errors);
  return errors;
}

function findDuplicates(node: SchemaNode, value: unknown, path: string, errors: FieldError[]): void {
  if (Array.isArray(value)) {
    if (node.listType !== 'atomic') {
      const seen = new Set<string>();
      for (let at = 0; at < value.length; at++) {
        const identity = identityOf(node, value[at]);
        if (identity === undefined) continue;
        const text = stableText(identity);
        if (seen.has(text)) errors.push(fieldErrors.duplicate(`${path}[${at}]`, identity));
        seen.add(text);
      }
    }
    if (node.items)
      for (let at = 0; at < value.length; at++) findDuplicates(node.items, value[at], `${path}[${at}]`, errors);
    return;
  }
  if (!isObject(value)) return;
  for (const name of Object.keys(value)) {
    const field = node.properties.get(name) ?? (node.additional === true ? undefined : node.additional);
    if (field) findDuplicates(field, value[name], path === '' ? name : `${path}.${name}`, errors);
  }
}

function identityOf(node: SchemaNode, item: unknown): unknown {
  if (node.listType === 'set') return item;
  if (!isObject(item)) return undefined;
  const keys: JsonObject = {};
  for (const key of node.listKeys) if (item[key] !== undefined) keys[key] = item[key];
  return keys;
}

function stableText(value: unknown): string {
  return JSON.stringify(value, (_, inner) =>
    isObject(inner) ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1))) : inner,
  );
}

/** Whether the findings leave the object too broken for rules to be run on it, as upstream decides. */
export function blocksRules(errors: readonly FieldError[]): boolean {
  return errors.some(({ type }) =>
    [
      'FieldValueNotSupported',
      'FieldValueRequired',
      'FieldValueTooLong',
      'FieldValueTooMany',
      'FieldValueTypeInvalid',
    ].includes(type),
  );
}
