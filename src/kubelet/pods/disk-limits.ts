/**
 * Whether a pod uses more of the node's disk than it may: emptyDir size limits, containers' and the pod's ephemeral storage.
 * Usage is counted in allocated blocks, by walking folders; a pod without such limits costs nothing. It only reads.
 */

import { lstat, readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Pod } from '../../api/core/v1.gen.ts';
import { formatNano, parseNano, quantityValue } from '../../api/machinery/quantity.ts';
import type { ContainerState } from '../runtime.ts';
import { allContainers } from './resources.ts';

const BLOCK_BYTES = 512;

/** Allocated bytes of a file or of all below a folder, on its own file system; what vanishes meanwhile counts nothing. */
export async function diskBytes(path: string, device?: number): Promise<number> {
  try {
    const stat = await lstat(path);
    if (device !== undefined && stat.dev !== device) return 0;
    let bytes = stat.blocks * BLOCK_BYTES;
    if (stat.isDirectory())
      for (const name of await readdir(path)) bytes += await diskBytes(join(path, name), stat.dev);
    return bytes;
  } catch {
    return 0;
  }
}

export function hasDiskLimits(pod: Pod): boolean {
  return (
    (pod.spec.volumes ?? []).some(volume => volume.emptyDir?.sizeLimit && !volume.emptyDir.medium) ||
    allContainers(pod).some(container => container.resources?.limits?.['ephemeral-storage'])
  );
}

interface DiskUsers {
  readonly containers: readonly ContainerState[];
  volumePath(name: string): string | undefined;
}

/** What the pod has on the node's disk: emptyDirs, logs, and what its containers wrote. */
export async function podDiskBytes(pod: Pod, { containers, volumePath }: DiskUsers): Promise<number> {
  const folders = containers.flatMap(one => [dirname(one.logPath), ...(one.layerPath ? [one.layerPath] : [])]);
  for (const { name, emptyDir } of pod.spec.volumes ?? []) {
    const path = emptyDir && !emptyDir.medium ? volumePath(name) : undefined;
    if (path) folders.push(path);
  }
  let bytes = 0;
  for (const folder of new Set(folders)) bytes += await diskBytes(folder);
  return bytes;
}

/** Why the pod is to be evicted, in upstream's words; undefined when it keeps its limits. */
export async function diskExcess(pod: Pod, node: DiskUsers): Promise<string | undefined> {
  let podBytes = 0;
  for (const { name, emptyDir } of pod.spec.volumes ?? []) {
    const path = emptyDir && !emptyDir.medium ? node.volumePath(name) : undefined;
    if (!path) continue;
    const bytes = await diskBytes(path);
    podBytes += bytes;
    const limit = emptyDir?.sizeLimit;
    if (limit && quantityValue(limit) > 0 && bytes > quantityValue(limit))
      return `Usage of EmptyDir volume ${JSON.stringify(name)} exceeds the limit ${JSON.stringify(limit)}. `;
  }
  const limits = allContainers(pod).flatMap(({ resources }) => resources?.limits?.['ephemeral-storage'] ?? []);
  if (limits.length === 0) return undefined;
  for (const { name, resources } of allContainers(pod)) {
    let bytes = 0;
    for (const one of node.containers)
      if (one.name === name)
        bytes += (one.layerPath ? await diskBytes(one.layerPath) : 0) + (await diskBytes(join(one.logPath, '..')));
    podBytes += bytes;
    const limit = resources?.limits?.['ephemeral-storage'];
    if (limit && bytes > quantityValue(limit))
      return `Container ${name} exceeded its local ephemeral storage limit ${JSON.stringify(limit)}. `;
  }
  const total = formatNano(
    limits.reduce((sum, limit) => sum + (parseNano(limit) ?? 0n), 0n),
    'binary',
  );
  if (podBytes <= quantityValue(total)) return undefined;
  return `Pod ephemeral local storage usage exceeds the total limit of containers ${limits.length === 1 ? limits[0] : total}. `;
}
