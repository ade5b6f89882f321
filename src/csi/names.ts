/** Names that all parties of CSI in Kubernetes derive alike: attachments, volumes in node status, handles, access modes. Pure. */

import { createHash } from 'node:crypto';
import type { PersistentVolume } from '../api/core/v1.gen.ts';
import { ACCESS_MODES } from './messages.ts';

const hash = (...parts: readonly string[]): string => createHash('sha256').update(parts.join('')).digest('hex');

/** The VolumeAttachment of a volume on a node. */
export function attachmentName(volume: { readonly handle: string; readonly driver: string }, node: string): string {
  return `csi-${hash(volume.handle, volume.driver, node)}`;
}
/** The volume in the node's status. */
export function attachedName({ driver, handle }: { readonly handle: string; readonly driver: string }): string {
  return `kubernetes.io/csi/${driver}^${handle}`;
}
/** The handle of a pod's inline volume. */
export function inlineHandle(podUid: string, volume: string): string {
  return `csi-${hash(podUid, volume)}`;
}
/** The folder, below the driver's, where a volume is staged. */
export function stagingFolder(handle: string): string {
  return hash(handle);
}

/** CSI's access mode for Kubernetes' ones, of which the first counts. `knowsPods`: SINGLE_NODE_MULTI_WRITER. */
export function accessModeOf(modes: readonly string[] | undefined, options: { readonly knowsPods: boolean }): number {
  switch (modes?.[0]) {
    case 'ReadWriteMany':
      return ACCESS_MODES.MULTI_NODE_MULTI_WRITER;
    case 'ReadOnlyMany':
      return ACCESS_MODES.MULTI_NODE_READER_ONLY;
    case 'ReadWriteOncePod':
      return options.knowsPods ? ACCESS_MODES.SINGLE_NODE_SINGLE_WRITER : ACCESS_MODES.SINGLE_NODE_WRITER;
    case 'ReadWriteOnce':
      return options.knowsPods ? ACCESS_MODES.SINGLE_NODE_MULTI_WRITER : ACCESS_MODES.SINGLE_NODE_WRITER;
    default:
      return options.knowsPods ? ACCESS_MODES.SINGLE_NODE_SINGLE_WRITER : ACCESS_MODES.SINGLE_NODE_WRITER;
  }
}

/** What the volume must be able to do, as drivers are told. */
export function capabilityOf(
  { spec = {} }: Pick<PersistentVolume, 'spec'>,
  options: {
    readonly knowsPods: boolean;
    readonly mountGroup?: string | undefined;
    readonly mountFlags?: readonly string[];
  },
) {
  return {
    ...(spec.volumeMode === 'Block'
      ? { block: {} }
      : {
          mount: {
            fsType: spec.csi?.fsType ?? '',
            mountFlags: [...(spec.mountOptions ?? []), ...(options.mountFlags ?? [])],
            volumeMountGroup: options.mountGroup ?? '',
          },
        }),
    accessMode: { mode: accessModeOf(spec.accessModes, options) },
  };
}
