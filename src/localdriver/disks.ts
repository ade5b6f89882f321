/**
 * Disks that are files: made, copied, grown and deleted in one folder, each with its facts beside it. Invariants: a disk has all its
 * space allocated when it is made (unless it is thin), so it never fails because something else filled the machine's disk; every
 * step is repeatable, and a disk that was not finished before a crash is made anew.
 */

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { GRPC, GrpcError } from '../csi/grpc.ts';
import { attachLoop, detachLoop, loopOf, resizeLoop } from '../sys/block-device.ts';
import { runCommand } from '../sys/command.ts';

export interface Disk {
  readonly id: string;
  readonly bytes: number;
  readonly isThin: boolean;
  readonly fsType: string;
  readonly parameters: Readonly<Record<string, string>>;
  /** Size of the file system on it, once there is one: it may have to grow. */
  readonly fsBytes?: number;
  /** Disk or snapshot that its first content came from. */
  readonly source?: string;
  /** Nodes it is attached to, for drivers that attach. */
  readonly nodes?: readonly string[];
}

const ALIGN_BYTES = 1024 * 1024;
const BYTES_DEFAULT = 1024 ** 3;
/** What the file system itself needs. */
const BYTES_MIN: Readonly<Record<string, number>> = { xfs: 300 * 1024 * 1024 };
/** Left for the machine itself. */
const RESERVE_BYTES = 256 * 1024 * 1024;
const NAME_BYTES_MAX = 255;

/** Ids may hold anything (a cloud's are paths); a folder's name may not. */
function folderName(id: string): string {
  const name = encodeURIComponent(id);
  if (name === '' || /^\.+$/.test(name) || name.length > NAME_BYTES_MAX)
    throw new GrpcError(GRPC.NOT_FOUND, `volume id ${JSON.stringify(id)} does not exist`);
  return name;
}

export function sizeFor(
  range: { readonly requiredBytes?: number; readonly limitBytes?: number } | undefined,
  fsType: string,
): number {
  const wanted = Math.max(range?.requiredBytes || BYTES_DEFAULT, BYTES_MIN[fsType] ?? 0);
  const bytes = Math.ceil(wanted / ALIGN_BYTES) * ALIGN_BYTES;
  if (range?.limitBytes && bytes > range.limitBytes)
    throw new GrpcError(
      GRPC.OUT_OF_RANGE,
      `the smallest size possible is ${bytes}, beyond the limit of ${range.limitBytes}`,
    );
  return bytes;
}

export class Disks {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  }
  #home(id: string): string {
    return join(this.#folder, folderName(id));
  }
  file(id: string): string {
    return join(this.#home(id), 'disk.img');
  }
  get(id: string): Disk | undefined {
    try {
      return JSON.parse(readFileSync(join(this.#home(id), 'disk.json'), 'utf8')) as Disk;
    } catch {
      return undefined;
    }
  }
  must(id: string): Disk {
    const disk = this.get(id);
    if (!disk) throw new GrpcError(GRPC.NOT_FOUND, `volume id ${JSON.stringify(id)} does not exist`);
    return disk;
  }
  ids(): string[] {
    return readdirSync(this.#folder)
      .map(decodeURIComponent)
      .filter(id => this.get(id) !== undefined);
  }
  write(disk: Disk): Disk {
    const home = this.#home(disk.id);
    mkdirSync(home, { recursive: true, mode: 0o700 });
    writeFileSync(join(home, '.disk.json'), JSON.stringify(disk), { mode: 0o600, flush: true });
    renameSync(join(home, '.disk.json'), join(home, 'disk.json'));
    return disk;
  }
  /** Bytes that can still be given out. */
  get freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.#folder);
    return Math.max(0, bavail * bsize - RESERVE_BYTES);
  }

  /** With the content of the file when one is given. Its facts are written last: without them there is no disk. */
  async create(disk: Disk, content?: string): Promise<Disk> {
    if (!disk.isThin && disk.bytes > this.freeBytes)
      throw new GrpcError(
        GRPC.RESOURCE_EXHAUSTED,
        `insufficient capacity: ${disk.bytes} bytes asked for, ${this.freeBytes} free on this node`,
      );
    mkdirSync(this.#home(disk.id), { recursive: true, mode: 0o700 });
    const file = this.file(disk.id);
    rmSync(file, { force: true });
    if (content) await runCommand('cp', ['--reflink=auto', '--sparse=always', content, file], { timeoutMs: 3_600_000 });
    else writeFileSync(file, '', { mode: 0o600 });
    await this.#size(disk);
    return this.write(disk);
  }
  async #size({ id, bytes, isThin }: Disk): Promise<void> {
    if (isThin) truncateSync(this.file(id), bytes);
    else
      await runCommand('fallocate', ['--length', String(bytes), this.file(id)]).catch(error => {
        throw new GrpcError(GRPC.RESOURCE_EXHAUSTED, (error as Error).message);
      });
  }
  async grow(disk: Disk, bytes: number): Promise<Disk> {
    if (bytes <= disk.bytes) return disk;
    if (!disk.isThin && bytes - disk.bytes > this.freeBytes)
      throw new GrpcError(
        GRPC.RESOURCE_EXHAUSTED,
        `insufficient capacity: ${bytes - disk.bytes} bytes more asked for, ${this.freeBytes} free on this node`,
      );
    const larger = { ...disk, bytes };
    await this.#size(larger);
    const device = await loopOf(this.file(disk.id));
    if (device) await resizeLoop(device);
    return this.write(larger);
  }
  async delete(id: string): Promise<void> {
    if (!existsSync(this.#home(id))) return;
    await detachLoop(this.file(id));
    rmSync(this.#home(id), { recursive: true, force: true });
  }

  attach(id: string): Promise<string> {
    return attachLoop(this.file(id));
  }
  device(id: string): Promise<string | undefined> {
    return loopOf(this.file(id));
  }
  detach(id: string): Promise<void> {
    return detachLoop(this.file(id));
  }
}
