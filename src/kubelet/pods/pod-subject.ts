/**
 * The pod that one worker and its parts work on: its object as last seen, the status last decided here, its addresses, and
 * the ways to tell of it (events) and to be called again. Invariant: `uid` never changes, and `pod` is replaced, never
 * edited. It decides nothing and touches neither runtime nor disk.
 */

import type { Container, ContainerStatus, Pod, PodCondition, PodStatus } from '../../api/core/v1.gen.ts';
import type { RuntimeState, SandboxState } from '../runtime.ts';
import type { PodContext } from './context.ts';
import { ALL_RESTARTING } from './restart-all.ts';

export class PodSubject {
  readonly context: PodContext;
  readonly uid: string;
  /** As the API server has it. */
  pod: Pod;
  podIps: readonly string[];
  /** The object is gone. */
  isRemoved = false;
  /** One more step, at once. */
  readonly wake: () => void;
  /** One more step, after the delay at the latest. */
  readonly wakeAfter: (delayMs: number) => void;

  constructor(
    context: PodContext,
    pod: Pod,
    calls: { readonly wake: () => void; readonly wakeAfter: (delayMs: number) => void },
  ) {
    this.context = context;
    this.pod = pod;
    this.uid = pod.metadata.uid!;
    this.podIps = pod.status?.podIPs?.map(({ ip }) => ip) ?? [];
    this.wake = calls.wake;
    this.wakeAfter = calls.wakeAfter;
  }

  /** With the status as last decided here, not as the API server has it. */
  get latest(): Pod {
    const status = this.context.statuses.latest(this.uid);
    if (!status) return this.pod;
    const conditions = [...(status.conditions ?? []), ...foreignConditions(this.pod, status)];
    return { ...this.pod, status: { ...this.pod.status, ...status, conditions } };
  }
  get name(): string {
    return `${this.pod.metadata.namespace}/${this.pod.metadata.name}`;
  }
  get isEnding(): boolean {
    return this.isRemoved || this.pod.metadata.deletionTimestamp !== undefined;
  }
  /** Of main and init containers, as the API server has them. */
  get toldStatuses(): ContainerStatus[] {
    return [...(this.pod.status?.containerStatuses ?? []), ...(this.pod.status?.initContainerStatuses ?? [])];
  }

  /** The sandbox that serves, if one does; its addresses are the pod's from now on. */
  see(state: RuntimeState): SandboxState | undefined {
    const sandbox = readySandbox(state);
    if (sandbox) this.podIps = this.addressesIn(sandbox);
    return sandbox;
  }
  addressesIn(sandbox: SandboxState): readonly string[] {
    return this.pod.spec.hostNetwork ? this.context.nodeIps : sandbox.ips;
  }

  event(type: 'Normal' | 'Warning', reason: string, message: string, container?: Container): void {
    this.context.events.event(
      this.pod,
      type,
      reason,
      message,
      container ? { fieldPath: this.fieldPath(container) } : {},
    );
  }
  fieldPath(container: Container): string {
    const isInit = this.pod.spec.initContainers?.some(one => one.name === container.name);
    const isMain = this.pod.spec.containers.some(one => one.name === container.name);
    return `spec.${isInit ? 'initContainers' : isMain ? 'containers' : 'ephemeralContainers'}{${container.name}}`;
  }
}

const OWN_CONDITIONS = new Set([
  'PodReadyToStartContainers',
  'Initialized',
  'Ready',
  'ContainersReady',
  'PodScheduled',
  'PodResizePending',
  'PodResizeInProgress',
  ALL_RESTARTING,
]);

/** Conditions of others, readiness gates among them. */
function foreignConditions(pod: Pod, own: PodStatus): PodCondition[] {
  return (pod.status?.conditions ?? []).filter(
    ({ type }) => !OWN_CONDITIONS.has(type) && !own.conditions?.some(one => one.type === type),
  );
}

/** All of a pod that the kubelet does not write itself. */
export function newsOf(pod: Pod): string {
  const { resourceVersion: _, managedFields: __, ...metadata } = pod.metadata;
  const foreign = (pod.status?.conditions ?? []).filter(({ type }) => !OWN_CONDITIONS.has(type));
  return JSON.stringify([metadata, pod.spec, foreign]);
}

export function readySandbox(state: RuntimeState): SandboxState | undefined {
  return state.sandboxes.filter(one => one.ready).sort((a, b) => b.attempt - a.attempt)[0];
}
