/** A record of the log as bytes, the same in the journal and in the database. */

import { assert } from '../base/assert.ts';
import type { LogRecord } from './log-store.ts';
import type { Revision } from './store.ts';

/** Layout: 1 byte kind, 6 createRevision, 6 previous, 2 length of the key, key, value. */
const HEADER_BYTES = 15;
const PUT = 1;
const DELETE = 2;
export const REVISION_BYTES = 6;

/** The most that a record can take. */
export function recordBytesMax({ key, value }: LogRecord): number {
  return HEADER_BYTES + 3 * key.length + (value?.length ?? 0);
}

/** Writes the record at the offset and returns the offset behind it. */
export function encodeRecord(record: LogRecord, target: Buffer, at: number): number {
  const keyStart = at + HEADER_BYTES;
  const keyBytes = target.write(record.key, keyStart);
  target[at] = record.value ? PUT : DELETE;
  target.writeUIntBE(record.createRevision, at + 1, REVISION_BYTES);
  target.writeUIntBE(record.previous, at + 7, REVISION_BYTES);
  target.writeUInt16BE(keyBytes, at + 13);
  const valueStart = keyStart + keyBytes;
  if (!record.value) return valueStart;
  target.set(record.value, valueStart);
  return valueStart + record.value.length;
}

/** The value is a view of the bytes. */
export function decodeRecord(revision: Revision, bytes: Buffer): LogRecord {
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
