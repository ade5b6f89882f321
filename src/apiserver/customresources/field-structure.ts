/** A structural schema as field ownership sees it: which parts merge and which are replaced whole. */

import type { SchemaNode } from '../../api/apiextensions/structural-schema.ts';
import {
  DEDUCED,
  type FieldEntry,
  type FieldTable,
  IGNORED,
  METADATA,
  type Scope,
  type Structure,
} from '../apply/structure.ts';

const TOP_FIELDS = ['apiVersion', 'kind', 'metadata'];

/** The fields of a custom resource that a request of the scope can own. */
export function customFields(root: SchemaNode, scope: Scope): FieldTable {
  const ignored = new Set(['apiVersion', 'kind', ...IGNORED[scope]]);
  const entries = new Map<string, FieldEntry>();
  const add = (name: string, structure: Structure) =>
    entries.set(name, {
      name,
      key: `f:${name}`,
      structure,
      ignored: ignored.has(name),
      stays: name === 'metadata',
      nullable: false,
    });
  for (const name of TOP_FIELDS) add(name, name === 'metadata' ? METADATA : { is: 'scalar', expects: 'string' });
  for (const [name, node] of root.properties) if (!TOP_FIELDS.includes(name)) add(name, structureOf(node));
  return tableOf(entries, root.preserves || root.additional !== undefined);
}

function tableOf(entries: ReadonlyMap<string, FieldEntry>, isOpen: boolean): FieldTable {
  const fields = [...entries.values()].filter(entry => !entry.ignored).sort((a, b) => (a.name < b.name ? -1 : 1));
  return { fields, byName: entries, ...(isOpen ? { isOpen: true } : {}) };
}

function structureOf(node: SchemaNode): Structure {
  if (node.intOrString) return { is: 'scalar', expects: 'any' };
  switch (node.type) {
    case 'array':
      return listOf(node);
    case 'object':
      return objectOf(node);
    case 'integer':
    case 'number':
      return { is: 'scalar', expects: 'numeric' };
    case 'boolean':
      return { is: 'scalar', expects: 'boolean' };
    case 'string':
      return { is: 'scalar', expects: 'string' };
    default:
      return node.preserves ? DEDUCED : node.properties.size > 0 ? objectOf(node) : DEDUCED;
  }
}

function listOf(node: SchemaNode): Structure {
  const defaults: Record<string, unknown> = {};
  for (const key of node.listKeys) {
    const value = node.items?.properties.get(key)?.default;
    if (value !== undefined) defaults[key] = value;
  }
  const element = node.items ? structureOf(node.items) : DEDUCED;
  return { is: 'list', type: node.listType, keys: [...node.listKeys].sort(), defaults, element };
}

function objectOf(node: SchemaNode): Structure {
  const { properties, additional, preserves, mapAtomic } = node;
  if (properties.size === 0 && !node.embedded) {
    if (additional && additional !== true) return { is: 'map', atomic: mapAtomic, element: structureOf(additional) };
    // Any fields: what they hold is all there is to go by.
    if (mapAtomic) return { is: 'map', atomic: true, element: DEDUCED };
    if (preserves || additional === true) return DEDUCED;
  }
  let table: FieldTable | undefined;
  const make = () => {
    const entries = new Map<string, FieldEntry>();
    const add = (name: string, structure: Structure) =>
      entries.set(name, { name, key: `f:${name}`, structure, ignored: false, stays: false, nullable: false });
    for (const [name, field] of properties) add(name, structureOf(field));
    if (node.embedded)
      for (const name of TOP_FIELDS)
        if (!entries.has(name)) add(name, name === 'metadata' ? DEDUCED : { is: 'scalar', expects: 'string' });
    return tableOf(entries, preserves || additional !== undefined);
  };
  return { is: 'struct', atomic: mapAtomic, table: () => (table ??= make()) };
}
