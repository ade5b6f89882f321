/**
 * Keeps `metadata.managedFields` of every object that is written: the registry calls it with the defaulted object, before
 * admission changes it. It decides only about those entries. A write that changes nothing leaves them as they are.
 */

import type { KubeObject, ManagedFieldsEntry } from '../../api/meta.ts';
import { type Clock, formatTime } from '../../base/clock.ts';
import { deepFreeze } from '../entry.ts';
import type { Operation } from '../registry.ts';
import type { ResourceTable, Served } from '../resource-table.ts';
import { comparer } from './apply.ts';
import { compareObjects, isEqual } from './comparison.ts';
import type { FieldSet } from './field-set.ts';
import {
  afterChange,
  decodeManagers,
  encodeManager,
  encodeManagers,
  type Identity,
  inOrder,
  isReset,
  type Manager,
  withFields,
  withoutAncient,
} from './managers.ts';
import { Versions } from './versions.ts';

type Entries = ManagedFieldsEntry[];

export class FieldTracker {
  readonly #resources: ResourceTable;
  readonly #clock: Clock;
  readonly #versions = new WeakMap<Served, Map<string, Versions>>();
  readonly #lastCreated = new WeakMap<Served, ManagedFieldsEntry>();
  #second = -1;
  #time = '';

  constructor(options: { resources: ResourceTable; clock: Clock }) {
    this.#resources = options.resources;
    this.#clock = options.clock;
  }

  /** The current time as entries have it. */
  now(): string {
    const second = Math.floor(this.#clock.now() / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#time = formatTime(second * 1000);
    }
    return this.#time;
  }

  versions({ served, attributes: { subresource } }: Operation): Versions {
    let bySubresource = this.#versions.get(served);
    if (!bySubresource) this.#versions.set(served, (bySubresource = new Map()));
    let versions = bySubresource.get(subresource);
    if (!versions) bySubresource.set(subresource, (versions = new Versions(served, subresource, this.#resources)));
    return versions;
  }

  /**
   * Takes the entries off an object that is created and returns those that it is to be stored with, in canonical form:
   * they are shared, and nothing between here and the store has to copy them. Those that an apply has set stay as they are.
   */
  created(operation: Operation, object: KubeObject): Entries | undefined {
    const { fieldManager } = operation;
    const sent = takeEntries(object);
    if (fieldManager === undefined || operation.applied) return sent;
    const versions = this.versions(operation);
    const [before, after] = [versions.empty, versions.shown(object)];
    const managers = sent?.length && !isReset(sent) ? decodeManagers(sent) : undefined;
    if (managers?.length) {
      const identity = identityOf(operation, versions, 'Update');
      return this.#track({ identity, managers, versions, before, after }) ?? entriesOf(managers);
    }
    // What nearly every create is: objects made alike share their entry, in memory as well.
    const fields = compareObjects(versions.table, before, after)?.changed;
    if (fields === undefined) return undefined;
    const time = this.now();
    let entry = this.#lastCreated.get(operation.served);
    const alike = entry !== undefined && isEqual(entry.fieldsV1, fields);
    if (!alike || entry!.time !== time || entry!.manager !== fieldManager) {
      const shared = alike ? (entry!.fieldsV1 as FieldSet) : fields;
      const identity = identityOf(operation, versions, 'Update');
      entry = deepFreeze(encodeManager({ ...identity, fields: shared, time }));
      this.#lastCreated.set(operation.served, entry);
    }
    return [entry!];
  }

  /** As `created`, for an object that replaces `old` and may hold entries that its client sent. */
  updated(operation: Operation, object: KubeObject, old: KubeObject): Entries | undefined {
    const own = takeEntries(object);
    if (operation.applied)
      return isSameBesidesTimes({ object, entries: own }, old) ? copyOf(old.metadata.managedFields) : own;
    if (operation.fieldManager === undefined) return own;
    const stored = old.metadata.managedFields;
    const sent = operation.attributes.subresource ? stored : own;
    if (isReset(sent)) return undefined;
    const decoded = sent === stored ? undefined : decodeManagers(sent);
    const managers = decoded?.length ? decoded : decodeManagers(stored);
    // Whoever is not recorded from the beginning cannot be told from others.
    if (!managers?.length) return undefined;
    const versions = this.versions(operation);
    const identity = identityOf(operation, versions, 'Update');
    const [before, after] = [versions.shown(old), versions.shown(object)];
    const tracked = this.#track({ identity, managers, versions, before, after });
    return tracked ?? (decoded?.length ? entriesOf(managers) : copyOf(stored));
  }

  // Undefined when nothing changed that anybody could own.
  #track(change: {
    identity: Identity;
    managers: readonly Manager[];
    versions: Versions;
    before: KubeObject;
    after: KubeObject;
  }): Entries | undefined {
    const { identity, managers, versions, before, after } = change;
    const compareAt = comparer(versions, before, after);
    const own = compareAt(versions.apiVersion);
    if (own === undefined || own === 'missing') return undefined;
    let next = afterChange(managers, identity, compareAt);
    if (own.changed) next = withFields(next, identity, { fields: own.changed, time: this.now() });
    return entriesOf(next);
  }
}

/** Entries for managers: few enough, in order, in canonical form. */
export function entriesOf(managers: readonly Manager[]): Entries {
  return encodeManagers(inOrder([...withoutAncient(managers)]));
}

// JSON.stringify leaves its fast path at a frozen array, which costs more than the copy; frozen entries cost nothing.
function copyOf(entries: Entries | undefined): Entries | undefined {
  return entries && [...entries];
}

function takeEntries({ metadata }: KubeObject): Entries | undefined {
  const { managedFields } = metadata;
  if (managedFields !== undefined) delete metadata.managedFields;
  return managedFields;
}

export function identityOf(operation: Operation, versions: Versions, kind: Identity['operation']): Identity {
  return {
    manager: operation.fieldManager ?? '',
    operation: kind,
    apiVersion: versions.apiVersion,
    subresource: operation.attributes.subresource,
  };
}

// An apply that changes nothing but times is no change.
function isSameBesidesTimes(next: { object: KubeObject; entries: Entries | undefined }, old: KubeObject): boolean {
  const { managedFields: oldEntries = [], resourceVersion: _, ...oldMetadata } = old.metadata;
  if (!isEqual(withoutTimes(next.entries ?? []), withoutTimes(oldEntries))) return false;
  const { resourceVersion: __, ...metadata } = next.object.metadata;
  return isEqual({ ...next.object, metadata }, { ...old, metadata: oldMetadata });
}

function withoutTimes(entries: readonly ManagedFieldsEntry[]): unknown[] {
  return entries.map(({ time: _, ...entry }) => entry).sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
}
