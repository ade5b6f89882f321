/**
 * Says which volumes are to be attached to which node, by VolumeAttachments that the drivers' attachers carry out, and writes into
 * nodes' status what is attached. Keys are nodes. Invariant: a volume is detached only when no pod of the node wants it and the node
 * says that it does not use it; a node that has been silent for six minutes or is out of service is not asked.
 */

import type {
  AttachedVolume,
  Node,
  PersistentVolume,
  PersistentVolumeClaim,
  Pod,
  Volume,
} from '../../api/core/v1.gen.ts';
import { translateVolume } from '../../api/machinery/csi-migration.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { isPodTerminal } from '../../api/machinery/pod.ts';
import { keyOf } from '../../api/meta.ts';
import type { CSIDriver, VolumeAttachment } from '../../api/storage/v1.gen.ts';
import { isReason } from '../../base/errors.ts';
import {
  CSI_DRIVERS,
  NODES,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  PODS,
  VOLUME_ATTACHMENTS,
} from '../../client/resources.ts';
import { attachedName } from '../../csi/names.ts';
import { countOperation } from '../../csi/storage-metrics.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';
import { FreshView } from '../runtime/fresh-view.ts';
import { type Lookup, type WantedVolume, wantedOn } from './desired.ts';

/** Upstream's maxWaitForUnmountDuration. */
const UNMOUNT_WAIT_MS = 6 * 60_000;
const OUT_OF_SERVICE = 'node.kubernetes.io/out-of-service';
const LOOK_MS = 15_000;
const NODE_INDEX = 'node';
const VOLUME_INDEX = 'volume';

/** Kinds of volumes that are never attached: most pods have only such. */
const NEVER_ATTACHED = ['projected', 'emptyDir', 'configMap', 'secret', 'downwardAPI', 'hostPath', 'image'] as const;
const mayAttach = (volume: Volume): boolean => !NEVER_ATTACHED.some(kind => volume[kind]);

function isReady(node: Node): boolean {
  return node.status?.conditions?.find(({ type }) => type === 'Ready')?.status === 'True';
}

function create(ctx: ReconcileContext): Controller {
  const { informers, client, events, clock } = ctx;
  const pods = informers.get<Pod>(PODS);
  const nodes = informers.get<Node>(NODES);
  const claims = informers.get<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS);
  const volumes = informers.get<PersistentVolume>(PERSISTENT_VOLUMES);
  const drivers = informers.get<CSIDriver>(CSI_DRIVERS);
  const attachments = informers.get<VolumeAttachment>(VOLUME_ATTACHMENTS);
  const nodeViews = new FreshView(nodes);
  pods.addIndex(NODE_INDEX, pod => [pod.spec?.nodeName ?? '']);
  attachments.addIndex(NODE_INDEX, ({ spec }) => [spec.nodeName]);
  attachments.addIndex(VOLUME_INDEX, ({ spec }) => [spec.source.persistentVolumeName ?? '']);
  /** Since when an attachment has not been wanted any more. */
  const unwantedSinceMs = new Map<string, number>();
  /** What pods were last told of an attachment, by its uid. */
  const toldOf = new Map<string, string>();
  /** Since when attachments have been under way, by their names, and since when they have been going. */
  const attachingSinceMs = new Map<string, number>();
  const detachingSinceMs = new Map<string, number>();
  const lookup: Lookup = {
    claim: key => claims.get(key),
    volume: name => volumes.get(name),
    driver: name => drivers.get(name),
  };

  const uniqueOf = ({ spec }: VolumeAttachment): string | undefined => {
    const { persistentVolumeName, inlineVolumeSpec } = spec.source;
    const csi = inlineVolumeSpec?.csi ?? (persistentVolumeName ? volumeOf(persistentVolumeName)?.spec?.csi : undefined);
    return csi && attachedName({ driver: csi.driver, handle: csi.volumeHandle });
  };
  const volumeOf = (name: string) => {
    const stored = volumes.get(name);
    return stored && (translateVolume(stored) ?? stored);
  };

  async function attach(node: string, wanted: WantedVolume): Promise<void> {
    if (wanted.isExclusive && !wanted.inline) {
      const elsewhere = attachments.byIndex(VOLUME_INDEX, wanted.name).filter(({ spec }) => spec.nodeName !== node);
      if (elsewhere.length > 0) return refuseSecond(wanted, elsewhere[0]!.spec.nodeName);
    }
    attachingSinceMs.set(wanted.attachment, clock.monotonic());
    try {
      await client.of<VolumeAttachment>(VOLUME_ATTACHMENTS).create({
        apiVersion: 'storage.k8s.io/v1',
        kind: 'VolumeAttachment',
        metadata: { name: wanted.attachment },
        spec: {
          attacher: wanted.driver,
          nodeName: node,
          source: wanted.inline ? { inlineVolumeSpec: wanted.inline.spec! } : { persistentVolumeName: wanted.name },
        },
      });
    } catch (error) {
      if (!isReason(error, 'AlreadyExists')) throw error;
    }
  }
  function refuseSecond({ name, pods: users }: WantedVolume, node: string): void {
    const others = pods
      .byIndex(NODE_INDEX, node)
      .filter(pod => !isPodTerminal(pod))
      .filter(pod => [...wantedOn(node, [pod], lookup).values()].some(one => one.name === name));
    const byNamespace = others.map(other => other.metadata.name).sort();
    for (const pod of users)
      events.event(
        pod,
        'Warning',
        'FailedAttachVolume',
        `Multi-Attach error for volume "${name}" ${
          byNamespace.length
            ? `Volume is already used by pod(s) ${byNamespace.join(', ')}`
            : "Volume is already exclusively attached to one node and can't be attached to another"
        }`,
      );
  }

  /** True when it may go now. */
  function isSafeToDetach(node: Node | undefined, attachment: VolumeAttachment): boolean {
    if (!node) return true;
    const unique = uniqueOf(attachment);
    if (!unique || !node.status?.volumesInUse?.includes(unique)) return true;
    if (node.spec?.taints?.some(({ key }) => key === OUT_OF_SERVICE)) return true;
    const sinceMs = unwantedSinceMs.get(attachment.metadata.name)!;
    return !isReady(node) && clock.monotonic() - sinceMs > UNMOUNT_WAIT_MS;
  }

  /** What is attached, as the node is told. */
  async function report(node: Node, attached: readonly VolumeAttachment[]): Promise<void> {
    const list: AttachedVolume[] = attached.flatMap(attachment => {
      const name = uniqueOf(attachment);
      return name ? [{ name, devicePath: '' }] : [];
    });
    list.sort((a, b) => (a.name < b.name ? -1 : 1));
    const known = nodeViews.get(node.metadata.name)!;
    if (semanticEqual(known.status?.volumesAttached ?? [], list)) return;
    nodeViews.wrote(
      await client
        .of<Node>(NODES)
        .patchStatus('', node.metadata.name, { status: { volumesAttached: list } }, 'application/merge-patch+json'),
    );
  }

  return {
    name: 'attachdetach',
    watches: [
      watch<Pod>(PODS, change => {
        const node = latest(change).spec?.nodeName;
        return node && latest(change).spec.volumes?.some(mayAttach) ? [node] : [];
      }),
      watch<Node>(NODES, change => {
        if (change.deleted) return [change.old.metadata.name];
        const { old, object } = change;
        const isNews =
          !old ||
          !semanticEqual(old.status?.volumesInUse, object.status?.volumesInUse) ||
          isReady(old) !== isReady(object) ||
          !semanticEqual(old.spec?.taints, object.spec?.taints);
        return isNews ? [object.metadata.name] : [];
      }),
      watch<VolumeAttachment>(VOLUME_ATTACHMENTS, change => {
        const { spec } = latest(change);
        if (!change.deleted) return [spec.nodeName];
        attachingSinceMs.delete(change.old.metadata.name);
        count('volume_detach', change.old, { since: detachingSinceMs, isSuccess: true });
        // Nodes that wait for the volume to be free.
        return [spec.nodeName, ...[...nodes.values()].map(({ metadata }) => metadata.name)];
      }),
      watch<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, change => {
        if (change.deleted || change.old?.metadata.annotations?.['pv.kubernetes.io/bind-completed']) return [];
        const { namespace, name } = change.object.metadata;
        return [...pods.values()]
          .filter(pod => pod.spec?.nodeName && pod.metadata.namespace === namespace)
          .filter(pod => pod.spec.volumes?.some(one => one.persistentVolumeClaim?.claimName === name))
          .map(pod => pod.spec.nodeName!);
      }),
      watch<PersistentVolume>(PERSISTENT_VOLUMES, () => []),
      watch<CSIDriver>(CSI_DRIVERS, () => [...nodes.values()].map(keyOf)),
    ],
    async reconcile({ name }): Promise<Result | void> {
      const node = nodes.get(name);
      const wanted = node ? wantedOn(name, pods.byIndex(NODE_INDEX, name), lookup) : new Map<string, WantedVolume>();
      const present = new Map(attachments.byIndex(NODE_INDEX, name).map(one => [one.metadata.name, one]));
      for (const volume of wanted.values()) {
        unwantedSinceMs.delete(volume.attachment);
        const known = present.get(volume.attachment);
        if (!known) await attach(name, volume);
        else tell(known, volume);
      }
      let isWaiting = false;
      const leaving: VolumeAttachment[] = [];
      for (const attachment of present.values()) {
        const { name: id } = attachment.metadata;
        if (wanted.has(id) || attachment.metadata.deletionTimestamp) continue;
        if (!unwantedSinceMs.has(id)) unwantedSinceMs.set(id, clock.monotonic());
        if (isSafeToDetach(node, attachment)) leaving.push(attachment);
        else isWaiting = true;
      }
      // The node learns that a volume goes before it goes.
      if (node)
        await report(
          node,
          [...present.values()].filter(
            one => one.status?.attached && !one.metadata.deletionTimestamp && !leaving.includes(one),
          ),
        );
      for (const { metadata } of leaving) {
        detachingSinceMs.set(metadata.name, clock.monotonic());
        await client
          .of<VolumeAttachment>(VOLUME_ATTACHMENTS)
          .delete('', metadata.name, { preconditions: { uid: metadata.uid! } })
          .catch(error => {
            if (!isReason(error, 'NotFound')) throw error;
          });
        unwantedSinceMs.delete(metadata.name);
        toldOf.delete(metadata.uid!);
      }
      const isPending = [...wanted.keys()].some(id => !present.has(id));
      if (isWaiting || isPending) return { requeueAfterMs: LOOK_MS };
    },
  };

  /** Once for each time that it began. */
  function count(
    name: 'volume_attach' | 'volume_detach',
    { metadata, spec }: VolumeAttachment,
    { since, isSuccess }: { readonly since: Map<string, number>; readonly isSuccess: boolean },
  ): void {
    const sinceMs = since.get(metadata.name);
    if (sinceMs === undefined) return;
    if (isSuccess) since.delete(metadata.name);
    const { persistentVolumeName, inlineVolumeSpec } = spec.source;
    const volume = persistentVolumeName ? volumes.get(persistentVolumeName) : undefined;
    const isMigrated = inlineVolumeSpec !== undefined || (volume !== undefined && volume.spec?.csi === undefined);
    countOperation(
      { name, plugin: 'kubernetes.io/csi', driver: spec.attacher, isMigrated },
      { isSuccess, ms: clock.monotonic() - sinceMs },
    );
  }
  function tell(attachment: VolumeAttachment, { pods: users, name }: WantedVolume): void {
    const { status, metadata } = attachment;
    const told = toldOf.get(metadata.uid!) ?? '';
    const now = status?.attached ? 'attached' : (status?.attachError?.message ?? '');
    if (now === told) return;
    toldOf.set(metadata.uid!, now);
    if (now) count('volume_attach', attachment, { since: attachingSinceMs, isSuccess: status?.attached === true });
    for (const pod of users) {
      if (status?.attached)
        events.event(pod, 'Normal', 'SuccessfulAttachVolume', `AttachVolume.Attach succeeded for volume "${name}" `);
      else if (now)
        events.event(pod, 'Warning', 'FailedAttachVolume', `AttachVolume.Attach failed for volume "${name}" : ${now}`);
    }
  }
}

export const attachDetach: ControllerDefinition = {
  folder: 'attachdetach',
  component: 'attachdetach-controller',
  create,
};
