/**
 * A map whose string keys can be walked in code-unit order. Keys live in chunks of bounded length, so that inserting
 * into a large map moves few of them. Whoever only writes does not pay for the order: new keys get their place, many at
 * once, when somebody walks. It must not be changed while a walk is under way.
 */

const CHUNK_KEYS_MAX = 512;
/** New keys that may wait for their place: it takes some milliseconds to place so many. */
const UNPLACED_KEYS_MAX = 8192;
/** From so many on it is quicker to go through all chunks than to look for each key's. */
const MERGED_KEYS_MIN = 64;

export class SortedMap<V> {
  readonly #values = new Map<string, V>();
  #chunks: string[][] = [];
  #unplaced: string[] = [];

  get size(): number {
    return this.#values.size;
  }
  get(key: string): V | undefined {
    return this.#values.get(key);
  }
  has(key: string): boolean {
    return this.#values.has(key);
  }
  /** All values, in no particular order. */
  values(): IterableIterator<V> {
    return this.#values.values();
  }
  set(key: string, value: V): void {
    const { size } = this.#values;
    this.#values.set(key, value);
    if (this.#values.size > size && this.#unplaced.push(key) >= UNPLACED_KEYS_MAX) this.#place();
  }
  delete(key: string): boolean {
    if (!this.#values.delete(key)) return false;
    this.#place();
    const at = this.#chunkOf(key);
    const chunk = this.#chunks[at]!;
    chunk.splice(lowerBound(chunk, key), 1);
    if (chunk.length === 0) this.#chunks.splice(at, 1);
    return true;
  }
  /**
   * Visits entries under the prefix in key order, from the first key greater than `after`, until `visit` returns false.
   */
  walk(prefix: string, after: string | undefined, visit: (value: V, key: string) => boolean | undefined): void {
    this.#place();
    const from = after !== undefined && after >= prefix ? after : prefix;
    let at = this.#chunkOf(from);
    if (at >= this.#chunks.length) return;
    let index = lowerBound(this.#chunks[at]!, from);
    for (; at < this.#chunks.length; at++, index = 0) {
      const chunk = this.#chunks[at]!;
      for (; index < chunk.length; index++) {
        const key = chunk[index]!;
        if (key === after) continue;
        if (!key.startsWith(prefix)) return;
        if (visit(this.#values.get(key)!, key) === false) return;
      }
    }
  }

  // The chunk that holds the key or would: the last one whose first key is not greater.
  #chunkOf(key: string): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#chunks[middle]![0]! <= key) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }
  #place(): void {
    if (this.#unplaced.length === 0) return;
    const keys = this.#unplaced;
    this.#unplaced = [];
    if (keys.length < MERGED_KEYS_MIN) for (const key of keys) this.#insert(key);
    else this.#merge(keys.sort());
  }
  #merge(keys: readonly string[]): void {
    const chunks = this.#chunks.length > 0 ? this.#chunks : [[]];
    this.#chunks = [];
    let next = 0;
    for (let at = 0; at < chunks.length; at++) {
      const chunk = chunks[at]!;
      const end = chunks[at + 1]?.[0];
      const { length } = chunk;
      while (next < keys.length && (end === undefined || keys[next]! < end)) chunk.push(keys[next++]!);
      // Two runs in order, which sorting finds.
      if (chunk.length > length && length > 0 && chunk[length]! < chunk[length - 1]!) chunk.sort();
      for (let from = 0; from < chunk.length; from += CHUNK_KEYS_MAX)
        this.#chunks.push(chunk.length <= CHUNK_KEYS_MAX ? chunk : chunk.slice(from, from + CHUNK_KEYS_MAX));
    }
  }
  #insert(key: string): void {
    const at = this.#chunkOf(key);
    const chunk = this.#chunks[at];
    if (!chunk) {
      this.#chunks.push([key]);
      return;
    }
    const index = lowerBound(chunk, key);
    if (index === chunk.length) chunk.push(key);
    else chunk.splice(index, 0, key);
    if (chunk.length <= CHUNK_KEYS_MAX) return;
    // Keys that arrive in order leave full chunks behind, not half-empty ones.
    const cut = index === chunk.length - 1 ? CHUNK_KEYS_MAX : CHUNK_KEYS_MAX >> 1;
    this.#chunks.splice(at + 1, 0, chunk.splice(cut));
  }
}

function lowerBound(keys: readonly string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (keys[middle]! < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
