/**
 * All volumes of one pod: mounts them, keeps live ones current, takes them away. Invariant: `unmountAll` needs nothing but
 * the folders on disk, so a pod that nobody remembers is cleaned up all the same.
 */

import { chmodSync, chownSync, existsSync, lchownSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Pod, Volume } from '../../api/core/v1.gen.ts';
import { messageOf } from '../../base/errors.ts';
import { VOLUME_PLUGINS } from './registry.ts';
import { unpinSubPaths } from './sub-path.ts';
import { sourceOf, type VolumeContext, type VolumePlugin, type VolumeTarget } from './volume.ts';

export class VolumeError extends Error {
  override name = 'VolumeError';
  readonly volume: string;
  constructor(volume: string, message: string) {
    super(message);
    this.volume = volume;
  }
}

function pluginOf(volume: Volume): VolumePlugin<unknown> {
  const source = sourceOf(volume) ?? 'emptyDir';
  const plugin = VOLUME_PLUGINS.find(one => one.source === source);
  if (!plugin) {
    throw new VolumeError(
      volume.name,
      `MountVolume.SetUp failed for volume "${volume.name}" : volume type ${source} is not supported by this kubelet: it has ${VOLUME_PLUGINS.map(one => one.source).join(', ')}`,
    );
  }
  return plugin as unknown as VolumePlugin<unknown>;
}

export class PodVolumes {
  readonly #podDir: string;
  readonly #memoryDir: string;
  readonly #mounted = new Set<string>();

  /** The pod's folders on the disk and in memory. */
  constructor(folders: { readonly disk: string; readonly memory: string }) {
    this.#podDir = folders.disk;
    this.#memoryDir = folders.memory;
  }
  #folder(plugin: VolumePlugin<unknown>): string {
    return join(plugin.isInMemory ? this.#memoryDir : this.#podDir, 'volumes', plugin.folder);
  }

  #target(pod: Pod, volume: Volume, plugin: VolumePlugin<unknown>): VolumeTarget {
    return {
      path: join(this.#folder(plugin), volume.name),
      podUid: pod.metadata.uid!,
      name: volume.name,
    };
  }

  /** Mounts what is not yet. Rejects with the first VolumeError; the others are tried too. */
  async mountAll(context: VolumeContext): Promise<void> {
    const results = await Promise.allSettled(
      (context.pod.spec.volumes ?? []).map(volume =>
        this.#mounted.has(volume.name) ? undefined : this.#mount(volume, context),
      ),
    );
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  async #mount(volume: Volume, context: VolumeContext): Promise<void> {
    const plugin = pluginOf(volume);
    const target = this.#target(context.pod, volume, plugin);
    mkdirSync(this.#folder(plugin), { recursive: true, mode: 0o750 });
    try {
      const isNew = !existsSync(target.path);
      await plugin.mount(volume[plugin.source] ?? {}, target, context);
      const { fsGroup, fsGroupChangePolicy } = context.pod.spec.securityContext ?? {};
      if (plugin.ownsFiles && fsGroup !== undefined && (isNew || fsGroupChangePolicy !== 'OnRootMismatch'))
        giveToGroup(target.path, fsGroup);
    } catch (error) {
      throw error instanceof VolumeError
        ? error
        : new VolumeError(volume.name, `MountVolume.SetUp failed for volume "${volume.name}" : ${messageOf(error)}`);
    }
    this.#mounted.add(volume.name);
  }

  /** Mounts live volumes again; failures leave the old content and are returned. */
  async refresh(context: VolumeContext): Promise<VolumeError[]> {
    const live = (context.pod.spec.volumes ?? []).filter(
      volume => this.#mounted.has(volume.name) && pluginOf(volume).isLive,
    );
    const results = await Promise.allSettled(live.map(volume => this.#mount(volume, context)));
    return results.filter(result => result.status === 'rejected').map(result => result.reason as VolumeError);
  }

  get hasLive(): boolean {
    return this.#mounted.size > 0;
  }

  /** Where the content of a volume lies, and whether it can be written at all. */
  locate(pod: Pod, name: string): { readonly path: string; readonly isReadOnly: boolean } | undefined {
    const volume = pod.spec.volumes?.find(one => one.name === name);
    if (!volume) return undefined;
    const plugin = pluginOf(volume);
    const path = plugin.contentPath?.(volume[plugin.source]) ?? this.#target(pod, volume, plugin).path;
    return { path, isReadOnly: plugin.isReadOnly ?? false };
  }

  async unmountAll(podUid: string): Promise<void> {
    unpinSubPaths(join(this.#podDir, 'volume-subpaths'));
    for (const root of [this.#podDir, this.#memoryDir]) {
      const folder = join(root, 'volumes');
      for (const kind of existsSync(folder) ? readdirSync(folder) : []) {
        const plugin = VOLUME_PLUGINS.find(one => one.folder === kind);
        for (const name of readdirSync(join(folder, kind)))
          await plugin?.unmount({ path: join(folder, kind, name), podUid, name });
      }
      rmSync(folder, { recursive: true, force: true });
    }
    this.#mounted.clear();
  }
}

function giveToGroup(path: string, gid: number): void {
  const stat = statSync(path);
  chownSync(path, stat.uid, gid);
  chmodSync(path, stat.mode | 0o2070);
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const at = join(path, entry.name);
    if (entry.isDirectory()) giveToGroup(at, gid);
    else if (entry.isFile()) {
      const file = statSync(at);
      chownSync(at, file.uid, gid);
      chmodSync(at, file.mode | 0o060);
    } else lchownSync(at, 0, gid);
  }
}
