/**
 * A container's OCI bundle: its root file system (image layers below a writable one) and the configuration runc reads.
 * Invariant: all of it lies in the container's folders, so removing those undoes it at any stage. It starts nothing and saves
 * no record.
 */

import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { mountOverlay } from '../../sys/mount.ts';
import type { PinnedNamespace } from '../../sys/namespaces.ts';
import { clampOomScoreAdj } from '../../sys/process.ts';
import type { Image } from '../images/image-store.ts';
import type { SandboxConfig } from '../runtime.ts';
import type { RuntimeFolders } from './folders.ts';
import type { MountPoints } from './mount-points.ts';
import type { ContainerRecord } from './records.ts';
import { containerSpec } from './spec.ts';
import { type ProcessUser, resolveUser } from './users.ts';

export interface BundleRequest {
  readonly record: ContainerRecord;
  readonly sandbox: SandboxConfig;
  readonly image: Image;
  readonly folders: RuntimeFolders;
  readonly mountPoints: MountPoints;
  /** Where the images' layers lie. */
  readonly layersDir: string;
  readonly unified: boolean;
  readonly available: ReadonlySet<string>;
  /** Path of the PID namespace to join, if not one of its own; asked once the root file system is there. */
  processNamespace(): string | undefined;
}

/** Whom the container runs as. */
export function makeBundle(request: BundleRequest): ProcessUser {
  const { record, sandbox, image, folders } = request;
  const { id, config } = record;
  const bundle = folders.bundle(id);
  const rootfs = join(bundle, 'rootfs');
  const [upper, work] = [folders.layer(id), folders.work(id)];
  for (const folder of [bundle, rootfs, upper, work]) mkdirSync(folder, { mode: 0o755 });
  const points = ['/proc', '/sys', '/dev', ...config.mounts.map(mount => mount.containerPath)];
  mountOverlay({
    lower: [...[...image.layers].reverse(), request.mountPoints.layer(points)],
    lowerBase: request.layersDir,
    upper,
    work,
    target: rootfs,
  });
  const user = resolveUser(rootfs, image.config.User ?? '', config.user ?? {});
  const folder = folders.sandbox(record.sandboxId);
  const pin = (kind: PinnedNamespace) => (existsSync(join(folder, kind)) ? { [kind]: join(folder, kind) } : {});
  const pid = request.processNamespace();
  const spec = containerSpec({
    config,
    sandbox,
    image,
    user,
    rootfs,
    cgroupsPath: record.cgroup,
    unified: request.unified,
    available: request.available,
    oomScoreAdj: clampOomScoreAdj(config.oomScoreAdj),
    namespaces: { ...pin('net'), ...pin('ipc'), ...pin('uts'), ...(pid === undefined ? {} : { pid }) },
    shmPath: sandbox.hostIpc ? '/dev/shm' : join(folder, 'shm'),
  });
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(spec));
  mkdirSync(join(config.logPath, '..'), { recursive: true, mode: 0o755 });
  return user;
}
