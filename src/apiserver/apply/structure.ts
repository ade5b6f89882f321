/**
 * How objects of a type are taken apart for field ownership: which parts merge and which are replaced whole, compiled from
 * the schema's `listType`, `mapType` and `structType` when first needed. Pure data about types; it never sees an object.
 */

import { type BuiltinField, fieldsOf, hasType, typeSchema } from '../../api/schema-registry.ts';

export type Structure =
  | { readonly is: 'scalar'; readonly expects: 'string' | 'numeric' | 'boolean' | 'any' }
  | { readonly is: 'struct'; readonly atomic: boolean; readonly table: () => FieldTable }
  | { readonly is: 'map'; readonly atomic: boolean; readonly element: Structure }
  | ListStructure
  /** JSON without a schema: objects merge, lists are replaced. */
  | { readonly is: 'deduced' };

export interface ListStructure {
  readonly is: 'list';
  readonly type: 'atomic' | 'set' | 'map';
  /** Sorted names of the fields that identify an item of a map, and what they default to. */
  readonly keys: readonly string[];
  readonly defaults: Readonly<Record<string, unknown>>;
  readonly element: Structure;
}

export interface FieldEntry {
  readonly name: string;
  /** Path element, `f:name`. */
  readonly key: string;
  readonly structure: Structure;
  /** Nobody owns it: bookkeeping, or a part that the request cannot change. */
  readonly ignored: boolean;
  /** It holds ignored fields, so it never goes as a whole and is never owned as a whole. */
  readonly stays: boolean;
  /** A list or map that Go writes as null when it is absent: it is there before anything is in it. */
  readonly nullable: boolean;
}

export interface FieldTable {
  /** Those that can be owned, sorted by name. */
  readonly fields: readonly FieldEntry[];
  readonly byName: ReadonlyMap<string, FieldEntry>;
  /** An object may have fields that are not here, whose structure is deduced from what they hold. */
  readonly isOpen?: true;
}

/** The fields of a table that objects can have, sorted by name: also those that only the objects know. */
export function fieldsIn(table: FieldTable, ...objects: readonly object[]): readonly FieldEntry[] {
  if (!table.isOpen) return table.fields;
  const others = new Map<string, FieldEntry>();
  for (const object of objects)
    for (const name of Object.keys(object))
      if (!table.byName.has(name) && !others.has(name))
        others.set(name, { name, key: `f:${name}`, structure: DEDUCED, ignored: false, stays: false, nullable: false });
  if (others.size === 0) return table.fields;
  return [...table.fields, ...others.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Fields of an object that a request can own: its own, those of its status, or of its status and metadata. */
export type Scope = 'all' | 'withoutStatus' | 'status' | 'statusAndMetadata';

export const DEDUCED: Structure = { is: 'deduced' };

const BOOKKEEPING = new Set([
  'name',
  'namespace',
  'creationTimestamp',
  'selfLink',
  'uid',
  'generation',
  'managedFields',
  'resourceVersion',
]);
/** Top-level fields that a request of the scope cannot own, beside apiVersion and kind. */
export const IGNORED: Readonly<Record<Scope, readonly string[]>> = {
  all: [],
  withoutStatus: ['status'],
  status: ['metadata', 'spec'],
  statusAndMetadata: ['spec'],
};

const roots = new Map<string, FieldTable>();
const structures = new Map<string, Structure>();

/** The fields of a kind by the short name of its type, `apps.v1.Deployment`. */
export function rootTable(type: string, scope: Scope): FieldTable {
  const id = `${scope} ${type}`;
  let table = roots.get(id);
  if (table === undefined) {
    const ignored = new Set(['apiVersion', 'kind', ...IGNORED[scope]]);
    roots.set(id, (table = tableOf(fieldsOf(type), ignored, 'metadata')));
  }
  return table;
}

function tableOf(
  fields: ReadonlyMap<string, BuiltinField>,
  ignored: ReadonlySet<string> | undefined,
  metadata?: string,
): FieldTable {
  const entries: FieldEntry[] = [];
  for (const field of fields.values()) {
    const stays = field.name === metadata && field.type === 'meta.v1.ObjectMeta';
    entries.push({
      name: field.name,
      key: `f:${field.name}`,
      structure: stays ? METADATA : structureOfField(field),
      ignored: ignored?.has(field.name) ?? false,
      stays,
      nullable: !field.omitEmpty && /^(\[\]|map\[)/.test(field.type),
    });
  }
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  return {
    fields: entries.filter(entry => !entry.ignored),
    byName: new Map(entries.map(entry => [entry.name, entry])),
  };
}

export const METADATA: Structure = {
  is: 'struct',
  atomic: false,
  table: once(() => tableOf(fieldsOf('meta.v1.ObjectMeta'), BOOKKEEPING)),
};

function structureOfField({ type, listType, listMapKeys = [], mapType }: BuiltinField): Structure {
  const rules = `${listType ?? ''} ${listMapKeys.join()} ${mapType ?? ''}`;
  const id = `${type} ${rules}`;
  let structure = structures.get(id);
  if (structure === undefined) structures.set(id, (structure = compile(type, { listType, listMapKeys, mapType })));
  return structure;
}

interface Rules {
  readonly listType?: BuiltinField['listType'];
  readonly listMapKeys?: readonly string[];
  readonly mapType?: BuiltinField['mapType'];
}

function compile(type: string, { listType = 'atomic', listMapKeys = [], mapType }: Rules): Structure {
  if (type.startsWith('[]')) {
    const item = type.slice(2);
    const fields = listType === 'map' ? fieldsOf(item) : undefined;
    const defaults: Record<string, unknown> = {};
    for (const key of listMapKeys) {
      const value = fields?.get(key)?.default;
      if (value !== undefined) defaults[key] = value;
    }
    return { is: 'list', type: listType, keys: [...listMapKeys].sort(), defaults, element: compile(item, {}) };
  }
  if (type.startsWith('map[string]'))
    return { is: 'map', atomic: mapType === 'atomic', element: compile(type.slice('map[string]'.length), {}) };
  if (hasType(type)) {
    const atomic = (mapType ?? typeSchema(type).structType) === 'atomic';
    return { is: 'struct', atomic, table: once(() => tableOf(fieldsOf(type), undefined)) };
  }
  switch (type) {
    case 'raw':
    case 'json':
    case 'fieldsV1':
      return DEDUCED;
    case 'int32':
    case 'int64':
    case 'double':
      return { is: 'scalar', expects: 'numeric' };
    case 'bool':
      return { is: 'scalar', expects: 'boolean' };
    case 'quantity':
    case 'intOrString':
      return { is: 'scalar', expects: 'any' };
    default:
      return { is: 'scalar', expects: 'string' };
  }
}

function once<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => (made ??= make());
}

/**
 * The path element of an item of a list that is a map or a set. Throws what upstream says about items without
 * identity.
 */
export function elementOf(list: ListStructure, item: unknown): string {
  if (list.type === 'set') {
    if (item === null) throw new Error("associative list without keys has an element that's an explicit null");
    if (Array.isArray(item)) throw new Error('not supported: associative list with lists as elements');
    if (typeof item === 'object') throw new Error("associative list without keys has an element that's a map type");
    return `v:${JSON.stringify(item)}`;
  }
  if (item === null) throw new Error('associative list with keys may not have a null element');
  if (typeof item !== 'object' || Array.isArray(item))
    throw new Error('associative list with keys may not have non-map elements');
  const fields = item as Record<string, unknown>;
  let text = '';
  for (const key of list.keys) {
    const value = fields[key] ?? list.defaults[key];
    if (value !== undefined) text += `${text === '' ? '{' : ','}${JSON.stringify(key)}:${JSON.stringify(value)}`;
  }
  if (text === '')
    throw new Error(
      `associative list with keys has an element that omits all key fields ${list.keys.map(key => JSON.stringify(key)).join(', ')} (and doesn't have default values for any key fields)`,
    );
  return `k:${text}}`;
}
