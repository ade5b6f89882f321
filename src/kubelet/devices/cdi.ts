/**
 * The Container Device Interface (cncf-tags/container-device-interface): devices by name (`vendor.com/class=device`), described
 * in JSON files of /etc/cdi and /var/run/cdi, the latter winning. Invariant: what a description says and this runtime cannot do
 * (intelRdt, network devices) is refused by name, never left out. Hooks are run by the OCI runtime. Files are read when a device is asked for.
 */

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { type DeviceConfig, HOOK_MOMENTS, type HookConfig, type MountConfig } from '../runtime.ts';

/** What a device brings into a container. */
export interface DeviceEdits {
  readonly env: readonly (readonly [name: string, value: string])[];
  readonly mounts: readonly MountConfig[];
  readonly devices: readonly DeviceConfig[];
  readonly hooks?: readonly HookConfig[];
}
export const NO_EDITS: DeviceEdits = { env: [], mounts: [], devices: [] };

export const CDI_FOLDERS = ['/etc/cdi', '/var/run/cdi'];
const MOUNT_OPTIONS = new Set(['rbind', 'bind', 'ro', 'rw', 'nosuid', 'nodev', 'noexec', 'rprivate', 'private']);

interface CdiEdits {
  readonly env?: readonly string[];
  readonly deviceNodes?: readonly {
    readonly path: string;
    readonly hostPath?: string;
    readonly permissions?: string;
  }[];
  readonly mounts?: readonly {
    readonly hostPath: string;
    readonly containerPath: string;
    readonly options?: readonly string[];
  }[];
  readonly hooks?: readonly {
    readonly hookName: string;
    readonly path: string;
    readonly args?: readonly string[];
    readonly env?: readonly string[];
    readonly timeout?: number;
  }[];
}
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
  for (const one of edits)
    for (const key of Object.keys(one))
      if (!['env', 'deviceNodes', 'mounts', 'hooks'].includes(key))
        throw new Error(`CDI containerEdits.${key} of ${names.join(', ')} are not supported`);
  return {
    env: edits.flatMap(({ env = [] }) =>
      env.map(entry => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)] as const),
    ),
    devices: edits.flatMap(({ deviceNodes = [] }) =>
      deviceNodes.map(({ path, hostPath = path, permissions = 'rw' }) => ({
        hostPath,
        containerPath: path,
        isReadOnly: !permissions.includes('w'),
      })),
    ),
    hooks: edits.flatMap(({ hooks = [] }) => hooks.map(hookOf)),
    mounts: edits.flatMap(({ mounts = [] }) =>
      mounts.map(({ hostPath, containerPath, options = [] }) => {
        const unknown = options.filter(option => !MOUNT_OPTIONS.has(option));
        if (unknown.length) throw new Error(`CDI mount options ${unknown.join(', ')} are not supported`);
        return {
          hostPath,
          containerPath,
          readOnly: options.includes('ro'),
          ...(options.includes('noexec') ? { noExec: true } : {}),
          propagation: 'private' as const,
        };
      }),
    ),
  };
}

function hookOf({ hookName, path, args, env, timeout }: NonNullable<CdiEdits['hooks']>[number]): HookConfig {
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
        return parse(readFileSync(join(folder, name), 'utf8')) as CdiFile;
      } catch (error) {
        throw new Error(`${join(folder, name)}: ${(error as Error).message.split('\n')[0]}`);
      }
    });
}
