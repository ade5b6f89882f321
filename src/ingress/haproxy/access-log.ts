/** The access log, a file that HAProxy was given as its standard output and goes on writing to: it is copied and emptied, not renamed. */

import { appendFileSync, closeSync, existsSync, fstatSync, openSync, readSync, statSync, truncateSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { O_APPEND, O_NONBLOCK, setModeOf } from '../../sys/file-descriptor.ts';

/** Moves what the log of process `pid` holds, if it is at least so many bytes, to `PATH.1`, in place of what was there. */
export async function boundAccessLog(
  path: string,
  { bytesMax, pid }: { bytesMax: number; pid: number },
): Promise<void> {
  if (!existsSync(path) || statSync(path).size < bytesMax) return;
  // HAProxy sets its standard output not to block, by which the file loses its mode of appending: emptied, it would be written to where
  // the last line ended, with nothing but zeros before.
  setModeOf({ pid, fd: 1 }, O_APPEND | O_NONBLOCK);
  const old = `${path}.1`;
  await copyFile(path, old);
  // What was written meanwhile; between this and the emptying there is no time to speak of.
  const log = openSync(path, 'r');
  try {
    const copied = statSync(old).size;
    const rest = Buffer.alloc(Math.max(0, fstatSync(log).size - copied));
    appendFileSync(old, rest.subarray(0, readSync(log, rest, 0, rest.length, copied)));
  } finally {
    closeSync(log);
  }
  truncateSync(path);
}
