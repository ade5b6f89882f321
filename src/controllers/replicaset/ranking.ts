/**
 * Which pods go first when there are too many: upstream's ActivePodsWithRanks order. Pure; the same pods in any order
 * give the same choice.
 */

import type { Pod } from '../../api/core/v1.gen.ts';
import { isPodActive, isPodReady, podCondition } from '../../api/machinery/pod.ts';
import { restartsMax } from '../runtime/pods.ts';

const DELETION_COST = 'controller.kubernetes.io/pod-deletion-cost';
const PHASE_RANK: Readonly<Record<string, number>> = { Pending: 0, Unknown: 1, Running: 2 };

function deletionCost(pod: Pod): number {
  const text = pod.metadata.annotations?.[DELETION_COST];
  return text !== undefined && /^(0|-?[1-9]\d*)$/.test(text) ? Number(text) : 0;
}

// Ages are compared by order of magnitude (log2 of nanoseconds), so that scaling down does not always hit the newest node.
function magnitude(ageMs: number): number {
  return ageMs > 0 ? Math.floor(Math.log2(ageMs * 1e6)) : -1;
}

/** Younger first by magnitude, then by uid; an unknown time counts as youngest. */
function byAge(
  a: { at: string | undefined; uid: string },
  b: { at: string | undefined; uid: string },
  nowMs: number,
): number {
  if (a.at === b.at) return 0;
  if (a.at === undefined) return -1;
  if (b.at === undefined) return 1;
  const difference = magnitude(nowMs - Date.parse(a.at)) - magnitude(nowMs - Date.parse(b.at));
  return difference || (a.uid < b.uid ? -1 : 1);
}

export interface RankedPod {
  readonly pod: Pod;
  /** Active pods of related replica sets on the same node: the fuller node gives first. */
  readonly rank: number;
}

export function compareForDeletion(a: RankedPod, b: RankedPod, nowMs: number): number {
  const x = a.pod;
  const y = b.pod;
  const assigned = Number(Boolean(x.spec?.nodeName)) - Number(Boolean(y.spec?.nodeName));
  if (assigned) return assigned;
  const phase = (PHASE_RANK[x.status?.phase ?? 'Pending'] ?? 0) - (PHASE_RANK[y.status?.phase ?? 'Pending'] ?? 0);
  if (phase) return phase;
  const ready = Number(isPodReady(x)) - Number(isPodReady(y));
  if (ready) return ready;
  const cost = deletionCost(x) - deletionCost(y);
  if (cost) return cost;
  if (a.rank !== b.rank) return b.rank - a.rank;
  if (isPodReady(x)) {
    const readyAge = byAge(
      { at: podCondition(x, 'Ready')?.lastTransitionTime, uid: x.metadata.uid! },
      { at: podCondition(y, 'Ready')?.lastTransitionTime, uid: y.metadata.uid! },
      nowMs,
    );
    if (readyAge) return readyAge;
  }
  const restarts = restartsMax(y) - restartsMax(x);
  if (restarts) return restarts;
  return byAge(
    { at: x.metadata.creationTimestamp, uid: x.metadata.uid! },
    { at: y.metadata.creationTimestamp, uid: y.metadata.uid! },
    nowMs,
  );
}

/** The `count` pods to delete; `related` are all pods of sibling replica sets, these included. */
export function podsToDelete(
  pods: readonly Pod[],
  related: readonly Pod[],
  options: { count: number; nowMs: number },
): Pod[] {
  if (options.count >= pods.length) return [...pods];
  const perNode = new Map<string, number>();
  for (const pod of related) {
    const node = pod.spec?.nodeName ?? '';
    if (isPodActive(pod)) perNode.set(node, (perNode.get(node) ?? 0) + 1);
  }
  return pods
    .map(pod => ({ pod, rank: perNode.get(pod.spec?.nodeName ?? '') ?? 0 }))
    .sort((a, b) => compareForDeletion(a, b, options.nowMs))
    .slice(0, options.count)
    .map(({ pod }) => pod);
}
