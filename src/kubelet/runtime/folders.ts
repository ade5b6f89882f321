/**
 * Where the runtime's things lie on disk, and how they go:
 *   <root>/sandboxes.log, <root>/containers.log   records;  <root>/layers/ID, <root>/overlay-work/ID   a container's writable layer
 *   <run>/s/ID/{net,ipc,uts,user,shm}   a sandbox's pins;  <run>/c/ID/   bundle, pid, attach socket;  <run>/exits/ID   exit codes
 * Invariant: removal takes mounts down first and may be repeated at any stage of making. It does not know what runs: whoever
 * removes a folder has ended its processes.
 */

import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { totalmem } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { isInMemory, mountTmpfs, unmount, unmountBelow } from '../../sys/mount.ts';
import { unpinNamespaces } from '../../sys/namespaces.ts';

/** In the folder that the OCI runtime keeps for a container. */
export const FIFO = 'exec.fifo';
/** A container takes 36 to 60 KB, and one that ended before it as much: of the machine's memory as much as other systems give their /run. */
const RUN_BYTES_MAX = Math.max(64 * 1024 * 1024, Math.floor(totalmem() / 5));

export class RuntimeFolders {
  readonly #root: string;
  readonly #run: string;

  constructor(rootDir: string, runDir: string) {
    this.#root = rootDir;
    this.#run = runDir;
    mkdirSync(runDir, { recursive: true, mode: 0o711 });
    // What a start writes here is gone soon; on a disk each of its hundred files would look for a free inode.
    if (!isInMemory(runDir) && readdirSync(runDir).length === 0)
      mountTmpfs(runDir, { mode: 0o711, sizeBytes: RUN_BYTES_MAX });
    for (const folder of ['s', 'c', 'exits', 'oci', 'exec'])
      mkdirSync(join(runDir, folder), { recursive: true, mode: 0o711 });
    for (const folder of ['layers', 'overlay-work']) mkdirSync(join(rootDir, folder), { recursive: true, mode: 0o711 });
  }

  get mountPoints(): string {
    return join(this.#root, 'mount-points');
  }
  get sandboxLog(): string {
    return join(this.#root, 'sandboxes.log');
  }
  get containerLog(): string {
    return join(this.#root, 'containers.log');
  }
  /** What the OCI runtime keeps, a folder a container. */
  get oci(): string {
    return join(this.#run, 'oci');
  }
  /** Its init waits until its program may begin, or did so when somebody last looked. */
  isWaiting(id: string): boolean {
    return existsSync(join(this.oci, id, FIFO));
  }
  get exits(): string {
    return join(this.#run, 'exits');
  }
  get scratch(): string {
    return join(this.#run, 'exec');
  }
  sandbox(id: string): string {
    return join(this.#run, 's', id);
  }
  bundle(id: string): string {
    return join(this.#run, 'c', id);
  }
  exitFile(id: string): string {
    return join(this.exits, id);
  }
  layer(id: string): string {
    return join(this.#root, 'layers', id);
  }
  work(id: string): string {
    return join(this.#root, 'overlay-work', id);
  }

  /** Folders whose record is gone: removal or creation was cut short. */
  clearLeftovers(records: { readonly sandboxes: ReadonlySet<string>; readonly containers: ReadonlySet<string> }): void {
    const { sandboxes, containers } = records;
    for (const id of readdirSync(join(this.#run, 'c'))) if (!containers.has(id)) this.removeContainer(id);
    for (const folder of ['layers', 'overlay-work'])
      for (const id of readdirSync(join(this.#root, folder))) if (!containers.has(id)) this.removeContainer(id);
    for (const id of readdirSync(join(this.#run, 's'))) if (!sandboxes.has(id)) this.removeSandbox(id);
  }

  removeContainer(id: string): void {
    const bundle = this.bundle(id);
    unmount(join(bundle, 'rootfs'));
    // Views of files that belong to others: nothing may be deleted through them.
    if (existsSync(join(bundle, 'mounts')) || existsSync(join(bundle, 'layers'))) unmountBelow(bundle);
    for (const folder of [bundle, this.layer(id), this.work(id), join(this.oci, id)])
      rmSync(folder, { recursive: true, force: true });
    rmSync(this.exitFile(id), { force: true });
  }

  removeSandbox(id: string): void {
    const folder = this.sandbox(id);
    if (!existsSync(folder)) return;
    unpinNamespaces(folder);
    unmount(join(folder, 'shm'));
    rmSync(join(this.oci, id), { recursive: true, force: true });
    rmSync(folder, { recursive: true, force: true });
  }

  unmountAll(): void {
    unmountBelow(this.#run);
  }
}

/** A container's log, with the pieces that rotation made of it. */
export function removeLogs(path: string): void {
  const folder = dirname(path);
  if (!existsSync(folder)) return;
  for (const name of readdirSync(folder))
    if (name === basename(path) || name.startsWith(`${basename(path)}.`)) rmSync(join(folder, name), { force: true });
}
