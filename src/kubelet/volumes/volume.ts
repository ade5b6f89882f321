/**
 * What a kind of volume must do: the contract between the kubelet and its volume plugins. One file (or folder) a kind, one line
 * in `registry.ts`. The kubelet resolves claims to persistent volumes, translates in-tree cloud disks to CSI, applies fsGroup and
 * subPath, and removes empty folders; a plugin only brings one content to one place and takes it away again.
 *
 * Rules for every plugin:
 * - Each method is idempotent and may be repeated after a crash at any point of the one before.
 * - `unmount` works after a restart, with nothing but the target: whatever it needs to know, `mount` has written to the disk
 *   (beside the target, never into the mounted content).
 * - Nothing it does may block the thread for longer than a few milliseconds: what can hang (network, slow disks) runs in another
 *   process, see `src/sys/command.ts`, and honours `context.signal`.
 * - A plugin never deletes below a mount point. `rmdir` is all that a mounted volume's folder may need.
 */

import type {
  PersistentVolume,
  PersistentVolumeClaim,
  PersistentVolumeSource,
  Pod,
  Volume,
  VolumeSource,
} from '../../api/core/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { Clock } from '../../base/clock.ts';
import type { ResourceId } from '../../client/transport.ts';
import type { IdRange } from '../../sys/user-namespace.ts';
import type { NodeResources, PodAddresses } from '../fields.ts';
import type { VolumeNode } from './volume-node.ts';

export interface VolumeTarget {
  /** Folder of the volume, `pods/UID/volumes/FOLDER/NAME`; its parent exists. In block mode below `volumeDevices`, and not made. */
  readonly path: string;
  readonly podUid: string;
  /** Of the persistent volume, or of the pod's volume when it has none. */
  readonly name: string;
}

/** How the pod uses the volume. */
export interface VolumeUse {
  /** Its name in the pod. */
  readonly volume: string;
  /** When the source stands in a persistent volume; the claim is absent when the kubelet made up the persistent volume itself. */
  readonly persistent?: { readonly volume: PersistentVolume; readonly claim?: PersistentVolumeClaim };
  /** The claim reference or the source says so. Mounts of containers are made read-only in any case. */
  readonly isReadOnly: boolean;
  /** Of the persistent volume: words for `mount -o`. */
  readonly mountOptions: readonly string[];
  readonly mode: 'Filesystem' | 'Block';
  /** Mount it with this SELinux label (`-o context=…`), or with none where it is empty; absent where the plugin does not do that. */
  readonly label?: string;
}

export interface VolumeContext {
  readonly pod: Pod;
  readonly clock: Clock;
  readonly node: NodeResources;
  addresses(): PodAddresses;
  /** A watched read of a ConfigMap or Secret of the pod's namespace; undefined when the object does not exist. */
  read<T extends KubeObject>(of: ResourceId, name: string): Promise<T | undefined>;
  /** A plain read of anything, for what a node may not watch; undefined when the object does not exist. */
  fetch<T extends KubeObject>(
    of: ResourceId,
    key: { readonly namespace?: string; readonly name: string },
  ): Promise<T | undefined>;
  /** Objects of a cluster-scoped kind by a field selector; undefined when the server has no such kind. */
  list<T extends KubeObject>(of: ResourceId, fieldSelector: string): Promise<readonly T[] | undefined>;
  /** A token for the pod's service account, renewed in time by mounting again. */
  token(request: { readonly audience: string | undefined; readonly expirationSeconds: number }): Promise<string>;
  /** Users and groups of the machine that are the pod's own (`hostUsers: false`); undefined where it has the machine's. */
  userIds(): IdRange | undefined;
  readonly use: VolumeUse;
  /** The volume is mounted; only its content may have changed. */
  readonly isRefresh?: boolean;
  /** What all pods of the node share: CSI drivers, who uses which disk. */
  readonly volumes: VolumeNode;
  /** What it holds has changed: it is brought again. */
  changed(): void;
  event(type: 'Normal' | 'Warning', reason: string, message: string): void;
  /** Aborts when the pod ends while it is being mounted. */
  readonly signal: AbortSignal;
}

export type SourceName = keyof VolumeSource | keyof PersistentVolumeSource;

export interface VolumePlugin<S> {
  /** Of pods' volumes and of persistent volumes alike. */
  readonly source: SourceName;
  /** Name of the folder under a pod's `volumes`, as upstream: `kubernetes.io~empty-dir`. */
  readonly folder: string;
  /** Content that changes while pods run is mounted again on changes and about once a minute. */
  readonly isLive?: boolean;
  /** The fsGroup of the pod owns the content once mounted. */
  readonly ownsFiles?: boolean | ((source: S, context: VolumeContext) => boolean);
  /** Its files may get the SELinux label of the pod that uses it. */
  readonly isRelabelled?: boolean;
  /** The volume can be mounted with an SELinux label instead. */
  takesLabel?(source: S, context: Pick<VolumeContext, 'volumes'>): Promise<boolean>;
  readonly isReadOnly?: boolean;
  /** No program may be run from it. */
  readonly isNoExec?: boolean;
  /** Mounting may take minutes: meanwhile the pod holds no place among those that start. */
  readonly isSlow?: boolean;
  /** In a pod with users of its own its files are theirs already: its file system cannot be shown with other owners later. */
  readonly isMapped?: boolean;
  /** The content lies in the pod's memory instead of on the disk, and is written anew after a restart of the machine. */
  readonly isInMemory?: boolean;
  /** The content may hang when its server dies: the kubelet never looks into it from its own process. */
  readonly isRemote?: boolean;
  mount(source: S, target: VolumeTarget, context: VolumeContext): Promise<void>;
  /** Afterwards nothing is mounted at or below the target, and the target is gone. */
  unmount(target: VolumeTarget, volumes: VolumeNode): Promise<void>;
  /** Block mode: makes the device reachable and returns its path; absent in plugins that have none. */
  map?(source: S, target: VolumeTarget, context: VolumeContext): Promise<string>;
  /** Undoes `map`, like `unmount`. */
  unmap?(target: VolumeTarget, volumes: VolumeNode): Promise<void>;
  /** Where the content is, when it is not at the target. Pure: it is asked before `mount`. */
  contentPath?(source: S, target: VolumeTarget): string;
  /** The claim's volume is to be larger than its file system: grow it. True when all of it is done. */
  expand?(source: S, target: VolumeTarget, context: VolumeContext & { readonly bytes: number }): Promise<boolean>;
  /** Bytes and inodes; default: those of the file system at the content's place, when the plugin mounts one. */
  usage?(target: VolumeTarget, volumes: VolumeNode): Promise<VolumeUsage | undefined>;
}

export interface VolumeUsage {
  readonly capacityBytes: number;
  readonly usedBytes: number;
  readonly availableBytes: number;
  readonly inodes: number;
  readonly inodesUsed: number;
  readonly inodesFree: number;
  /** What a driver says of its volume's health. */
  readonly abnormal?: string;
}

/** The one source that a volume names. */
export function sourceOf(volume: Volume): keyof VolumeSource | undefined {
  return (Object.keys(volume) as (keyof Volume)[]).find(
    (key): key is keyof VolumeSource => key !== 'name' && volume[key] !== undefined && volume[key] !== null,
  );
}
