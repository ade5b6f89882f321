/** Where a new volume's first content comes from: another claim, a snapshot, or nothing. Populators' sources are left to them. */

import type { PersistentVolume, PersistentVolumeClaim } from '../api/core/v1.gen.ts';
import { claimBytes } from '../api/machinery/volume.ts';
import type { KubeObject } from '../api/meta.ts';
import { PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES } from '../client/resources.ts';
import type { ResourceId } from '../client/transport.ts';
import { LOCAL_TOPOLOGY_KEY } from './names.ts';
import type { SidecarContext } from './work.ts';

export const SNAPSHOT_GROUP = 'snapshot.storage.k8s.io';
const define = (resource: string): ResourceId => ({ group: SNAPSHOT_GROUP, version: 'v1', resource });
export const VOLUME_SNAPSHOTS = define('volumesnapshots');
export const VOLUME_SNAPSHOT_CONTENTS = define('volumesnapshotcontents');
export const VOLUME_SNAPSHOT_CLASSES = define('volumesnapshotclasses');

export interface VolumeSnapshot extends KubeObject {
  spec: {
    source: { persistentVolumeClaimName?: string; volumeSnapshotContentName?: string };
    volumeSnapshotClassName?: string;
  };
  status?: {
    boundVolumeSnapshotContentName?: string;
    readyToUse?: boolean;
    creationTime?: string;
    restoreSize?: string;
    error?: { time: string; message: string };
  };
}
export interface VolumeSnapshotContent extends KubeObject {
  spec: {
    driver: string;
    deletionPolicy: string;
    source: { volumeHandle?: string; snapshotHandle?: string };
    volumeSnapshotRef: { name: string; namespace: string; uid?: string };
    volumeSnapshotClassName?: string;
  };
  status?: { snapshotHandle?: string; readyToUse?: boolean; creationTime?: number; restoreSize?: number };
}

export interface ContentSource {
  readonly request: {
    readonly volume?: { readonly volumeId: string };
    readonly snapshot?: { readonly snapshotId: string };
  };
  /** The only node that can copy it, when it lies on one. */
  readonly node?: string;
}

const on = (node: string | undefined) => (node === undefined ? {} : { node });

/** Rejects while the source is not ready, and says why. */
export async function contentSource(
  { client, driver }: SidecarContext,
  claim: PersistentVolumeClaim,
): Promise<ContentSource | undefined> {
  const source = claim.spec?.dataSource;
  if (!source) {
    if (claim.spec?.dataSourceRef)
      throw new Error(`dataSourceRef of kind ${claim.spec.dataSourceRef.kind} is for a volume populator`);
    return undefined;
  }
  const namespace = claim.metadata.namespace!;
  if (source.kind === 'PersistentVolumeClaim' && !source.apiGroup) {
    const other = await client.of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS).get(namespace, source.name);
    if (other.status?.phase !== 'Bound' || !other.spec.volumeName)
      throw new Error(
        `error getting handle for DataSource Type PersistentVolumeClaim by Name ${source.name}: claim in dataSource not bound or invalid`,
      );
    const volume = await client.of<PersistentVolume>(PERSISTENT_VOLUMES).get('', other.spec.volumeName);
    if (volume.spec?.csi?.driver !== driver)
      throw new Error(`claim in dataSource not bound to a volume of driver ${driver}`);
    if ((other.spec.volumeMode ?? 'Filesystem') !== (claim.spec?.volumeMode ?? 'Filesystem'))
      throw new Error(`source claim ${source.name} and destination claim have different volume modes`);
    if (claimBytes(claim) < claimBytes(other))
      throw new Error(`error, new PVC request must be greater than or equal in size to the specified PVC data source`);
    const node = (volume.spec.nodeAffinity?.required?.nodeSelectorTerms ?? [])
      .flatMap(({ matchExpressions = [] }) => matchExpressions)
      .find(({ key }) => key === LOCAL_TOPOLOGY_KEY)?.values?.[0];
    return { request: { volume: { volumeId: volume.spec.csi.volumeHandle } }, ...on(node) };
  }
  if (source.kind === 'VolumeSnapshot' && source.apiGroup === SNAPSHOT_GROUP) {
    const snapshot = await client.of<VolumeSnapshot>(VOLUME_SNAPSHOTS).get(namespace, source.name);
    const name = snapshot.status?.boundVolumeSnapshotContentName;
    if (!name || !snapshot.status?.readyToUse) throw new Error(`snapshot ${source.name} is not ready`);
    const content = await client.of<VolumeSnapshotContent>(VOLUME_SNAPSHOT_CONTENTS).get('', name);
    if (content.spec.driver !== driver)
      throw new Error(`snapshot ${source.name} is of driver ${content.spec.driver}, not ${driver}`);
    if (content.spec.volumeSnapshotRef.uid !== snapshot.metadata.uid)
      throw new Error(`snapshot ${source.name} is not bound to its content`);
    const request = { snapshot: { snapshotId: content.status?.snapshotHandle ?? '' } };
    return { request, ...on(content.metadata.labels?.[LOCAL_TOPOLOGY_KEY]) };
  }
  throw new Error(`the PVC source ${source.kind} is not supported by driver ${driver}`);
}
