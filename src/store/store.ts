/**
 * The store's contract: a revisioned key-value log with etcd's semantics. One revision counter for the whole store; each
 * commit takes the next number. A commit that was acknowledged is on disk.
 */

export type Key = string;
export type Revision = number;

export interface Entry {
  readonly key: Key;
  readonly value: Uint8Array;
  readonly createRevision: Revision;
  readonly modRevision: Revision;
}

export interface Page {
  readonly entries: readonly Entry[];
  /** The revision that the page shows. */
  readonly revision: Revision;
  /** Another page follows; ask with `after` = the last key. */
  readonly more: boolean;
}

export interface Put {
  readonly type: 'put';
  readonly key: Key;
  readonly value: Uint8Array;
  /** modRevision that the key must have, or 'absent'; without it the put is unconditional. */
  readonly expect?: Revision | 'absent';
}

export interface Delete {
  readonly type: 'delete';
  readonly key: Key;
  readonly expect?: Revision;
}

export type StoreEvent =
  | { readonly type: 'put'; readonly entry: Entry; readonly previous?: Entry }
  | { readonly type: 'delete'; readonly key: Key; readonly revision: Revision; readonly previous: Entry };

/** Everything up to `revision` has been delivered. */
export interface Progress {
  readonly type: 'progress';
  readonly revision: Revision;
}

/** A commit without what it superseded. */
export type Change =
  | { readonly type: 'put'; readonly entry: Entry }
  | { readonly type: 'delete'; readonly key: Key; readonly revision: Revision };

/** The compare failed; `current` is what is there now (undefined: absent). */
export class ConflictError extends Error {
  override name = 'ConflictError';
  readonly key: Key;
  readonly current: Entry | undefined;
  constructor(key: Key, current: Entry | undefined) {
    super(`conflict on ${key}`);
    this.key = key;
    this.current = current;
  }
}

export class CompactedError extends Error {
  override name = 'CompactedError';
  readonly compactedAt: Revision;
  constructor(compactedAt: Revision) {
    super(`required revision has been compacted; oldest available is ${compactedAt + 1}`);
    this.compactedAt = compactedAt;
  }
}

export class FutureRevisionError extends Error {
  override name = 'FutureRevisionError';
  readonly current: Revision;
  constructor(asked: Revision, current: Revision) {
    super(`required revision ${asked} is a future revision; current is ${current}`);
    this.current = current;
  }
}

export interface Store {
  /** Revision of the newest commit; 0 when empty… the first commit gets 1 or more. */
  revision(): Revision;
  get(key: Key, at?: Revision): Promise<Entry | undefined>;
  /** Entries under the prefix in key order. */
  list(prefix: Key, page?: { at?: Revision; limit?: number; after?: Key }): Promise<Page>;
  /**
   * Durable when it resolves; concurrent commits share one flush. Commits of one caller are applied in call order.
   * A delete of an absent key throws ConflictError. Throws ConflictError when `expect` does not hold, once what is there instead can be read.
   */
  commit(op: Put | Delete): Promise<Revision>;
  /** Events under the prefix with revision > `from`, in order, without gaps, then live. Throws CompactedError. */
  watch(prefix: Key, from: Revision, signal: AbortSignal): AsyncIterable<StoreEvent | Progress>;
  /**
   * Calls `apply` for each commit of any key with revision > `from`, in order, without gaps: at once for those that are
   * there, later ones in the turn in which they become durable, before their `commit` resolves. Resolves when the signal
   * aborts or the store is closed. Throws CompactedError, and what `apply` throws, after which it is not called again.
   */
  follow(from: Revision, apply: (change: Change) => void, signal: AbortSignal): Promise<void>;
  /** Whether an unchanged value is worth writing again, because it would be kept in another form (encryption). */
  isStale?(key: Key): boolean;
  /** What it takes up on disk; absent where it has none. */
  bytesOnDisk?(): number;
  /** Forgets history up to and including `before`; current values stay. */
  compact(before: Revision): Promise<void>;
  close(): Promise<void>;
}
