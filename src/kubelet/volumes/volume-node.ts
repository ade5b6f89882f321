/** What the volume plugins of all pods of a node share. */

import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { NodeImages } from '../images/node-images.ts';
import type { DefaultLabels } from '../selinux.ts';
import type { CsiDrivers } from './csi/drivers.ts';
import type { Staging } from './csi/staging.ts';
import type { PodCertificates } from './pod-certificates.ts';

export interface VolumeNode {
  /** The node's name. */
  readonly name: string;
  /** The kubelet's folder, with `pods` and `plugins`. */
  readonly rootDir: string;
  readonly csi: CsiDrivers;
  readonly staging: Staging;
  readonly images: NodeImages;
  readonly certificates: PodCertificates;
  /** Folder of FlexVolume drivers. */
  readonly flexDir: string;
  /** What containers have without options; absent where the kernel has no SELinux. */
  readonly selinux?: DefaultLabels | undefined;
  /** Resolves when the node's status names the volume as in use: from then on nobody detaches it. */
  whenReported(volume: string, signal: AbortSignal): Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
}
