/**
 * Attaches and detaches volumes as VolumeAttachments ask: external-attacher's part. Invariant: an attachment's finalizer is there before
 * the driver hears of it and goes after the driver has confirmed that the volume is detached, so a crash in between loses nothing.
 */

import type { PersistentVolume } from '../api/core/v1.gen.ts';
import { translateVolume } from '../api/machinery/csi-migration.ts';
import type { CSINode, VolumeAttachment } from '../api/storage/v1.gen.ts';
import { formatTime } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import { CSI_NODES, PERSISTENT_VOLUMES, VOLUME_ATTACHMENTS } from '../client/resources.ts';
import { GrpcError } from '../csi/grpc.ts';
import { capabilityOf } from '../csi/names.ts';
import type { Sidecar, SidecarContext } from './work.ts';

export function attacher(context: SidecarContext): Sidecar {
  const { driver, csi, client, informers, clock } = context;
  const attachments = informers.get<VolumeAttachment>(VOLUME_ATTACHMENTS);
  const nodes = informers.get<CSINode>(CSI_NODES);
  const finalizer = `external-attacher/${driver.replace(/[^a-zA-Z0-9-]/g, '-')}`;
  const target = client.of<VolumeAttachment>(VOLUME_ATTACHMENTS);

  async function volumeOf({ spec }: VolumeAttachment): Promise<PersistentVolume> {
    const { persistentVolumeName, inlineVolumeSpec } = spec.source;
    if (inlineVolumeSpec)
      return { apiVersion: 'v1', kind: 'PersistentVolume', metadata: { name: '' }, spec: inlineVolumeSpec };
    const stored = await client.of<PersistentVolume>(PERSISTENT_VOLUMES).get('', persistentVolumeName!);
    return translateVolume(stored) ?? stored;
  }
  const nodeId = ({ spec }: VolumeAttachment): string => {
    const found = nodes.get(spec.nodeName)?.spec.drivers.find(({ name }) => name === driver);
    if (!found) throw new Error(`node ${JSON.stringify(spec.nodeName)} has no NodeID annotation of driver ${driver}`);
    return found.nodeID;
  };
  const report = (attachment: VolumeAttachment, status: VolumeAttachment['status']) =>
    target.patchStatus('', attachment.metadata.name, { metadata: { uid: attachment.metadata.uid }, status });
  const problem = (error: unknown) => ({
    time: formatTime(clock.now()),
    message: messageOf(error),
    ...(error instanceof GrpcError && error.code > 0 ? { errorCode: error.code } : {}),
  });

  async function attach(stored: VolumeAttachment, signal: AbortSignal): Promise<void> {
    let attachment = stored;
    if (!attachment.metadata.finalizers?.includes(finalizer))
      attachment = await target.update({
        ...attachment,
        metadata: { ...attachment.metadata, finalizers: [...(attachment.metadata.finalizers ?? []), finalizer] },
      });
    try {
      const volume = await volumeOf(attachment);
      const { publishContext } = await csi.call(
        'controllerPublishVolume',
        {
          volumeId: volume.spec!.csi!.volumeHandle,
          nodeId: nodeId(attachment),
          volumeCapability: capabilityOf(volume, { knowsPods: false }),
          readonly: false,
          volumeContext: volume.spec!.csi!.volumeAttributes ?? {},
        },
        { signal },
      );
      await report(attachment, { attached: true, attachmentMetadata: publishContext });
    } catch (error) {
      await report(attachment, { attached: false, attachError: problem(error) });
      throw error;
    }
  }
  async function detach(attachment: VolumeAttachment, signal: AbortSignal): Promise<void> {
    if (!attachment.metadata.finalizers?.includes(finalizer)) return;
    try {
      const volume = await volumeOf(attachment);
      const found = nodes.get(attachment.spec.nodeName)?.spec.drivers.find(({ name }) => name === driver);
      await csi.call(
        'controllerUnpublishVolume',
        { volumeId: volume.spec!.csi!.volumeHandle, nodeId: found?.nodeID ?? attachment.spec.nodeName },
        { signal },
      );
    } catch (error) {
      await report(attachment, { attached: attachment.status?.attached ?? false, detachError: problem(error) });
      throw error;
    }
    const finalizers = attachment.metadata.finalizers.filter(one => one !== finalizer);
    await target.patch('', attachment.metadata.name, {
      metadata: { uid: attachment.metadata.uid, resourceVersion: attachment.metadata.resourceVersion, finalizers },
    });
  }

  return {
    watches: [
      {
        of: VOLUME_ATTACHMENTS,
        keys: (object, isDeleted) =>
          !isDeleted && (object as VolumeAttachment).spec.attacher === driver ? [object.metadata.name] : [],
      },
      {
        // Attachments that waited for the driver on their node.
        of: CSI_NODES,
        keys: object =>
          [...attachments.values()]
            .filter(({ spec, status }) => spec.nodeName === object.metadata.name && !status?.attached)
            .map(({ metadata }) => metadata.name),
      },
    ],
    async reconcile(key, signal) {
      const attachment = attachments.get(key);
      if (!attachment || attachment.spec.attacher !== driver) return;
      if (attachment.metadata.deletionTimestamp) await detach(attachment, signal);
      else if (!attachment.status?.attached) await attach(attachment, signal);
    },
  };
}
