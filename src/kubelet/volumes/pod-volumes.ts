/**
 * All volumes of one pod: mounts them, keeps live ones current, takes them away. Invariants: `unmountAll` needs nothing but the
 * folders on disk, so a pod that nobody remembers is cleaned up all the same; and nothing is ever deleted through a mount: what
 * could not be unmounted stays, and is tried again.
 */

import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Pod, Volume } from '../../api/core/v1.gen.ts';
import { systemClock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { removeUnmounted } from '../../sys/remove-unmounted.ts';
import { labelOfVolume } from '../selinux.ts';
import { type ClaimStatusWriter, growIfAsked } from './expansion.ts';
import { pluginName, timeOperation } from './operation-metrics.ts';
import { giveToGroup } from './ownership.ts';
import { VOLUME_PLUGINS, wayOut } from './registry.ts';
import { hasStarted, modeConflict, needsClaim, type ResolvedVolume, resolveVolume } from './resolution.ts';
import { unpinSubPaths } from './sub-path.ts';
import { type SourceName, sourceOf, type VolumeContext, type VolumePlugin, type VolumeTarget } from './volume.ts';
import type { VolumeNode } from './volume-node.ts';

export class VolumeError extends Error {
  override name = 'VolumeError';
  readonly volume: string;
  constructor(volume: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.volume = volume;
  }
}

type AnyPlugin = VolumePlugin<unknown>;

function pluginFor(source: SourceName, volume: string): AnyPlugin {
  const plugin = VOLUME_PLUGINS.find(one => one.source === source);
  if (!plugin) {
    throw new VolumeError(
      volume,
      `MountVolume.SetUp failed for volume "${volume}" : volume type ${source} is not supported by this kubelet: ${wayOut(source)}`,
    );
  }
  return plugin as unknown as AnyPlugin;
}

interface Mounted extends ResolvedVolume {
  readonly plugin: AnyPlugin;
  readonly target: VolumeTarget;
  /** Block mode: the device. */
  readonly device?: string;
}

/** What the caller knows; the volume's own part is added here. */
export type PodVolumeContext = Omit<VolumeContext, 'use'> & ClaimStatusWriter;

const BLOCK_FOLDER = 'volumeDevices';
const FILES_FOLDER = 'volumes';

export class PodVolumes {
  readonly #podDir: string;
  readonly #memoryDir: string;
  readonly #node: VolumeNode;
  readonly #mounted = new Map<string, Mounted>();

  /** The pod's folders on the disk and in memory. */
  constructor(options: { readonly disk: string; readonly memory: string; readonly node: VolumeNode }) {
    this.#podDir = options.disk;
    this.#memoryDir = options.memory;
    this.#node = options.node;
  }
  #folder(plugin: AnyPlugin, mode: 'Filesystem' | 'Block'): string {
    return join(
      plugin.isInMemory ? this.#memoryDir : this.#podDir,
      mode === 'Block' ? BLOCK_FOLDER : FILES_FOLDER,
      plugin.folder,
    );
  }

  /** Mounts what is not yet. Rejects with the first VolumeError; the others are tried too. */
  async mountAll(context: PodVolumeContext): Promise<void> {
    const results = await Promise.allSettled(
      (context.pod.spec.volumes ?? []).map(volume =>
        this.#mounted.has(volume.name) ? undefined : this.#mount(volume, context),
      ),
    );
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  async #mount(volume: Volume, context: PodVolumeContext): Promise<void> {
    let resolved: ResolvedVolume;
    try {
      resolved = await resolveVolume(volume, context);
      const conflict = modeConflict(context.pod, resolved);
      if (conflict) throw new Error(conflict);
      resolved = await withLabel(resolved, context);
    } catch (error) {
      const { name } = volume;
      throw new VolumeError(
        name,
        `Unable to attach or mount volumes: unmounted volumes=[${name}], unattached volumes=[], failed to process volumes=[${name}]: ${messageOf(error)}`,
      );
    }
    const plugin = pluginFor(resolved.source, volume.name);
    const { mode } = resolved.use;
    const target = {
      // Disks of some clouds have slashes in their names.
      path: join(this.#folder(plugin, mode), resolved.name.replaceAll('/', '~')),
      podUid: context.pod.metadata.uid!,
      name: resolved.name,
    };
    mkdirSync(this.#folder(plugin, mode), { recursive: true, mode: 0o750 });
    const full: VolumeContext & ClaimStatusWriter = {
      ...context,
      use: resolved.use,
      isRefresh: this.#mounted.has(volume.name),
    };
    try {
      const device = await timeOperation(
        {
          name: mode === 'Block' ? 'map_volume' : 'volume_mount',
          plugin: pluginName(plugin.folder),
          driver: driverOf(resolved),
          isMigrated: resolved.isMigrated,
        },
        context.clock,
        () => this.#bring(plugin, resolved, target, full),
      );
      context.signal.throwIfAborted();
      this.#mounted.set(volume.name, { ...resolved, plugin, target, ...(device === undefined ? {} : { device }) });
    } catch (error) {
      if (error instanceof VolumeError) throw error;
      const step = mode === 'Block' ? 'MapVolume.SetUpDevice' : 'MountVolume.SetUp';
      throw new VolumeError(volume.name, `${step} failed for volume "${resolved.name}" : ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  async #bring(
    plugin: AnyPlugin,
    { spec, use }: ResolvedVolume,
    target: VolumeTarget,
    context: VolumeContext & ClaimStatusWriter,
  ): Promise<string | undefined> {
    if (use.mode === 'Block') {
      if (!plugin.map) throw new Error(`volume type ${plugin.source} has no block mode`);
      const device = await plugin.map(spec, target, context);
      await growIfAsked(plugin, { spec, target }, context);
      return device;
    }
    await plugin.mount(spec, target, context);
    await growIfAsked(plugin, { spec, target }, context);
    const { fsGroup, fsGroupChangePolicy } = context.pod.spec.securityContext ?? {};
    const isOwner = typeof plugin.ownsFiles === 'function' ? plugin.ownsFiles(spec, context) : plugin.ownsFiles;
    // Containers that run already (the agent was started again) have their files.
    if (isOwner && fsGroup !== undefined && !context.isRefresh && !hasStarted(context.pod))
      await giveToGroup(plugin.contentPath?.(spec, target) ?? target.path, {
        fsGroup,
        changePolicy: fsGroupChangePolicy,
        isReadOnly: use.isReadOnly,
        context,
      });
    return undefined;
  }

  /** Mounts live volumes again; failures leave the old content and are returned. */
  async refresh(context: PodVolumeContext): Promise<VolumeError[]> {
    const live = (context.pod.spec.volumes ?? []).filter(volume => this.#mounted.get(volume.name)?.plugin.isLive);
    const results = await Promise.allSettled(live.map(volume => this.#mount(volume, context)));
    return results.filter(result => result.status === 'rejected').map(result => result.reason as VolumeError);
  }

  /** Volumes that are there, with what they were made of. */
  get mounted(): ReadonlyMap<string, Mounted> {
    return this.#mounted;
  }

  /** Whether every volume's place is known although not all are mounted yet. */
  isLocatable(pod: Pod): boolean {
    return (pod.spec.volumes ?? []).every(
      volume =>
        this.#mounted.has(volume.name) ||
        (!needsClaim(volume) &&
          !VOLUME_PLUGINS.find(one => one.source === sourceOf(volume))?.isSlow &&
          this.locate(pod, volume.name) !== undefined),
    );
  }

  /** Something is still to be mounted that another machine may make us wait for. */
  isWaitingForServer(pod: Pod): boolean {
    return (pod.spec.volumes ?? []).some(
      volume =>
        !this.#mounted.has(volume.name) && VOLUME_PLUGINS.some(one => one.isRemote && one.source === sourceOf(volume)),
    );
  }

  /** Where the content of a volume lies, and whether it can be written at all. */
  locate(
    pod: Pod,
    name: string,
  ):
    | {
        readonly path: string;
        readonly isReadOnly: boolean;
        readonly isNoExec: boolean;
        readonly isRemote: boolean;
        readonly isRelabelled: boolean;
        readonly isMapped: boolean;
      }
    | undefined {
    const volume = pod.spec.volumes?.find(one => one.name === name);
    if (!volume) return undefined;
    const mounted = this.#mounted.get(name);
    const source = mounted?.source ?? sourceOf(volume) ?? 'emptyDir';
    const plugin = mounted?.plugin ?? VOLUME_PLUGINS.find(one => one.source === source);
    if (!plugin) return undefined;
    const of = plugin as unknown as AnyPlugin;
    const target = mounted?.target ?? {
      path: join(this.#folder(of, 'Filesystem'), name),
      podUid: pod.metadata.uid!,
      name,
    };
    const spec = mounted?.spec ?? (volume as unknown as Record<string, unknown>)[source];
    return {
      path: of.contentPath?.(spec, target) ?? target.path,
      isReadOnly: (of.isReadOnly ?? false) || (mounted?.use.isReadOnly ?? false),
      isNoExec: of.isNoExec ?? false,
      isRemote: of.isRemote ?? false,
      isMapped: (of.isMapped ?? false) && pod.spec.hostUsers === false,
      // What was mounted with its label has it; what may not be written keeps its own.
      isRelabelled: (of.isRelabelled ?? false) && !mounted?.use.isReadOnly && !mounted?.use.label,
    };
  }
  /** The device of a volume in block mode. */
  device(name: string): { readonly path: string; readonly isReadOnly: boolean } | undefined {
    const mounted = this.#mounted.get(name);
    return mounted?.device === undefined ? undefined : { path: mounted.device, isReadOnly: mounted.use.isReadOnly };
  }

  /** Tries them all; rejects with the first failure, and then what is left stays as it is. */
  async unmountAll(podUid: string): Promise<void> {
    unpinSubPaths(join(this.#podDir, 'volume-subpaths'));
    const failures: unknown[] = [];
    for (const root of [this.#podDir, this.#memoryDir]) {
      for (const area of [FILES_FOLDER, BLOCK_FOLDER]) {
        const folder = join(root, area);
        if (!existsSync(folder)) continue;
        await Promise.all(
          readdirSync(folder).flatMap(kind => {
            const plugin = VOLUME_PLUGINS.find(one => one.folder === kind);
            return readdirSync(join(folder, kind)).map(async name => {
              const target = { path: join(folder, kind, name), podUid, name };
              const undo = area === BLOCK_FOLDER ? plugin?.unmap : plugin?.unmount;
              const known = [...this.#mounted.values()].find(mounted => mounted.target.name === name);
              try {
                if (undo)
                  await timeOperation(
                    {
                      name: area === BLOCK_FOLDER ? 'unmap_volume' : 'volume_unmount',
                      plugin: pluginName(kind),
                      driver: known && driverOf(known),
                      isMigrated: known?.isMigrated,
                    },
                    systemClock,
                    () => undo(target, this.#node),
                  );
              } catch (error) {
                failures.push(
                  new VolumeError(name, `UnmountVolume.TearDown failed for volume "${name}" : ${messageOf(error)}`),
                );
              }
            });
          }),
        );
        if (failures.length === 0) removeUnmounted(folder);
      }
    }
    if (failures.length) throw failures[0];
    this.#mounted.clear();
  }
}

/** Of a CSI volume. */
const driverOf = ({ source, spec }: ResolvedVolume): string | undefined =>
  source === 'csi' ? (spec as { driver: string }).driver : undefined;

/** With the label to mount it with, where the node, the driver, the claim and the pod let it be mounted so (KEP 1710). */
async function withLabel(resolved: ResolvedVolume, context: PodVolumeContext): Promise<ResolvedVolume> {
  const { pod, volumes } = context;
  const { source, spec, use } = resolved;
  const modes = use.persistent?.volume.spec?.accessModes;
  const plugin = VOLUME_PLUGINS.find(one => one.source === source) as AnyPlugin | undefined;
  if (!volumes.selinux || use.mode === 'Block' || modes?.length !== 1 || modes[0] !== 'ReadWriteOncePod')
    return resolved;
  if (!(await plugin?.takesLabel?.(spec, context))) return resolved;
  const isRecursive = pod.spec.securityContext?.seLinuxChangePolicy === 'Recursive';
  const label = isRecursive ? '' : labelOfVolume(pod, use.volume, volumes.selinux);
  return { ...resolved, use: { ...use, label } };
}
