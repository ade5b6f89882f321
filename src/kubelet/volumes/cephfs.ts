/**
 * cephfs: a folder of a Ceph file system, by the client process ceph-fuse where it is installed, else by the kernel's client.
 * The key is given in a file that only root reads and that goes again once the mount is made, never on a command line.
 */

import { existsSync, mkdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import type { CephFSPersistentVolumeSource, Secret } from '../../api/core/v1.gen.ts';
import { SECRETS } from '../../client/resources.ts';
import { CommandError, runCommand } from '../../sys/command.ts';
import { isMountPoint, unmount } from '../../sys/mount.ts';
import { checkMountOption, mountRemote, unmountRemote } from './remote-mount.ts';
import type { VolumeContext, VolumePlugin } from './volume.ts';

const CEPH_FUSE = '/usr/bin/ceph-fuse';
const DEFAULT_USER = 'admin';
const DEFAULT_KEY_FILE = '/etc/ceph/user.secret';
const MOUNT_SECONDS_MAX = 30;

export const cephfsVolume: VolumePlugin<CephFSPersistentVolumeSource> = {
  source: 'cephfs',
  folder: 'kubernetes.io~cephfs',
  isRemote: true,
  async mount(source, target, context) {
    if (isMountPoint(target.path)) return;
    const key = await keyOf(source, context);
    if (existsSync(CEPH_FUSE)) await mountByFuse(source, { target: target.path, key, context });
    else await mountByKernel(source, { target: target.path, key, context });
  },
  async unmount({ path }) {
    unmountRemote(path);
    for (const file of [keyringPath(path), keyPath(path)]) rmSync(file, { force: true });
  },
};

interface Call {
  readonly target: string;
  /** The key, or the file on the node that holds it. */
  readonly key: { readonly text: string } | { readonly file: string };
  readonly context: VolumeContext;
}

const keyringPath = (target: string): string => `${target}.keyring`;
const keyPath = (target: string): string => `${target}.key`;

async function mountByFuse(source: CephFSPersistentVolumeSource, { target, key, context }: Call): Promise<void> {
  const user = userOf(source);
  const monitors = source.monitors.map(monitor).join(',');
  const { isReadOnly, mountOptions } = context.use;
  for (const option of mountOptions) checkMountOption(option);
  const keyring = 'text' in key ? keyringPath(target) : key.file;
  if ('text' in key) writeFileSync(keyring, `[client.${user}]\n\tkey = ${key.text}\n`, { mode: 0o600 });
  if (!existsSync(target)) mkdirSync(target, { mode: 0o750 });
  const options = [...(source.readOnly || isReadOnly ? ['ro'] : []), ...mountOptions];
  const args = [
    ...['-c', '/dev/null', '-k', keyring, '-m', monitors, '--id', user, '-r', rootOf(source)],
    ...(options.length > 0 ? ['-o', options.join(',')] : []),
    `--client_mount_timeout=${MOUNT_SECONDS_MAX - 5}`,
    target,
  ];
  try {
    await runCommand(CEPH_FUSE, args, { timeoutMs: MOUNT_SECONDS_MAX * 1000, signal: context.signal });
  } catch (error) {
    unmount(target);
    rmdirSync(target);
    rmSync(keyringPath(target), { force: true });
    if (!(error instanceof CommandError)) throw error;
    throw new Error(`ceph-fuse ${monitors}:${rootOf(source)}: ${error.stderr.trim() || error.message}`);
  }
}

async function mountByKernel(source: CephFSPersistentVolumeSource, { target, key, context }: Call): Promise<void> {
  const file = 'text' in key ? keyPath(target) : key.file;
  if ('text' in key) writeFileSync(file, key.text, { mode: 0o600 });
  try {
    await mountRemote({
      type: 'ceph',
      source: `${source.monitors.map(monitor).join(',')}:${rootOf(source)}`,
      target,
      options: [`name=${userOf(source)}`, `secretfile=${file}`, ...context.use.mountOptions],
      isReadOnly: (source.readOnly ?? false) || context.use.isReadOnly,
      debianPackage: 'ceph-fuse (or ceph-common where the kernel has ceph)',
      signal: context.signal,
    });
  } finally {
    rmSync(keyPath(target), { force: true });
  }
}

async function keyOf(
  { secretRef, secretFile }: CephFSPersistentVolumeSource,
  context: VolumeContext,
): Promise<Call['key']> {
  if (!secretRef?.name) return { file: secretFile || DEFAULT_KEY_FILE };
  const namespace = secretRef.namespace || context.pod.metadata.namespace!;
  const secret =
    namespace === context.pod.metadata.namespace
      ? await context.read<Secret>(SECRETS, secretRef.name)
      : await context.fetch<Secret>(SECRETS, { namespace, name: secretRef.name });
  const data = Object.values(secret?.data ?? {})[0];
  if (!secret || data === undefined)
    throw new Error(`secret "${namespace}/${secretRef.name}" with the Ceph key ${secret ? 'is empty' : 'not found'}`);
  const text = Buffer.from(data, 'base64').toString().trim();
  if (!/^[A-Za-z0-9+/=]+$/.test(text))
    throw new Error(`secret "${namespace}/${secretRef.name}": its first value is no Ceph key`);
  return { text };
}

function userOf({ user }: CephFSPersistentVolumeSource): string {
  const name = user || DEFAULT_USER;
  if (!/^[\w.-]+$/.test(name))
    throw new Error(`cephfs.user: Invalid value: ${JSON.stringify(name)}: must be a plain name`);
  return name;
}

function rootOf({ path }: CephFSPersistentVolumeSource): string {
  const root = path || '/';
  return root.startsWith('/') ? root : `/${root}`;
}

function monitor(address: string): string {
  if (!/^[\w.:[\]-]+$/.test(address))
    throw new Error(`cephfs.monitors: Invalid value: ${JSON.stringify(address)}: must be HOST or HOST:PORT`);
  return address;
}
