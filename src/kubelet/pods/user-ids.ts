/**
 * Which users and groups of the machine are those of a pod with a user namespace of its own (`hostUsers: false`, KEP 127). Invariant:
 * no two pods that are on the node's disk have one id in common; the file in each pod's folder is the only record, so an agent that
 * comes back goes on with it, and a folder that goes frees its ids.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Pod } from '../../api/core/v1.gen.ts';
import type { Runtime } from '../runtime.ts';

export interface UserIdsOptions {
  /** Folder of the pods' folders. */
  readonly pods: string;
  readonly podsMax: number;
  readonly idsPerPod: number;
}

interface Ids {
  readonly hostId: number;
  readonly length: number;
}
interface Mapping extends Ids {
  readonly containerId: number;
}

const FILE = 'userns';
/** Below are the machine's own users. */
const HOST_ID_MIN = 65536;

export class UserIds {
  readonly #options: UserIdsOptions;
  constructor(options: UserIdsOptions) {
    this.#options = options;
  }

  /** Those that the pod has, or the first that no other has. Throws when there are none, or the file says nothing sensible. */
  claim(uid: string): Ids {
    const { pods, podsMax, idsPerPod } = this.#options;
    const own = this.#read(uid);
    if (own) return own;
    mkdirSync(join(pods, uid), { recursive: true, mode: 0o750 });
    const taken = readdirSync(pods)
      .map(name => this.#read(name))
      .filter(ids => ids !== undefined);
    for (let slot = 0; slot < podsMax; slot++) {
      const ids = { hostId: HOST_ID_MIN + slot * idsPerPod, length: idsPerPod };
      if (taken.some(other => overlap(ids, other))) continue;
      const mapping: Mapping = { containerId: 0, ...ids };
      writeFileSync(join(pods, uid, FILE), JSON.stringify({ uidMappings: [mapping], gidMappings: [mapping] }));
      return ids;
    }
    throw new Error('could not find an empty slot to allocate a user namespace');
  }

  release(uid: string): void {
    rmSync(join(this.#options.pods, uid, FILE), { force: true });
  }

  #read(uid: string): Ids | undefined {
    const path = join(this.#options.pods, uid, FILE);
    if (!existsSync(path)) return undefined;
    try {
      const { uidMappings } = JSON.parse(readFileSync(path, 'utf8')) as { readonly uidMappings: readonly Mapping[] };
      const { hostId, length } = uidMappings[0]!;
      if (!Number.isInteger(hostId) || !Number.isInteger(length)) throw new Error('no numbers');
      return { hostId, length };
    } catch (error) {
      throw new Error(`wrong user namespace mappings in ${path}: ${(error as Error).message}`);
    }
  }
}

function overlap(a: Ids, b: Ids): boolean {
  return a.hostId < b.hostId + b.length && b.hostId < a.hostId + a.length;
}

/** Of a pod that wants ids of its own; undefined for one that has the machine's. Throws in upstream's words where it cannot have them. */
export function userIdsOf(
  pod: Pod,
  {
    userIds,
    runtime,
    handler = '',
  }: { readonly userIds: UserIds; readonly runtime: Runtime; readonly handler?: string },
): Ids | undefined {
  if (pod.spec.hostUsers !== false) return undefined;
  if (!runtime.featuresOf?.(handler)?.userNamespaces)
    throw new Error(
      `can not set \`hostUsers: false\`, ${handler ? `runtime handler ${JSON.stringify(handler)}` : 'runtime'} does not support user namespaces`,
    );
  return userIds.claim(pod.metadata.uid!);
}
