/**
 * The kubelet's folder at the place where everybody expects it: CSI drivers that run in pods name `/var/lib/kubelet` in their
 * manifests, and mount there for all to see. In a node's own mount namespace the folder of its data is bound there, shared, so that
 * what a pod mounts below it (mountPropagation: Bidirectional) reaches the node and back.
 */

import { mkdirSync } from 'node:fs';
import { bindMount, isMountPoint } from '../sys/mount.ts';

const KUBELET_FOLDER = '/var/lib/kubelet';

/** Idempotent; a restarted agent finds it mounted. */
export function bindKubeletFolder(rootDir: string): string {
  if (rootDir === KUBELET_FOLDER) return rootDir;
  mkdirSync(rootDir, { recursive: true, mode: 0o700 });
  mkdirSync(KUBELET_FOLDER, { recursive: true, mode: 0o750 });
  if (!isMountPoint(KUBELET_FOLDER)) bindMount(rootDir, KUBELET_FOLDER, { recursive: true, shared: true });
  return KUBELET_FOLDER;
}
