/** The columns of `kubectl get pods`: how many containers are ready, what the pod is up to, and how often it restarted. */

import type { Column, RowCondition } from '../kind.ts';
import { ageColumn, nameColumn, orNone, text, wideText } from '../machinery/columns.ts';
import { ageSince } from '../machinery/duration.ts';
import { isPodReady, isPodTerminal, isSidecar, podCondition, podIPs } from '../machinery/pod.ts';
import type { ContainerStatus, Pod } from './v1.gen.ts';

interface PodSummary {
  readonly ready: string;
  readonly status: string;
  readonly restarts: number;
  /** When a container last ended before it was restarted; '' when none did. */
  readonly lastRestart: string;
}

function later(a: string, b: string | undefined): string {
  return b !== undefined && b > a ? b : a;
}

function endReason(terminated: { exitCode: number; reason?: string; signal?: number }): string {
  if (terminated.reason) return terminated.reason;
  return terminated.signal ? `Signal:${terminated.signal}` : `ExitCode:${terminated.exitCode}`;
}

/** Undefined when the init container is done or, for a sidecar, has started. */
function initReason(status: ContainerStatus, sidecar: boolean, position: string): string | undefined {
  const { terminated, waiting } = status.state ?? {};
  if (terminated && terminated.exitCode === 0) return undefined;
  if (sidecar && status.started) return undefined;
  if (terminated) return `Init:${endReason(terminated)}`;
  if (waiting?.reason && waiting.reason !== 'PodInitializing') return `Init:${waiting.reason}`;
  return `Init:${position}`;
}

/** What `kubectl get pods` says about the pod, all columns at once. */
export function summarizePod(pod: Pod): PodSummary {
  const spec = pod.spec;
  const status = pod.status ?? {};
  let reason = status.reason || status.phase || '';
  if (podCondition(pod, 'PodScheduled')?.reason === 'SchedulingGated') reason = 'SchedulingGated';

  const initContainers = spec?.initContainers ?? [];
  const sidecars = new Set(initContainers.filter(isSidecar).map(container => container.name));
  let ready = 0;
  let restarts = 0;
  let lastRestart = '';
  let sidecarRestarts = 0;
  let sidecarLastRestart = '';
  let initializing = false;
  const initStatuses = status.initContainerStatuses ?? [];
  for (let index = 0; index < initStatuses.length; index++) {
    const container = initStatuses[index]!;
    const sidecar = sidecars.has(container.name);
    const ended = container.lastState?.terminated?.finishedAt;
    restarts += container.restartCount ?? 0;
    lastRestart = later(lastRestart, ended);
    if (sidecar) {
      sidecarRestarts += container.restartCount ?? 0;
      sidecarLastRestart = later(sidecarLastRestart, ended);
    }
    const why = initReason(container, sidecar, `${index}/${initContainers.length}`);
    if (why === undefined) {
      if (sidecar && container.started && container.ready && !container.state?.terminated) ready++;
      continue;
    }
    reason = why;
    initializing = true;
    break;
  }

  if (!initializing || podCondition(pod, 'Initialized')?.status === 'True') {
    restarts = sidecarRestarts;
    lastRestart = sidecarLastRestart;
    let running = false;
    for (const container of [...(status.containerStatuses ?? [])].reverse()) {
      restarts += container.restartCount ?? 0;
      lastRestart = later(lastRestart, container.lastState?.terminated?.finishedAt);
      const state = container.state ?? {};
      if (state.waiting?.reason) reason = state.waiting.reason;
      else if (state.terminated) reason = endReason(state.terminated);
      else if (container.ready && state.running) {
        running = true;
        ready++;
      }
    }
    if (reason === 'Completed' && running) reason = isPodReady(pod) ? 'Running' : 'NotReady';
  }

  if (pod.metadata.deletionTimestamp) {
    if (status.reason === 'NodeLost') reason = 'Unknown';
    else if (!isPodTerminal(pod)) reason = 'Terminating';
  }
  return {
    ready: `${ready}/${(spec?.containers?.length ?? 0) + sidecars.size}`,
    status: reason,
    restarts,
    lastRestart,
  };
}

// A row asks three times in a row for the same pod.
let last: { pod: Pod; summary: PodSummary } | undefined;

function summaryOf(pod: Pod): PodSummary {
  if (last?.pod !== pod) last = { pod, summary: summarizePod(pod) };
  return last!.summary;
}

function restartsCell(pod: Pod, nowMs: number): string {
  const { restarts, lastRestart } = summaryOf(pod);
  return restarts !== 0 && lastRestart ? `${restarts} (${ageSince(lastRestart, nowMs)} ago)` : String(restarts);
}

function readinessGatesCell(pod: Pod): string {
  const gates = pod.spec?.readinessGates ?? [];
  if (gates.length === 0) return '<none>';
  const met = gates.filter(gate => podCondition(pod, gate.conditionType)?.status === 'True').length;
  return `${met}/${gates.length}`;
}

const SUCCEEDED: readonly RowCondition[] = [
  { type: 'Completed', status: 'True', reason: 'Succeeded', message: 'The pod has completed successfully.' },
];
const FAILED: readonly RowCondition[] = [
  { type: 'Completed', status: 'True', reason: 'Failed', message: 'The pod failed.' },
];

export function podRowConditions({ status }: Pod): readonly RowCondition[] {
  if (status?.phase === 'Succeeded') return SUCCEEDED;
  return status?.phase === 'Failed' ? FAILED : [];
}

export const podColumns: readonly Column<Pod>[] = [
  nameColumn,
  text('Ready', pod => summaryOf(pod).ready),
  text('Status', pod => summaryOf(pod).status),
  text('Restarts', restartsCell),
  ageColumn,
  wideText('IP', pod => orNone(podIPs(pod)[0])),
  wideText('Node', pod => orNone(pod.spec?.nodeName)),
  wideText('Nominated Node', pod => orNone(pod.status?.nominatedNodeName)),
  wideText('Readiness Gates', readinessGatesCell),
];
