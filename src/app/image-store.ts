/** The image store of a cluster, opened by the CLI on the same directory that the cluster's agents read. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { failure, messageOf } from '../base/errors.ts';
import { Keyring } from '../kubelet/images/credentials.ts';
import type { PulledImage, PullProgress } from '../kubelet/images/image-pull.ts';
import { ImageStore } from '../kubelet/images/image-store.ts';
import { LocalPuller } from '../kubelet/images/local-puller.ts';
import { PullRecords } from '../kubelet/images/pull-records.ts';
import { parseReference } from '../kubelet/images/reference.ts';
import { requireRecord } from './cluster-status.ts';
import { requireRoot } from './prerequisites.ts';

/** Throws NotFound when there is no such cluster. A stopped cluster's store can be used too. */
export function imageStore(cluster: string): ImageStore {
  return new ImageStore(storeDir(cluster));
}

function storeDir(cluster: string): string {
  requireRoot('image');
  return join(requireRecord(cluster).stateDir, 'images');
}

/** Pulls in this process, over this process's network. Every pod may use the image, as one that was loaded. */
export async function pullIntoStore(
  cluster: string,
  options: {
    readonly name: string;
    readonly credentialsFile?: string;
    readonly signal: AbortSignal;
    readonly onProgress: (progress: PullProgress) => void;
  },
): Promise<PulledImage> {
  const imageDir = storeDir(cluster);
  const { name, credentialsFile, ...rest } = options;
  const reference = parseReference(name);
  if (!reference) throw failure(422, 'Invalid', `${JSON.stringify(name)} is no image name; such as nginx:1.27`);
  const keyring = new Keyring();
  if (credentialsFile !== undefined) {
    try {
      keyring.add(readFileSync(credentialsFile, 'utf8'), { form: 'dockerconfigjson' });
    } catch (error) {
      throw failure(422, 'Invalid', `--credentials ${credentialsFile}: ${messageOf(error)}`);
    }
  }
  const credentials = keyring.lookup(reference.repository);
  const pulled = await new LocalPuller({ imageDir }).pull({ reference: name, credentials }, rest);
  new PullRecords(imageDir).add(pulled.image.id, reference.repository, undefined);
  return pulled;
}
