/**
 * Keeps `metadata.managedFields` of every object that is written: the registry calls it with the defaulted object, before
 * admission changes it. It decides only about those entries. A write that changes nothing leaves them as they are.
 */

import type { KubeObject, ManagedFieldsEntry } from '../../api/meta.ts';
import { type Clock, formatTime } from '../../base/clock.ts';
import type { Operation } from '../registry.ts';
import type { ResourceTable, Served } from '../resource-table.ts';
import { comparer } from './apply.ts';
import { compareObjects, isEqual } from './comparison.ts';
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

export class FieldTracker {
  readonly #resources: ResourceTable;
  readonly #clock: Clock;
  readonly #versions = new WeakMap<Served, Map<string, Versions>>();
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

  /** Sets the entries of an object that is created. What an apply has set already stays. */
  created(operation: Operation, object: KubeObject): void {
    const { fieldManager } = operation;
    if (fieldManager === undefined || operation.applied) return;
    const versions = this.versions(operation);
    const identity = identityOf(operation, versions, 'Update');
    const sent = object.metadata.managedFields;
    const managers = sent?.length && !isReset(sent) ? decodeManagers(sent) : undefined;
    if (managers?.length) {
      this.#track(object, { identity, managers, versions, before: versions.empty, after: versions.shown(object) });
      return;
    }
    // What nearly every create is.
    const fields = compareObjects(versions.table, versions.empty, versions.shown(object))?.changed;
    if (fields === undefined) delete object.metadata.managedFields;
    else object.metadata.managedFields = [encodeManager({ ...identity, fields, time: this.now() })];
  }

  /** Sets the entries of an object that replaces `old`; `object` may hold entries that its client sent. */
  updated(operation: Operation, object: KubeObject, old: KubeObject): void {
    const { metadata } = object;
    if (operation.applied) return keepTimes(object, old);
    if (operation.fieldManager === undefined) return;
    const sent = operation.attributes.subresource ? old.metadata.managedFields : metadata.managedFields;
    if (isReset(sent)) {
      delete metadata.managedFields;
      return;
    }
    const decoded = sent === old.metadata.managedFields ? undefined : decodeManagers(sent);
    const managers = decoded?.length ? decoded : decodeManagers(old.metadata.managedFields);
    // Whoever does not record from the beginning cannot say who owns the rest.
    if (!managers?.length) {
      delete metadata.managedFields;
      return;
    }
    if (decoded?.length) setEntries(object, encodeManagers(inOrder([...decoded])));
    else metadata.managedFields = old.metadata.managedFields!;
    const versions = this.versions(operation);
    const identity = identityOf(operation, versions, 'Update');
    const [before, after] = [versions.shown(old), versions.shown(object)];
    this.#track(object, { identity, managers, versions, before, after });
  }

  #track(
    object: KubeObject,
    change: {
      identity: Identity;
      managers: readonly Manager[];
      versions: Versions;
      before: KubeObject;
      after: KubeObject;
    },
  ): void {
    const { identity, managers, versions, before, after } = change;
    const compareAt = comparer(versions, before, after);
    const own = compareAt(versions.apiVersion);
    if (own === undefined || own === 'missing') return;
    let next = afterChange(managers, identity, compareAt);
    if (own.changed) next = withFields(next, identity, { fields: own.changed, time: this.now() });
    setEntries(object, encodeManagers(inOrder([...withoutAncient(next)])));
  }
}

export function identityOf(operation: Operation, versions: Versions, kind: Identity['operation']): Identity {
  return {
    manager: operation.fieldManager ?? '',
    operation: kind,
    apiVersion: versions.apiVersion,
    subresource: operation.attributes.subresource,
  };
}

export function setEntries({ metadata }: KubeObject, entries: ManagedFieldsEntry[]): void {
  if (entries.length > 0) metadata.managedFields = entries;
  else delete metadata.managedFields;
}

// An apply that changes nothing but times is no change.
function keepTimes(object: KubeObject, old: KubeObject): void {
  const { managedFields: entries = [], ...metadata } = object.metadata;
  const { managedFields: oldEntries = [], resourceVersion: _, ...oldMetadata } = old.metadata;
  if (!isEqual(withoutTimes(entries), withoutTimes(oldEntries))) return;
  delete metadata.resourceVersion;
  if (isEqual({ ...object, metadata }, { ...old, metadata: oldMetadata }) && old.metadata.managedFields)
    object.metadata.managedFields = old.metadata.managedFields;
}

function withoutTimes(entries: readonly ManagedFieldsEntry[]): unknown[] {
  return entries.map(({ time: _, ...entry }) => entry).sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
}
