/** What a kind of volume must do. One file a kind, one line in `registry.ts`. */

import type { Pod, Volume, VolumeSource } from '../../api/core/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { Clock } from '../../base/clock.ts';
import type { ResourceId } from '../../client/transport.ts';
import type { NodeResources, PodAddresses } from '../fields.ts';

export interface VolumeTarget {
  /** Folder of the volume; its parent exists. */
  readonly path: string;
  readonly podUid: string;
  /** The volume's name in the pod. */
  readonly name: string;
}

export interface VolumeContext {
  readonly pod: Pod;
  readonly clock: Clock;
  readonly node: NodeResources;
  addresses(): PodAddresses;
  /** A watched read; undefined when the object does not exist. */
  read<T extends KubeObject>(of: ResourceId, name: string): Promise<T | undefined>;
  /** A token for the pod's service account, renewed in time by mounting again. */
  token(request: { readonly audience: string | undefined; readonly expirationSeconds: number }): Promise<string>;
}

/** Every method is idempotent. `mount` again brings the content up to date; `unmount` works after a restart, without the spec. */
export interface VolumePlugin<S> {
  readonly source: keyof VolumeSource;
  /** Name of the folder under a pod's `volumes`, as upstream: `kubernetes.io~empty-dir`. */
  readonly folder: string;
  /** Content that changes while pods run is mounted again on changes and about once a minute. */
  readonly isLive?: boolean;
  /** The fsGroup of the pod owns the content once mounted. */
  readonly ownsFiles?: boolean;
  readonly isReadOnly?: boolean;
  /** The content lies in the pod's memory instead of on the disk, and is written anew after a restart of the machine. */
  readonly isInMemory?: boolean;
  mount(source: S, target: VolumeTarget, context: VolumeContext): Promise<void>;
  unmount(target: VolumeTarget): Promise<void>;
  /** Where the content is, when it is not at the target. */
  contentPath?(source: S): string;
}

/** The one source that a volume names. */
export function sourceOf(volume: Volume): keyof VolumeSource | undefined {
  return (Object.keys(volume) as (keyof Volume)[]).find(
    (key): key is keyof VolumeSource => key !== 'name' && volume[key] !== undefined && volume[key] !== null,
  );
}
