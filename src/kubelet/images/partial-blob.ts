/**
 * What has come of a layer's blob, kept until the layer is unpacked, so that a pull that was killed goes on where it was. Invariant:
 * its bytes count only once the whole blob has its digest; whoever writes holds the layer's lock. Small blobs are not kept, and
 * nothing is while the disk is nearly full. It fails no pull: what cannot be kept is fetched again.
 */

import { closeSync, openSync, readSync, rmSync, statSync, writeSync } from 'node:fs';

/** Fetched again in no time. */
const SIZE_BYTES_MIN = 1 << 20;
const PART_BYTES = 1 << 18;
/** How much is written between two looks at the disk. */
const UNSEEN_BYTES_MAX = 8 << 20;

export class PartialBlob {
  readonly #path: string;
  readonly #spareBytes: () => number;
  #fd: number | undefined;
  #unseen = 0;
  #isKept: boolean;

  constructor(path: string, { size, spareBytes }: { readonly size: number; readonly spareBytes: () => number }) {
    this.#path = path;
    this.#spareBytes = spareBytes;
    this.#isKept = size >= SIZE_BYTES_MIN;
    if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) > size) this.discard();
  }

  /** What there is, from the start. */
  *parts(): Generator<Buffer> {
    let fd: number;
    try {
      fd = openSync(this.#path, 'r');
    } catch {
      return;
    }
    try {
      for (;;) {
        const part = Buffer.allocUnsafe(PART_BYTES);
        const count = readSync(fd, part);
        if (count === 0) return;
        yield part.subarray(0, count);
      }
    } finally {
      closeSync(fd);
    }
  }

  /** Bytes that follow those there are. */
  append(part: Buffer): void {
    if (!this.#isKept) return;
    try {
      if (this.#fd === undefined || this.#unseen > UNSEEN_BYTES_MAX) {
        this.#unseen = 0;
        if (this.#spareBytes() <= 0) return this.discard();
      }
      this.#unseen += part.length;
      this.#fd ??= openSync(this.#path, 'a', 0o600);
      if (writeSync(this.#fd, part) !== part.length) this.discard();
    } catch {
      this.discard();
    }
  }

  /** Leaves what there is to whoever comes next. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
    this.#isKept = false;
  }
  discard(): void {
    this.close();
    rmSync(this.#path, { force: true });
  }
}
