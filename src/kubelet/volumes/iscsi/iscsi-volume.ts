/**
 * iscsi: a disk of an iSCSI target, logged in to once for the node, formatted when it is empty, and bound into each pod; or handed
 * over as a device. Invariants: the disk's record and the names of its users (files in its folder) are on this node's disk before
 * anybody logs in and go after the session has; and what waits for a server is another process, never the agent's thread.
 */

import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ISCSIPersistentVolumeSource, Secret } from '../../../api/core/v1.gen.ts';
import { SECRETS } from '../../../client/resources.ts';
import { mountDisk } from '../../../sys/block-device.ts';
import { runCommand } from '../../../sys/command.ts';
import { bindMount, isMountPoint, unmount } from '../../../sys/mount.ts';
import { checkMountOption } from '../remote-mount.ts';
import { Turns } from '../turns.ts';
import type { VolumeContext, VolumePlugin, VolumeTarget } from '../volume.ts';
import type { VolumeNode } from '../volume-node.ts';
import { attach, type Chap, detach, type Lun } from './initiator.ts';

const FS_TYPE_DEFAULT = 'ext4';
const PORT_DEFAULT = 3260;
const SECRET_TYPE = 'kubernetes.io/iscsi-chap';
const UNMOUNT_MS_MAX = 30_000;

/** Sessions are the machine's: steps about one target, one after the other. */
const turns = new Turns();

const root = ({ rootDir }: VolumeNode): string => join(rootDir, 'plugins', 'kubernetes.io~iscsi');
const userName = ({ podUid, name }: VolumeTarget): string => `${podUid}~${encodeURIComponent(name)}`;
const mountOf = (folder: string): string => join(folder, 'mount');

function lunOf(source: ISCSIPersistentVolumeSource): Lun {
  const portals = [...new Set([source.targetPortal, ...(source.portals ?? [])].map(withPort))];
  const iface = source.iscsiInterface || 'default';
  for (const word of [...portals, iface, source.iqn, source.initiatorName ?? ''])
    if (!/^[\w.:[\]-]*$/.test(word) || word.startsWith('-'))
      throw new Error(`iscsi: Invalid value: ${JSON.stringify(word)}: letters, digits and ".:-_[]" only`);
  const { iqn, lun, initiatorName } = source;
  return { portals, iqn, lun, iface, ...(initiatorName ? { initiatorName } : {}) };
}

function withPort(portal: string): string {
  return /^(\[.+\]|[^:]+):\d+$/.test(portal)
    ? portal
    : `${portal.includes(':') && !portal.startsWith('[') ? `[${portal}]` : portal}:${PORT_DEFAULT}`;
}

async function chapOf(source: ISCSIPersistentVolumeSource, context: VolumeContext) {
  if (!source.chapAuthDiscovery && !source.chapAuthSession) return {};
  const podNamespace = context.pod.metadata.namespace!;
  const namespace = (source.secretRef as { namespace?: string } | undefined)?.namespace || podNamespace;
  const name = source.secretRef?.name ?? '';
  const which = `secret "${namespace}/${name}" with the CHAP passwords`;
  const secret =
    namespace === podNamespace
      ? await context.read<Secret>(SECRETS, name)
      : await context.fetch<Secret>(SECRETS, { namespace, name });
  if (!secret) throw new Error(`${which} not found`);
  if (secret.type !== SECRET_TYPE) throw new Error(`${which} is of type ${secret.type}, not ${SECRET_TYPE}`);
  const entries = Object.entries(secret.data ?? {}).map(
    ([key, value]) => [key, Buffer.from(value, 'base64').toString('utf8')] as const,
  );
  const below = (prefix: string): Chap =>
    Object.fromEntries(
      ['username', 'password', 'username_in', 'password_in'].flatMap(key => {
        const value = entries.find(([one]) => one === `${prefix}.auth.${key}`)?.[1];
        return value ? [[key, value] as const] : [];
      }),
    );
  return {
    ...(source.chapAuthDiscovery ? { discovery: below('discovery.sendtargets') } : {}),
    ...(source.chapAuthSession ? { session: below('node.session') } : {}),
  };
}

/** The disk, with its user written down; `use` runs in the target's turn. */
async function withDisk<T>(
  source: ISCSIPersistentVolumeSource,
  { target, context }: { readonly target: VolumeTarget; readonly context: VolumeContext },
  use: (device: string, folder: string) => Promise<T>,
): Promise<T> {
  const lun = lunOf(source);
  const chap = await chapOf(source, context);
  const id = createHash('sha256').update(JSON.stringify(lun)).digest('hex').slice(0, 32);
  const folder = join(root(context.volumes), id);
  return turns.run(lun.iqn, async () => {
    context.signal.throwIfAborted();
    mkdirSync(join(folder, 'users'), { recursive: true, mode: 0o700 });
    writeFileSync(join(folder, 'iscsi.json'), JSON.stringify(lun), { mode: 0o600 });
    writeFileSync(join(folder, 'users', userName(target)), '');
    const device = await attach(lun, { ...chap, clock: context.clock, signal: context.signal });
    return use(device, folder);
  });
}

interface Kept {
  readonly folder: string;
  readonly lun: Lun;
  readonly users: readonly string[];
}

function kept(node: VolumeNode): Kept[] {
  const home = root(node);
  return (existsSync(home) ? readdirSync(home) : []).flatMap(name => {
    const folder = join(home, name);
    try {
      const lun = JSON.parse(readFileSync(join(folder, 'iscsi.json'), 'utf8')) as Lun;
      return [{ folder, lun, users: readdirSync(join(folder, 'users')) }];
    } catch {
      // Its record was still being written: nobody has logged in.
      return [];
    }
  });
}

async function release(target: VolumeTarget, node: VolumeNode): Promise<void> {
  const user = userName(target);
  for (const { folder, lun } of kept(node).filter(({ users }) => users.includes(user)))
    await turns.run(lun.iqn, async () => {
      const all = kept(node);
      const mine = all.find(one => one.folder === folder);
      if (mine?.users.every(one => one === user)) {
        const path = mountOf(folder);
        // Waits until everything is written: a disk that is taken away before would lose it.
        if (isMountPoint(path)) await runCommand('umount', ['--', path], { timeoutMs: UNMOUNT_MS_MAX });
        await detach(
          lun,
          all.filter(one => one !== mine && one.users.length > 0).map(one => one.lun),
        );
        if (existsSync(path)) rmdirSync(path);
        rmSync(join(folder, 'users', user), { force: true });
        rmSync(join(folder, 'iscsi.json'), { force: true });
        rmdirSync(join(folder, 'users'));
        rmdirSync(folder);
      } else rmSync(join(folder, 'users', user), { force: true });
    });
}

export const iscsiVolume: VolumePlugin<ISCSIPersistentVolumeSource> = {
  source: 'iscsi',
  folder: 'kubernetes.io~iscsi',
  isRelabelled: true,
  isRemote: true,
  ownsFiles: ({ readOnly }) => !readOnly,
  async mount(source, target, context) {
    if (isMountPoint(target.path)) return;
    const { isReadOnly, mountOptions } = context.use;
    for (const option of mountOptions) checkMountOption(option);
    await withDisk(source, { target, context }, async (device, folder) => {
      mkdirSync(mountOf(folder), { recursive: true, mode: 0o750 });
      await mountDisk({
        device,
        target: mountOf(folder),
        fsType: source.fsType || FS_TYPE_DEFAULT,
        options: mountOptions,
        isReadOnly,
        signal: context.signal,
      });
      mkdirSync(target.path, { recursive: true, mode: 0o750 });
      bindMount(mountOf(folder), target.path, { readOnly: isReadOnly });
    });
  },
  async unmount(target, node) {
    unmount(target.path);
    if (existsSync(target.path)) rmdirSync(target.path);
    await release(target, node);
  },
  map: (source, target, context) => withDisk(source, { target, context }, async device => device),
  unmap: release,
};
