/**
 * The access log of a HAProxy. HAProxy writes to a pipe and `cat` from there to the file: HAProxy sets its standard output not to block, by
 * which a file loses its mode of appending, and a file that has been emptied would go on where it was, with nothing but zeros before.
 * The file is copied and emptied when it is full. Both outlive the agent; a reader that died is followed by another, and until then
 * the pipe, which HAProxy itself keeps open, holds what it can.
 */

import { execFileSync, spawn } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { identify, isAlive, type ProcessIdentity } from '../../sys/process.ts';

/** What HAProxy opens, in its folder. */
export const LOG_PIPE = 'access.pipe';
const RECORD = 'log-reader.json';

export class AccessLog {
  readonly #folder: string;
  readonly #path: string;

  /** `path` is the file; the pipe lies in `folder`. */
  constructor(folder: string, path: string) {
    this.#folder = folder;
    this.#path = path;
  }

  /** Makes what is missing: the pipe, and its reader. */
  keep(): void {
    const pipe = join(this.#folder, LOG_PIPE);
    if (!existsSync(pipe)) execFileSync('/usr/bin/mkfifo', ['-m', '600', pipe]);
    const reader = this.#reader();
    if (reader && isAlive(reader)) return;
    const log = openSync(this.#path, 'a', 0o600);
    try {
      // To open a pipe waits for the other side, which only another process may do.
      const child = spawn('/bin/sh', ['-c', `exec cat <${LOG_PIPE}`], {
        cwd: this.#folder,
        detached: true,
        stdio: ['ignore', log, 'ignore'],
        env: { PATH: '/usr/bin:/bin' },
      });
      child.on('error', () => {});
      child.unref();
      const started = child.pid === undefined ? undefined : identify(child.pid);
      if (started) writeFileSync(join(this.#folder, RECORD), JSON.stringify(started), { mode: 0o600 });
    } finally {
      closeSync(log);
    }
  }

  /** Moves what a log of at least so many bytes holds to `PATH.1`, in place of what was there. */
  async bound(bytesMax: number): Promise<void> {
    const path = this.#path;
    if (!existsSync(path) || statSync(path).size < bytesMax) return;
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

  #reader(): ProcessIdentity | undefined {
    try {
      return JSON.parse(readFileSync(join(this.#folder, RECORD), 'utf8')) as ProcessIdentity;
    } catch {
      return undefined;
    }
  }
}
