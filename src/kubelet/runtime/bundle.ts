/**
 * A container's OCI bundle: its root file system (image layers below a writable one) and the configuration that crun or runc reads.
 * Invariant: all of it lies in the container's folders, so removing those undoes it at any stage. It starts nothing and saves
 * no record.
 */

import { chownSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { mountOverlay, unmount } from '../../sys/mount.ts';
import type { PinnedNamespace } from '../../sys/namespaces.ts';
import { clampOomScoreAdj } from '../../sys/process.ts';
import { setLabel } from '../../sys/selinux.ts';
import { bindIdmapped } from '../../sys/user-namespace.ts';
import type { Image } from '../images/image-store.ts';
import type { ContainerConfig, MountConfig, SandboxConfig } from '../runtime.ts';
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
  // What is made in there inherits its type.
  if (record.selinux) setLabel(upper, record.selinux.file);
  const { userIds } = sandbox;
  const folder = folders.sandbox(record.sandboxId);
  const userNamespace = userIds && { path: join(folder, 'user'), ids: userIds };
  // Whoever is root inside owns the root folder; all below it comes from the layers.
  if (userIds) for (const own of [upper, rootfs]) chownSync(own, userIds.hostId, userIds.hostId);
  const lowerView = userNamespace && join(bundle, 'layers');
  if (lowerView) bindIdmapped(request.layersDir, lowerView, { namespace: userNamespace.path });
  const points = ['/proc', '/sys', '/dev', ...config.mounts.map(mount => mount.containerPath)];
  mountOverlay({
    // Mount points that are the machine's root's would be nobody's inside: crun makes those that are missing.
    lower: [...[...image.layers].reverse(), ...(userIds ? [] : [request.mountPoints.layer(points)])],
    lowerBase: request.layersDir,
    upper,
    work,
    target: rootfs,
    ...(lowerView ? { lowerView } : {}),
    ...(record.selinux ? { label: record.selinux.file } : {}),
  });
  // The overlay keeps its own view of them.
  if (lowerView) unmount(lowerView);
  const user = resolveUser(rootfs, image.config.User ?? '', config.user ?? {});
  const pin = (kind: PinnedNamespace) => (existsSync(join(folder, kind)) ? { [kind]: join(folder, kind) } : {});
  const pid = request.processNamespace();
  const spec = containerSpec({
    config: userNamespace ? idmappedMounts(config, { bundle, namespace: userNamespace.path }) : config,
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
    ...(userNamespace ? { userNamespace } : {}),
    ...(record.selinux ? { selinux: record.selinux } : {}),
  });
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(spec));
  mkdirSync(join(config.logPath, '..'), { recursive: true, mode: 0o755 });
  return user;
}

/** The same with every mount from a view of its own in the bundle, where files belong to whom the pod's namespace says. */
function idmappedMounts(config: ContainerConfig, to: { readonly bundle: string; readonly namespace: string }) {
  const folder = join(to.bundle, 'mounts');
  mkdirSync(folder, { mode: 0o711 });
  let count = 0;
  const view = <M extends Pick<MountConfig, 'hostPath'> & Partial<MountConfig>>(mount: M) => {
    const hostPath = join(folder, String(count++));
    const { recursiveReadOnly, readOnly = false, noExec = false, isMapped, ...rest } = mount;
    const flags = { readOnly, noExec, recursiveReadOnly: recursiveReadOnly !== undefined, recursive: true };
    bindIdmapped(mount.hostPath, hostPath, isMapped ? flags : { ...flags, namespace: to.namespace });
    // Inside, nobody could do that: flags that the mount has already (nosuid, nodev) must not go.
    return { ...rest, hostPath, readOnly: false };
  };
  const { terminationMessagePath } = config;
  return {
    ...config,
    mounts: config.mounts.map(view),
    ...(terminationMessagePath ? { terminationMessagePath: view(terminationMessagePath) } : {}),
  };
}
