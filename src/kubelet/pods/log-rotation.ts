/**
 * Keeps every container's log within its size and number of pieces: a full log gets
 * the time as its suffix, the monitor opens a new one, and pieces before the last are compressed. Old pieces go first.
 */

import { createReadStream, createWriteStream } from 'node:fs';
import { readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { type Clock, formatTime } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { ContainerState, Runtime } from '../runtime.ts';

const COMPRESSED = '.gz';
const UNFINISHED = '.tmp';

export class LogRotation {
  readonly #runtime: Pick<Runtime, 'reopenLog'>;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #bytesMax: number;
  readonly #filesMax: number;

  constructor(options: {
    readonly runtime: Pick<Runtime, 'reopenLog'>;
    readonly clock: Clock;
    readonly log: Logger;
    readonly bytesMax: number;
    /** The one that is written and those before it. */
    readonly filesMax: number;
  }) {
    this.#runtime = options.runtime;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#bytesMax = options.bytesMax;
    this.#filesMax = options.filesMax;
  }

  /** One look at all running containers. Failures are logged; the next look tries again. */
  async check(containers: readonly ContainerState[]): Promise<void> {
    for (const { id, state, logPath } of containers) {
      if (state !== 'running') continue;
      try {
        if ((await stat(logPath)).size > this.#bytesMax) await this.#rotate(id, logPath);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
          this.#log.warn('container log not rotated', { id, error: messageOf(error) });
      }
    }
  }

  async #rotate(id: string, path: string): Promise<void> {
    const folder = dirname(path);
    const pieces = (await readdir(folder)).filter(name => name.startsWith(`${basename(path)}.`)).sort();
    const whole = pieces.filter(name => !name.endsWith(UNFINISHED));
    for (const name of pieces) if (name.endsWith(UNFINISHED)) await rm(join(folder, name), { force: true });
    // Room for the piece that is made now.
    for (const name of whole.splice(0, Math.max(0, whole.length - (this.#filesMax - 2))))
      await rm(join(folder, name), { force: true });
    for (const name of whole) if (!name.endsWith(COMPRESSED)) await compress(join(folder, name));
    const stamp = formatTime(this.#clock.now()).replace(/[-:Z]/g, '').replace('T', '-');
    const piece = `${path}.${stamp}`;
    await rename(path, piece);
    try {
      await this.#runtime.reopenLog(id);
    } catch (error) {
      // The monitor writes on into the renamed file: give it its name back.
      await rename(piece, path);
      throw error;
    }
  }
}

async function compress(path: string): Promise<void> {
  const unfinished = `${path}${UNFINISHED}`;
  await pipeline(createReadStream(path), createGzip(), createWriteStream(unfinished));
  await rename(unfinished, `${path}${COMPRESSED}`);
  await rm(path, { force: true });
}
