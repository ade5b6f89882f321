/**
 * Volumes staged on this node for all pods that use them: attached, staged before the first pod, unstaged after the last.
 * Invariants: one step at a time for a volume; `volumesInUse` names an attachable volume from before it is staged until after it
 * is unstaged, so nobody detaches a disk under a mount; what a former agent left staged is found again on the disk.
 */

import { existsSync, mkdirSync, readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../../base/clock.ts';
import { messageOf } from '../../../base/errors.ts';
import type { Logger } from '../../../base/log.ts';
import { NODE_RPCS } from '../../../csi/messages.ts';
import { attachedName, stagingFolder } from '../../../csi/names.ts';
import { isMountPoint } from '../../../sys/mount.ts';
import { Turns } from '../turns.ts';
import type { CsiDriver, CsiDrivers } from './drivers.ts';
import { readRecord, removeRecord, type VolumeRecord, VolumeUsers, writeRecord } from './volume-records.ts';

export class Staging {
  readonly #rootDir: string;
  readonly #drivers: CsiDrivers;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #turns = new Turns();
  readonly #inUse = new Set<string>();
  readonly users: VolumeUsers;

  constructor(options: { rootDir: string; drivers: CsiDrivers; clock: Clock; log: Logger }) {
    this.#rootDir = options.rootDir;
    this.#drivers = options.drivers;
    this.#log = options.log;
    this.#clock = options.clock;
    this.users = new VolumeUsers(options.rootDir);
    for (const { record } of this.#staged()) if (record.attachmentID) this.#inUse.add(nameOf(record));
    options.drivers.onRegistered(driver => void this.#sweep(driver));
  }
  /** Names for the node's `volumesInUse`, sorted. */
  get inUse(): readonly string[] {
    return [...this.#inUse].sort();
  }
  markInUse(record: VolumeRecord): void {
    if (record.attachmentID) this.#inUse.add(nameOf(record));
  }

  /** Steps about one volume, one after the other. */
  exclusively<T>(record: VolumeRecord, step: () => Promise<T>): Promise<T> {
    return this.#turns.run(nameOf(record), step);
  }

  /** Where the volume of a file-system claim is staged: the folder of its record, and `globalmount` in it. */
  folder({ driverName, volumeHandle }: Pick<VolumeRecord, 'driverName' | 'volumeHandle'>): string {
    return join(this.#rootDir, 'plugins', 'kubernetes.io', 'csi', driverName, stagingFolder(volumeHandle));
  }
  path(record: Pick<VolumeRecord, 'driverName' | 'volumeHandle'>): string {
    return join(this.folder(record), 'globalmount');
  }
  /** Before NodeStageVolume. */
  prepare(record: VolumeRecord): string {
    const folder = this.folder(record);
    const path = this.path(record);
    writeRecord(folder, { ...record, stagingPath: path });
    mkdirSync(path, { recursive: true, mode: 0o750 });
    return path;
  }

  /**
   * A volume has one SELinux label as long as anything is mounted: rejects while pods use it with another one, and undoes what is left of them.
   * Call within `exclusively`, before the user is added.
   */
  async settleLabel(record: VolumeRecord, { driver, user }: { driver: CsiDriver; user: string }): Promise<void> {
    const label = record.seLinuxMountContext;
    if (label === undefined) return;
    const others = this.users.of(record).filter(folder => folder !== user);
    if (others.some(folder => (readRecord(folder)?.seLinuxMountContext ?? label) !== label))
      throw new Error(
        `waiting for unmount of volume ${JSON.stringify(record.specVolID)}, because it is already mounted to a different pod with a different SELinux label`,
      );
    const staged = readRecord(this.folder(record));
    if (others.length === 0 && staged && (staged.seLinuxMountContext ?? label) !== label)
      await this.release(record, driver);
  }

  /** When nobody uses the volume any more. Call within `exclusively`. */
  async release(record: VolumeRecord, driver: CsiDriver): Promise<void> {
    if (this.users.count(record) > 0) return;
    const folder = this.folder(record);
    const staged = readRecord(folder);
    if (staged) {
      const path = this.path(record);
      if (driver.rpcs.has(NODE_RPCS.STAGE_UNSTAGE_VOLUME))
        await driver.client.call('nodeUnstageVolume', { volumeId: record.volumeHandle, stagingTargetPath: path });
      if (isMountPoint(path)) throw new Error(`driver ${driver.name} left ${path} mounted`);
      if (existsSync(path)) rmdirSync(path);
      removeRecord(folder);
      rmdirSync(folder);
    }
    this.#inUse.delete(nameOf(record));
  }

  *#staged(): Generator<{ readonly folder: string; readonly record: VolumeRecord }> {
    const root = join(this.#rootDir, 'plugins', 'kubernetes.io', 'csi');
    for (const driver of existsSync(root) ? readdirSync(root) : [])
      for (const name of readdirSync(join(root, driver))) {
        const record = readRecord(join(root, driver, name));
        if (record) yield { folder: join(root, driver, name), record };
      }
  }

  /** What was staged when the last agent ended and no pod uses. */
  async #sweep(name: string): Promise<void> {
    for (const { record } of [...this.#staged()]) {
      if (record.driverName !== name || this.users.count(record) > 0) continue;
      for (let tries = 0; tries < 5; tries++) {
        try {
          await this.exclusively(record, () => this.release(record, this.#drivers.driver(name)));
          break;
        } catch (error) {
          this.#log.warn('staged volume without a pod not unstaged', {
            driver: name,
            volume: record.volumeHandle,
            error: messageOf(error),
          });
          await this.#clock.sleep(1000 * 2 ** tries);
        }
      }
    }
  }
}

function nameOf({ driverName, volumeHandle }: VolumeRecord): string {
  return attachedName({ driver: driverName, handle: volumeHandle });
}
