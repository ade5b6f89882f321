/**
 * The store on disk: an LMDB database of records keyed by revision, and before it two journals that take turns. A batch is
 * acknowledged once a journal has it; many batches later its records go into the database in one transaction, and the journal
 * is used again. Appending keeps LMDB's pages dense, where an index on disk ordered by key would cost a page for each commit.
 *
 * Invariant: a record is in the database or in a journal, and those not in the database are the newest. It refuses to run
 * beside another process on the same directory: the in-memory index would not see its writes.
 */

import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Database, open, type RootDatabase } from 'lmdb';
import { assert } from '../base/assert.ts';
import { Journal, type Written } from './journal.ts';
import { type Log, type LogRecord, LogStore } from './log-store.ts';
import { decodeRecord, encodeRecord, REVISION_BYTES, recordBytesMax } from './record-bytes.ts';
import type { Revision } from './store.ts';

/** A journal with that much goes into the database: some thousand records share a transaction, and memory stays bounded. */
const JOURNAL_BYTES_MAX = 4 * 1024 * 1024;
const JOURNAL_RECORDS_MAX = 4096;
/** Of `stat`, whatever the file system's are. */
const BLOCK_BYTES = 512;

class LmdbLog implements Log {
  readonly #root: RootDatabase<Buffer, Buffer>;
  readonly #records: Database<Buffer, Buffer>;
  readonly #meta: Database<Buffer, string>;
  /** The one that is written to. */
  #journal: Journal;
  #other: Journal;
  /** What is not in the database, by revision from `#firstWritten` on. */
  #written: Written[] = [];
  #firstWritten: Revision = 0;
  #moving: Promise<void> | undefined;
  /** What the journals held when they were opened, the older one first. */
  #found: readonly LogRecord[][];

  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#root = open<Buffer, Buffer>({
      path: directory,
      encoding: 'binary',
      keyEncoding: 'binary',
      // Without it a write resolves before it is flushed.
      overlappingSync: false,
      maxDbs: 4,
    });
    this.#records = this.#root.openDB<Buffer, Buffer>('records', { encoding: 'binary', keyEncoding: 'binary' });
    this.#meta = this.#root.openDB<Buffer, string>('meta', { encoding: 'binary' });
    const [older, newer] = ['journal-a', 'journal-b']
      .map(name => Journal.open(join(directory, name)))
      .sort((a, b) => a.journal.last - b.journal.last);
    this.#journal = newer!.journal;
    this.#other = older!.journal;
    this.#found = [older!.records, newer!.records];
  }

  bytesOnDisk(): number {
    const files = readdirSync(this.#directory).map(name => statSync(join(this.#directory, name)));
    return files.reduce((sum, { blocks }) => sum + blocks * BLOCK_BYTES, 0);
  }

  load(visit: (record: LogRecord) => void): { compacted: Revision } {
    let last: Revision = 0;
    for (const { key, value } of this.#records.getRange({})) {
      last = key.readUIntBE(0, REVISION_BYTES);
      visit(decodeRecord(last, value));
    }
    const bytes = this.#meta.get('compacted');
    const compacted = bytes ? bytes.readUIntBE(0, REVISION_BYTES) : 0;
    last = Math.max(last, compacted);
    this.#firstWritten = last + 1;
    const [older, newer] = this.#found as [LogRecord[], LogRecord[]];
    this.#found = [];
    // What failed at the end of the older one was written again, as something else, at the start of the newer one.
    const end = newer[0]?.revision ?? Number.POSITIVE_INFINITY;
    for (const record of [...older.filter(({ revision }) => revision < end), ...newer]) {
      if (record.revision <= last) continue;
      assert(record.revision === ++last, `record ${last} is missing from the log`);
      this.#written.push(asWritten(record));
      visit(record);
    }
    return { compacted };
  }

  async append(records: readonly LogRecord[]): Promise<void> {
    const { bytes, count } = this.#journal;
    if (bytes >= JOURNAL_BYTES_MAX || count >= JOURNAL_RECORDS_MAX) await this.#change();
    const written = await this.#journal.append(records);
    for (const one of written) this.#written.push(one);
  }

  read(revision: Revision): LogRecord | undefined {
    if (revision >= this.#firstWritten) return this.#written[revision - this.#firstWritten]?.record;
    const bytes = this.#records.get(revisionKey(revision));
    return bytes && decodeRecord(revision, bytes);
  }

  async remove(revisions: readonly Revision[], compacted: Revision): Promise<void> {
    // A journal's records up to there count no more once `compacted` says so.
    while (compacted >= this.#firstWritten && this.#written.length > 0) await this.#move();
    const writes: Promise<unknown>[] = [this.#meta.put('compacted', revisionKey(compacted))];
    for (const revision of revisions) writes.push(this.#records.remove(revisionKey(revision)));
    await Promise.all(writes);
  }

  async close(): Promise<void> {
    await this.#moving?.catch(() => {});
    await this.#root.close();
    this.#journal.close();
    this.#other.close();
  }

  /** Goes on in the other journal, and moves everything so far into the database meanwhile. */
  async #change(): Promise<void> {
    // The disk must not fall behind without bound: with two full journals a commit waits, or fails as moving does.
    while (this.#other.last >= this.#firstWritten) await this.#move();
    [this.#journal, this.#other] = [this.#other, this.#journal];
    this.#journal.restart();
    this.#move().catch(() => {});
  }
  #move(): Promise<void> {
    this.#moving ??= this.#moveAll().finally(() => {
      this.#moving = undefined;
    });
    return this.#moving;
  }
  // Writes of one turn of the event loop share one transaction, and the promise of it.
  async #moveAll(): Promise<void> {
    const { length } = this.#written;
    const transactions = new Set<Promise<boolean>>();
    for (const { record, bytes } of this.#written)
      transactions.add(this.#records.put(revisionKey(record.revision), bytes));
    await Promise.all(transactions);
    this.#written = this.#written.slice(length);
    this.#firstWritten += length;
  }
}

function revisionKey(revision: Revision): Buffer {
  const key = Buffer.allocUnsafe(REVISION_BYTES);
  key.writeUIntBE(revision, 0, REVISION_BYTES);
  return key;
}

function asWritten(record: LogRecord): Written {
  const bytes = Buffer.allocUnsafeSlow(recordBytesMax(record));
  return { record, bytes: bytes.subarray(0, encodeRecord(record, bytes, 0)) };
}

export class LmdbStore extends LogStore {
  /** Opens or makes the database in the directory. */
  static async open(directory: string): Promise<LmdbStore> {
    return new LmdbStore(new LmdbLog(directory));
  }
}
