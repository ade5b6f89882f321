/**
 * Applying a configuration to a live object: what the object becomes, who owns what then, and with whom that conflicts.
 * Pure: it reads no clock and stores nothing. Fields are removed only when the applier owned them, no longer names them,
 * and nobody else owns them.
 */

import type { KubeObject } from '../../api/meta.ts';
import { ApiError } from '../../base/errors.ts';
import { type Comparison, compareObjects, isEqual } from './comparison.ts';
import { fieldsNamed, withNamedFields } from './configuration.ts';
import { difference, type FieldSet, intersection, pathsOf, union } from './field-set.ts';
import { KUBECTL, vouchedByLastApplied, withLastApplied } from './last-applied.ts';
import { afterChange, type CompareAt, type Identity, isSame, type Manager } from './managers.ts';
import { mergeConfiguration, removeFields } from './merge.ts';
import type { Version, Versions } from './versions.ts';

const BEFORE_FIRST_APPLY = 'before-first-apply';

export interface Application {
  readonly versions: Versions;
  /** In the request's version, as `configuration` is; `versions.empty` when the object does not exist yet. */
  readonly live: KubeObject;
  readonly configuration: KubeObject;
  readonly managers: readonly Manager[];
  readonly identity: Identity;
  readonly force: boolean;
  /** RFC 3339. */
  readonly time: string;
  /** The object as it would be stored: without nulls and empty values, quantities in canonical form. Throws for bad ones. */
  readonly settle: (object: KubeObject) => KubeObject;
}

export interface Applied {
  /** As the client wrote its part: not normalised, not defaulted. */
  readonly object: KubeObject;
  readonly managers: readonly Manager[];
}

/** Throws the 409 that names every conflicting field and its manager. */
export function applyConfiguration(application: Application): Applied {
  const { versions, live, configuration, identity, time, force } = application;
  const { table } = versions;
  const before = knownManagers(application);
  const last = before.find(manager => isSame(manager, identity));
  const fields = fieldsNamed(table, configuration);
  const mine: Manager = { ...identity, fields, time: last?.time || time };
  const managers = [...before.filter(manager => manager !== last), mine];
  const merged = mergeConfiguration(table, live, configuration);
  const object = last?.fields ? prune(merged, { versions, managers, last }) : merged;
  const compareAt = effective(comparer(versions, live, object), comparer(versions, live, application.settle(object)));
  const conflicts = conflictsOf(managers, identity, compareAt);
  if (conflicts.length > 0 && !force) {
    const vouched = identity.manager === KUBECTL ? vouchedByLastApplied(table, live) : undefined;
    const open = conflicts.flatMap(conflict => {
      const rest = difference(conflict.fields, vouched);
      return rest === undefined ? [] : [{ ...conflict, fields: rest }];
    });
    if (open.length > 0) throw conflictError(open);
  }
  const changed = compareAt(versions.apiVersion) !== undefined;
  const renewed = changed || last === undefined || !isEqual(last.fields, fields);
  const after = afterChange(managers, identity, compareAt);
  return {
    object: identity.manager === KUBECTL ? withLastApplied(object, configuration) : object,
    managers: renewed ? after.map(manager => (isSame(manager, identity) ? { ...manager, time } : manager)) : after,
  };
}

// What was there before anybody was recorded belongs to a manager of its own.
function knownManagers({ managers, versions, live, identity, time }: Application): readonly Manager[] {
  if (managers.length > 0) return managers;
  const fields = compareObjects(versions.table, versions.empty, live)?.changed;
  if (fields === undefined) return [];
  return [{ ...identity, manager: BEFORE_FIRST_APPLY, operation: 'Update', fields, time }];
}

/** Compares two objects of the request's version in any version, each once. */
export function comparer(versions: Versions, before: KubeObject, after: KubeObject): CompareAt {
  const known = new Map<string, Comparison | undefined | 'missing'>();
  return apiVersion => {
    if (known.has(apiVersion)) return known.get(apiVersion);
    const version = versions.at(apiVersion);
    const comparison = version
      ? compareObjects(version.table, version.to(before), version.to(after))
      : ('missing' as const);
    known.set(apiVersion, comparison);
    return comparison;
  };
}

// Writing what is there already in other words (`false` for nothing, 1000m for 1) changes no field of anybody.
function effective(raw: CompareAt, settled: CompareAt): CompareAt {
  return apiVersion => {
    const asWritten = raw(apiVersion);
    const asStored = settled(apiVersion);
    if (asWritten === undefined || asWritten === 'missing' || asStored === 'missing') return asWritten;
    const changed = intersection(asWritten.changed, union(asStored?.changed, asStored?.removed));
    const { removed } = asWritten;
    return changed === undefined && removed === undefined ? undefined : { changed, removed };
  };
}

interface Pruning {
  readonly versions: Versions;
  /** With the applier's new fields. */
  readonly managers: readonly Manager[];
  readonly last: Manager;
}

// Without the fields that the applier gave up and nobody else has.
function prune(merged: KubeObject, { versions, managers, last }: Pruning): KubeObject {
  const version = versions.at(last.apiVersion);
  if (!version) return merged;
  const { table } = version;
  const whole = version.to(merged);
  const given = withNamedFields(table, last.fields);
  const owned = addBackOwned({ whole, pruned: removeFields(table, whole, given) }, { versions, managers, version });
  // Only what the applier had may go, not what came along under it.
  const gone = difference(namedIn(version, whole), namedIn(version, owned));
  return version.from(removeFields(table, whole, intersection(gone, given)));
}

function addBackOwned(
  { whole, pruned }: { whole: KubeObject; pruned: KubeObject },
  { versions, managers, version }: { versions: Versions; managers: readonly Manager[]; version: Version },
): KubeObject {
  const byVersion = new Map<string, FieldSet | undefined>();
  for (const { apiVersion, fields } of managers) byVersion.set(apiVersion, union(byVersion.get(apiVersion), fields));
  let rest = version.from(pruned);
  const all = version.from(whole);
  for (const [apiVersion, fields] of byVersion) {
    const other = versions.at(apiVersion);
    if (!other) continue;
    const kept = union(namedIn(other, other.to(rest)), withNamedFields(other.table, fields));
    const full = other.to(all);
    rest = other.from(removeFields(other.table, full, difference(namedIn(other, full), kept)));
  }
  return version.to(rest);
}

function namedIn({ table }: Version, object: KubeObject): FieldSet | undefined {
  return withNamedFields(table, fieldsNamed(table, object));
}

function conflictsOf(managers: readonly Manager[], identity: Identity, compareAt: CompareAt): Manager[] {
  return managers.flatMap(manager => {
    if (isSame(manager, identity)) return [];
    const comparison = compareAt(manager.apiVersion);
    if (comparison === undefined || comparison === 'missing') return [];
    const fields = intersection(manager.fields, comparison.changed);
    return fields === undefined ? [] : [{ ...manager, fields }];
  });
}

function conflictError(conflicts: readonly Manager[]): ApiError {
  const all = conflicts.flatMap(manager => pathsOf(manager.fields).map(path => ({ who: managerText(manager), path })));
  return new ApiError({
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    message: conflictMessage(all),
    reason: 'Conflict',
    details: {
      causes: all.map(({ who, path }) => ({
        reason: 'FieldManagerConflict',
        message: `conflict with ${who}`,
        field: path,
      })),
    },
    code: 409,
  });
}

function conflictMessage(conflicts: readonly { who: string; path: string }[]): string {
  const [first] = conflicts;
  if (conflicts.length === 1) return `Apply failed with 1 conflict: conflict with ${first!.who}: ${first!.path}`;
  const lines: string[] = [];
  for (const who of [...new Set(conflicts.map(conflict => conflict.who))].sort()) {
    lines.push(`conflicts with ${who}:`);
    for (const conflict of conflicts) if (conflict.who === who) lines.push(`- ${conflict.path}`);
  }
  return `Apply failed with ${conflicts.length} conflicts: ${lines.join('\n')}`;
}

function managerText({ manager, operation, apiVersion, subresource }: Manager): string {
  const where = subresource ? ` with subresource ${JSON.stringify(subresource)}` : '';
  return `${JSON.stringify(manager)}${where}${operation === 'Update' ? ` using ${apiVersion}` : ''}`;
}
