/**
 * Disks: what is on one, file systems made, mounted and grown, and files as disks (loop devices). Invariant: a file system is made
 * only on a disk on which `blkid` finds nothing at all; anything else that is not the wanted file system is refused, never
 * overwritten. Programs do the work (util-linux, e2fsprogs, xfsprogs), so nothing here blocks the thread.
 */

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { CommandError, runCommand } from './command.ts';
import { isMountPoint, mountTable } from './mount.ts';

interface FileSystem {
  /** The Debian package that brings the programs. */
  readonly package: string;
  readonly make: (device: string) => readonly [string, ...string[]];
  /** Mounted, or not. */
  readonly grow: (at: {
    readonly device: string;
    readonly mountPoint: string | undefined;
  }) => readonly [string, ...string[]];
  readonly check?: (device: string) => readonly [string, ...string[]];
}

const EXT: FileSystem = {
  package: 'e2fsprogs',
  // As upstream: no reserved blocks, no check that asks.
  make: device => ['mkfs.ext4', '-q', '-F', '-m0', device],
  grow: ({ device }) => ['resize2fs', device],
  check: device => ['e2fsck', '-p', '-f', device],
};
const FILE_SYSTEMS: Readonly<Record<string, FileSystem>> = {
  ext4: EXT,
  ext3: { ...EXT, make: device => ['mkfs.ext3', '-q', '-F', '-m0', device] },
  xfs: {
    package: 'xfsprogs',
    make: device => ['mkfs.xfs', '-q', '-f', device],
    grow: ({ mountPoint }) => ['xfs_growfs', mountPoint!],
  },
};

/** Type of the file system on the disk; '' when there is nothing at all. Rejects for a partition table or anything unknown. */
export async function contentOf(device: string): Promise<string> {
  let output: string;
  try {
    output = await runCommand('blkid', ['-p', '-s', 'TYPE', '-s', 'PTTYPE', '-o', 'export', device]);
  } catch (error) {
    // 2: nothing that it knows was found.
    if (error instanceof CommandError && error.code === 2) return '';
    throw error;
  }
  const fields = new Map(output.split('\n').map(line => line.split('=') as [string, string]));
  const type = fields.get('TYPE');
  if (type) return type;
  if (fields.get('PTTYPE'))
    throw new Error(`${device} has a partition table (${fields.get('PTTYPE')}), not a file system`);
  return '';
}

export interface DiskMount {
  readonly device: string;
  /** Exists. */
  readonly target: string;
  readonly fsType: string;
  readonly options: readonly string[];
  readonly isReadOnly: boolean;
  readonly signal?: AbortSignal;
}

/** Formats an empty disk, checks one that is not, mounts it. */
export async function mountDisk({ device, target, fsType, options, isReadOnly, signal }: DiskMount): Promise<void> {
  if (isMountPoint(target)) return;
  const kind = FILE_SYSTEMS[fsType];
  if (!kind)
    throw new Error(
      `file system ${JSON.stringify(fsType)} is not supported: choose ${Object.keys(FILE_SYSTEMS).join(', ')}`,
    );
  const found = await contentOf(device);
  const limits = signal ? { signal } : {};
  if (found === '') {
    if (isReadOnly) throw new Error(`cannot mount ${device} read-only: it has no file system yet`);
    await runTool(kind, kind.make(device), limits);
  } else if (found !== fsType) {
    throw new Error(
      `failed to mount the volume as ${JSON.stringify(fsType)}, it already contains ${found}. Mount error: wrong file system type`,
    );
  }
  const words = [...(isReadOnly ? ['ro'] : []), ...options];
  await runCommand('mount', ['-t', fsType, ...(words.length ? ['-o', words.join(',')] : []), device, target], limits);
}

/** Grows the file system to its disk's size. Mounted or not; nothing to do is no error. */
export async function growFileSystem(at: { readonly device: string; readonly mountPoint?: string }): Promise<void> {
  const type = await contentOf(at.device);
  const kind = FILE_SYSTEMS[type];
  if (!kind) throw new Error(`cannot grow ${at.device}: it has ${type || 'no file system'}`);
  const mountPoint = at.mountPoint ?? mountTable().find(entry => entry.source === at.device)?.mountPoint;
  if (!mountPoint && kind.check) await runTool(kind, kind.check(at.device), {}).catch(ignoreRepaired);
  if (!mountPoint && type === 'xfs') throw new Error(`cannot grow ${at.device}: xfs grows only while it is mounted`);
  await runTool(kind, kind.grow({ device: at.device, mountPoint }), {});
}

function ignoreRepaired(error: unknown): void {
  // e2fsck: 1 means that it repaired what it found.
  if (!(error instanceof CommandError) || error.code !== 1) throw error;
}

function runTool(
  kind: FileSystem,
  [program, ...args]: readonly [string, ...string[]],
  limits: { signal?: AbortSignal },
): Promise<string> {
  return runCommand(program, args, limits).catch(error => {
    if (error instanceof CommandError && /is not installed/.test(error.message))
      throw new Error(`${error.message}; install it with: apt-get install ${kind.package}`);
    throw error;
  });
}

/** The loop device of a file, made when there is none; its size follows the file's. */
export async function attachLoop(file: string): Promise<string> {
  const known = await loopOf(file);
  if (known) return known;
  return (await runCommand('losetup', ['--find', '--show', file])).trim();
}

export async function loopOf(file: string): Promise<string | undefined> {
  if (!existsSync(file)) return undefined;
  const output = await runCommand('losetup', ['--associated', file, '--noheadings', '--output', 'NAME']);
  return output.trim().split('\n')[0] || undefined;
}

/** The device takes the size that its file has now. */
export async function resizeLoop(device: string): Promise<void> {
  await runCommand('losetup', ['--set-capacity', device]);
}

export async function detachLoop(file: string): Promise<void> {
  const device = await loopOf(file);
  if (device) await runCommand('losetup', ['--detach', device]);
}

/** Size of a disk; undefined for anything else. */
export function blockBytes(path: string): number | undefined {
  const stat = statSync(path);
  if (!stat.isBlockDevice()) return undefined;
  const [major, minor] = [(stat.rdev >> 8) & 0xfff, (stat.rdev & 0xff) | ((stat.rdev >> 12) & 0xfff00)];
  return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * 512;
}

/** Loop devices whose files lie below the folder, by what the kernel tells. */
export function loopsBelow(folder: string): string[] {
  return readdirSync('/sys/block')
    .filter(name => name.startsWith('loop'))
    .filter(name => {
      try {
        return readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').startsWith(`${folder}/`);
      } catch {
        return false;
      }
    })
    .map(name => `/dev/${name}`);
}

/** For folders that are about to be deleted. */
export async function detachLoopsBelow(folder: string): Promise<void> {
  for (const device of loopsBelow(folder)) await runCommand('losetup', ['--detach', device]).catch(() => undefined);
}
