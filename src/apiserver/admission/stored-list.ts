/** All objects of a resource in the order of their names, read anew only when one has changed: admission asks on every write. */

import type { KubeObject } from '../../api/meta.ts';
import type { ResourceId } from '../../client/transport.ts';
import type { Reader } from '../request.ts';

export class StoredList<T extends KubeObject> {
  readonly #reader: () => Reader;
  readonly #of: ResourceId;
  #items: readonly T[] | undefined;
  #follows = false;

  constructor(reader: () => Reader, of: ResourceId) {
    this.#reader = reader;
    this.#of = of;
  }

  get items(): readonly T[] {
    if (this.#items) return this.#items;
    const reader = this.#reader();
    if (!this.#follows) {
      this.#follows = true;
      reader.onChange(this.#of, () => {
        this.#items = undefined;
      });
    }
    const items = [...reader.list(this.#of)] as unknown as T[];
    this.#items = items.sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
    return this.#items;
  }
}
