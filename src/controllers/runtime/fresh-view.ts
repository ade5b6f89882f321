/**
 * An informer's objects with one's own latest writes on top, for controllers whose next decision must see the last one before
 * the watch brings it back. Invariant: an object is never older than what was written or seen. It writes nothing itself.
 */

import { type KubeObject, keyOf } from '../../api/meta.ts';
import type { Informer } from '../../client/informer.ts';

export class FreshView<T extends KubeObject> {
  readonly #informer: Informer<T>;
  readonly #written = new Map<string, T>();

  constructor(informer: Informer<T>) {
    this.#informer = informer;
    informer.onChange(({ object, old }) => {
      const key = keyOf((object ?? old)!);
      const written = this.#written.get(key);
      if (
        written &&
        (!object || revisionOf(object) >= revisionOf(written) || object.metadata.uid !== written.metadata.uid)
      )
        this.#written.delete(key);
    });
  }
  wrote(object: T): T {
    const key = keyOf(object);
    const known = this.#informer.get(key);
    if (!known || revisionOf(known) < revisionOf(object)) this.#written.set(key, object);
    return object;
  }
  get(key: string): T | undefined {
    return this.#written.get(key) ?? this.#informer.get(key);
  }
  *values(): Generator<T> {
    for (const object of this.#informer.values()) yield this.#written.get(keyOf(object)) ?? object;
  }
  fresh(object: T): T {
    return this.#written.get(keyOf(object)) ?? object;
  }
}

// Ours are numbers in order, as etcd's; clients elsewhere may not compare them.
function revisionOf(object: KubeObject): number {
  return Number(object.metadata.resourceVersion ?? 0);
}
