/**
 * A pod's status from what runs: pure, and as upstream's kubelet writes it. Inputs are the spec, the runtime's containers
 * and what the worker knows beside (why a container waits, probe results); the output has every field the kubelet owns.
 */

import type {
  ContainerState as ApiContainerState,
  Container,
  ContainerStatus,
  Pod,
  PodCondition,
  PodStatus,
  ResourceRequirements,
  ResourceStatus,
} from '../../api/core/v1.gen.ts';
import { ruledAction } from '../../api/machinery/pod.ts';
import { formatTime } from '../../base/clock.ts';
import type { ContainerState } from '../runtime.ts';
import { recursionOf } from '../volumes/recursive-read-only.ts';
import { allContainers, isSidecar, qosOf } from './resources.ts';
import { ALL_RESTARTING, hasBegun, isRestartingAll, mayRestartAll, removedStatus, wasRemoved } from './restart-all.ts';

export interface Waiting {
  readonly reason: string;
  readonly message?: string;
}

export interface StatusInput {
  readonly pod: Pod;
  /** Every container of the pod that the runtime knows, all attempts. */
  readonly containers: readonly ContainerState[];
  readonly isSandboxReady: boolean;
  readonly podIps: readonly string[];
  readonly hostIps: readonly string[];
  /** Why a container that should run does not: by container name. */
  readonly waiting: ReadonlyMap<string, Waiting>;
  readonly isReady: (container: ContainerState) => boolean;
  readonly isStarted: (container: ContainerState) => boolean;
  readonly terminationMessage: (container: ContainerState) => string | undefined;
  /** What a container has, and what it was granted; the spec's when absent. */
  readonly resources?: (container: Container, id: string | undefined) => ResourceRequirements;
  readonly granted?: (container: Container) => Container;
  /** Of the pod itself, where its spec has them. */
  readonly podResources?: Pick<PodStatus, 'resources' | 'allocatedResources'>;
  /** How the devices of a container are. */
  readonly deviceHealth?: (container: Container) => readonly ResourceStatus[];
  /** Conditions beside the kubelet's usual ones. */
  readonly conditions?: readonly PodCondition[];
  /** The kubelet ended or refused the pod: phase Failed with this. */
  readonly ended?: { readonly reason: string; readonly message: string };
  /** It never got so far as to have containers. */
  readonly isRefused?: boolean;
  /** Nothing will be started any more. */
  readonly isTerminating: boolean;
  readonly nowMs: number;
}

export function latestOf(containers: readonly ContainerState[], name: string): ContainerState | undefined {
  let latest: ContainerState | undefined;
  for (const one of containers)
    if (
      one.name === name &&
      (!latest || one.attempt > latest.attempt || (one.attempt === latest.attempt && one.createdMs >= latest.createdMs))
    )
      latest = one;
  return latest;
}

export function exitReason(container: ContainerState): string {
  if (container.oomKilled) return 'OOMKilled';
  return container.reason ?? (container.exitCode === 0 ? 'Completed' : 'Error');
}

/** Whether an ended container runs again, by its own or the pod's policy. */
export function restarts(pod: Pod, container: Container, exitCode: number | undefined, isInit: boolean): boolean {
  if (isInit && isSidecar(container)) return true;
  if (ruledAction(container, exitCode) !== undefined) return true;
  const policy = container.restartPolicy ?? pod.spec.restartPolicy ?? 'Always';
  if (policy === 'Never') return false;
  if (policy === 'OnFailure' || isInit) return exitCode !== 0;
  return true;
}

function runtimeState(container: ContainerState, input: StatusInput): ApiContainerState {
  if (container.state === 'running')
    return { running: { startedAt: formatTime(container.startedMs ?? container.createdMs) } };
  if (container.state === 'created') return { waiting: { reason: 'ContainerCreating' } };
  const message = input.terminationMessage(container) ?? container.message;
  return {
    terminated: {
      exitCode: container.exitCode ?? 255,
      reason: exitReason(container),
      ...(message ? { message } : {}),
      startedAt: formatTime(container.startedMs ?? 0).replace(/^1970.*/, '1970-01-01T00:00:00Z'),
      finishedAt: formatTime(container.finishedMs ?? container.createdMs),
      containerID: containerIdOf(container),
    },
  };
}

function containerStatus(
  spec: Container,
  input: StatusInput,
  isInit: boolean,
  hasInitialized: boolean,
): ContainerStatus {
  const { pod, containers } = input;
  const latest = latestOf(containers, spec.name);
  const before = containers
    .filter(one => one.name === spec.name && one !== latest && one.state === 'exited')
    .sort((a, b) => b.attempt - a.attempt)[0];
  const wait = input.waiting.get(spec.name);
  const known = [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])].find(
    one => one.name === spec.name,
  );
  // Its containers were removed to free the disk: what is known of them stays.
  if (!latest && known?.state?.terminated && (pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed'))
    return known;
  if (!latest) {
    const reason = wait ?? {
      reason:
        isInit || hasInitialized || !pod.spec.initContainers?.length
          ? pod.spec.initContainers?.length
            ? 'PodInitializing'
            : 'ContainerCreating'
          : 'PodInitializing',
    };
    const state: ApiContainerState = {
      waiting: { reason: reason.reason, ...(reason.message ? { message: reason.message } : {}) },
    };
    const isRemoved = known && !known.state?.waiting && hasBegun(pod);
    return {
      name: spec.name,
      ready: false,
      ...(isRemoved
        ? removedStatus(known)
        : { state, lastState: known?.lastState ?? {}, restartCount: known?.restartCount ?? 0 }),
      image: spec.image ?? '',
      imageID: '',
      started: false,
      ...resourcesOf(spec, undefined, input),
      ...mountsOf(spec, true),
    };
  }
  let state = runtimeState(latest, input);
  let lastState: ApiContainerState = before ? runtimeState(before, input) : wasRemoved(known) ? known!.lastState! : {};
  const willRestart =
    latest.state === 'exited' && !input.isTerminating && !input.ended && restarts(pod, spec, latest.exitCode, isInit);
  if (wait && (willRestart || latest.state === 'created')) {
    if (latest.state === 'exited') lastState = state;
    state = { waiting: { reason: wait.reason, ...(wait.message ? { message: wait.message } : {}) } };
  }
  const isRunning = latest.state === 'running';
  const isStarted = isRunning && input.isStarted(latest);
  const isReady =
    isInit && !isSidecar(spec)
      ? latest.state === 'exited' && latest.exitCode === 0
      : isRunning && isStarted && input.isReady(latest);
  return {
    name: spec.name,
    state,
    lastState,
    ready: isReady,
    restartCount: latest.attempt,
    image: latest.imageRef,
    imageID: latest.imageId,
    containerID: containerIdOf(latest),
    started: isInit && !isSidecar(spec) ? isRunning : isStarted,
    ...resourcesOf(spec, latest.id, input),
    ...mountsOf(spec, latest.runtime === undefined),
    ...(latest.user
      ? {
          user: {
            linux: {
              uid: latest.user.uid,
              gid: latest.user.gid,
              supplementalGroups: [...new Set([latest.user.gid, ...latest.user.additionalGids])],
            },
          },
        }
      : {}),
  };
}

function resourcesOf(
  spec: Container,
  id: string | undefined,
  input: StatusInput,
): Pick<ContainerStatus, 'resources' | 'allocatedResources' | 'allocatedResourcesStatus'> {
  const devices = input.deviceHealth?.(spec) ?? [];
  const allocated = (input.granted?.(spec) ?? spec).resources?.requests;
  const { requests, limits } = input.resources?.(spec, id) ?? spec.resources ?? {};
  return {
    ...(allocated && Object.keys(allocated).length ? { allocatedResources: allocated } : {}),
    resources: { ...(limits ? { limits } : {}), ...(requests ? { requests } : {}) },
    ...(devices.length ? { allocatedResourcesStatus: [...devices] } : {}),
  };
}

// Only our own runtime makes what is mounted below read-only too.
function mountsOf(spec: Container, isOurs: boolean): Pick<ContainerStatus, 'volumeMounts'> {
  if (!spec.volumeMounts?.length) return {};
  return {
    volumeMounts: spec.volumeMounts.map(mount => ({
      name: mount.name,
      mountPath: mount.mountPath,
      ...(mount.readOnly
        ? { readOnly: true, recursiveReadOnly: isOurs && recursionOf(mount) ? 'Enabled' : 'Disabled' }
        : {}),
    })),
  };
}

/** Whether every init step is behind: ordinary ones ended well, sidecars started. */
export function isInitialized(pod: Pod, statuses: readonly ContainerStatus[]): boolean {
  return (pod.spec.initContainers ?? []).every(spec => {
    const status = statuses.find(one => one.name === spec.name);
    return isSidecar(spec) ? status?.started === true : status?.state?.terminated?.exitCode === 0;
  });
}

function phaseOf(
  pod: Pod,
  statuses: readonly ContainerStatus[],
  initStatuses: readonly ContainerStatus[],
  input: StatusInput,
): string {
  if (input.ended) return 'Failed';
  const current = pod.status?.phase;
  let pendingInit = 0;
  let failedInit = 0;
  for (const spec of pod.spec.initContainers ?? []) {
    const status = initStatuses.find(one => one.name === spec.name);
    if (isSidecar(spec)) {
      if (!status?.started && !(status?.state?.terminated && input.isTerminating)) pendingInit++;
      continue;
    }
    const ended = status?.state?.terminated;
    if (ended) {
      if (ended.exitCode !== 0) {
        if (restarts(pod, spec, ended.exitCode, true) && !input.isTerminating) pendingInit++;
        else failedInit++;
      }
    } else if (status?.state?.waiting && status.lastState?.terminated?.exitCode === 0) continue;
    else pendingInit++;
  }
  let unknown = 0;
  let running = 0;
  let waiting = 0;
  let stopped = 0;
  let succeeded = 0;
  for (const spec of pod.spec.containers) {
    const status = statuses.find(one => one.name === spec.name);
    if (status?.state?.running) running++;
    else if (status?.state?.terminated) {
      stopped++;
      if (status.state.terminated.exitCode === 0) succeeded++;
    } else if (status?.state?.waiting) {
      if (status.lastState?.terminated && !wasRemoved(status)) stopped++;
      else waiting++;
    } else unknown++;
  }
  if (failedInit > 0 && pod.spec.restartPolicy === 'Never') return 'Failed';
  if (failedInit > 0 && input.isTerminating) return 'Failed';
  // Sidecars of a pod whose work is done do not hold its phase back.
  if (pendingInit > 0 && !(stopped === pod.spec.containers.length))
    return current === 'Running' && running > 0 ? 'Running' : 'Pending';
  if (waiting > 0) return 'Pending';
  if (running > 0 && unknown === 0) return 'Running';
  if (running === 0 && stopped > 0 && unknown === 0) {
    const willRestart = pod.spec.containers.some(spec => {
      const status = statuses.find(one => one.name === spec.name);
      const ended = status?.state?.terminated ?? status?.lastState?.terminated;
      return restarts(pod, spec, ended?.exitCode, false);
    });
    if (willRestart && !input.isTerminating) return 'Running';
    return stopped === succeeded ? 'Succeeded' : 'Failed';
  }
  return 'Pending';
}

function condition(input: StatusInput, type: string, isTrue: boolean, reason?: string, message?: string): PodCondition {
  const status = isTrue ? 'True' : 'False';
  const before = input.pod.status?.conditions?.find(one => one.type === type);
  const { generation } = input.pod.metadata;
  return {
    type,
    ...(generation !== undefined ? { observedGeneration: generation } : {}),
    status,
    lastProbeTime: null as unknown as string,
    lastTransitionTime:
      before?.status === status && before.lastTransitionTime ? before.lastTransitionTime : formatTime(input.nowMs),
    ...(reason ? { reason } : {}),
    ...(message ? { message } : {}),
  };
}

// When all containers begin anew, the pod does not.
function staysInitialized(pod: Pod): boolean {
  const before = pod.status?.conditions?.find(({ type }) => type === 'Initialized');
  return before?.status === 'True' && mayRestartAll(pod);
}

function allRestarting(input: StatusInput, phase: string): PodCondition {
  if (phase === 'Succeeded') return condition(input, ALL_RESTARTING, false, 'PodCompleted');
  if (phase === 'Failed') return condition(input, ALL_RESTARTING, false, 'PodFailed');
  return isRestartingAll(input.pod, input.containers)
    ? condition(input, ALL_RESTARTING, true, 'RestartAllContainersStarted', 'container exited with restart policy rule')
    : condition(input, ALL_RESTARTING, false);
}

// Without containers, as upstream: what a client shows is then the reason and not that of a container's waiting.
function refusedStatus({ pod, ended, nowMs }: StatusInput): PodStatus {
  const { generation } = pod.metadata;
  return {
    ...(generation === undefined ? {} : { observedGeneration: generation }),
    phase: 'Failed',
    ...ended,
    conditions: (pod.status?.conditions ?? []).filter(({ type }) => type === 'PodScheduled'),
    startTime: pod.status?.startTime ?? formatTime(nowMs),
    qosClass: qosOf(pod),
  };
}

/** As a status tells it: `containerd://…`. */
export const containerIdOf = ({ runtime = 'cox', id }: ContainerState): string => `${runtime}://${id}`;

export function podStatus(input: StatusInput): PodStatus {
  const { pod } = input;
  if (input.isRefused) return refusedStatus(input);
  const initStatuses = (pod.spec.initContainers ?? []).map(spec => containerStatus(spec, input, true, false));
  const hasInitialized = isInitialized(pod, initStatuses);
  const statuses = pod.spec.containers.map(spec => containerStatus(spec, input, false, hasInitialized));
  // A finished pod stays finished, whatever becomes of its leftovers.
  const former = pod.status?.phase;
  const phase = former === 'Failed' || former === 'Succeeded' ? former : phaseOf(pod, statuses, initStatuses, input);
  const isOver = phase === 'Succeeded' || phase === 'Failed';
  const notInitialized = (pod.spec.initContainers ?? []).filter(
    spec => !isInitialized({ ...pod, spec: { ...pod.spec, initContainers: [spec] } }, initStatuses),
  );
  const watched = [
    ...initStatuses.filter(status => isSidecar(allContainers(pod).find(one => one.name === status.name)!)),
    ...statuses,
  ];
  const notReady = watched.filter(status => !status.ready).map(status => status.name);
  const notReadyReason =
    phase === 'Succeeded'
      ? 'PodCompleted'
      : phase === 'Failed'
        ? 'PodFailed'
        : notReady.length
          ? 'ContainersNotReady'
          : undefined;
  const notReadyMessage =
    isOver || !notReady.length ? undefined : `containers with unready status: [${notReady.join(' ')}]`;
  const containersReady = notReadyReason === undefined;
  const gates = (pod.spec.readinessGates ?? []).filter(
    gate => pod.status?.conditions?.find(one => one.type === gate.conditionType)?.status !== 'True',
  );
  const gateMessage = gates
    .map(gate =>
      pod.status?.conditions?.some(one => one.type === gate.conditionType)
        ? `the status of pod readiness gate "${gate.conditionType}" is not "True", but False`
        : `corresponding condition of pod readiness gate "${gate.conditionType}" does not exist.`,
    )
    .join(', ');
  const conditions = [
    condition(input, 'PodReadyToStartContainers', input.isSandboxReady && !isOver),
    phase === 'Succeeded'
      ? condition(input, 'Initialized', true, 'PodCompleted')
      : notInitialized.length && !hasInitialized && !staysInitialized(pod)
        ? condition(
            input,
            'Initialized',
            false,
            'ContainersNotInitialized',
            `containers with incomplete status: [${notInitialized.map(one => one.name).join(' ')}]`,
          )
        : condition(input, 'Initialized', true),
    containersReady && gates.length
      ? condition(input, 'Ready', false, 'ReadinessGatesNotReady', gateMessage)
      : condition(input, 'Ready', containersReady, notReadyReason, notReadyMessage),
    condition(input, 'ContainersReady', containersReady, notReadyReason, notReadyMessage),
    condition(input, 'PodScheduled', true),
    ...(input.ended?.reason === 'Evicted'
      ? [condition(input, 'DisruptionTarget', true, 'TerminationByKubelet', input.ended.message)]
      : []),
    ...(mayRestartAll(pod) ? [allRestarting(input, phase)] : []),
    ...(isOver ? [] : (input.conditions ?? [])),
  ];
  const { generation } = pod.metadata;
  return {
    ...(generation !== undefined ? { observedGeneration: generation } : {}),
    phase,
    conditions,
    ...(input.ended ??
      (pod.status?.phase === phase && isOver
        ? {
            ...(pod.status.reason ? { reason: pod.status.reason } : {}),
            ...(pod.status.message ? { message: pod.status.message } : {}),
          }
        : {})),
    ...(input.hostIps[0] ? { hostIP: input.hostIps[0], hostIPs: input.hostIps.map(ip => ({ ip })) } : {}),
    ...(input.podIps[0] ? { podIP: input.podIps[0], podIPs: input.podIps.map(ip => ({ ip })) } : {}),
    startTime: pod.status?.startTime ?? formatTime(input.nowMs),
    ...(initStatuses.length ? { initContainerStatuses: initStatuses } : {}),
    containerStatuses: statuses,
    ...(pod.spec.ephemeralContainers?.length
      ? {
          ephemeralContainerStatuses: pod.spec.ephemeralContainers.map(spec =>
            containerStatus(spec, { ...input, isTerminating: true }, false, true),
          ),
        }
      : {}),
    ...input.podResources,
    qosClass: qosOf(pod),
  };
}
