/**
 * Who depends on whom, as informers show it: only objects that name owners, or wait for the collector, take memory here.
 * Invariant: `dependentsOf(uid)` is exactly the objects whose ownerReferences contain the uid.
 */

import { type KubeObject, keyOf, type OwnerReference } from '../../api/meta.ts';
import type { ResourceInfo } from '../../api/schema.ts';
import type { Change } from '../runtime/controller.ts';

export const FOREGROUND = 'foregroundDeletion';
export const ORPHAN = 'orphan';

export interface Item {
  readonly uid: string;
  readonly key: string;
  readonly info: ResourceInfo;
  readonly owners: readonly OwnerReference[];
}

export const isDeleting = (object: KubeObject): boolean => object.metadata.deletionTimestamp !== undefined;
export const hasFinalizer = (object: KubeObject, finalizer: string): boolean =>
  object.metadata.finalizers?.includes(finalizer) === true;
/** Being deleted in the foreground: it goes after its dependents. */
export const awaitsDependents = (object: KubeObject): boolean => isDeleting(object) && hasFinalizer(object, FOREGROUND);

const NOTHING: readonly string[] = [];

function sameOwners(a: readonly OwnerReference[], b: readonly OwnerReference[]): boolean {
  return (
    a === b ||
    (a.length === b.length &&
      a.every((owner, i) => owner.uid === b[i]!.uid && owner.blockOwnerDeletion === b[i]!.blockOwnerDeletion))
  );
}

export class Graph {
  readonly #items = new Map<string, Item>();
  readonly #dependents = new Map<string, Set<string>>();

  item(uid: string): Item | undefined {
    return this.#items.get(uid);
  }
  dependentsOf(uid: string): Item[] {
    return [...(this.#dependents.get(uid) ?? [])].map(dependent => this.#items.get(dependent)!);
  }

  /** Takes in a change; returns the uids to look at because of it. */
  apply(info: ResourceInfo, change: Change): Iterable<string> {
    if (!change.deleted && !change.old && !change.object.metadata.ownerReferences && !isDeleting(change.object))
      return NOTHING;
    const uids = new Set<string>();
    if (change.deleted) {
      const uid = change.old.metadata.uid!;
      for (const dependent of this.#dependents.get(uid) ?? []) uids.add(dependent);
      this.#remove(uid, uids);
      return uids;
    }
    const { object, old } = change;
    const uid = object.metadata.uid!;
    // The same name with another uid: the old object has gone unseen.
    if (old && old.metadata.uid !== uid)
      for (const gone of this.apply(info, { object: undefined, old, deleted: true })) uids.add(gone);
    const owners = object.metadata.ownerReferences ?? [];
    const awaited = isDeleting(object) && (hasFinalizer(object, FOREGROUND) || hasFinalizer(object, ORPHAN));
    const before = this.#items.get(uid);
    if (!sameOwners(before?.owners ?? [], owners)) {
      for (const owner of before?.owners ?? []) this.#unlink(owner.uid, uid, uids);
      for (const owner of owners) this.#link(owner.uid, uid);
      if (owners.length > 0) uids.add(uid);
    }
    if (owners.length > 0 || awaited) this.#items.set(uid, { uid, key: keyOf(object), info, owners });
    else this.#items.delete(uid);
    if (awaited) {
      uids.add(uid);
      if (hasFinalizer(object, FOREGROUND))
        for (const dependent of this.#dependents.get(uid) ?? []) uids.add(dependent);
    }
    return uids;
  }

  #link(owner: string, uid: string): void {
    let set = this.#dependents.get(owner);
    if (!set) this.#dependents.set(owner, (set = new Set()));
    set.add(uid);
  }
  #unlink(owner: string, uid: string, uids: Set<string>): void {
    const set = this.#dependents.get(owner);
    set?.delete(uid);
    if (set?.size === 0) this.#dependents.delete(owner);
    // An owner that waits for its dependents has one less to wait for.
    if (this.#items.has(owner)) uids.add(owner);
  }
  #remove(uid: string, uids: Set<string>): void {
    for (const owner of this.#items.get(uid)?.owners ?? []) this.#unlink(owner.uid, uid, uids);
    this.#items.delete(uid);
  }
}
