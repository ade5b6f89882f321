/**
 * Snapshots of a driver's volumes: the snapshot controller's and external-snapshotter's parts, for the volumes that this node's driver
 * knows, and those of contents that somebody made by hand for a snapshot of the driver's. Invariants: the snapshot's name comes from the object's uid, so trying again never takes a second one; a content is gone only
 * after what it stands for is; a snapshot being deleted takes its content with it only under the policy Delete.
 */

import type { PersistentVolume, PersistentVolumeClaim } from '../api/core/v1.gen.ts';
import { formatNano } from '../api/machinery/quantity.ts';
import { type KubeObject, keyOf } from '../api/meta.ts';
import type { CSINode } from '../api/storage/v1.gen.ts';
import { formatTime } from '../base/clock.ts';
import { isReason, messageOf } from '../base/errors.ts';
import { CSI_NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES } from '../client/resources.ts';
import {
  VOLUME_SNAPSHOT_CLASSES,
  VOLUME_SNAPSHOT_CONTENTS,
  VOLUME_SNAPSHOTS,
  type VolumeSnapshot,
  type VolumeSnapshotContent,
} from './content-source.ts';
import { LOCAL_TOPOLOGY_KEY as NODE_LABEL } from './names.ts';
import type { Sidecar, SidecarContext } from './work.ts';

const SNAPSHOT_FINALIZER = 'snapshot.storage.kubernetes.io/volumesnapshot-bound-protection';
const CONTENT_FINALIZER = 'snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection';
const DEFAULT_CLASS = 'snapshot.storage.kubernetes.io/is-default-class';
const WAIT_MS = 2000;

interface VolumeSnapshotClass extends KubeObject {
  driver: string;
  deletionPolicy: string;
  parameters?: Record<string, string>;
}

export function snapshotter(context: SidecarContext): Sidecar {
  const { driver, csi, client, informers, events, clock, nodeName = '' } = context;
  const snapshots = informers.get<VolumeSnapshot>(VOLUME_SNAPSHOTS);
  const contents = informers.get<VolumeSnapshotContent>(VOLUME_SNAPSHOT_CONTENTS);
  const csiNodes = informers.get<CSINode>(CSI_NODES);
  const snapshotClient = client.of<VolumeSnapshot>(VOLUME_SNAPSHOTS);
  const contentClient = client.of<VolumeSnapshotContent>(VOLUME_SNAPSHOT_CONTENTS);

  async function sourceOf(snapshot: VolumeSnapshot): Promise<PersistentVolume | string> {
    const { namespace = '' } = snapshot.metadata;
    const name = snapshot.spec.source.persistentVolumeClaimName!;
    try {
      const claim = await client.of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS).get(namespace, name);
      if (claim.status?.phase !== 'Bound')
        return `the PVC ${name} is not yet bound to a PV, will not attempt to take a snapshot`;
      return await client.of<PersistentVolume>(PERSISTENT_VOLUMES).get('', claim.spec.volumeName!);
    } catch (error) {
      if (isReason(error, 'NotFound')) return `failed to retrieve PVC ${name} from the lister: "${messageOf(error)}"`;
      throw error;
    }
  }
  async function classOf(snapshot: VolumeSnapshot): Promise<VolumeSnapshotClass | undefined> {
    const { volumeSnapshotClassName: name } = snapshot.spec;
    const of = client.of<VolumeSnapshotClass>(VOLUME_SNAPSHOT_CLASSES);
    if (name) return of.get('', name);
    const all = (await of.list()).items;
    return all.find(one => one.driver === driver && one.metadata.annotations?.[DEFAULT_CLASS] === 'true');
  }

  async function take(snapshot: VolumeSnapshot): Promise<number | void> {
    if (snapshot.status?.readyToUse) return;
    if (!snapshot.spec.source.persistentVolumeClaimName) return bindToContent(snapshot);
    const volume = await sourceOf(snapshot);
    if (typeof volume === 'string') {
      events.event(
        snapshot,
        'Warning',
        'SnapshotContentCreationFailed',
        `Failed to create snapshot content with error ${volume}`,
      );
      return WAIT_MS;
    }
    if (volume.spec?.csi?.driver !== driver || !(context.isOurs?.(volume) ?? true)) return;
    const found = await classOf(snapshot);
    if (!found || found.driver !== driver) {
      events.event(
        snapshot,
        'Warning',
        'SetDefaultSnapshotClassFailed',
        `there is no VolumeSnapshotClass of driver ${driver}: name one in volumeSnapshotClassName`,
      );
      return WAIT_MS;
    }
    snapshot = await hold(snapshot);
    const { metadata } = snapshot;
    const content = await ensureContent(snapshot, volume, found);
    try {
      const { snapshot: made } = await csi.call('createSnapshot', {
        name: `snapshot-${metadata.uid}`,
        sourceVolumeId: volume.spec.csi.volumeHandle,
        parameters: { ...found.parameters },
      });
      await report(snapshot, content.metadata.name, made!);
      events.event(snapshot, 'Normal', 'SnapshotReady', `Snapshot ${keyOf(snapshot)} is ready to use.`);
    } catch (error) {
      await snapshotClient.patchStatus(metadata.namespace!, metadata.name, {
        status: { readyToUse: false, error: { time: formatTime(clock.now()), message: messageOf(error) } },
      });
      throw error;
    }
  }
  async function hold(snapshot: VolumeSnapshot): Promise<VolumeSnapshot> {
    const { finalizers = [] } = snapshot.metadata;
    if (finalizers.includes(SNAPSHOT_FINALIZER)) return snapshot;
    return snapshotClient.update({
      ...snapshot,
      metadata: { ...snapshot.metadata, finalizers: [...finalizers, SNAPSHOT_FINALIZER] },
    });
  }
  /** What the driver says of a snapshot, in the status of the object and of its content. */
  async function report(
    { metadata }: VolumeSnapshot,
    content: string,
    made: {
      readonly snapshotId?: string | undefined;
      readonly readyToUse?: boolean | undefined;
      readonly sizeBytes?: number | undefined;
      readonly creationTime?: { readonly seconds?: number | undefined } | undefined;
    },
  ): Promise<void> {
    const seconds = made.creationTime?.seconds ?? Math.floor(clock.now() / 1000);
    const readyToUse = made.readyToUse ?? false;
    await contentClient.patchStatus('', content, {
      status: {
        snapshotHandle: made.snapshotId ?? '',
        readyToUse,
        creationTime: seconds * 1e9,
        restoreSize: made.sizeBytes,
      },
    });
    await snapshotClient.patchStatus(metadata.namespace!, metadata.name, {
      status: {
        boundVolumeSnapshotContentName: content,
        readyToUse,
        creationTime: formatTime(seconds * 1000),
        restoreSize: formatNano(BigInt(made.sizeBytes ?? 0) * 10n ** 9n, 'binary'),
        error: null,
      },
    });
  }

  /** Of a content that was made by hand: the node that has the snapshot puts its name on the content, and binds the two. */
  async function bindToContent(snapshot: VolumeSnapshot): Promise<number | void> {
    const { namespace, name, uid } = snapshot.metadata;
    const contentName = snapshot.spec.source.volumeSnapshotContentName!;
    const warn = (reason: string, message: string): number => {
      events.event(snapshot, 'Warning', reason, message);
      return WAIT_MS;
    };
    const content = contents.get(contentName);
    if (!content) return isSpokesman() ? warn('SnapshotContentMissing', 'VolumeSnapshotContent is missing') : WAIT_MS;
    const handle = content.spec.source.snapshotHandle;
    if (content.spec.driver !== driver || content.metadata.deletionTimestamp) return;
    const known = handle ? (await csi.call('listSnapshots', { snapshotId: handle })).entries[0]?.snapshot : undefined;
    if (!known) {
      if (content.metadata.labels?.[NODE_LABEL] === undefined && isSpokesman())
        return warn(
          'SnapshotContentMismatch',
          handle
            ? `content ${contentName} names the snapshot ${JSON.stringify(handle)}, which no node has said to have`
            : `content ${contentName} is not one of a snapshot that is there: it has no source.snapshotHandle`,
        );
      return WAIT_MS;
    }
    const reference = content.spec.volumeSnapshotRef;
    if (reference.namespace !== namespace || reference.name !== name || (reference.uid && reference.uid !== uid))
      return warn('SnapshotContentMisbound', 'VolumeSnapshotContent is bound to a different VolumeSnapshot');
    const held = await hold(snapshot);
    const { metadata } = content;
    await contentClient.update({
      ...content,
      metadata: {
        ...metadata,
        ...(nodeName ? { labels: { ...metadata.labels, [NODE_LABEL]: nodeName } } : {}),
        finalizers: [...new Set([...(metadata.finalizers ?? []), CONTENT_FINALIZER])],
      },
      spec: { ...content.spec, volumeSnapshotRef: { ...reference, uid: uid! } },
    });
    await report(held, contentName, known);
    events.event(snapshot, 'Normal', 'SnapshotReady', `Snapshot ${keyOf(snapshot)} is ready to use.`);
  }
  /** One node speaks for all about what concerns none of them. */
  function isSpokesman(): boolean {
    const names = [...csiNodes.values()].filter(({ spec }) => spec.drivers.some(one => one.name === driver));
    return !nodeName || names.every(({ metadata }) => metadata.name >= nodeName);
  }

  async function ensureContent(
    snapshot: VolumeSnapshot,
    volume: PersistentVolume,
    found: VolumeSnapshotClass,
  ): Promise<VolumeSnapshotContent> {
    const { name, namespace, uid, resourceVersion } = snapshot.metadata;
    const content: VolumeSnapshotContent = {
      apiVersion: 'snapshot.storage.k8s.io/v1',
      kind: 'VolumeSnapshotContent',
      metadata: {
        name: `snapcontent-${uid}`,
        finalizers: [CONTENT_FINALIZER],
        ...(nodeName ? { labels: { [NODE_LABEL]: nodeName } } : {}),
      },
      spec: {
        driver,
        deletionPolicy: found.deletionPolicy,
        source: { volumeHandle: volume.spec!.csi!.volumeHandle },
        volumeSnapshotClassName: found.metadata.name,
        volumeSnapshotRef: {
          kind: 'VolumeSnapshot',
          apiVersion: 'snapshot.storage.k8s.io/v1',
          name,
          namespace: namespace!,
          uid: uid!,
          resourceVersion,
        } as VolumeSnapshotContent['spec']['volumeSnapshotRef'],
      },
    };
    try {
      return await contentClient.create(content);
    } catch (error) {
      if (!isReason(error, 'AlreadyExists')) throw error;
      return contentClient.get('', content.metadata.name);
    }
  }

  async function drop(snapshot: VolumeSnapshot): Promise<number | void> {
    if (!snapshot.metadata.finalizers?.includes(SNAPSHOT_FINALIZER)) return;
    const name = snapshot.status?.boundVolumeSnapshotContentName ?? `snapcontent-${snapshot.metadata.uid}`;
    const content = contents.get(name);
    if (content && !isMine(content)) return;
    if (content?.spec.deletionPolicy === 'Delete' && content.spec.volumeSnapshotRef.uid === snapshot.metadata.uid) {
      if (!content.metadata.deletionTimestamp) await contentClient.delete('', name);
      return WAIT_MS;
    }
    await snapshotClient.update({
      ...snapshot,
      metadata: {
        ...snapshot.metadata,
        finalizers: snapshot.metadata.finalizers.filter(one => one !== SNAPSHOT_FINALIZER),
      },
    });
  }

  const isMine = ({ metadata, spec }: VolumeSnapshotContent): boolean =>
    spec.driver === driver && (nodeName === '' || metadata.labels?.[NODE_LABEL] === nodeName);

  async function dropContent(content: VolumeSnapshotContent): Promise<void> {
    if (!content.metadata.deletionTimestamp || !content.metadata.finalizers?.includes(CONTENT_FINALIZER)) return;
    const handle = content.status?.snapshotHandle ?? content.spec.source.snapshotHandle;
    if (content.spec.deletionPolicy === 'Delete' && handle) await csi.call('deleteSnapshot', { snapshotId: handle });
    await contentClient.update({
      ...content,
      metadata: {
        ...content.metadata,
        finalizers: content.metadata.finalizers.filter(one => one !== CONTENT_FINALIZER),
      },
    });
  }

  return {
    watches: [
      { of: VOLUME_SNAPSHOTS, keys: (object, isDeleted) => (isDeleted ? [] : [keyOf(object)]) },
      {
        of: VOLUME_SNAPSHOT_CONTENTS,
        keys: (object, isDeleted) => {
          const { namespace, name } = (object as VolumeSnapshotContent).spec.volumeSnapshotRef;
          return [...(isDeleted ? [] : [object.metadata.name]), `${namespace}/${name}`];
        },
      },
      { of: CSI_NODES, keys: () => [] },
    ],
    async reconcile(key) {
      if (!key.includes('/')) {
        const content = contents.get(key);
        if (content && isMine(content)) await dropContent(content);
        return;
      }
      const snapshot = snapshots.get(key);
      if (!snapshot) return;
      return snapshot.metadata.deletionTimestamp ? drop(snapshot) : take(snapshot);
    },
  };
}
