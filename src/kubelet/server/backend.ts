/**
 * What the kubelet's HTTPS server needs from the kubelet, and nothing of how it keeps it. The server never changes a pod.
 */

import type { Pod } from '../../api/core/v1.gen.ts';
import type { Runtime, SandboxState } from '../runtime.ts';

export interface ContainerTarget {
  readonly pod: Pod;
  readonly containerName: string;
  /** The runtime's id of the newest container, absent before there is one. */
  readonly id: string | undefined;
  readonly state: 'waiting' | 'created' | 'running' | 'exited';
  readonly tty: boolean;
  readonly stdin: boolean;
  /** Log file of the newest container (default) or of the one before it; absent when there is none. */
  logPath(attempt?: 'current' | 'previous'): string | undefined;
}

export interface KubeletBackend {
  readonly runtime: Runtime;
  /** Pods of this node with their current status. */
  pods(): readonly Pod[];
  /**
   * Rejects with ApiError NotFound or BadRequest with upstream's text. `container` undefined: the only or default one.
   */
  resolveContainer(
    namespace: string,
    pod: string,
    container: string | undefined,
    purpose: 'exec' | 'attach' | 'logs',
  ): Promise<ContainerTarget>;
  /** Where a port is forwarded to; pods on the host's network have one too. Rejects with ApiError NotFound. */
  sandboxOf(namespace: string, pod: string): Promise<SandboxState>;
  /** Body of `/stats/summary` (kubelet stats v1alpha1); without it the path is not found. */
  summary?(): Promise<object>;
  /** Bodies of `/metrics/resource` and `/metrics/cadvisor`, in the Prometheus text format. */
  resourceMetrics?(): Promise<string>;
  cadvisorMetrics?(): Promise<string>;
  /** Body of `/configz`. */
  configz?(): object;
}
