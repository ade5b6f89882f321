/**
 * The store over an append-only log of records, one a revision; each value is kept once, in its record. The index from
 * keys to revisions lives in memory and is rebuilt from the log when the store opens.
 * Invariants: revisions are dense; what readers and watchers see is on the log's disk; a commit is compared with
 * everything accepted before it, written or still on its way. It refuses to guess after a failed append: every commit
 * that may depend on it fails as well.
 */

import { assert } from '../base/assert.ts';
import { SortedMap } from './sorted-map.ts';
import {
  type Change,
  CompactedError,
  ConflictError,
  type Delete,
  type Entry,
  FutureRevisionError,
  type Key,
  type Page,
  type Progress,
  type Put,
  type Revision,
  type Store,
  type StoreEvent,
} from './store.ts';

/** One commit. `value` is undefined for a delete; `previous` is the revision it supersedes, 0 for none. */
export interface LogRecord {
  readonly revision: Revision;
  readonly key: Key;
  readonly createRevision: Revision;
  readonly previous: Revision;
  readonly value: Uint8Array | undefined;
}

/** Where records are kept. Calls never overlap with an `append` that has not resolved, except `read`. */
export interface Log {
  /** All records in revision order, and the revision up to which history was given up. */
  load(visit: (record: LogRecord) => void): { compacted: Revision };
  /** All or nothing, and durable when it resolves. */
  append(records: readonly LogRecord[]): Promise<void>;
  read(revision: Revision): LogRecord | undefined;
  /** Removes records, in the given order at least; `compacted` is durable no later than the first removal. */
  remove(revisions: readonly Revision[], compacted: Revision): Promise<void>;
  bytesOnDisk?(): number;
  close(): Promise<void>;
}

interface Version {
  readonly revision: Revision;
  readonly createRevision: Revision;
  readonly deleted: boolean;
}

interface Waiting {
  readonly record: LogRecord;
  /** No version of the key was known, nor was one on its way. */
  readonly isNew: boolean;
  readonly resolve: (revision: Revision) => void;
  readonly reject: (error: unknown) => void;
}

/** Records that one append may carry; more wait for the next, so that no flush takes long. */
const APPEND_RECORDS_MAX = 1024;
/** While commits come with every turn of the event loop, an append waits for this many: what comes meanwhile costs it nothing. */
const GATHER_TURNS_MAX = 3;
/** Recent records kept for watchers; older ones are read from the log. */
const RECENT_RECORDS_MAX = 2048;
/** Records removed by one compaction step before other work gets its turn. */
const COMPACT_RECORDS_STEP = 500;

export class LogStore implements Store {
  readonly #log: Log;
  /** Versions of each key still known, oldest first; the last one is current. */
  readonly #index = new SortedMap<Version[]>();
  /** Accepted, not yet durable: the newest record of each key. */
  readonly #pending = new Map<Key, LogRecord>();
  /** Revisions that supersede or delete something, in order: what compaction has to look at. */
  #superseding: Revision[] = [];
  #recent: LogRecord[] = [];
  readonly #followers = new Set<(record: LogRecord) => void>();
  /** What ends each of them. */
  readonly #ends = new Set<() => void>();
  #queue: Waiting[] = [];
  #flushing = false;
  #revision: Revision = 0;
  #assigned: Revision = 0;
  #compacted: Revision = 0;
  #maintenance: Promise<void> = Promise.resolve();
  #idle: (() => void) | undefined;
  #closed = false;
  #sleepers: (() => void)[] = [];

  constructor(log: Log) {
    this.#log = log;
    const { compacted } = log.load(record => {
      this.#revision = record.revision;
      this.#apply(record, { isNew: false });
    });
    this.#compacted = compacted;
    this.#revision = Math.max(this.#revision, compacted);
    this.#assigned = this.#revision;
  }

  revision(): Revision {
    return this.#revision;
  }

  async get(key: Key, at?: Revision): Promise<Entry | undefined> {
    if (at !== undefined) this.#checkReadable(at);
    const version = versionAt(this.#index.get(key), at);
    return version && this.#entry(version.revision);
  }

  async list(prefix: Key, page: { at?: Revision; limit?: number; after?: Key } = {}): Promise<Page> {
    const { at, limit, after } = page;
    if (at !== undefined) this.#checkReadable(at);
    const entries: Entry[] = [];
    let more = false;
    this.#index.walk(prefix, after, versions => {
      const version = versionAt(versions, at);
      if (!version) return;
      if (limit !== undefined && entries.length >= limit) {
        more = true;
        return false;
      }
      entries.push(this.#entry(version.revision));
      return;
    });
    return { entries, revision: at ?? this.#revision, more };
  }

  commit(op: Put | Delete): Promise<Revision> {
    if (this.#closed) return Promise.reject(new Error('the store is closed'));
    const { key } = op;
    const pending = this.#pending.get(key);
    const versions = this.#index.get(key);
    const visible = versionAt(versions, undefined);
    const current = pending ? (pending.value ? pending : undefined) : visible;
    const currentRevision = current?.revision ?? 0;
    if (!holds(op, currentRevision)) {
      // Whoever reads again after a conflict must find what it was with.
      if (pending && holds(op, visible?.revision ?? 0)) return this.#settled(pending).then(() => this.commit(op));
      return Promise.reject(new ConflictError(key, visible && this.#entry(visible.revision)));
    }
    const revision = ++this.#assigned;
    const record: LogRecord = {
      revision,
      key,
      createRevision: current?.createRevision ?? revision,
      previous: currentRevision,
      value: op.type === 'put' ? op.value : undefined,
    };
    this.#pending.set(key, record);
    return new Promise((resolve, reject) => {
      this.#queue.push({ record, isNew: !pending && !versions, resolve, reject });
      if (!this.#flushing) {
        this.#flushing = true;
        void this.#flush();
      }
    });
  }

  async *watch(prefix: Key, from: Revision, signal: AbortSignal): AsyncIterable<StoreEvent | Progress> {
    if (from < this.#compacted) throw new CompactedError(this.#compacted);
    let cursor = from;
    let reported = -1;
    const wake = () => this.#wake();
    signal.addEventListener('abort', wake);
    try {
      while (!signal.aborted && !this.#closed) {
        while (cursor < this.#revision) {
          const event = this.#eventAt(cursor + 1);
          cursor++;
          const key = event.type === 'put' ? event.entry.key : event.key;
          if (!key.startsWith(prefix)) continue;
          reported = cursor;
          yield event;
          if (signal.aborted) return;
        }
        if (reported < cursor && cursor <= this.#revision) {
          reported = cursor;
          yield { type: 'progress', revision: cursor };
          continue;
        }
        await this.#newer(cursor, signal);
      }
    } finally {
      signal.removeEventListener('abort', wake);
    }
  }

  async follow(from: Revision, apply: (change: Change) => void, signal: AbortSignal): Promise<void> {
    for (let cursor = from; cursor < this.#revision; cursor++) apply(changeOf(this.#recordAt(cursor + 1)));
    if (signal.aborted || this.#closed) return;
    await new Promise<void>((resolve, reject) => {
      const end = () => {
        this.#followers.delete(follower);
        this.#ends.delete(end);
        signal.removeEventListener('abort', end);
        resolve();
      };
      const follower = (record: LogRecord) => {
        try {
          apply(changeOf(record));
        } catch (error) {
          reject(error);
          end();
        }
      };
      this.#followers.add(follower);
      this.#ends.add(end);
      signal.addEventListener('abort', end);
    });
  }

  bytesOnDisk(): number {
    return this.#log.bytesOnDisk?.() ?? 0;
  }
  compact(before: Revision): Promise<void> {
    const step = this.#maintenance.then(() => this.#compact(Math.min(before, this.#revision)));
    this.#maintenance = step.catch(() => {});
    return step;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#maintenance;
    if (this.#flushing)
      await new Promise<void>(resolve => {
        this.#idle = resolve;
      });
    this.#wake();
    for (const end of this.#ends) end();
    await this.#log.close();
  }

  async #flush(): Promise<void> {
    for (await this.#gather(); this.#queue.length > 0; await this.#gather()) {
      const batch = this.#queue.length <= APPEND_RECORDS_MAX ? this.#queue : this.#queue.slice(0, APPEND_RECORDS_MAX);
      this.#queue = this.#queue.length <= APPEND_RECORDS_MAX ? [] : this.#queue.slice(APPEND_RECORDS_MAX);
      try {
        await this.#log.append(batch.map(waiting => waiting.record));
      } catch (error) {
        for (const waiting of [...batch, ...this.#queue]) waiting.reject(error);
        this.#queue = [];
        this.#pending.clear();
        this.#assigned = this.#revision;
        this.#wake();
        break;
      }
      for (const { record, isNew } of batch) {
        this.#revision = record.revision;
        this.#apply(record, { isNew });
        this.#recent.push(record);
        if (this.#pending.get(record.key) === record) this.#pending.delete(record.key);
        for (const follower of this.#followers) follower(record);
      }
      if (this.#recent.length > 2 * RECENT_RECORDS_MAX) this.#recent = this.#recent.slice(-RECENT_RECORDS_MAX);
      this.#wake();
      for (const { record, resolve } of batch) resolve(record.revision);
    }
    this.#flushing = false;
    this.#idle?.();
  }

  /** Commits of this turn of the event loop share an append, and so do those of further turns as long as each brings some. */
  async #gather(): Promise<void> {
    for (let turn = 0, before = -1; turn < GATHER_TURNS_MAX && this.#queue.length > before; turn++) {
      before = this.#queue.length;
      await new Promise<void>(resolve => setImmediate(resolve));
    }
  }

  /** Resolves when the record is visible, or has failed. */
  async #settled(record: LogRecord): Promise<void> {
    while (this.#pending.get(record.key) === record) await new Promise<void>(resolve => this.#sleepers.push(resolve));
  }

  #apply(record: LogRecord, { isNew }: { isNew: boolean }): void {
    const version: Version = {
      revision: record.revision,
      createRevision: record.createRevision,
      deleted: record.value === undefined,
    };
    const versions = isNew ? undefined : this.#index.get(record.key);
    if (versions) versions.push(version);
    else this.#index.set(record.key, [version]);
    if (record.previous > 0) this.#superseding.push(record.revision);
  }

  async #compact(before: Revision): Promise<void> {
    if (before <= this.#compacted) return;
    this.#compacted = before;
    let at = 0;
    let garbage: Revision[] = [];
    for (; at < this.#superseding.length && this.#superseding[at]! <= before; at++) {
      const revision = this.#superseding[at]!;
      const record = this.#log.read(revision);
      assert(record, `record ${revision} is missing from the log`);
      // The older record goes first: a tombstone must not vanish before what it buries.
      garbage.push(record.previous);
      this.#forget(record.key, record.previous);
      if (!record.value) {
        garbage.push(revision);
        this.#forget(record.key, revision);
      }
      if (garbage.length >= COMPACT_RECORDS_STEP) {
        await this.#log.remove(garbage, before);
        garbage = [];
      }
    }
    this.#superseding = this.#superseding.slice(at);
    await this.#log.remove(garbage, before);
  }

  #forget(key: Key, revision: Revision): void {
    const versions = this.#index.get(key);
    if (!versions) return;
    const kept = versions.filter(version => version.revision !== revision);
    if (kept.length === 0) this.#index.delete(key);
    else this.#index.set(key, kept);
  }

  #eventAt(revision: Revision): StoreEvent {
    const record = this.#recordAt(revision);
    return eventOf(record, record.previous === 0 ? undefined : this.#entry(record.previous));
  }

  #recordAt(revision: Revision): LogRecord {
    if (revision <= this.#compacted) throw new CompactedError(this.#compacted);
    const oldest = this.#revision - this.#recent.length + 1;
    if (revision >= oldest) return this.#recent[revision - oldest]!;
    const record = this.#log.read(revision);
    assert(record, `record ${revision} is missing from the log`);
    return record;
  }

  #entry(revision: Revision): Entry {
    const record = this.#log.read(revision);
    assert(record?.value, `value of revision ${revision} is missing from the log`);
    return entryOf(record);
  }

  #checkReadable(at: Revision): void {
    if (at > this.#revision) throw new FutureRevisionError(at, this.#revision);
    if (at < this.#compacted) throw new CompactedError(this.#compacted);
  }

  // Resolves at the latest when the signal aborts: `watch` wakes everyone then, which is rare and harmless.
  #newer(than: Revision, signal: AbortSignal): Promise<void> | void {
    if (this.#revision > than || this.#closed || signal.aborted) return;
    return new Promise(resolve => this.#sleepers.push(resolve));
  }
  #wake(): void {
    const sleepers = this.#sleepers;
    this.#sleepers = [];
    for (const wake of sleepers) wake();
  }
}

/** Whether the operation may follow on the key's current revision, 0 for none. */
function holds({ type, expect }: Put | Delete, currentRevision: number): boolean {
  if (type === 'delete' && currentRevision === 0) return false;
  return expect === undefined || currentRevision === (expect === 'absent' ? 0 : expect);
}

function versionAt(versions: readonly Version[] | undefined, at: Revision | undefined): Version | undefined {
  if (!versions) return undefined;
  let index = versions.length - 1;
  if (at !== undefined) while (index >= 0 && versions[index]!.revision > at) index--;
  const version = versions[index];
  return version && !version.deleted ? version : undefined;
}

function entryOf(record: LogRecord): Entry {
  return {
    key: record.key,
    value: record.value!,
    createRevision: record.createRevision,
    modRevision: record.revision,
  };
}

function changeOf(record: LogRecord): Change {
  return record.value
    ? { type: 'put', entry: entryOf(record) }
    : { type: 'delete', key: record.key, revision: record.revision };
}

function eventOf(record: LogRecord, previous: Entry | undefined): StoreEvent {
  if (record.value) return { type: 'put', entry: entryOf(record), ...(previous ? { previous } : {}) };
  return { type: 'delete', key: record.key, revision: record.revision, previous: previous! };
}
