/**
 * The schemas of all built-in types, read from `schema.gen.json`: each type is decoded when first asked for and kept.
 *
 * There a type is an array of lines. `@struct atomic` and `@union discriminator|- member…` describe the type; any other
 * line is a field, `name type number [facts]` separated by single blanks, in the order of the Go struct. The name is empty
 * for an inlined field; the number is 0 for `apiVersion` and `kind`. Facts, in this order, each optional:
 * flags (`!` required, `~` written even when absent, `-` not written when empty), `list=` list type, `keys=` list map keys, `map=` map type,
 * `patch=` strategies, `mergeKey=`, `enum=` values, `default=` JSON.
 */
import { assert } from '../base/assert.ts';
import tables from './schema.gen.json' with { type: 'json' };
import type { FieldSchema, TypeSchema } from './schema.ts';

/** A field as decoded here, with what Go's encoder does to it: upstream's objects have their fields by these rules. */
export interface BuiltinField extends FieldSchema {
  /** A value without `omitempty`, or a struct: written with its zero value even when absent. */
  readonly alwaysPresent?: true;
  /** A value, list or map with `omitempty`: not written when false, 0, '', [] or {}. Without either flag: a pointer. */
  readonly omitEmpty?: true;
}

export interface BuiltinType extends TypeSchema {
  readonly fields: readonly BuiltinField[];
}

const typeLines = tables.types as Readonly<Record<string, readonly string[]>>;
const packages = tables.packages as unknown as Readonly<Record<string, readonly [group: string, openapi: string]>>;
const schemas = new Map<string, BuiltinType>();
const indexes = new Map<string, ReadonlyMap<string, BuiltinField>>();

/** Short names of every built-in type. */
export function typeNames(): readonly string[] {
  return Object.keys(typeLines);
}

export function hasType(name: string): boolean {
  return Object.hasOwn(typeLines, name);
}

/** Schema of a built-in type by its short name, `core.v1.PodSpec`. Asking for an unknown name is a bug. */
export function typeSchema(name: string): BuiltinType {
  let schema = schemas.get(name);
  if (schema === undefined) schemas.set(name, (schema = decodeType(name)));
  return schema;
}

/** All fields of the object that a type describes by JSON name: its own and those of its inlined fields. */
export function fieldsOf(type: string): ReadonlyMap<string, BuiltinField> {
  let index = indexes.get(type);
  if (index === undefined) {
    const fields = new Map<string, BuiltinField>();
    for (const field of typeSchema(type).fields) {
      if (field.name !== '') fields.set(field.name, field);
      else for (const [name, inlined] of fieldsOf(field.type)) fields.set(name, inlined);
    }
    indexes.set(type, (index = fields));
  }
  return index;
}

/** The field of a type, inlined ones included; undefined when the type has no such field. */
export function fieldOf(type: string, jsonName: string): BuiltinField | undefined {
  return fieldsOf(type).get(jsonName);
}

/** Short name of the type that describes a kind, or undefined for an unknown kind. Options and Status are known to every group. */
export function typeOfKind(group: string, version: string, kind: string): string | undefined {
  const home = `${group === '' ? 'core' : group.split('.', 1)[0]}.${version}`;
  const name = `${home}.${kind}`;
  if (packages[home]?.[0] === group && isKind(name)) return name;
  const common = `meta.v1.${kind}`;
  return isKind(common) ? common : undefined;
}

/** API group and version of a type, `['rbac.authorization.k8s.io', 'v1']`. */
export function groupVersionOfType(name: string): readonly [group: string, version: string] {
  const home = name.slice(0, name.lastIndexOf('.'));
  return [packages[home]![0], home.slice(home.indexOf('.') + 1)];
}

/** Whether objects of the type carry `apiVersion` and `kind`. */
export function isKind(name: string): boolean {
  return Object.hasOwn(typeLines, name) && fieldsOf(name).get('apiVersion')?.number === 0;
}

/** `[]core.v1.Container` and `map[string]core.v1.Container` → `core.v1.Container`; scalars and messages → themselves. */
export function elementType(ref: string): string {
  if (ref.startsWith('[]')) return elementType(ref.slice(2));
  return ref.startsWith('map[string]') ? elementType(ref.slice(11)) : ref;
}

function decodeType(name: string): BuiltinType {
  const lines = typeLines[name];
  assert(lines !== undefined, `unknown API type ${name}`);
  const [home, local] = [name.slice(0, name.lastIndexOf('.')), name.slice(name.lastIndexOf('.') + 1)];
  const fields: BuiltinField[] = [];
  const facts: { -readonly [K in keyof TypeSchema]?: TypeSchema[K] } = {};
  for (const line of lines) {
    const words = line.split(' ');
    if (words[0] === '@struct') facts.structType = words[1] as 'atomic' | 'granular';
    else if (words[0] === '@union') {
      const members = { fields: words.slice(2) };
      facts.union = [words[1] === '-' ? members : { discriminator: words[1]!, ...members }];
    } else fields.push(decodeField(line));
  }
  return Object.freeze({ name, openapiName: `${packages[home]![1]}.${local}`, fields, ...facts });
}

function decodeField(line: string): BuiltinField {
  const [name, type, number, ...facts] = line.split(' ');
  const field: { -readonly [K in keyof BuiltinField]: BuiltinField[K] } = {
    name: name!,
    type: type!,
    number: Number(number),
  };
  for (const fact of facts) {
    const equals = fact.indexOf('=');
    const value = fact.slice(equals + 1);
    switch (equals < 0 ? '' : fact.slice(0, equals)) {
      case '':
        if (fact.includes('!')) field.required = true;
        if (fact.includes('~')) field.alwaysPresent = true;
        if (fact.includes('-')) field.omitEmpty = true;
        break;
      case 'list':
        field.listType = value as 'atomic' | 'set' | 'map';
        break;
      case 'keys':
        field.listMapKeys = value.split(',');
        break;
      case 'map':
        field.mapType = value as 'atomic' | 'granular';
        break;
      case 'patch':
        field.patchStrategy = value.split(',') as ('merge' | 'replace' | 'retainKeys')[];
        break;
      case 'mergeKey':
        field.patchMergeKey = value;
        break;
      case 'enum':
        field.enum = value.split(',');
        break;
      case 'default':
        field.default = JSON.parse(value);
        break;
      default:
        assert(false, `unknown fact in schema line: ${line}`);
    }
  }
  return Object.freeze(field);
}
