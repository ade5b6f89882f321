/** Waiting for a volume to be attached to this node, as its VolumeAttachment tells. */

import type { VolumeAttachment } from '../../../api/storage/v1.gen.ts';
import { VOLUME_ATTACHMENTS } from '../../../client/resources.ts';
import { GRPC } from '../../../csi/grpc.ts';
import type { VolumeContext } from '../volume.ts';

const LOOK_MS_MIN = 50;
const LOOK_MS_MAX = 1000;
/** Upstream's csiTimeout for attachments. */
const WAIT_MS_MAX = 120_000;

/** The node takes no more volumes of the driver: the pod is better off elsewhere. */
export class AttachLimitExceeded extends Error {
  override name = 'AttachLimitExceeded';
}

/** What the attacher tells the node's driver. Rejects when it failed or took too long. */
export async function waitForAttachment(
  context: VolumeContext,
  { name, driver, handle }: { readonly name: string; readonly driver: string; readonly handle: string },
): Promise<Readonly<Record<string, string>>> {
  const { clock, signal } = context;
  const startMs = clock.monotonic();
  for (let waitMs = LOOK_MS_MIN; ; waitMs = Math.min(waitMs * 1.5, LOOK_MS_MAX)) {
    signal.throwIfAborted();
    const attachment = await context.fetch<VolumeAttachment>(VOLUME_ATTACHMENTS, { name });
    if (attachment?.status?.attached && !attachment.metadata.deletionTimestamp)
      return attachment.status.attachmentMetadata ?? {};
    if (clock.monotonic() - startMs > WAIT_MS_MAX) {
      const { message = '', errorCode } = attachment?.status?.attachError ?? {};
      const problem = `timed out waiting for external-attacher of ${driver} CSI driver to attach volume ${handle}${message ? `: ${message}` : ''}`;
      const isFull = errorCode === GRPC.RESOURCE_EXHAUSTED && (await context.volumes.csi.refreshLimit(driver));
      throw isFull ? new AttachLimitExceeded(problem) : new Error(problem);
    }
    await clock.sleep(waitMs, signal);
  }
}
