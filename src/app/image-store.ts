/** The image store of a cluster, opened by the CLI on the same directory that the cluster's agents read. */

import { join } from 'node:path';
import { ImageStore } from '../kubelet/images/image-store.ts';
import { requireRecord } from './cluster-status.ts';
import { requireRoot } from './prerequisites.ts';

/** Throws NotFound when there is no such cluster. A stopped cluster's store can be used too. */
export function imageStore(cluster: string): ImageStore {
  requireRoot('image');
  return new ImageStore(join(requireRecord(cluster).stateDir, 'images'));
}
