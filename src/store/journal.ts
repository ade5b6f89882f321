/**
 * A file of frames, one a batch of records, each on disk before `append` resolves: one system call a batch, where a database
 * writes a page for each record. A file is written over from its start once its records are elsewhere, which needs no change
 * of its size and so no second write of the file system.
 *
 * A frame counts when it is whole (its checksum says so) and goes on where the last one ended (its first revision says so): what
 * a crash cut off, and what an earlier use of the file left behind, does neither. It refuses to tell more than that.
 */

import { closeSync, constants, fsyncSync, ftruncateSync, openSync, readFileSync, write } from 'node:fs';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import type { LogRecord } from './log-store.ts';
import { decodeRecord, encodeRecord, REVISION_BYTES, recordBytesMax } from './record-bytes.ts';
import type { Revision } from './store.ts';

/** 4 bytes length of what follows these eight, 4 checksum of that, 6 first revision, then each record with 4 bytes length before it. */
const FRAME_HEAD_BYTES = 8;
const LENGTH_BYTES = 4;
/** A file that large batches have made larger is cut when it is used again. */
const KEPT_BYTES_MAX = 16 * 1024 * 1024;

/** A record as it stands in the file. */
export interface Written {
  readonly record: LogRecord;
  readonly bytes: Buffer;
}

export class Journal {
  readonly #fd: number;
  #end: number;
  #last: Revision;
  #count: number;

  private constructor(fd: number, { end, last, count }: { end: number; last: Revision; count: number }) {
    this.#fd = fd;
    this.#end = end;
    this.#last = last;
    this.#count = count;
  }
  /** Opens or makes the file, and tells what is in it; the next append goes behind that. */
  static open(path: string): { journal: Journal; records: LogRecord[] } {
    const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_DSYNC, 0o600);
    // A file is only as durable as its name.
    const directory = openSync(dirname(path), constants.O_RDONLY);
    fsyncSync(directory);
    closeSync(directory);
    const { records, end } = readFrames(readFileSync(path));
    return { journal: new Journal(fd, { end, last: records.at(-1)?.revision ?? 0, count: records.length }), records };
  }
  get bytes(): number {
    return this.#end;
  }
  get count(): number {
    return this.#count;
  }
  /** The newest revision in it; 0 when it is empty. */
  get last(): Revision {
    return this.#last;
  }

  /** All or nothing, in the order of revisions; the next one only when this has resolved. */
  async append(records: readonly LogRecord[]): Promise<readonly Written[]> {
    let most = FRAME_HEAD_BYTES + REVISION_BYTES;
    for (const record of records) most += LENGTH_BYTES + recordBytesMax(record);
    const frame = Buffer.allocUnsafeSlow(most);
    let at = frame.writeUIntBE(records[0]!.revision, FRAME_HEAD_BYTES, REVISION_BYTES);
    const written = records.map(record => {
      const start = at + LENGTH_BYTES;
      const end = encodeRecord(record, frame, start);
      frame.writeUInt32BE(end - start, at);
      at = end;
      return { record, bytes: frame.subarray(start, end) };
    });
    frame.writeUInt32BE(at - FRAME_HEAD_BYTES, 0);
    frame.writeUInt32BE(crc32(frame.subarray(FRAME_HEAD_BYTES, at)), 4);
    await this.#write(frame.subarray(0, at));
    this.#end += at;
    this.#last = records.at(-1)!.revision;
    this.#count += records.length;
    return written;
  }
  /** What is in it is not needed any more. */
  restart(): void {
    if (this.#end > KEPT_BYTES_MAX) ftruncateSync(this.#fd, 0);
    this.#end = 0;
    this.#last = 0;
    this.#count = 0;
  }
  close(): void {
    closeSync(this.#fd);
  }

  // The descriptor is O_DSYNC: what is written is on disk.
  #write(bytes: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      const from = (at: number) =>
        write(this.#fd, bytes, at, bytes.length - at, this.#end + at, (error, count) => {
          if (error) reject(error);
          else if (at + count < bytes.length) from(at + count);
          else resolve();
        });
      from(0);
    });
  }
}

function readFrames(file: Buffer): { records: LogRecord[]; end: number } {
  const records: LogRecord[] = [];
  let next: Revision | undefined;
  let at = 0;
  while (at + FRAME_HEAD_BYTES + REVISION_BYTES <= file.length) {
    const start = at + FRAME_HEAD_BYTES;
    const end = start + file.readUInt32BE(at);
    if (end > file.length || end < start + REVISION_BYTES) break;
    if (crc32(file.subarray(start, end)) !== file.readUInt32BE(at + 4)) break;
    let revision = file.readUIntBE(start, REVISION_BYTES);
    if (next !== undefined && revision !== next) break;
    for (let from = start + REVISION_BYTES; from < end; ) {
      const to = from + LENGTH_BYTES + file.readUInt32BE(from);
      // A copy: one value that somebody keeps must not keep the whole file.
      const bytes = Buffer.allocUnsafeSlow(to - from - LENGTH_BYTES);
      file.copy(bytes, 0, from + LENGTH_BYTES, to);
      records.push(decodeRecord(revision++, bytes));
      from = to;
    }
    next = revision;
    at = end;
  }
  return { records, end: at };
}
