/**
 * The node's iSCSI initiator (Debian's open-iscsi): sessions with targets by `iscsiadm`, disks as the kernel shows them under /sys, so
 * no udev is needed. Sessions are the whole node's, as its daemon `iscsid` is. Everything is repeatable. Passwords are given to
 * `iscsiadm` as upstream does it, which has no other way in.
 */

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../../base/clock.ts';
import { CommandError, runCommand } from '../../../sys/command.ts';

/** One disk of a target. */
export interface Lun {
  /** Each with its port. */
  readonly portals: readonly string[];
  readonly iqn: string;
  readonly lun: number;
  readonly iface: string;
  readonly initiatorName?: string;
}

/** Names of the settings, after their common beginning, with their values: `username`, `password`, `username_in`, `password_in`. */
export type Chap = Readonly<Record<string, string>>;

export interface Login {
  readonly discovery?: Chap;
  readonly session?: Chap;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

const DAEMON_SOCKET = '@ISCSIADM_ABSTRACT_NAMESPACE';
/** A socket of protocol 8 (NETLINK_ISCSI) that is the kernel's own (0). */
const KERNEL_ANSWERS = /^\S+\s+8\s+0\s/m;
const STEP_MS_MAX = 20_000;
const DISK_MS_MAX = 10_000;
const LOOK_MS = 50;
const OWN_SETTINGS = new Set(['iface.iscsi_ifacename', 'iface.initiatorname']);
/** Exit codes of iscsiadm. */
const SESSION_EXISTS = 15;
const NO_RECORDS_FOUND = 21;
const NO_SESSION_FOUND = 2;

/** Logs in by every portal that answers and returns the disk, by multipath where the node has it. Rejects when no portal answers. */
export async function attach(lun: Lun, login: Login): Promise<string> {
  await startDaemon(login.signal);
  const iface = await prepareInterface(lun, login.signal);
  const problems: unknown[] = [];
  for (const portal of lun.portals)
    await logIn(lun, { portal, iface, login }).catch(error => {
      login.signal.throwIfAborted();
      problems.push(error);
    });
  const disks = await waitForDisks(lun, login);
  const [first] = disks;
  if (first === undefined) {
    if (problems.length === lun.portals.length) throw problems[0];
    throw new Error(`target ${lun.iqn} at ${lun.portals.join(', ')} has no disk with the LUN ${lun.lun}`);
  }
  return disks.length > 1 ? multipathOf(disks, login) : `/dev/${first}`;
}

/** Takes the disk away, and the sessions that none of the other disks needs. Nothing may be mounted from it any more. */
export async function detach(lun: Lun, others: readonly Lun[]): Promise<void> {
  const disks = disksOf(lun);
  const busy = disks.find(({ name }) => ['ext4', 'xfs'].some(type => existsSync(`/sys/fs/${type}/${name}`)));
  if (busy) throw new Error(`disk ${busy.name} of target ${lun.iqn} is still being written to`);
  for (const { name, folder } of disks) {
    await runCommand('blockdev', ['--flushbufs', `/dev/${name}`], { timeoutMs: STEP_MS_MAX }).catch(() => {});
    await writeSystem(join(folder, 'delete'), '1');
  }
  const iface = interfaceName(lun);
  const needed = others.filter(other => other.iqn === lun.iqn && interfaceName(other) === iface);
  for (const portal of lun.portals) {
    if (needed.some(({ portals }) => portals.includes(portal))) continue;
    await iscsiadm([...nodeOf(lun.iqn, portal, iface), '--logout'], {}).catch(
      ignore(NO_RECORDS_FOUND, NO_SESSION_FOUND),
    );
    await forget(lun.iqn, portal, iface);
  }
  if (iface !== lun.iface && !others.some(other => interfaceName(other) === iface))
    await iscsiadm(['--mode', 'iface', '--interface', iface, '--op', 'delete'], {}).catch(ignore(NO_RECORDS_FOUND));
}

/** An interface of the name that a custom initiator name needs, else the one that was asked for. */
function interfaceName({ iface, initiatorName }: Lun): string {
  if (initiatorName === undefined) return iface;
  return `${iface}-${createHash('sha256').update(initiatorName).digest('hex').slice(0, 12)}`;
}

async function startDaemon(signal: AbortSignal): Promise<void> {
  if (!existsSync('/usr/sbin/iscsiadm')) throw new Error('the node has no iscsiadm: apt-get install open-iscsi');
  if (readFileSync('/proc/net/unix', 'utf8').includes(DAEMON_SOCKET)) return;
  await runCommand('modprobe', ['--all', 'iscsi_tcp', 'sd_mod'], { signal }).catch(() => {});
  if (!existsSync('/sys/class/iscsi_transport/tcp'))
    throw new Error('the kernel of this node has no iSCSI (module iscsi_tcp): use a node with a kernel that has it');
  if (!KERNEL_ANSWERS.test(readFileSync('/proc/net/netlink', 'utf8')))
    throw new Error(
      'the kernel has iSCSI only in the network namespace of the machine itself: use a node in host mode (cox server, cox agent)',
    );
  // Debian's own check gives the node a name of its own first.
  await runCommand('sh', ['-c', 'f=/usr/lib/open-iscsi/startup-checks.sh; [ ! -x $f ] || $f; exec iscsid'], {
    timeoutMs: STEP_MS_MAX,
    signal,
  });
}

async function prepareInterface(lun: Lun, signal: AbortSignal): Promise<string> {
  const name = interfaceName(lun);
  if (name === lun.iface) return name;
  const one = ['--mode', 'iface', '--interface', name];
  // Of one's own interfaces everything else; the default one has nothing to tell.
  const settings: (readonly [string, string])[] =
    lun.iface === 'default'
      ? []
      : (await iscsiadm(['--mode', 'iface', '--interface', lun.iface], { signal }))
          .split('\n')
          .map(line => /^(iface\.\S+) = (.+)$/.exec(line))
          .filter(found => found !== null)
          .map(([, key = '', value = '']) => [key, value] as const)
          .filter(([key, value]) => value !== '<empty>' && !OWN_SETTINGS.has(key));
  // It is there already when another disk uses it.
  await iscsiadm([...one, '--op', 'new'], { signal }).catch(ignore(SESSION_EXISTS));
  for (const [key, value] of [...settings, ['iface.initiatorname', lun.initiatorName!] as const])
    await iscsiadm([...one, '--op', 'update', '--name', key, '--value', value], { signal }).catch(
      ignore(SESSION_EXISTS),
    );
  return name;
}

async function logIn(
  { iqn }: Lun,
  { portal, iface, login }: { readonly portal: string; readonly iface: string; readonly login: Login },
): Promise<void> {
  const { signal } = login;
  if (sessionsOf(iqn).some(session => session.portal === portal && session.iface === iface)) return;
  const update = async (of: readonly string[], settings: Readonly<Record<string, string>>) => {
    for (const [name, value] of Object.entries(settings))
      await iscsiadm([...of, '--op', 'update', '--name', name, '--value', value], { signal });
  };
  const found = discoveryOf(portal, iface);
  const node = nodeOf(iqn, portal, iface);
  try {
    await iscsiadm([...found, '--op', 'new'], { signal });
    await update(found, {
      'discovery.sendtargets.reopen_max': '1',
      ...chapSettings('discovery.sendtargets', login.discovery),
    });
    await iscsiadm([...found, '--discover'], { signal });
    await update(node, {
      // Only the disks that are asked for; and the kubelet itself tries again.
      'node.session.scan': 'manual',
      'node.session.initial_login_retry_max': '2',
      ...chapSettings('node.session', login.session),
    });
    await iscsiadm([...node, '--login'], { signal }).catch(ignore(SESSION_EXISTS));
  } catch (error) {
    await forget(iqn, portal, iface);
    throw error;
  }
}

const discoveryOf = (portal: string, iface: string): string[] => [
  ...['--mode', 'discoverydb', '--type', 'sendtargets', '--portal', portal, '--interface', iface],
];
const nodeOf = (iqn: string, portal: string, iface: string): string[] => [
  ...['--mode', 'node', '--portal', portal, '--targetname', iqn, '--interface', iface],
];
const chapSettings = (prefix: string, chap: Chap | undefined): Record<string, string> =>
  chap
    ? Object.fromEntries(
        Object.entries({ authmethod: 'CHAP', ...chap }).map(([key, value]) => [`${prefix}.auth.${key}`, value]),
      )
    : {};

/** What iscsiadm wrote down, passwords too. What it knows of the portal takes all targets there with it: only when none is in use. */
async function forget(iqn: string, portal: string, iface: string): Promise<void> {
  const isUsed = sessions().some(session => session.portal === portal && session.iface === iface);
  const record = isUsed ? nodeOf(iqn, portal, iface) : discoveryOf(portal, iface);
  await iscsiadm([...record, '--op', 'delete'], {}).catch(() => {});
}

interface Session {
  readonly iqn: string;
  readonly portal: string;
  readonly iface: string;
  /** Of the session's device under /sys. */
  readonly folder: string;
  readonly host: string;
}

const sessionsOf = (iqn: string): Session[] => sessions().filter(session => session.iqn === iqn);

function sessions(): Session[] {
  return folders('/sys/class/iscsi_session').flatMap(name => {
    const folder = `/sys/class/iscsi_session/${name}`;
    const connection = `/sys/class/iscsi_connection/connection${name.slice('session'.length)}:0`;
    const address = text(join(connection, 'persistent_address'));
    const host = folders('/sys/class/iscsi_host').find(one =>
      existsSync(`/sys/class/iscsi_host/${one}/device/${name}`),
    );
    if (!host) return [];
    return [
      {
        iqn: text(join(folder, 'targetname')),
        portal: `${address.includes(':') ? `[${address}]` : address}:${text(join(connection, 'persistent_port'))}`,
        iface: text(join(folder, 'ifacename')),
        folder: join(folder, 'device'),
        host,
      },
    ];
  });
}

interface Disk {
  /** `sda`. */
  readonly name: string;
  /** Of the SCSI device under /sys. */
  readonly folder: string;
}

function disksOf(lun: Lun): Disk[] {
  const iface = interfaceName(lun);
  return sessionsOf(lun.iqn)
    .filter(session => session.iface === iface)
    .flatMap(({ folder }) =>
      folders(folder)
        .filter(name => name.startsWith('target'))
        .flatMap(target => {
          const scsi = folders(join(folder, target)).find(name => name.endsWith(`:${lun.lun}`));
          const device = scsi && join(folder, target, scsi);
          return device ? folders(join(device, 'block')).map(name => ({ name, folder: device })) : [];
        }),
    );
}

async function waitForDisks(lun: Lun, { clock, signal }: Login): Promise<string[]> {
  const iface = interfaceName(lun);
  const sessions = sessionsOf(lun.iqn).filter(session => session.iface === iface);
  for (const { host } of sessions) await writeSystem(`/sys/class/scsi_host/${host}/scan`, `- - ${lun.lun}`);
  const startMs = clock.monotonic();
  for (;;) {
    // The kernel knows of a disk before its device is there.
    const disks = disksOf(lun).flatMap(({ name }) => (existsSync(`/dev/${name}`) ? name : []));
    if (disks.length >= sessions.length || clock.monotonic() - startMs > DISK_MS_MAX) return disks;
    await clock.sleep(LOOK_MS, signal);
    signal.throwIfAborted();
  }
}

/** Several ways lead to the disk: the one device above them, where the node runs multipathd, else the first way. */
async function multipathOf(disks: readonly string[], { clock, signal }: Login): Promise<string> {
  const startMs = clock.monotonic();
  for (;;) {
    const above = disks
      .flatMap(name => folders(`/sys/block/${name}/holders`))
      .find(holder => text(`/sys/block/${holder}/dm/uuid`).startsWith('mpath-'));
    if (above) return `/dev/${above}`;
    if (!existsSync('/run/multipathd.pid') || clock.monotonic() - startMs > DISK_MS_MAX) return `/dev/${disks[0]}`;
    await clock.sleep(LOOK_MS, signal);
    signal.throwIfAborted();
  }
}

function iscsiadm(args: readonly string[], { signal }: { readonly signal?: AbortSignal }): Promise<string> {
  return runCommand('iscsiadm', args, { timeoutMs: STEP_MS_MAX, ...(signal ? { signal } : {}) }).catch(error => {
    if (!(error instanceof CommandError)) throw error;
    // Without the command line, which may hold a password.
    const lines = error.stderr
      .trim()
      .split('\n')
      .map(line => line.replace(/^iscsiadm: /, ''));
    const said =
      lines.find(line => /reported error|cannot make connection/.test(line)) ||
      lines.at(-1) ||
      `no answer within ${STEP_MS_MAX / 1000} s`;
    throw new CommandError(`iscsiadm: ${said}`, error.code, error.stderr);
  });
}

const ignore =
  (...codes: readonly number[]) =>
  (error: unknown): void => {
    if (!(error instanceof CommandError) || error.code === undefined || !codes.includes(error.code)) throw error;
  };

/** By another process: the kernel answers when the disk has. */
async function writeSystem(file: string, words: string): Promise<void> {
  await runCommand('sh', ['-c', 'echo "$1" >"$2"', 'sh', words, file], { timeoutMs: STEP_MS_MAX });
}

function folders(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
function text(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}
