/**
 * The store on disk: one LMDB database of records keyed by revision. Appending keeps LMDB's pages dense, where an index on
 * disk ordered by key would cost a page for each commit. A batch is one LMDB transaction, flushed before it is acknowledged.
 * It refuses to run beside another process on the same directory: the in-memory index would not see its writes.
 */

import { mkdirSync } from 'node:fs';
import { type Database, open, type RootDatabase } from 'lmdb';
import { assert } from '../base/assert.ts';
import { type Log, type LogRecord, LogStore } from './log-store.ts';
import type { Revision } from './store.ts';

/** Layout of a record: 1 byte kind, 6 createRevision, 6 previous, 2 length of the key, key, value. */
const HEADER_BYTES = 15;
const PUT = 1;
const DELETE = 2;
const REVISION_BYTES = 6;

class LmdbLog implements Log {
  readonly #root: RootDatabase<Buffer, Buffer>;
  readonly #records: Database<Buffer, Buffer>;
  readonly #meta: Database<Buffer, string>;

  constructor(directory: string) {
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
  }

  load(visit: (record: LogRecord) => void): { compacted: Revision } {
    for (const { key, value } of this.#records.getRange({})) visit(decode(key.readUIntBE(0, REVISION_BYTES), value));
    const compacted = this.#meta.get('compacted');
    return { compacted: compacted ? compacted.readUIntBE(0, REVISION_BYTES) : 0 };
  }

  // Writes of one turn of the event loop share one transaction, and the promise of it.
  async append(records: readonly LogRecord[]): Promise<void> {
    const transactions = new Set<Promise<boolean>>();
    for (const record of records) transactions.add(this.#records.put(revisionKey(record.revision), encode(record)));
    await Promise.all(transactions);
  }

  read(revision: Revision): LogRecord | undefined {
    const bytes = this.#records.get(revisionKey(revision));
    return bytes && decode(revision, bytes);
  }

  async remove(revisions: readonly Revision[], compacted: Revision): Promise<void> {
    const writes: Promise<unknown>[] = [this.#meta.put('compacted', revisionKey(compacted))];
    for (const revision of revisions) writes.push(this.#records.remove(revisionKey(revision)));
    await Promise.all(writes);
  }

  async close(): Promise<void> {
    await this.#root.close();
  }
}

function revisionKey(revision: Revision): Buffer {
  const key = Buffer.allocUnsafe(REVISION_BYTES);
  key.writeUIntBE(revision, 0, REVISION_BYTES);
  return key;
}

function encode(record: LogRecord): Buffer {
  const keyBytes = Buffer.byteLength(record.key);
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + keyBytes + (record.value?.length ?? 0));
  bytes[0] = record.value ? PUT : DELETE;
  bytes.writeUIntBE(record.createRevision, 1, REVISION_BYTES);
  bytes.writeUIntBE(record.previous, 7, REVISION_BYTES);
  bytes.writeUInt16BE(keyBytes, 13);
  bytes.write(record.key, HEADER_BYTES);
  if (record.value) bytes.set(record.value, HEADER_BYTES + keyBytes);
  return bytes;
}

function decode(revision: Revision, bytes: Buffer): LogRecord {
  const valueStart = HEADER_BYTES + bytes.readUInt16BE(13);
  assert(bytes[0] === PUT || bytes[0] === DELETE, `record ${revision} is damaged`);
  return {
    revision,
    key: bytes.toString('utf8', HEADER_BYTES, valueStart),
    createRevision: bytes.readUIntBE(1, REVISION_BYTES),
    previous: bytes.readUIntBE(7, REVISION_BYTES),
    value: bytes[0] === PUT ? bytes.subarray(valueStart) : undefined,
  };
}

export class LmdbStore extends LogStore {
  /** Opens or makes the database in the directory. */
  static async open(directory: string): Promise<LmdbStore> {
    return new LmdbStore(new LmdbLog(directory));
  }
}
