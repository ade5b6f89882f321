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
import type { VolumeContext } from './volume.ts';

const FOLDER = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
const O_PATH = 0o10000000;
const ENTRIES_PER_TURN = 200;
const REPORT_AFTER_MS = 30_000;
const REPORT_EVERY_MS = 60_000;
const ADVICE =
  'https://kubernetes.io/docs/tasks/configure-pod-container/security-context/#configure-volume-permission-and-ownership-change-policy-for-pods';
const GROUP_FILE = 0o660;
const GROUP_FOLDER = 0o2770;

export interface OwnershipOptions {
  readonly fsGroup: number;
  readonly changePolicy?: string | undefined;
  readonly isReadOnly: boolean;
  /** The user waits for the pod meanwhile. */
  readonly context: Pick<VolumeContext, 'clock' | 'event' | 'pod'>;
}

/** A volume that is mounted read-only stays as it is. */
export async function giveToGroup(path: string, options: OwnershipOptions): Promise<void> {
  if (options.isReadOnly) return;
  if (options.changePolicy === 'OnRootMismatch' && matches(path, options.fsGroup)) return;
  const state = { entries: 0 };
  const stop = reportProgress(path, state, options.context);
  try {
    await visit(path, options.fsGroup, state);
  } finally {
    stop();
  }
}

/** Events of a walk that takes long, until the function returned is called. */
function reportProgress(
  path: string,
  state: { readonly entries: number },
  { clock, event, pod }: OwnershipOptions['context'],
): () => void {
  const uid = pod.metadata.uid ?? '';
  // Folders of the machine are nobody's business.
  const about = `Setting volume ownership for ${path.slice(Math.max(0, path.indexOf(uid)))}`;
  const report = (message: string) => {
    event('Warning', 'VolumePermissionChangeInProgress', message);
    timer = clock.after(REPORT_EVERY_MS, () => report(`${about}, processed ${state.entries} files.`));
  };
  let timer = clock.after(REPORT_AFTER_MS, () =>
    report(`${about} is taking longer than expected, consider using OnRootMismatch - ${ADVICE}`),
  );
  return () => timer.cancel();
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
