/**
 * Gives a volume's content to the pod's fsGroup: group, group access, and the set-group-id bit of folders. Invariant: it never
 * follows a link and never leaves the volume, even if a pod swaps folders for links meanwhile: everything is opened without
 * following and changed through what is open. It gives the thread back now and then, so a large volume holds nobody up.
 */

import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fstatSync,
  lchownSync,
  lstatSync,
  openSync,
  readdirSync,
} from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';

const FOLDER = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
const O_PATH = 0o10000000;
const ENTRIES_PER_TURN = 200;
const GROUP_FILE = 0o660;
const GROUP_FOLDER = 0o2770;

export interface OwnershipOptions {
  readonly fsGroup: number;
  readonly changePolicy?: string | undefined;
  readonly isReadOnly: boolean;
}

/** A volume that is mounted read-only stays as it is. */
export async function giveToGroup(path: string, options: OwnershipOptions): Promise<void> {
  if (options.isReadOnly) return;
  if (options.changePolicy === 'OnRootMismatch' && matches(path, options.fsGroup)) return;
  const state = { entries: 0 };
  await visit(path, options.fsGroup, state);
}

function matches(path: string, gid: number): boolean {
  const stat = lstatSync(path);
  return stat.gid === gid && (stat.mode & GROUP_FOLDER) === GROUP_FOLDER;
}

async function visit(path: string, gid: number, state: { entries: number }): Promise<void> {
  const fd = openSync(path, FOLDER);
  try {
    const self = `/proc/self/fd/${fd}`;
    for (const entry of readdirSync(self, { withFileTypes: true })) {
      if (++state.entries % ENTRIES_PER_TURN === 0) await turn();
      const at = `${self}/${entry.name}`;
      try {
        if (entry.isDirectory()) await visit(at, gid, state);
        else if (entry.isFile()) giveFile(at, gid);
        else lchownSync(at, lstatSync(at).uid, gid);
      } catch (error) {
        // Gone, or another thing by now: the pod that changed it owns what it made.
        if (!['ENOENT', 'ELOOP', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
      }
    }
    // Last, so that an interrupted walk is begun anew under OnRootMismatch.
    const stat = fstatSync(fd);
    chownSync(self, stat.uid, gid);
    chmodSync(self, (stat.mode & 0o7777) | GROUP_FOLDER);
  } finally {
    closeSync(fd);
  }
}

function giveFile(path: string, gid: number): void {
  const fd = openSync(path, O_PATH | constants.O_NOFOLLOW);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) return;
    const self = `/proc/self/fd/${fd}`;
    chownSync(self, stat.uid, gid);
    chmodSync(self, (stat.mode & 0o7777) | GROUP_FILE);
  } finally {
    closeSync(fd);
  }
}
