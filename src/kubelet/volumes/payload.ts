/**
 * Puts a set of files into a volume so that a reader sees the old set or the new one, never a mix: the files lie in a fresh
 * folder `..<time>`, the link `..data` is switched to it by rename, and visible names are links through `..data`.
 * A set that cannot be written whole, on a full disk say, leaves nothing. Refuses file paths that leave the volume.
 */

import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

export interface PayloadFile {
  readonly data: Buffer;
  readonly mode: number;
  readonly uid?: number;
}

export type Payload = ReadonlyMap<string, PayloadFile>;

const DATA = '..data';
const PENDING = '..data_tmp';

/** Throws for an absolute path, `..`, or a name that begins with `..`. */
export function checkPayloadPath(path: string): void {
  const parts = path.split('/');
  if (path === '' || path.startsWith('/') || parts.includes('..') || parts[0]!.startsWith('..'))
    throw new Error(`invalid path: ${path}`);
}

/** False when the volume held just this already. `stamp` names the fresh folder. */
export function writePayload(
  folder: string,
  payload: Payload,
  options: { readonly stamp: string; readonly fsGroup?: number },
): boolean {
  for (const path of payload.keys()) checkPayloadPath(path);
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  const current = readLink(join(folder, DATA));
  removeLeftovers(folder, current);
  if (current !== undefined && holds(join(folder, current), payload)) {
    linkNames(folder, payload);
    return false;
  }
  let fresh = `..${options.stamp}`;
  for (let i = 0; lstatSync(join(folder, fresh), { throwIfNoEntry: false }); i++) fresh = `..${options.stamp}.${i}`;
  try {
    writeFiles(join(folder, fresh), payload, options.fsGroup);
    const pending = join(folder, PENDING);
    symlinkSync(fresh, pending);
    renameSync(pending, join(folder, DATA));
  } catch (error) {
    rmSync(join(folder, fresh), { recursive: true, force: true });
    throw error;
  }
  linkNames(folder, payload);
  if (current !== undefined) rmSync(join(folder, current), { recursive: true, force: true });
  return true;
}

/** What an agent that was killed meanwhile had begun. */
function removeLeftovers(folder: string, current: string | undefined): void {
  for (const name of readdirSync(folder))
    if (name.startsWith('..') && name !== DATA && name !== current)
      rmSync(join(folder, name), { recursive: true, force: true });
}

function writeFiles(root: string, payload: Payload, fsGroup: number | undefined): void {
  makeFolder(root, fsGroup);
  for (const [path, file] of payload) {
    const target = join(root, path);
    for (let parent = dirname(path), made: string[] = []; parent !== '.'; parent = dirname(parent)) {
      made = [parent, ...made];
      if (dirname(parent) === '.')
        for (const one of made)
          if (!lstatSync(join(root, one), { throwIfNoEntry: false })) makeFolder(join(root, one), fsGroup);
    }
    writeFileSync(target, file.data);
    if (file.uid !== undefined || fsGroup !== undefined) chownSync(target, file.uid ?? 0, fsGroup ?? 0);
    chmodSync(target, fsGroup !== undefined ? file.mode | 0o440 : file.mode);
  }
}

function makeFolder(path: string, fsGroup: number | undefined): void {
  mkdirSync(path);
  if (fsGroup !== undefined) chownSync(path, 0, fsGroup);
  chmodSync(path, fsGroup !== undefined ? 0o2755 : 0o755);
}

function linkNames(folder: string, payload: Payload): void {
  const names = new Set([...payload.keys()].map(path => path.split('/')[0]!));
  for (const name of readdirSync(folder))
    if (!name.startsWith('..') && !names.has(name)) rmSync(join(folder, name), { recursive: true, force: true });
  for (const name of names)
    if (readLink(join(folder, name)) === undefined) symlinkSync(join(DATA, name), join(folder, name));
}

function holds(folder: string, payload: Payload): boolean {
  const found = new Set<string>();
  const visit = (prefix: string): boolean => {
    for (const entry of readdirSync(join(folder, prefix), { withFileTypes: true })) {
      const path = prefix ? `${prefix}/${entry.name}` : entry.name;
      if (entry.isDirectory()) {
        if (!visit(path)) return false;
        continue;
      }
      const file = payload.get(path);
      if (!file?.data.equals(readFileSync(join(folder, path)))) return false;
      found.add(path);
    }
    return true;
  };
  try {
    return visit('') && found.size === payload.size;
  } catch {
    return false;
  }
}

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
