/**
 * File systems of other machines, mounted by their own mount programs in a process that can be given up: a server that is dead costs the
 * pod its start, never the agent its thread. Taken away lazily, so that a dead server keeps no pod from ending.
 */

import { existsSync, mkdirSync, rmdirSync } from 'node:fs';
import { CommandError, runCommand } from '../../sys/command.ts';
import { isMountPoint, unmount } from '../../sys/mount.ts';

/** Less than the two minutes that mount programs try on their own: the kubelet tries again anyway, and says so. */
const MOUNT_SECONDS_MAX = 20;

export interface RemoteMount {
  readonly type: string;
  /** `server:/share`. */
  readonly source: string;
  readonly target: string;
  /** Words for `mount -o`; each is checked to be one word. */
  readonly options: readonly string[];
  readonly isReadOnly: boolean;
  /** Debian package of the mount program `/sbin/mount.TYPE`. */
  readonly debianPackage: string;
  readonly signal: AbortSignal;
}

/** Idempotent. Rejects with what the mount program said. */
export async function mountRemote(mount: RemoteMount): Promise<void> {
  const { type, source, target, options, isReadOnly, debianPackage, signal } = mount;
  if (isMountPoint(target)) return;
  if (!existsSync(`/sbin/mount.${type}`))
    throw new Error(`the node has no mount.${type}: apt-get install ${debianPackage}`);
  for (const option of options) checkMountOption(option);
  if (!existsSync(target)) mkdirSync(target, { mode: 0o750 });
  const words = [...(isReadOnly ? ['ro'] : []), ...options];
  const args = ['-t', type, ...(words.length > 0 ? ['-o', words.join(',')] : []), '--', source, target];
  try {
    await runCommand('mount', args, { timeoutMs: MOUNT_SECONDS_MAX * 1000, signal });
  } catch (error) {
    unmount(target);
    rmdirSync(target);
    if (!(error instanceof CommandError)) throw error;
    const said = error.stderr.trim();
    throw new Error(`mount -t ${type} ${source}: ${said || `no answer within ${MOUNT_SECONDS_MAX} s`}`);
  }
}

/** Idempotent; also when the server does not answer. The folder is only removed once nothing is mounted on it. */
export function unmountRemote(target: string): void {
  unmount(target);
  if (existsSync(target)) rmdirSync(target);
}

/** Mount options stand in one comma-separated word: one that holds a comma would be two. */
export function checkMountOption(option: string): void {
  if (!/^[\w.:/@%+=-]+$/.test(option))
    throw new Error(
      `mountOptions: Invalid value: ${JSON.stringify(option)}: must be one word of letters, digits and ".:/@%+=-_"`,
    );
}

/** An IPv6 address stands in brackets before a path. */
export function bracketed(host: string): string {
  return host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
}
