/**
 * /dev/null as a container's standard input. crun (1.8) gives what a process has as its streams to the process's user, and so a pod that is
 * nobody on the machine came to own the machine's /dev/null, and could have closed it to all others. Where it lies on a mount that
 * cannot be written nobody can change its owner or mode, not even root of a container by its own descriptor; who writes to it notices nothing.
 */

import { chownSync, statSync } from 'node:fs';
import { bindMount } from './mount.ts';

const PATH = '/dev/null';

/** In this mount namespace, which must be one's own; may be repeated. */
export function keepNullDevice(): void {
  if (!isNullDeviceKept()) bindMount(PATH, PATH, { readOnly: true });
}

/** Whether it cannot be given to anybody here. Asked by giving it to whom it belongs. */
export function isNullDeviceKept(): boolean {
  const { uid, gid } = statSync(PATH);
  try {
    chownSync(PATH, uid, gid);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EROFS';
  }
}
