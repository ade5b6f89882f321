/**
 * SELinux of the kernel: whether there is a policy, whether it knows a label, and the labels of files. Invariant: a label is set without ever
 * following a link or leaving the folder, even if somebody swaps folders for links meanwhile.
 */

import { closeSync, constants, existsSync, openSync, readdirSync, writeFileSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { SystemError } from './libc.ts';
import { getAttribute, setAttribute } from './xattr.ts';

const FILES = '/sys/fs/selinux';
const ATTRIBUTE = 'security.selinux';
const FOLDER = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
const ENTRIES_PER_TURN = 200;

/** Asked once a process: a policy is loaded before anything else runs. */
export function hasSelinux(): boolean {
  return existsSync(`${FILES}/enforce`);
}

/** Throws for a label that the policy does not know. */
export function checkLabel(label: string): void {
  try {
    writeFileSync(`${FILES}/context`, label);
  } catch (error) {
    throw new Error(`the SELinux policy of this node does not know the label ${JSON.stringify(label)}`, {
      cause: error,
    });
  }
}

export function labelOf(path: string): string | undefined {
  return getAttribute(path, ATTRIBUTE)?.toString('utf8').replace(/\0$/, '');
}

/** Gives a file, or a folder and all below it on the same and other file systems, a label. What has no labels at all stays as it is. */
export async function relabel(path: string, label: string): Promise<void> {
  const state = { entries: 0 };
  const visit = async (at: string): Promise<void> => {
    let fd: number;
    try {
      fd = openSync(at, FOLDER);
    } catch (error) {
      // No folder, or none any more.
      if (!isGone(error)) throw error;
      return setLabel(at, label);
    }
    try {
      for (const name of readdirSync(`/proc/self/fd/${fd}`)) {
        if (++state.entries % ENTRIES_PER_TURN === 0) await turn();
        await visit(`/proc/self/fd/${fd}/${name}`);
      }
      // Last: what has its label is done, wholly.
      setLabel(`/proc/self/fd/${fd}/.`, label);
    } finally {
      closeSync(fd);
    }
  };
  await visit(path);
}

/** What has no labels, and what is gone, stays as it is. */
export function setLabel(path: string, label: string): void {
  try {
    setAttribute(path, ATTRIBUTE, Buffer.from(`${label}\0`));
  } catch (error) {
    if (error instanceof SystemError && ['ENOENT', 'EOPNOTSUPP', 'ENOTSUP', 'EROFS'].includes(error.code)) return;
    throw error;
  }
}

function isGone(error: unknown): boolean {
  return ['ENOTDIR', 'ELOOP', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '');
}
