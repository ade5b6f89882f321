/** The store in memory: for tests and throw-away clusters. It keeps nothing when the process ends. */

import { type Log, type LogRecord, LogStore } from './log-store.ts';
import type { Revision, Store } from './store.ts';

class MemoryLog implements Log {
  readonly #records = new Map<Revision, LogRecord>();

  load(): { compacted: Revision } {
    return { compacted: 0 };
  }
  async append(records: readonly LogRecord[]): Promise<void> {
    for (const record of records) this.#records.set(record.revision, record);
  }
  read(revision: Revision): LogRecord | undefined {
    return this.#records.get(revision);
  }
  async remove(revisions: readonly Revision[]): Promise<void> {
    for (const revision of revisions) this.#records.delete(revision);
  }
  async close(): Promise<void> {}
}

export function openMemoryStore(): Store {
  return new LogStore(new MemoryLog());
}
