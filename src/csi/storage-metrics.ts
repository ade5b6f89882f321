/** How long operations on volumes take, by upstream's name: the kubelet's (mounts) and the controllers' (attachments). */

import { metrics } from '../base/metrics.ts';

/** Upstream's bounds for everything that waits for a disk. */
export const STORAGE_SECONDS: readonly number[] = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600];
const operations = metrics.histogram(
  'storage_operation_duration_seconds',
  'Storage operation duration',
  STORAGE_SECONDS,
  ['volume_plugin', 'operation_name', 'status', 'migrated'],
);

export interface StorageOperation {
  readonly name: 'map_volume' | 'unmap_volume' | 'volume_attach' | 'volume_detach' | 'volume_mount' | 'volume_unmount';
  /** `kubernetes.io/csi`. */
  readonly plugin: string;
  /** Of a CSI volume. */
  readonly driver?: string | undefined;
  /** An in-tree source that a CSI driver serves. */
  readonly isMigrated?: boolean | undefined;
}

export function countOperation(
  { name, plugin, driver, isMigrated = false }: StorageOperation,
  end: { readonly isSuccess: boolean; readonly ms: number },
): void {
  const of = driver ? `${plugin}:${driver}` : plugin;
  operations.observe(end.ms / 1000, of, name, end.isSuccess ? 'success' : 'fail-unknown', String(isMigrated));
}
