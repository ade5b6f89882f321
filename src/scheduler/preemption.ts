/**
 * Which pods of lower priority would have to go so that a pod fits, and on which node that costs least (upstream's
 * DefaultPreemption). Pure: it tries on copies and returns a choice; the scheduler carries it out.
 */

import type { Pod } from '../api/core/v1.gen.ts';
import { firstRefusal, type Infeasible, prepareFilters } from './framework.ts';
import type { NodeInfo, PodInfo } from './node-info.ts';
import type { Cluster, Plugin, Refusal } from './plugin.ts';

export type Preemption =
  | { readonly node: string; readonly victims: readonly PodInfo[] }
  | {
      readonly node: undefined;
      readonly message: string /** It has a node, and waits for its victims to end. */;
      readonly waits?: true;
    };

const NO_VICTIMS: Refusal = { reasons: ['No preemption victims found for incoming pod'], unresolvable: true };
const NOT_HELPFUL: Refusal = { reasons: ['Preemption is not helpful for scheduling'], unresolvable: true };

interface Candidate {
  readonly node: NodeInfo;
  readonly victims: readonly PodInfo[];
  readonly budgetsViolated: number;
}

export interface PreemptionOptions {
  readonly plugins: readonly Plugin[];
  readonly cluster: Cluster;
  readonly failure: Infeasible;
  /** True when evicting the pod would violate a disruption budget. */
  readonly isProtected: (pod: Pod) => boolean;
}

const startOf = ({ pod }: PodInfo): string => pod.status?.startTime ?? pod.metadata.creationTimestamp ?? '';
/** More important first: higher priority, then longer running. */
const byImportance = (a: PodInfo, b: PodInfo): number => b.priority - a.priority || (startOf(a) < startOf(b) ? -1 : 1);

export function preempt(pod: PodInfo, options: PreemptionOptions): Preemption {
  const { cluster, failure } = options;
  if (pod.pod.spec?.preemptionPolicy === 'Never')
    return { node: undefined, message: 'not eligible due to preemptionPolicy=Never.' };
  if (isWaitingForVictims(pod, cluster))
    return { node: undefined, message: 'not eligible due to a terminating pod on the nominated node.', waits: true };
  const verdicts = new Map<string, Refusal>();
  const candidates: Candidate[] = [];
  for (const node of cluster.nodes.values()) {
    const refusal = failure.refusals.get(node.name);
    const candidate = !refusal || refusal.unresolvable ? undefined : victimsOn(node, pod, options);
    if (candidate && 'victims' in candidate) candidates.push(candidate);
    else verdicts.set(node.name, candidate ?? NOT_HELPFUL);
  }
  const best = candidates.sort(byCost)[0];
  if (best) return { node: best.node.name, victims: best.victims };
  const counts = new Map<string, number>();
  for (const { reasons } of verdicts.values())
    for (const reason of reasons) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  const parts = [...counts].map(([reason, count]) => `${count} ${reason}`).sort();
  return { node: undefined, message: `0/${failure.nodesTotal} nodes are available: ${parts.join(', ')}.` };
}

// It has made room already and waits for it.
function isWaitingForVictims(pod: PodInfo, cluster: Cluster): boolean {
  const nominated = cluster.nodes.get(pod.pod.status?.nominatedNodeName ?? '');
  return (
    nominated !== undefined &&
    [...nominated.pods.values()].some(other => other.priority < pod.priority && other.pod.metadata.deletionTimestamp)
  );
}

function victimsOn(
  node: NodeInfo,
  pod: PodInfo,
  { plugins, cluster, isProtected }: PreemptionOptions,
): Candidate | Refusal {
  const lower = [...node.pods.values()].filter(other => other.priority < pod.priority);
  if (lower.length === 0) return NO_VICTIMS;
  const copy = node.clone();
  for (const other of lower) copy.remove(other.pod.metadata.uid!);
  const trial: Cluster = { ...cluster, nodes: new Map(cluster.nodes).set(node.name, copy) };
  const refusal = () => {
    const prepared = prepareFilters(plugins, pod, trial);
    return 'rejection' in prepared
      ? { reasons: [prepared.rejection], unresolvable: true }
      : firstRefusal(prepared.filters, copy)?.refusal;
  };
  const refused = refusal();
  if (refused) return refused;
  const victims: PodInfo[] = [];
  let budgetsViolated = 0;
  // Spare as many as possible: those that a budget protects first, then the important ones.
  const order = [...lower].sort(
    (a, b) => Number(isProtected(b.pod)) - Number(isProtected(a.pod)) || byImportance(a, b),
  );
  for (const other of order) {
    copy.add(other);
    if (!refusal()) continue;
    copy.remove(other.pod.metadata.uid!);
    victims.push(other);
    if (isProtected(other.pod)) budgetsViolated++;
  }
  return { node, victims, budgetsViolated };
}

function byCost(a: Candidate, b: Candidate): number {
  const highest = ({ victims }: Candidate) => Math.max(...victims.map(({ priority }) => priority));
  const total = ({ victims }: Candidate) => victims.reduce((sum, { priority }) => sum + priority + 2 ** 31, 0);
  const earliest = ({ victims }: Candidate) =>
    victims
      .filter(victim => victim.priority === Math.max(...victims.map(({ priority }) => priority)))
      .map(startOf)
      .sort()[0] ?? '';
  return (
    a.budgetsViolated - b.budgetsViolated ||
    highest(a) - highest(b) ||
    total(a) - total(b) ||
    a.victims.length - b.victims.length ||
    (earliest(a) > earliest(b) ? -1 : 1)
  );
}
