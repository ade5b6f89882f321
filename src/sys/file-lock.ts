/**
 * A lock that one process at a time has, by the name of a file (flock): the kernel gives it back when its holder ends, however that
 * comes about, so nothing is left locked. Between namespaces too. The file goes with the lock.
 */

import { closeSync, fstatSync, openSync, statSync, unlinkSync } from 'node:fs';
import { declare, SystemError } from './libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;
const flock = declare<[fd: number, operation: number]>('int flock(int fd, int operation)');

/** The way to give it back; undefined while somebody else, in this process too, has it. */
export function tryLockFile(path: string): (() => void) | undefined {
  for (;;) {
    const fd = openSync(path, 'a', 0o600);
    try {
      flock(fd, LOCK_EX | LOCK_NB);
    } catch (error) {
      closeSync(fd);
      if (error instanceof SystemError && (error.code === 'EAGAIN' || error.code === 'EWOULDBLOCK')) return undefined;
      throw error;
    }
    // Its last holder may have taken the file away in between.
    if (statSync(path, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino)
      return () => {
        unlinkSync(path);
        closeSync(fd);
      };
    closeSync(fd);
  }
}
