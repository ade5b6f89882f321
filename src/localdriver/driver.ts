/**
 * A CSI driver whose disks are files of this machine behind loop devices: `cox-local`, and in tests any cloud's driver by its name.
 * With `attaches`, disks are attached by the controller service, elsewhere than they are mounted, as a cloud does it. Invariant: each
 * call looks at what is there (devices, mounts), so it can be repeated after a crash at any point.
 */

import { existsSync, mkdirSync, rmdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Clock } from '../base/clock.ts';
import { GRPC, GrpcError, type Handlers } from '../csi/grpc.ts';
import { CONTROLLER_RPCS, NODE_RPCS, PLUGIN_EXPANSIONS, PLUGIN_SERVICES, USAGE_UNITS } from '../csi/messages.ts';
import { blockBytes, growFileSystem, mountDisk } from '../sys/block-device.ts';
import { runCommand } from '../sys/command.ts';
import { bindMount, isMountPoint, mountTable, unmount } from '../sys/mount.ts';
import { type Disk, Disks, sizeFor } from './disks.ts';

export interface DriverOptions {
  readonly name: string;
  readonly version: string;
  readonly nodeName: string;
  /** What it calls this node. */
  readonly nodeId: string;
  /** Of this node; volumes are reachable from where they were made, or from the zone they were asked for. */
  readonly topology: Readonly<Record<string, string>>;
  readonly folder: string;
  readonly attaches: boolean;
  readonly clock: Clock;
  readonly volumesMax?: number;
}

const FS_TYPE_DEFAULT = 'ext4';
const SNAPSHOT_PREFIX = 'snap-';

type Capability = {
  readonly block?: object | undefined;
  readonly mount?: { readonly fsType?: string; readonly mountFlags?: readonly string[] } | undefined;
  readonly accessMode?: { readonly mode?: number } | undefined;
};

export function createDriver(options: DriverOptions): Handlers {
  const disks = new Disks(join(options.folder, 'volumes'));
  const snapshots = new Disks(join(options.folder, 'snapshots'));

  const need = (value: string | undefined, what: string): string => {
    if (!value) throw new GrpcError(GRPC.INVALID_ARGUMENT, `${what} missing in request`);
    return value;
  };
  const fsTypeOf = (capability: Capability | undefined) => capability?.mount?.fsType || FS_TYPE_DEFAULT;

  const withFrozen = async <T>(device: string | undefined, step: () => Promise<T>): Promise<T> => {
    const mountPoint = device && mountTable().find(({ source }) => source === device)?.mountPoint;
    if (!mountPoint) return step();
    await runCommand('fsfreeze', ['--freeze', mountPoint]);
    try {
      return await step();
    } finally {
      await runCommand('fsfreeze', ['--unfreeze', mountPoint]);
    }
  };

  /** The device of a staged or published disk. */
  const deviceFor = async (disk: Disk, publishContext: Readonly<Record<string, string>>): Promise<string> => {
    if (!options.attaches) return disks.attach(disk.id);
    const device = publishContext['devicePath'];
    if (!device || !disk.nodes?.includes(options.nodeId))
      throw new GrpcError(GRPC.FAILED_PRECONDITION, `volume ${disk.id} is not attached to node ${options.nodeId}`);
    return device;
  };

  const contentOf = (source: {
    readonly snapshot?: { readonly snapshotId?: string } | undefined;
    readonly volume?: { readonly volumeId?: string } | undefined;
  }): { readonly disk: Disk; readonly file: string; readonly of: Disks } => {
    if (source.snapshot) {
      const disk = snapshots.must(need(source.snapshot.snapshotId, 'Snapshot ID'));
      return { disk, file: snapshots.file(disk.id), of: snapshots };
    }
    const disk = disks.must(need(source.volume?.volumeId, 'Source volume ID'));
    return { disk, file: disks.file(disk.id), of: disks };
  };

  return {
    getPluginInfo: () => ({ name: options.name, vendorVersion: options.version }),
    getPluginCapabilities: () => ({
      capabilities: [
        { service: { type: PLUGIN_SERVICES.CONTROLLER_SERVICE } },
        { service: { type: PLUGIN_SERVICES.VOLUME_ACCESSIBILITY_CONSTRAINTS } },
        { volumeExpansion: { type: PLUGIN_EXPANSIONS.ONLINE } },
      ],
    }),
    probe: () => ({ ready: { value: true } }),

    controllerGetCapabilities: () => ({
      capabilities: [
        CONTROLLER_RPCS.CREATE_DELETE_VOLUME,
        CONTROLLER_RPCS.GET_CAPACITY,
        CONTROLLER_RPCS.CREATE_DELETE_SNAPSHOT,
        CONTROLLER_RPCS.LIST_SNAPSHOTS,
        CONTROLLER_RPCS.CLONE_VOLUME,
        CONTROLLER_RPCS.EXPAND_VOLUME,
        CONTROLLER_RPCS.MODIFY_VOLUME,
        CONTROLLER_RPCS.SINGLE_NODE_MULTI_WRITER,
        ...(options.attaches ? [CONTROLLER_RPCS.PUBLISH_UNPUBLISH_VOLUME] : []),
      ].map(type => ({ rpc: { type } })),
    }),
    async createVolume(request) {
      const id = need(request.name, 'Name');
      const [capability] = request.volumeCapabilities as readonly Capability[];
      if (!capability) throw new GrpcError(GRPC.INVALID_ARGUMENT, 'Volume capabilities missing in request');
      const content = request.volumeContentSource ? contentOf(request.volumeContentSource) : undefined;
      const fsType = content?.disk.fsType ?? fsTypeOf(capability);
      const bytes = Math.max(sizeFor(request.capacityRange, fsType), content?.disk.bytes ?? 0);
      let disk = disks.get(id);
      if (disk && request.capacityRange?.requiredBytes && disk.bytes < request.capacityRange.requiredBytes)
        throw new GrpcError(GRPC.ALREADY_EXISTS, `volume ${id} exists with another size: ${disk.bytes}`);
      if (!disk) {
        const fresh: Disk = {
          id,
          bytes,
          isThin: request.parameters['allocation'] === 'thin',
          fsType,
          parameters: { ...request.parameters, ...request.mutableParameters },
          ...(content ? { source: content.disk.id, fsBytes: content.disk.fsBytes ?? content.disk.bytes } : {}),
        };
        const device = content?.of === disks ? await disks.device(content.disk.id) : undefined;
        disk = await withFrozen(device, () => disks.create(fresh, content?.file));
      }
      const asked = request.accessibilityRequirements;
      const topology = options.attaches
        ? (asked?.preferred?.[0]?.segments ?? asked?.requisite?.[0]?.segments ?? options.topology)
        : options.topology;
      return {
        volume: {
          volumeId: disk.id,
          capacityBytes: disk.bytes,
          volumeContext: {},
          ...(request.volumeContentSource ? { contentSource: request.volumeContentSource } : {}),
          accessibleTopology: [{ segments: topology }],
        },
      };
    },
    async deleteVolume(request) {
      const id = need(request.volumeId, 'Volume ID');
      const disk = disks.get(id);
      const device = disk && (await disks.device(id));
      if (disk?.nodes?.length || (device && mountTable().some(({ source }) => source === device)))
        throw new GrpcError(GRPC.FAILED_PRECONDITION, `volume ${id} is still in use`);
      await disks.delete(id);
      return {};
    },
    validateVolumeCapabilities(request) {
      disks.must(need(request.volumeId, 'Volume ID'));
      return { confirmed: { volumeCapabilities: request.volumeCapabilities, volumeContext: request.volumeContext } };
    },
    getCapacity: () => ({
      availableCapacity: disks.freeBytes,
      maximumVolumeSize: { value: disks.freeBytes },
    }),
    ...(options.attaches
      ? ({
          async controllerPublishVolume(request) {
            const disk = disks.must(need(request.volumeId, 'Volume ID'));
            const node = need(request.nodeId, 'Node ID');
            const others = (disk.nodes ?? []).filter(one => one !== node);
            if (others.length > 0 && (request.volumeCapability?.accessMode?.mode ?? 0) < 3)
              throw new GrpcError(
                GRPC.FAILED_PRECONDITION,
                `volume ${disk.id} is already attached to node ${others[0]}`,
              );
            disks.write({ ...disk, nodes: [...others, node] });
            return { publishContext: { devicePath: await disks.attach(disk.id) } };
          },
          async controllerUnpublishVolume(request) {
            const disk = disks.get(need(request.volumeId, 'Volume ID'));
            if (!disk) return {};
            const nodes = (disk.nodes ?? []).filter(one => request.nodeId && one !== request.nodeId);
            const device = await disks.device(disk.id);
            if (nodes.length === 0 && device) await disks.detach(disk.id);
            disks.write({ ...disk, nodes });
            return {};
          },
        } satisfies Handlers)
      : {}),
    async controllerExpandVolume(request) {
      const disk = disks.must(need(request.volumeId, 'Volume ID'));
      const larger = await disks.grow(disk, sizeFor(request.capacityRange, disk.fsType));
      return { capacityBytes: larger.bytes, nodeExpansionRequired: request.volumeCapability?.block === undefined };
    },
    controllerModifyVolume(request) {
      const disk = disks.must(need(request.volumeId, 'Volume ID'));
      disks.write({ ...disk, parameters: { ...disk.parameters, ...request.mutableParameters } });
      return {};
    },
    async createSnapshot(request) {
      const id = need(request.name, 'Name').startsWith(SNAPSHOT_PREFIX)
        ? request.name
        : `${SNAPSHOT_PREFIX}${request.name}`;
      const source = disks.must(need(request.sourceVolumeId, 'Source volume ID'));
      const known = snapshots.get(id);
      if (known && known.source !== source.id)
        throw new GrpcError(GRPC.ALREADY_EXISTS, `snapshot ${id} exists of another volume: ${known.source}`);
      const made =
        known ??
        (await withFrozen(await disks.device(source.id), () =>
          snapshots.create(
            {
              id,
              bytes: source.bytes,
              isThin: true,
              fsType: source.fsType,
              parameters: { madeMs: String(options.clock.now()) },
              source: source.id,
              ...(source.fsBytes === undefined ? {} : { fsBytes: source.fsBytes }),
            },
            disks.file(source.id),
          ),
        ));
      return { snapshot: snapshotOf(made) };
    },
    listSnapshots({ snapshotId, sourceVolumeId, startingToken, maxEntries }) {
      const start = Number(startingToken || 0);
      if (!Number.isInteger(start) || start < 0)
        throw new GrpcError(GRPC.ABORTED, `starting token ${JSON.stringify(startingToken)} is none of ours`);
      const all = (snapshotId ? [snapshotId] : snapshots.ids().sort())
        .flatMap(id => snapshots.get(id) ?? [])
        .filter(({ source }) => !sourceVolumeId || source === sourceVolumeId);
      const end = maxEntries ? start + maxEntries : all.length;
      return {
        entries: all.slice(start, end).map(disk => ({ snapshot: snapshotOf(disk) })),
        nextToken: end < all.length ? String(end) : '',
      };
    },
    async deleteSnapshot(request) {
      await snapshots.delete(need(request.snapshotId, 'Snapshot ID'));
      return {};
    },

    nodeGetCapabilities: () => ({
      capabilities: [
        NODE_RPCS.STAGE_UNSTAGE_VOLUME,
        NODE_RPCS.GET_VOLUME_STATS,
        NODE_RPCS.EXPAND_VOLUME,
        NODE_RPCS.SINGLE_NODE_MULTI_WRITER,
        NODE_RPCS.VOLUME_CONDITION,
      ].map(type => ({ rpc: { type } })),
    }),
    nodeGetInfo: () => ({
      nodeId: options.nodeId,
      maxVolumesPerNode: options.volumesMax ?? 0,
      accessibleTopology: { segments: options.topology },
    }),
    async nodeStageVolume(request) {
      const disk = disks.must(need(request.volumeId, 'Volume ID'));
      const target = need(request.stagingTargetPath, 'Staging target path');
      const capability = request.volumeCapability as Capability | undefined;
      if (!capability) throw new GrpcError(GRPC.INVALID_ARGUMENT, 'Volume capability missing in request');
      const device = await deviceFor(disk, request.publishContext);
      if (capability.block) return {};
      mkdirSync(target, { recursive: true, mode: 0o750 });
      // Without CAP_SYS_RESOURCE ext4 grows only here, before it is mounted.
      const mustGrow = disk.fsBytes !== undefined && disk.fsBytes < disk.bytes && !isMountPoint(target);
      const growsMounted = disk.fsType === 'xfs';
      if (mustGrow && !growsMounted) await growFileSystem({ device });
      await mountDisk({
        device,
        target,
        fsType: fsTypeOf(capability),
        options: capability.mount?.mountFlags ?? [],
        isReadOnly: false,
      });
      if (mustGrow && growsMounted) await growFileSystem({ device, mountPoint: target });
      if (mustGrow || disk.fsBytes === undefined) disks.write({ ...disks.must(disk.id), fsBytes: disk.bytes });
      return {};
    },
    async nodeUnstageVolume(request) {
      const id = need(request.volumeId, 'Volume ID');
      const target = need(request.stagingTargetPath, 'Staging target path');
      unmount(target);
      if (!options.attaches && disks.get(id)) await disks.detach(id);
      return {};
    },
    async nodePublishVolume(request) {
      const id = need(request.volumeId, 'Volume ID');
      const target = need(request.targetPath, 'Target path');
      const capability = request.volumeCapability as Capability | undefined;
      if (isMountPoint(target)) return {};
      mkdirSync(dirname(target), { recursive: true, mode: 0o750 });
      if (request.volumeContext['csi.storage.k8s.io/ephemeral'] === 'true') {
        await publishInline(disks, { id, target, context: request.volumeContext, fsType: fsTypeOf(capability) });
        return {};
      }
      const disk = disks.must(id);
      if (capability?.block) {
        const device = await deviceFor(disk, request.publishContext);
        if (!existsSync(target)) writeFileSync(target, '');
        bindMount(device, target);
        return {};
      }
      const staged = need(request.stagingTargetPath, 'Staging target path');
      if (!isMountPoint(staged))
        throw new GrpcError(GRPC.FAILED_PRECONDITION, `volume ${id} is not staged at ${staged}`);
      mkdirSync(target, { recursive: true, mode: 0o750 });
      bindMount(staged, target, { readOnly: request.readonly });
      return {};
    },
    async nodeUnpublishVolume(request) {
      const id = need(request.volumeId, 'Volume ID');
      const target = need(request.targetPath, 'Target path');
      unmount(target);
      removeTarget(target);
      const disk = disks.get(id);
      if (disk?.parameters['inline']) await disks.delete(id);
      return {};
    },
    async nodeGetVolumeStats(request) {
      const disk = disks.get(need(request.volumeId, 'Volume ID'));
      const path = need(request.volumePath, 'Volume path');
      if (!disk || !existsSync(path))
        throw new GrpcError(GRPC.NOT_FOUND, `volume ${request.volumeId} is not at ${path}`);
      const size = blockBytes(path);
      if (size !== undefined) return { usage: [{ unit: USAGE_UNITS.BYTES, total: size }] };
      const { blocks, bavail, bfree, bsize, files, ffree } = statfsSync(path);
      const isMounted = isMountPoint(path);
      return {
        usage: [
          { unit: USAGE_UNITS.BYTES, total: blocks * bsize, available: bavail * bsize, used: (blocks - bfree) * bsize },
          { unit: USAGE_UNITS.INODES, total: files, available: ffree, used: files - ffree },
        ],
        volumeCondition: { abnormal: !isMounted, message: isMounted ? 'volume is healthy' : 'volume is not mounted' },
      };
    },
    async nodeExpandVolume(request) {
      const disk = disks.must(need(request.volumeId, 'Volume ID'));
      need(request.volumePath, 'Volume path');
      if (request.volumeCapability?.block || disk.fsBytes === disk.bytes) return { capacityBytes: disk.bytes };
      const device = await disks.device(disk.id);
      try {
        if (device) await growFileSystem({ device });
      } catch (error) {
        if (!/Permission denied to resize/.test((error as Error).message)) throw error;
        throw new GrpcError(
          GRPC.FAILED_PRECONDITION,
          'this machine does not let ext4 grow while it is mounted (no CAP_SYS_RESOURCE): it grows when the next pod mounts it; xfs grows at once',
        );
      }
      disks.write({ ...disks.must(disk.id), fsBytes: disk.bytes });
      return { capacityBytes: disk.bytes };
    },
  };
}

const snapshotOf = ({ id, source, bytes, parameters }: Disk) => ({
  snapshotId: id,
  sourceVolumeId: source!,
  sizeBytes: bytes,
  creationTime: { seconds: Math.floor(Number(parameters['madeMs']) / 1000), nanos: 0 },
  readyToUse: true,
});

async function publishInline(
  disks: Disks,
  {
    id,
    target,
    context,
    fsType,
  }: {
    readonly id: string;
    readonly target: string;
    readonly context: Readonly<Record<string, string>>;
    readonly fsType: string;
  },
): Promise<void> {
  const asked = Number(context['sizeBytes'] ?? 0);
  if (!Number.isInteger(asked) || asked < 0)
    throw new GrpcError(
      GRPC.INVALID_ARGUMENT,
      `volumeAttributes sizeBytes: ${JSON.stringify(context['sizeBytes'])} is no number of bytes`,
    );
  if (!disks.get(id))
    await disks.create({
      id,
      bytes: sizeFor({ requiredBytes: asked }, fsType),
      isThin: false,
      fsType,
      parameters: { inline: 'true' },
    });
  mkdirSync(target, { recursive: true, mode: 0o750 });
  await mountDisk({ device: await disks.attach(id), target, fsType, options: [], isReadOnly: false });
}

function removeTarget(target: string): void {
  if (!existsSync(target)) return;
  try {
    rmdirSync(target);
  } catch {
    rmSync(target, { force: true });
  }
}
