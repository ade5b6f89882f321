/**
 * The entries of `metadata.managedFields`: who owns which fields, by name, operation and subresource. Invariant: no two
 * entries have one identity, none is without fields, and they are in upstream's order. Entries are immutable.
 */

import type { ManagedFieldsEntry } from '../../api/meta.ts';
import type { Comparison } from './comparison.ts';
import { difference, type FieldSet, isFieldSet, union } from './field-set.ts';

/** Who writes, and how: what tells entries apart. */
export interface Identity {
  readonly manager: string;
  readonly operation: 'Apply' | 'Update';
  readonly apiVersion: string;
  /** '' for the object itself. */
  readonly subresource: string;
}

/** An entry of which everything is known. */
export interface Manager extends Identity {
  readonly fields: FieldSet | undefined;
  /** RFC 3339; '' when unknown. */
  readonly time: string;
}

/** Entries of updates that are kept apart; older ones are merged. */
const UPDATE_MANAGERS_MAX = 10;
const ANCIENT_CHANGES = 'ancient-changes';
const MANAGER_BYTES_MAX = 128;
const KNOWN_AGENTS_MAX = 256;

/** Undefined when the entries, which may come from a client, are not what upstream could decode. */
export function decodeManagers(entries: readonly ManagedFieldsEntry[] | undefined): Manager[] | undefined {
  const managers: Manager[] = [];
  for (const entry of entries ?? []) {
    const { manager = '', operation, apiVersion = '', time = '', fieldsType, fieldsV1, subresource = '' } = entry;
    if ((operation !== 'Apply' && operation !== 'Update') || fieldsType !== 'FieldsV1') return undefined;
    if (!isFieldSet(fieldsV1 ?? {})) return undefined;
    managers.push({
      manager,
      operation,
      apiVersion,
      time,
      subresource,
      fields: rootOf(fieldsV1 as FieldSet),
    });
  }
  return managers;
}

function rootOf(set: FieldSet | undefined): FieldSet | undefined {
  for (const _ in set) return set;
  return undefined;
}

/** A client empties the list by sending one empty entry. */
export function isReset(entries: readonly ManagedFieldsEntry[] | undefined): boolean {
  if (entries?.length !== 1) return false;
  return Object.values(entries[0]!).every(value => value === undefined || value === null || value === '');
}

export function encodeManagers(managers: readonly Manager[]): ManagedFieldsEntry[] {
  return managers.filter(manager => manager.fields !== undefined).map(encodeManager);
}

export function encodeManager({
  manager,
  operation,
  apiVersion,
  time,
  fields,
  subresource,
}: Manager): ManagedFieldsEntry {
  const entry: ManagedFieldsEntry = { manager, operation, apiVersion };
  if (time) entry.time = time;
  entry.fieldsType = 'FieldsV1';
  entry.fieldsV1 = fields ?? {};
  if (subresource) entry.subresource = subresource;
  return entry;
}

/** An applier is the same in whatever version it applies. */
export function isSame(a: Identity, b: Identity): boolean {
  return (
    a.manager === b.manager &&
    a.operation === b.operation &&
    a.subresource === b.subresource &&
    (a.operation === 'Apply' || a.apiVersion === b.apiVersion)
  );
}

/** What differs between old and new state in a version; 'missing' when the version is not served any more. */
export type CompareAt = (apiVersion: string) => Comparison | undefined | 'missing';

/**
 * The managers after somebody's change: others lose what was changed or removed. Those of `identity` only lose what was
 * removed. Managers of versions that are gone are forgotten.
 */
export function afterChange(managers: readonly Manager[], identity: Identity, compareAt: CompareAt): Manager[] {
  const next: Manager[] = [];
  for (const manager of managers) {
    const comparison = compareAt(manager.apiVersion);
    if (comparison === 'missing') continue;
    let { fields } = manager;
    if (comparison !== undefined) {
      if (!isSame(manager, identity)) fields = difference(fields, comparison.changed);
      fields = difference(fields, comparison.removed);
    }
    if (fields === manager.fields) next.push(manager);
    else if (fields !== undefined) next.push({ ...manager, fields });
  }
  return next;
}

/** The managers with `fields` added to those of `identity`, at that time. */
export function withFields(
  managers: readonly Manager[],
  identity: Identity,
  { fields, time }: { fields: FieldSet; time: string },
): Manager[] {
  const at = managers.findIndex(manager => isSame(manager, identity));
  const next = [...managers];
  if (at < 0) next.push({ ...identity, fields, time });
  else next[at] = { ...identity, fields: union(managers[at]!.fields, fields), time };
  return next;
}

/** As upstream writes them. */
export function inOrder(managers: Manager[]): Manager[] {
  if (managers.length < 2) return managers;
  return managers.sort(
    (a, b) =>
      order(a.operation, b.operation) ||
      order(a.time, b.time) ||
      order(a.manager, b.manager) ||
      order(a.apiVersion, b.apiVersion) ||
      order(a.subresource, b.subresource),
  );
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Merges the oldest updates of each version into one entry until there are few enough. */
export function withoutAncient(managers: readonly Manager[]): readonly Manager[] {
  const updates = managers.filter(manager => manager.operation === 'Update');
  let count = updates.length;
  if (count <= UPDATE_MANAGERS_MAX) return managers;
  const gone = new Set<Manager>();
  const first = new Map<string, Manager>();
  const buckets = new Map<string, Manager>();
  for (const update of updates.sort((a, b) => order(a.time, b.time) || order(a.manager, b.manager))) {
    if (count <= UPDATE_MANAGERS_MAX) break;
    const { apiVersion, time } = update;
    const bucket = buckets.get(apiVersion) ?? first.get(apiVersion);
    if (bucket === undefined) {
      first.set(apiVersion, update);
      continue;
    }
    gone.add(bucket).add(update);
    const fields = union(bucket.fields, update.fields);
    buckets.set(apiVersion, {
      manager: ANCIENT_CHANGES,
      operation: 'Update',
      apiVersion,
      subresource: '',
      time,
      fields,
    });
    count--;
  }
  return [...managers.filter(manager => !gone.has(manager)), ...buckets.values()];
}

const agents = new Map<string, string>();

/** The manager of a write: what the request names, or the first part of its User-Agent. */
export function managerOf(fieldManager: string | null | undefined, userAgent: string | undefined): string {
  if (fieldManager) return fieldManager;
  const agent = userAgent ?? '';
  let name = agents.get(agent);
  if (name === undefined) {
    name = '';
    let bytes = 0;
    for (const letter of agent.split('/', 1)[0]!) {
      if (!isPrintable(letter)) continue;
      bytes += Buffer.byteLength(letter);
      if (bytes > MANAGER_BYTES_MAX) break;
      name += letter;
    }
    if (agents.size >= KNOWN_AGENTS_MAX) agents.clear();
    agents.set(agent, name);
  }
  return name;
}

/** What is wrong with a `fieldManager` that a request names. */
export function fieldManagerProblem(
  fieldManager: string,
): { type: 'FieldValueTooLong' | 'FieldValueInvalid'; message: string } | undefined {
  if (Buffer.byteLength(fieldManager) > MANAGER_BYTES_MAX)
    return { type: 'FieldValueTooLong', message: `Too long: may not be more than ${MANAGER_BYTES_MAX} bytes` };
  const letters = [...fieldManager];
  const at = letters.findIndex(letter => !isPrintable(letter));
  if (at < 0) return undefined;
  return {
    type: 'FieldValueInvalid',
    message: `Invalid value: ${JSON.stringify(fieldManager)}: invalid character ${codePoint(letters[at]!)} (at position ${at})`,
  };
}

function codePoint(letter: string): string {
  return `U+${letter.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')}`;
}

function isPrintable(letter: string): boolean {
  return letter === ' ' || !/[\p{C}\p{Z}]/u.test(letter);
}
