/**
 * Reads a container's log file for a client: the last lines, from a time on, up to a size, and as it grows. Invariant:
 * one chunk of the file and one of output are in memory, whatever the file's size. It follows the file through rotation
 * (renamed away and made anew) and truncation, and never writes to it.
 */

import { type FSWatcher, watch } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import type { Writable } from 'node:stream';
import type { Clock } from '../../base/clock.ts';
import { formatTimestamp, parseLogLine, parseNanos } from './log-line.ts';

export interface LogOptions {
  readonly follow: boolean;
  readonly timestamps: boolean;
  readonly tailLines: number | undefined;
  readonly limitBytes: number | undefined;
  /** Nanoseconds since the epoch; earlier lines are left out. */
  readonly sinceNanos: bigint | undefined;
  readonly stream: 'stdout' | 'stderr' | undefined;
}

export interface LogSource {
  readonly path: string;
  /** Whether more may be written; asked when the end of the file is reached. */
  isLive(): Promise<boolean>;
  /** Calls back when the container may have ended. Returns what stops it. */
  onChange(callback: () => void): () => void;
}

const CHUNK_BYTES = 64 * 1024;
const TAIL_BLOCK_BYTES = 16 * 1024;
/** Following looks again this often where no notice came. */
const LOOK_EVERY_MS = 1_000;
const NEWLINE = 0x0a;

/** Opens the file; throws with upstream's text when it cannot be read. */
export async function openLog(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r');
  } catch (error) {
    throw new Error(`failed to open log file "${path}": ${(error as Error).message}`);
  }
}

/** Writes the log to `out`, without ending it. Resolves at the end of the log, or when `signal` aborts. Closes `file`. */
export async function copyLog(
  file: FileHandle,
  source: LogSource,
  options: LogOptions,
  out: Writable,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const writer = new LogWriter(options);
  const change = options.follow ? new ChangeNotice(source, clock) : undefined;
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  let current = file;
  try {
    // Without following, the log is what it was when asked for: the last two lines stay two if a third is written meanwhile.
    const { size } = await current.stat();
    const end = options.follow ? Infinity : size;
    let position = options.tailLines === undefined ? 0 : await tailStart(current, { lines: options.tailLines, size });
    let pieces: Buffer[] = [];
    let isOver = false;
    let successor: FileHandle | undefined;
    while (!signal.aborted) {
      const { bytesRead } = await current.read(chunk, 0, Math.min(CHUNK_BYTES, end - position), position);
      if (bytesRead > 0) {
        position += bytesRead;
        const data = chunk.subarray(0, bytesRead);
        const whole = data.lastIndexOf(NEWLINE) + 1;
        if (whole > 0) {
          const lines = Buffer.concat([...pieces, data.subarray(0, whole)]);
          pieces = [];
          const output = writer.render(lines);
          if (output.length > 0 && !out.write(output)) await drained(out, signal);
          if (writer.isFull) return;
        }
        if (whole < bytesRead) pieces.push(Buffer.from(data.subarray(whole)));
        continue;
      }
      if (successor) {
        // The old file was read to its end after the new one appeared.
        await current.close();
        current = successor;
        successor = undefined;
        position = 0;
        continue;
      }
      if (!change || isOver) break;
      if ((await current.stat()).size < position) {
        position = 0;
        pieces = [];
        continue;
      }
      successor = await rotated(current, source.path);
      if (successor) continue;
      // Once more to the end: it may have written its last words since.
      if (!(await source.isLive())) isOver = true;
      else await change.wait(signal);
    }
    if (!options.follow && pieces.length > 0) {
      const output = writer.render(Buffer.concat(pieces));
      if (output.length > 0) out.write(output);
    }
    await successor?.close();
  } finally {
    change?.stop();
    await current.close();
  }
}

/** Renders lines, joined where they are partial, until the limit is reached. */
class LogWriter {
  isFull = false;
  readonly #options: LogOptions;
  #bytesLeft: number;
  #beginsLine = true;

  constructor(options: LogOptions) {
    this.#options = options;
    this.#bytesLeft = options.limitBytes ?? Infinity;
  }
  render(lines: Buffer): Buffer {
    const { timestamps, sinceNanos, stream } = this.#options;
    const output: Buffer[] = [];
    for (let at = 0; at < lines.length && !this.isFull; ) {
      const newline = lines.indexOf(NEWLINE, at);
      const end = newline < 0 ? lines.length : newline + 1;
      const line = parseLogLine(lines.subarray(at, end));
      at = end;
      if (!line) continue;
      if (stream !== undefined && line.stream !== stream) continue;
      const beginsLine = this.#beginsLine;
      this.#beginsLine = line.text.length === 0 || line.text[line.text.length - 1] === NEWLINE;
      if (sinceNanos !== undefined) {
        const nanos = parseNanos(line.timestamp.toString('latin1'));
        if (nanos === undefined || nanos < sinceNanos) continue;
      }
      if (timestamps && beginsLine)
        this.#add(output, Buffer.from(`${formatTimestamp(line.timestamp.toString('latin1'))} `));
      this.#add(output, line.text);
    }
    return Buffer.concat(output);
  }
  #add(output: Buffer[], text: Buffer): void {
    const fitting = text.length > this.#bytesLeft ? text.subarray(0, this.#bytesLeft) : text;
    this.#bytesLeft -= fitting.length;
    if (this.#bytesLeft <= 0) this.isFull = true;
    output.push(fitting);
  }
}

/** Wakes who waits for a file's growth: notices of the file's folder and of the container, and a slow look besides. */
class ChangeNotice {
  readonly #clock: Clock;
  readonly #stopSource: () => void;
  readonly #watcher: FSWatcher | undefined;
  #changed = false;
  #wake: (() => void) | undefined;

  constructor(source: LogSource, clock: Clock) {
    this.#clock = clock;
    const notice = () => {
      this.#changed = true;
      this.#wake?.();
    };
    this.#stopSource = source.onChange(notice);
    const name = basename(source.path);
    try {
      // The folder, since a rotated file is a new one under the same name.
      this.#watcher = watch(dirname(source.path), (_event, changed) => {
        if (changed === null || changed === name) notice();
      });
      this.#watcher.on('error', () => {});
    } catch {
      // No watch left: the slow look has to do.
    }
  }
  async wait(signal: AbortSignal): Promise<void> {
    if (!this.#changed) {
      const woken = new AbortController();
      const wake = () => woken.abort();
      this.#wake = wake;
      signal.addEventListener('abort', wake, { once: true });
      await this.#clock.sleep(LOOK_EVERY_MS, woken.signal);
      signal.removeEventListener('abort', wake);
      this.#wake = undefined;
    }
    this.#changed = false;
  }
  stop(): void {
    this.#stopSource();
    this.#watcher?.close();
  }
}

async function rotated(file: FileHandle, path: string): Promise<FileHandle | undefined> {
  try {
    const [own, named] = await Promise.all([file.stat(), stat(path)]);
    return own.ino === named.ino && own.dev === named.dev ? undefined : await open(path, 'r');
  } catch {
    // Renamed away and not made anew yet.
    return undefined;
  }
}

/** Offset of the last `lines` whole lines before `size`; what follows the last newline is not counted as one. */
export async function tailStart(file: FileHandle, { lines, size }: { lines: number; size: number }): Promise<number> {
  const block = Buffer.allocUnsafe(TAIL_BLOCK_BYTES);
  let newlines = 0;
  for (let right = size; right > 0; ) {
    const left = Math.max(0, right - TAIL_BLOCK_BYTES);
    const { bytesRead } = await file.read(block, 0, right - left, left);
    for (
      let at = block.lastIndexOf(NEWLINE, bytesRead - 1);
      at >= 0;
      at = at > 0 ? block.lastIndexOf(NEWLINE, at - 1) : -1
    )
      if (newlines++ === lines) return left + at + 1;
    right = left;
  }
  return 0;
}

function drained(out: Writable, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const done = () => {
      out.off('drain', done).off('close', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    out.once('drain', done).once('close', done);
    signal.addEventListener('abort', done, { once: true });
    if (out.destroyed) done();
  });
}
