/**
 * What is written down about CSI volumes of this node (`vol_data.json`, as upstream), so that they can be taken away after any
 * crash: one record beside each pod's volume, one beside each staged volume. Invariant: a record is on the disk before the driver
 * hears of the volume and goes only after the driver has confirmed that it is gone; users of a volume are counted by records.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface VolumeRecord {
  readonly driverName: string;
  readonly volumeHandle: string;
  /** Of the persistent volume, or of the pod's volume. */
  readonly specVolID: string;
  readonly nodeName: string;
  readonly volumeLifecycleMode: 'Persistent' | 'Ephemeral';
  readonly attachmentID?: string;
  /** SELinux label it is mounted with, '' for none; absent where drivers are not asked for one. */
  readonly seLinuxMountContext?: string;
  readonly stagingPath?: string;
  /** Where it is published. */
  readonly path?: string;
}

const FILE = 'vol_data.json';

export function readRecord(folder: string): VolumeRecord | undefined {
  try {
    return JSON.parse(readFileSync(join(folder, FILE), 'utf8')) as VolumeRecord;
  } catch {
    return undefined;
  }
}
export function writeRecord(folder: string, record: VolumeRecord): void {
  mkdirSync(folder, { recursive: true, mode: 0o750 });
  const fresh = join(folder, `.${FILE}`);
  writeFileSync(fresh, JSON.stringify(record), { mode: 0o600 });
  renameSync(fresh, join(folder, FILE));
}
/** The folder holds nothing else any more. */
export function removeRecord(folder: string): void {
  rmSync(join(folder, FILE), { force: true });
  rmSync(join(folder, `.${FILE}`), { force: true });
}

const keyOf = ({ driverName, volumeHandle }: VolumeRecord): string => `${driverName}^${volumeHandle}`;
const list = (folder: string): string[] => (existsSync(folder) ? readdirSync(folder) : []);

/** Who uses each volume: read from the disk once, then kept. */
export class VolumeUsers {
  readonly #users = new Map<string, Set<string>>();

  constructor(rootDir: string) {
    const pods = join(rootDir, 'pods');
    for (const uid of list(pods))
      for (const area of ['volumes', 'volumeDevices']) {
        const folder = join(pods, uid, area, 'kubernetes.io~csi');
        for (const name of list(folder)) {
          const record = readRecord(join(folder, name));
          if (record) this.add(record, join(folder, name));
        }
      }
  }
  add(record: VolumeRecord, folder: string): void {
    const key = keyOf(record);
    let users = this.#users.get(key);
    if (!users) this.#users.set(key, (users = new Set()));
    users.add(folder);
  }
  remove(record: VolumeRecord, folder: string): void {
    const users = this.#users.get(keyOf(record));
    users?.delete(folder);
    if (users?.size === 0) this.#users.delete(keyOf(record));
  }
  of(record: VolumeRecord): readonly string[] {
    return [...(this.#users.get(keyOf(record)) ?? [])];
  }
  count(record: VolumeRecord): number {
    return this.#users.get(keyOf(record))?.size ?? 0;
  }
}
