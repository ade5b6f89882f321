/**
 * Device nodes of containers, as the OCI runtime is told them: after the machine's own, or as a description of a device says. Invariant:
 * what a description says and the machine's node contradicts is refused; nothing is guessed. It reads device nodes and makes none.
 */

import { lstatSync, readdirSync, type Stats, statSync } from 'node:fs';
import type { DeviceConfig, DeviceNode } from '../runtime.ts';

type NodeType = NonNullable<DeviceNode['type']>;

interface Numbers {
  readonly major: number;
  readonly minor: number;
}

interface Described extends Required<Pick<DeviceNode, 'fileMode' | 'uid' | 'gid' | 'access'>> {
  readonly path: string;
}

export interface OciDevice {
  readonly node: object;
  /** Absent for a fifo, which control groups do not know. */
  readonly rule?: object;
}

/** Owner and mode are the machine's; of a described device the process's and everybody's, as of Container Device Interface's own library. */
export function ociDevice(device: DeviceConfig, user: { readonly uid: number; readonly gid: number }): OciDevice {
  const { hostPath, containerPath: path, isReadOnly, node } = device;
  const { fileMode = 0o666, uid = user.uid, gid = user.gid } = node ?? {};
  const { type, major = 0, minor = 0 } = node ?? {};
  const access = node?.access ?? (isReadOnly ? 'rm' : 'rwm');
  if (type && (major !== 0 || type === 'p')) return made({ type, major, minor }, { path, fileMode, uid, gid, access });
  const stat = statSync(hostPath);
  const found = typeOf(stat);
  if (!found) throw new Error(`${hostPath} is not a device`);
  if (type && kindOf(type) !== found)
    throw new Error(`device ${path}: ${hostPath} is of type ${found}, not ${type} as its description says`);
  const numbers = major === 0 ? deviceNumbers(stat.rdev) : { major, minor };
  const owner = node ? { fileMode, uid, gid } : { fileMode: stat.mode & 0o777, uid: stat.uid, gid: stat.gid };
  return made({ type: type ?? found, ...numbers }, { path, ...owner, access });
}

function made(
  { type, major, minor }: Numbers & { readonly type: NodeType },
  { access, ...node }: Described,
): OciDevice {
  if (type === 'p') return { node: { ...node, type } };
  return {
    node: { ...node, type, major, minor },
    rule: { allow: true, type: kindOf(type), major, minor, access },
  };
}

/** What a description says beyond the machine's own node, which is all that can be named by the Container Runtime Interface. */
export function differences({ hostPath, node }: DeviceConfig): string[] {
  if (!node) return [];
  const stat = statSync(hostPath, { throwIfNoEntry: false });
  const type = stat && typeOf(stat);
  const found = stat && {
    type,
    ...(type === 'p' ? {} : deviceNumbers(stat.rdev)),
    fileMode: stat.mode & 0o777,
    uid: stat.uid,
    gid: stat.gid,
  };
  // Without the first number both are the machine's.
  const { access: _, type: own, major, minor, ...others } = node;
  const said = { ...others, ...(own ? { type: kindOf(own) } : {}), ...(major ? { major, minor: minor ?? 0 } : {}) };
  return Object.entries(said)
    .filter(([field, value]) => found?.[field as keyof typeof said] !== value)
    .map(([field]) => field);
}

/** An unbuffered character device is one of characters. */
const kindOf = (type: NodeType): NodeType => (type === 'u' ? 'c' : type);

function typeOf(stat: Stats): NodeType | undefined {
  return stat.isBlockDevice() ? 'b' : stat.isCharacterDevice() ? 'c' : stat.isFIFO() ? 'p' : undefined;
}

function deviceNumbers(rdev: number): Numbers {
  return { major: (rdev >> 8) & 0xfff, minor: (rdev & 0xff) | ((rdev >> 12) & 0xfff00) };
}

const SKIPPED_DEVICES = new Set(['pts', 'shm', 'fd', 'mqueue', 'console', 'ptmx', 'stdin', 'stdout', 'stderr']);

/** All that the machine has, for a privileged container. */
export function hostDevices(folder = '/dev'): object[] {
  const found: object[] = [];
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (SKIPPED_DEVICES.has(entry.name)) continue;
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) found.push(...hostDevices(path));
    else if (entry.isCharacterDevice() || entry.isBlockDevice()) {
      const stat = lstatSync(path);
      found.push({
        path,
        type: entry.isBlockDevice() ? 'b' : 'c',
        ...deviceNumbers(stat.rdev),
        fileMode: stat.mode & 0o777,
        uid: stat.uid,
        gid: stat.gid,
      });
    }
  }
  return found;
}
