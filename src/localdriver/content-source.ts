/**
 * Where a new volume's first content comes from: another claim, a snapshot, or nothing. Of another namespace only where a ReferenceGrant
 * there allows it. Sources of any other kind are left to their populators.
 */

import type { PersistentVolume, PersistentVolumeClaim, TypedObjectReference } from '../api/core/v1.gen.ts';
import { claimBytes } from '../api/machinery/volume.ts';
import type { KubeObject } from '../api/meta.ts';
import { ApiError } from '../base/errors.ts';
import type { Client } from '../client/client.ts';
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

/** `dataSource` says the same where it says anything. */
function sourceOf({ spec }: PersistentVolumeClaim): TypedObjectReference | undefined {
  return spec?.dataSourceRef ?? spec?.dataSource;
}
const isClaim = ({ kind, apiGroup }: TypedObjectReference) => kind === 'PersistentVolumeClaim' && !apiGroup;
const isSnapshot = ({ kind, apiGroup }: TypedObjectReference) =>
  kind === 'VolumeSnapshot' && apiGroup === SNAPSHOT_GROUP;

/** No driver knows the source's kind: its populator makes a volume with another claim and hands it over. */
export function needsPopulator(claim: PersistentVolumeClaim): boolean {
  const source = sourceOf(claim);
  return source !== undefined && !isClaim(source) && !isSnapshot(source);
}

const REFERENCE_GRANTS: ResourceId = {
  group: 'gateway.networking.k8s.io',
  version: 'v1beta1',
  resource: 'referencegrants',
};
interface ReferenceGrant extends KubeObject {
  spec?: {
    from?: readonly { group?: string; kind?: string; namespace?: string }[];
    to?: readonly { group?: string; kind?: string; name?: string }[];
  };
}

async function checkGranted(
  client: Client,
  claim: PersistentVolumeClaim,
  { kind, apiGroup = '', name, namespace = '' }: TypedObjectReference,
): Promise<void> {
  const grants = await client
    .of<ReferenceGrant>(REFERENCE_GRANTS)
    .list(namespace)
    .catch(error => {
      // A cluster without these objects grants nothing.
      if (error instanceof ApiError && error.code === 404) return { items: [] as ReferenceGrant[] };
      throw error;
    });
  const from = claim.metadata.namespace!;
  const isGranted = grants.items.some(
    ({ spec = {} }) =>
      spec.from?.some(one => !one.group && one.kind === 'PersistentVolumeClaim' && one.namespace === from) &&
      spec.to?.some(one => (one.group ?? '') === apiGroup && one.kind === kind && (!one.name || one.name === name)),
  );
  if (!isGranted)
    throw new Error(
      `accessing ${namespace}/${name} of ${kind} dataSource from ${from}/${claim.metadata.name} isn't allowed: no ReferenceGrant in namespace ${JSON.stringify(namespace)} allows it`,
    );
}

/** Rejects while the source is not ready, and says why. */
export async function contentSource(
  { client, driver }: SidecarContext,
  claim: PersistentVolumeClaim,
): Promise<ContentSource | undefined> {
  const source = sourceOf(claim);
  if (!source) return undefined;
  const namespace = source.namespace || claim.metadata.namespace!;
  if (namespace !== claim.metadata.namespace) await checkGranted(client, claim, source);
  if (isClaim(source)) {
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
  if (isSnapshot(source)) {
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
