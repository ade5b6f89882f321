/**
 * Who a container's process runs as: the pod's wish, the image's wish, and the image's own /etc/passwd and /etc/group.
 * Reads inside a root folder without ever following a link out of it.
 */

import { closeSync, constants, lstatSync, openSync, readFileSync } from 'node:fs';
import { resolveBelow } from '../rooted-path.ts';

export interface ProcessUser {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
}

const FILE_BYTES_MAX = 8 << 20;

/** Path of a file below `root`, links resolved as if `root` were `/`; undefined when it does not exist. */
export function resolveInRoot(root: string, path: string): string | undefined {
  return resolveBelow(root, path, (_, found) => found !== undefined);
}

function rows(root: string, path: string): string[][] {
  const real = resolveInRoot(root, path);
  if (!real) return [];
  const stat = lstatSync(real);
  if (!stat.isFile() || stat.size > FILE_BYTES_MAX) return [];
  const fd = openSync(real, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    return readFileSync(fd, 'utf8')
      .split('\n')
      .filter(line => line && !line.startsWith('#'))
      .map(line => line.trim().split(':'));
  } finally {
    closeSync(fd);
  }
}

const isNumber = (text: string | undefined): text is string => text !== undefined && /^\d+$/.test(text);

/** Throws when the image names a user or group that its files do not know. */
export function resolveUser(
  root: string,
  imageUser: string,
  wish: {
    readonly uid?: number;
    readonly gid?: number;
    readonly additionalGids?: readonly number[];
    readonly strictGroups?: boolean;
  },
): ProcessUser {
  const [userPart = '', groupPart] = wish.uid !== undefined ? [String(wish.uid)] : imageUser.split(':');
  if ((userPart === '' || userPart === '0') && !groupPart && wish.strictGroups) {
    return { uid: 0, gid: wish.gid ?? 0, additionalGids: [...new Set(wish.additionalGids ?? [])] };
  }
  const name = userPart === '' ? '0' : userPart;
  const passwd = rows(root, '/etc/passwd');
  const entry =
    passwd.find(row => row[0] === name) ?? (isNumber(name) ? passwd.find(row => row[2] === name) : undefined);
  if (!entry && !isNumber(name)) throw new Error(`unable to find user ${name}: no matching entries in passwd file`);
  const uid = Number(entry?.[2] ?? name);
  const groups = rows(root, '/etc/group');
  let gid = wish.gid ?? Number(entry?.[3] ?? 0);
  if (wish.gid === undefined && groupPart) {
    const group =
      groups.find(row => row[0] === groupPart) ?? (isNumber(groupPart) ? [groupPart, '', groupPart] : undefined);
    if (!group) throw new Error(`unable to find group ${groupPart}: no matching entries in group file`);
    gid = Number(group[2]);
  }
  const additional = new Set(wish.additionalGids ?? []);
  if (!wish.strictGroups && entry) {
    for (const row of groups) if ((row[3] ?? '').split(',').includes(entry[0]!)) additional.add(Number(row[2]));
  }
  return { uid, gid, additionalGids: [...additional] };
}
