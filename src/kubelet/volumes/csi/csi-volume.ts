/**
 * csi: volumes that a CSI driver of this node brings. Persistent ones are attached and staged for the node, then published to the
 * pod; inline ones are published only. Everything is repeatable: the driver is asked again for whatever it may have done before.
 */

import { existsSync, lstatSync, mkdirSync, rmdirSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { CSIPersistentVolumeSource, CSIVolumeSource, PersistentVolume, Secret } from '../../../api/core/v1.gen.ts';
import type { CSIDriver } from '../../../api/storage/v1.gen.ts';
import { SECRETS } from '../../../client/resources.ts';
import { GRPC, GrpcError } from '../../../csi/grpc.ts';
import { NODE_RPCS, USAGE_UNITS } from '../../../csi/messages.ts';
import { attachedName, attachmentName, capabilityOf, inlineHandle } from '../../../csi/names.ts';
import { contextOption, isMountPoint, unmount } from '../../../sys/mount.ts';
import type { VolumeContext, VolumePlugin, VolumeTarget, VolumeUsage } from '../volume.ts';
import type { VolumeNode } from '../volume-node.ts';
import { waitForAttachment } from './attachment.ts';
import type { CsiDriver } from './drivers.ts';
import { podFacts } from './pod-facts.ts';
import { readRecord, removeRecord, type VolumeRecord, writeRecord } from './volume-records.ts';

type Source = CSIPersistentVolumeSource | CSIVolumeSource;
const isPersistent = (source: Source): source is CSIPersistentVolumeSource => 'volumeHandle' in source;

const mountPath = ({ path }: Pick<VolumeTarget, 'path'>) => join(path, 'mount');

/** Everything about one volume of one pod. */
interface Work {
  readonly source: Source;
  readonly driver: CsiDriver;
  readonly object: CSIDriver | undefined;
  readonly record: VolumeRecord;
  readonly capability: ReturnType<typeof capabilityOf>;
  readonly context: VolumeContext;
}

async function begin(source: Source, context: VolumeContext): Promise<Work> {
  const { volumes, use, pod } = context;
  const driver = volumes.csi.driver(source.driver);
  const object = await volumes.csi.object(source.driver);
  const lifecycle = isPersistent(source) ? 'Persistent' : 'Ephemeral';
  const modes = object?.spec.volumeLifecycleModes ?? ['Persistent'];
  if (!modes.includes(lifecycle))
    throw new Error(
      `volume mode ${JSON.stringify(lifecycle)} not supported by driver ${source.driver} (${object ? `only supports ${JSON.stringify(modes)}` : 'no CSIDriver object'})`,
    );
  const isAttached = isPersistent(source) && (object?.spec.attachRequired ?? true);
  const handle = isPersistent(source) ? source.volumeHandle : inlineHandle(pod.metadata.uid!, use.volume);
  const record: VolumeRecord = {
    driverName: source.driver,
    volumeHandle: handle,
    specVolID: use.persistent?.volume.metadata.name ?? use.volume,
    nodeName: volumes.name,
    volumeLifecycleMode: lifecycle,
    ...(use.label === undefined ? {} : { seLinuxMountContext: use.label }),
    ...(isAttached ? { attachmentID: attachmentName({ driver: source.driver, handle }, volumes.name) } : {}),
  };
  const spec: Pick<PersistentVolume, 'spec'> = use.persistent?.volume ?? {
    spec: { csi: { driver: source.driver, volumeHandle: handle, ...(source.fsType ? { fsType: source.fsType } : {}) } },
  };
  const fsGroup = pod.spec.securityContext?.fsGroup;
  const mountGroup =
    fsGroup !== undefined && driver.rpcs.has(NODE_RPCS.VOLUME_MOUNT_GROUP) && use.mode === 'Filesystem'
      ? String(fsGroup)
      : undefined;
  const capability = capabilityOf(spec, {
    knowsPods: driver.rpcs.has(NODE_RPCS.SINGLE_NODE_MULTI_WRITER),
    mountGroup,
    mountFlags: use.label ? [contextOption(use.label)] : [],
  });
  return { source, driver, object, record, capability, context };
}

async function secretData(
  context: VolumeContext,
  reference: { readonly name?: string; readonly namespace?: string } | undefined,
): Promise<Record<string, string>> {
  if (!reference?.name) return {};
  const namespace = reference.namespace ?? context.pod.metadata.namespace!;
  const secret = await context.fetch<Secret>(SECRETS, { namespace, name: reference.name });
  if (!secret) throw new Error(`failed to get secret ${namespace}/${reference.name}: it does not exist`);
  return Object.fromEntries(
    Object.entries(secret.data ?? {}).map(([key, value]) => [key, Buffer.from(value, 'base64').toString('utf8')]),
  );
}

/** Attaches and stages; returns what the next step hands on. */
async function stage(work: Work): Promise<{ publishContext: Readonly<Record<string, string>>; stagingPath: string }> {
  const { source, driver, record, capability, context } = work;
  const { staging } = context.volumes;
  if (!isPersistent(source)) return { publishContext: {}, stagingPath: '' };
  staging.markInUse(record);
  if (record.attachmentID)
    await context.volumes.whenReported(
      attachedName({ driver: driver.name, handle: record.volumeHandle }),
      context.signal,
    );
  const publishContext = record.attachmentID
    ? await waitForAttachment(context, { name: record.attachmentID, driver: driver.name, handle: source.volumeHandle })
    : {};
  if (!driver.rpcs.has(NODE_RPCS.STAGE_UNSTAGE_VOLUME)) return { publishContext, stagingPath: '' };
  const stagingPath = staging.prepare(record);
  await driver.client.call(
    'nodeStageVolume',
    {
      volumeId: source.volumeHandle,
      publishContext,
      stagingTargetPath: stagingPath,
      volumeCapability: capability,
      secrets: await secretData(context, source.nodeStageSecretRef),
      volumeContext: source.volumeAttributes ?? {},
    },
    { signal: context.signal },
  );
  return { publishContext, stagingPath };
}

async function publish(
  work: Work,
  {
    stagingPath,
    publishContext,
    path,
  }: { stagingPath: string; publishContext: Readonly<Record<string, string>>; path: string },
): Promise<void> {
  const { source, driver, object, record, capability, context } = work;
  const facts = await podFacts(object, { context, isEphemeral: record.volumeLifecycleMode === 'Ephemeral' });
  await driver.client.call(
    'nodePublishVolume',
    {
      volumeId: record.volumeHandle,
      publishContext,
      stagingTargetPath: stagingPath,
      targetPath: path,
      volumeCapability: capability,
      readonly: context.use.isReadOnly,
      secrets: { ...(await secretData(context, source.nodePublishSecretRef)), ...facts.secrets },
      volumeContext: { ...source.volumeAttributes, ...facts.volumeContext },
    },
    { signal: context.signal },
  );
}

async function bring(source: Source, folder: string, path: string, context: VolumeContext): Promise<Work> {
  const work = await begin(source, context);
  const { staging } = context.volumes;
  const record = { ...work.record, path };
  // The wait for the attachment is part of it: two pods of one volume wait in turn, and both find it attached.
  await staging.exclusively(record, async () => {
    await staging.settleLabel(record, { driver: work.driver, user: folder });
    writeRecord(folder, record);
    staging.users.add(record, folder);
    mkdirSync(dirname(path), { recursive: true, mode: 0o750 });
    const staged = await stage(work);
    await publish(work, { ...staged, path });
  });
  return work;
}

/** Unpublishes by the record; a driver that does not know the volume any more has nothing to undo. */
async function takeAway(folder: string, fallback: string, { csi, staging }: VolumeNode): Promise<void> {
  const record = readRecord(folder);
  if (!record) {
    // A call that was given up may have ended late. Detached only: nothing of the content is touched.
    if (isMountPoint(fallback)) unmount(fallback);
    if (existsSync(fallback)) removeTarget(fallback);
    if (existsSync(folder)) rmdirSync(folder);
    return;
  }
  const path = record.path ?? fallback;
  const driver = csi.driver(record.driverName);
  await staging.exclusively(record, async () => {
    try {
      await driver.client.call('nodeUnpublishVolume', { volumeId: record.volumeHandle, targetPath: path });
    } catch (error) {
      if (!(error instanceof GrpcError) || error.code !== GRPC.NOT_FOUND) throw error;
    }
    if (isMountPoint(path)) throw new Error(`driver ${driver.name} left ${path} mounted`);
    if (existsSync(path)) removeTarget(path);
    staging.users.remove(record, folder);
    try {
      if (record.volumeLifecycleMode === 'Persistent') await staging.release(record, driver);
    } catch (error) {
      // Still ours to undo.
      staging.users.add(record, folder);
      throw error;
    }
    removeRecord(folder);
    rmdirSync(folder);
  });
}

/** Not followed, and never more than an empty folder or the file on which a device was mounted. */
function removeTarget(path: string): void {
  if (lstatSync(path).isDirectory()) rmdirSync(path);
  else unlinkSync(path);
}

/** Beside the staging folders, as upstream: drivers make files here, not in a pod's folder. */
function devicePath({ rootDir }: VolumeNode, target: VolumeTarget): string {
  return join(rootDir, 'plugins', 'kubernetes.io', 'csi', 'volumeDevices', 'publish', target.name, target.podUid);
}

export const csiVolume: VolumePlugin<Source> = {
  source: 'csi',
  folder: 'kubernetes.io~csi',
  isRelabelled: true,
  isLive: true,
  ownsFiles(source, { volumes, use }) {
    const driver = volumes.csi.driver(source.driver);
    if (driver.rpcs.has(NODE_RPCS.VOLUME_MOUNT_GROUP)) return false;
    switch (volumes.csi.knownObject(source.driver)?.spec.fsGroupPolicy) {
      case 'File':
        return true;
      case 'None':
        return false;
      default:
        return (
          Boolean(source.fsType) &&
          (use.persistent?.volume.spec?.accessModes ?? ['ReadWriteOnce']).some(
            mode => mode === 'ReadWriteOnce' || mode === 'ReadWriteOncePod',
          )
        );
    }
  },
  takesLabel: async ({ driver }, { volumes }) => (await volumes.csi.object(driver))?.spec.seLinuxMount ?? false,
  contentPath: (_, target) => mountPath(target),
  async mount(source, target, context) {
    const path = mountPath(target);
    // Live only for drivers that want to be called again, for tokens above all.
    if (context.isRefresh && !(await context.volumes.csi.object(source.driver))?.spec.requiresRepublish) return;
    await bring(source, target.path, path, context);
  },
  unmount: (target, volumes) => takeAway(target.path, mountPath(target), volumes),
  async map(source, target, context) {
    const path = devicePath(context.volumes, target);
    await bring(source, target.path, path, context);
    return path;
  },
  unmap: (target, volumes) => takeAway(target.path, devicePath(volumes, target), volumes),
  async expand(source, target, context) {
    const { driver, capability, record } = await begin(source, context);
    if (!isPersistent(source) || !driver.rpcs.has(NODE_RPCS.EXPAND_VOLUME)) return true;
    const isBlock = context.use.mode === 'Block';
    await context.volumes.staging.exclusively(record, async () =>
      driver.client.call(
        'nodeExpandVolume',
        {
          volumeId: source.volumeHandle,
          volumePath: isBlock ? devicePath(context.volumes, target) : mountPath(target),
          stagingTargetPath: driver.rpcs.has(NODE_RPCS.STAGE_UNSTAGE_VOLUME)
            ? context.volumes.staging.path(record)
            : '',
          capacityRange: { requiredBytes: context.bytes, limitBytes: 0 },
          volumeCapability: capability,
          secrets: await secretData(context, source.nodeExpandSecretRef),
        },
        { signal: context.signal },
      ),
    );
    return true;
  },
  async usage(target, { csi, staging }): Promise<VolumeUsage | undefined> {
    const record = readRecord(target.path);
    if (!record) return undefined;
    const driver = csi.driver(record.driverName);
    if (!driver.rpcs.has(NODE_RPCS.GET_VOLUME_STATS)) return undefined;
    const { usage, volumeCondition } = await driver.client.call('nodeGetVolumeStats', {
      volumeId: record.volumeHandle,
      volumePath: record.path ?? mountPath(target),
      stagingTargetPath: staging.path(record),
    });
    const of = (unit: number) => usage.find(one => one.unit === unit);
    const bytes = of(USAGE_UNITS.BYTES);
    const inodes = of(USAGE_UNITS.INODES);
    return {
      capacityBytes: bytes?.total ?? 0,
      usedBytes: bytes?.used ?? 0,
      availableBytes: bytes?.available ?? 0,
      inodes: inodes?.total ?? 0,
      inodesUsed: inodes?.used ?? 0,
      inodesFree: inodes?.available ?? 0,
      ...(volumeCondition?.abnormal ? { abnormal: volumeCondition.message ?? 'abnormal' } : {}),
    };
  },
};
