/**
 * The Container Device Interface (cncf-tags/container-device-interface): devices by name (`vendor.com/class=device`), described
 * in JSON files of /etc/cdi and /var/run/cdi, the latter winning. Invariant: what a description says and this runtime cannot do
 * (intelRdt, network devices) is refused by name, never left out; fields that the specification does not know too. Hooks are run by the OCI runtime. Files are read when a device is asked for.
 */

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { type DeviceConfig, type DeviceNode, HOOK_MOMENTS, type HookConfig, type MountConfig } from '../runtime.ts';

/** What a device brings into a container. */
export interface DeviceEdits {
  readonly env: readonly (readonly [name: string, value: string])[];
  readonly mounts: readonly MountConfig[];
  readonly devices: readonly DeviceConfig[];
  readonly hooks?: readonly HookConfig[];
  readonly additionalGids?: readonly number[];
}
export const NO_EDITS: DeviceEdits = { env: [], mounts: [], devices: [] };

export const CDI_FOLDERS = ['/etc/cdi', '/var/run/cdi'];
const MOUNT_OPTIONS = new Set(['rbind', 'bind', 'ro', 'rw', 'nosuid', 'nodev', 'noexec', 'rprivate', 'private']);

interface CdiNode extends Omit<DeviceNode, 'access'> {
  readonly path: string;
  readonly hostPath?: string;
  readonly permissions?: string;
}
interface CdiMount {
  readonly hostPath: string;
  readonly containerPath: string;
  readonly options?: readonly string[];
  readonly type?: string;
}
interface CdiHook {
  readonly hookName: string;
  readonly path: string;
  readonly args?: readonly string[];
  readonly env?: readonly string[];
  readonly timeout?: number;
}
interface CdiEdits {
  readonly env?: readonly string[];
  readonly deviceNodes?: readonly CdiNode[];
  readonly mounts?: readonly CdiMount[];
  readonly hooks?: readonly CdiHook[];
  readonly additionalGids?: readonly number[];
}
/** What is acted on, field by field. */
const EDITS = ['env', 'deviceNodes', 'mounts', 'hooks', 'additionalGids'];
const NODE = ['path', 'hostPath', 'type', 'major', 'minor', 'fileMode', 'permissions', 'uid', 'gid'];
const MOUNT = ['hostPath', 'containerPath', 'options', 'type'];
const HOOK = ['hookName', 'path', 'args', 'env', 'timeout'];
interface CdiFile {
  readonly kind?: string;
  readonly containerEdits?: CdiEdits;
  readonly devices?: readonly { readonly name: string; readonly containerEdits?: CdiEdits }[];
}

/** Throws with the names that no file describes. Edits of a file that concern all its devices come once, before the device's own. */
export function cdiEdits(names: readonly string[], folders: readonly string[] = CDI_FOLDERS): DeviceEdits {
  if (names.length === 0) return NO_EDITS;
  const files = folders.flatMap(readFolder);
  const used = new Set<CdiFile>();
  const edits: CdiEdits[] = [];
  const missing: string[] = [];
  for (const name of names) {
    const [kind, device] = name.split('=');
    const file = files.findLast(one => one.kind === kind && one.devices?.some(known => known.name === device));
    if (!file) {
      missing.push(name);
      continue;
    }
    if (!used.has(file) && file.containerEdits) edits.push(file.containerEdits);
    used.add(file);
    edits.push(file.devices!.find(known => known.name === device)!.containerEdits ?? {});
  }
  if (missing.length) throw new Error(`unresolvable CDI devices ${missing.join(', ')}`);
  for (const one of edits) checkFields(one, EDITS, `containerEdits of ${names.join(', ')}`);
  return {
    env: edits.flatMap(({ env = [] }) =>
      env.map(entry => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)] as const),
    ),
    devices: edits.flatMap(({ deviceNodes = [] }) => deviceNodes.map(deviceOf)),
    hooks: edits.flatMap(({ hooks = [] }) => hooks.map(hookOf)),
    mounts: edits.flatMap(({ mounts = [] }) => mounts.map(mountOf)),
    // Group 0 is no supplementary one, as with upstream's library.
    additionalGids: [...new Set(edits.flatMap(({ additionalGids = [] }) => additionalGids))].filter(gid => gid !== 0),
  };
}

function checkFields(of: object, known: readonly string[], where: string): void {
  const other = Object.keys(of).find(key => !known.includes(key));
  if (other !== undefined) throw new Error(`CDI ${where}: field ${JSON.stringify(other)} is not supported`);
}

function deviceOf(node: CdiNode): DeviceConfig {
  const { path, hostPath, permissions, type, ...numbers } = node;
  if (!path?.startsWith('/')) throw new Error(`CDI deviceNodes need an absolute path, not ${JSON.stringify(path)}`);
  checkFields(node, NODE, `device node ${path}`);
  if (type && !['b', 'c', 'u', 'p'].includes(type))
    throw new Error(`CDI device node ${path}: type must be one of b, c, u, p, not ${JSON.stringify(type)}`);
  if (permissions && !/^[rwm]+$/.test(permissions))
    throw new Error(`CDI device node ${path}: permissions must be of r, w and m, not ${JSON.stringify(permissions)}`);
  for (const [field, value] of Object.entries(numbers))
    if (!Number.isInteger(value) || value < 0)
      throw new Error(`CDI device node ${path}: ${field} must be a number, not ${JSON.stringify(value)}`);
  const access = permissions || 'rwm';
  return {
    hostPath: hostPath || path,
    containerPath: path,
    isReadOnly: !access.includes('w'),
    node: { ...numbers, ...(type ? { type } : {}), access },
  };
}

function mountOf(mount: CdiMount): MountConfig {
  const { hostPath, containerPath, options = [], type = '' } = mount;
  checkFields(mount, MOUNT, `mount ${containerPath}`);
  if (type && type !== 'bind' && type !== 'none')
    throw new Error(`CDI mount ${containerPath}: type ${JSON.stringify(type)} is not supported`);
  const unknown = options.filter(option => !MOUNT_OPTIONS.has(option));
  if (unknown.length) throw new Error(`CDI mount options ${unknown.join(', ')} are not supported`);
  return {
    hostPath,
    containerPath,
    readOnly: options.includes('ro'),
    ...(options.includes('noexec') ? { noExec: true } : {}),
    propagation: 'private',
  };
}

function hookOf(hook: CdiHook): HookConfig {
  const { hookName, path, args, env, timeout } = hook;
  checkFields(hook, HOOK, `hook ${hookName}`);
  const moment = HOOK_MOMENTS.find(one => one === hookName);
  if (!moment)
    throw new Error(`CDI hooks ${JSON.stringify(hookName)} are not supported; known: ${HOOK_MOMENTS.join(', ')}`);
  if (!path?.startsWith('/')) throw new Error(`CDI hooks need an absolute path, not ${JSON.stringify(path)}`);
  return {
    moment,
    path,
    ...(args ? { args } : {}),
    ...(env ? { env } : {}),
    ...(timeout === undefined ? {} : { timeoutSeconds: timeout }),
  };
}

function readFolder(folder: string): CdiFile[] {
  let names: string[];
  try {
    names = readdirSync(folder).sort();
  } catch {
    return [];
  }
  return names
    .filter(name => /\.(json|yaml)$/.test(name) && statSync(join(folder, name), { throwIfNoEntry: false })?.isFile())
    .map(name => {
      try {
        return parse(readFileSync(join(folder, name), 'utf8'), { version: '1.1' }) as CdiFile;
      } catch (error) {
        throw new Error(`${join(folder, name)}: ${(error as Error).message.split('\n')[0]}`);
      }
    });
}
