/**
 * Spreads pods over zones, nodes or any other label. `DoNotSchedule` constraints filter, `ScheduleAnyway` ones score; a
 * pod without constraints is spread over nodes and zones by its controller (upstream's system defaults).
 */

import type { TopologySpreadConstraint } from '../../api/core/v1.gen.ts';
import { labelSelectorMatch, type Match } from '../../api/machinery/labels.ts';
import { requiredNodeMatch } from '../../api/machinery/node-selector.ts';
import { untolerated } from '../../api/machinery/tolerations.ts';
import type { NodeInfo, PodInfo } from '../node-info.ts';
import { type Cluster, type Plugin, refuse, refuseForGood, SCORE_MAX } from '../plugin.ts';

const HOSTNAME = 'kubernetes.io/hostname';
const ZONE = 'topology.kubernetes.io/zone';
const MISMATCH = "node(s) didn't match pod topology spread constraints";

interface Constraint {
  readonly topologyKey: string;
  readonly maxSkew: number;
  readonly minDomains: number;
  /** Pods on a node that count. */
  readonly count: (node: NodeInfo) => number;
  /** The pod itself counts once it is there. */
  readonly selfMatch: boolean;
  readonly counted: (node: NodeInfo) => boolean;
}

function selectorOf(constraint: TopologySpreadConstraint, pod: PodInfo): Match {
  const labels = pod.pod.metadata.labels ?? {};
  const keys = (constraint.matchLabelKeys ?? []).filter(key => key in labels);
  const { labelSelector } = constraint;
  return labelSelectorMatch(
    labelSelector && {
      ...labelSelector,
      matchExpressions: [
        ...(labelSelector.matchExpressions ?? []),
        ...keys.map(key => ({ key, operator: 'In', values: [labels[key]!] })),
      ],
    },
  );
}

function compile(constraint: TopologySpreadConstraint, pod: PodInfo): Constraint {
  const matches = selectorOf(constraint, pod);
  const { namespace } = pod.pod.metadata;
  const affinity = constraint.nodeAffinityPolicy === 'Ignore' ? undefined : requiredNodeMatch(pod.pod.spec);
  const honorsTaints = constraint.nodeTaintsPolicy === 'Honor';
  return {
    topologyKey: constraint.topologyKey,
    maxSkew: constraint.maxSkew,
    minDomains: constraint.minDomains ?? 1,
    selfMatch: matches(pod.pod.metadata.labels),
    count: node => {
      let count = 0;
      for (const { pod: other } of node.pods.values())
        if (
          other.metadata.namespace === namespace &&
          !other.metadata.deletionTimestamp &&
          matches(other.metadata.labels)
        )
          count++;
      return count;
    },
    counted: node =>
      (affinity?.(node.node) ?? true) &&
      !(honorsTaints && untolerated(node.node.spec?.taints, pod.pod.spec?.tolerations, ['NoSchedule', 'NoExecute'])),
  };
}

/** Matching pods by the value of the topology key, over nodes that have all keys. */
function domainCounts(
  constraint: Constraint,
  all: readonly Constraint[],
  nodes: Iterable<NodeInfo>,
): Map<string, number> {
  const counts = new Map<string, number>();
  for (const node of nodes) {
    if (!all.every(({ topologyKey }) => topologyKey in node.labels) || !constraint.counted(node)) continue;
    const domain = node.labels[constraint.topologyKey]!;
    counts.set(domain, (counts.get(domain) ?? 0) + constraint.count(node));
  }
  return counts;
}

function hard(pod: PodInfo, cluster: Cluster) {
  const constraints = (pod.pod.spec?.topologySpreadConstraints ?? [])
    .filter(({ whenUnsatisfiable }) => whenUnsatisfiable === 'DoNotSchedule')
    .map(constraint => compile(constraint, pod));
  if (constraints.length === 0) return undefined;
  const states = constraints.map(constraint => {
    const counts = domainCounts(constraint, constraints, cluster.nodes.values());
    const least = counts.size < constraint.minDomains ? 0 : Math.min(...counts.values());
    return { constraint, counts, least };
  });
  return (node: NodeInfo) => {
    for (const { constraint, counts, least } of states) {
      const domain = node.labels[constraint.topologyKey];
      if (domain === undefined) return refuseForGood(`${MISMATCH} (missing required label)`);
      const skew = (counts.get(domain) ?? 0) + Number(constraint.selfMatch) - (Number.isFinite(least) ? least : 0);
      if (skew > constraint.maxSkew) return refuse(MISMATCH);
    }
    return undefined;
  };
}

function softConstraints(pod: PodInfo): { constraints: Constraint[]; required: boolean } {
  const own = pod.pod.spec?.topologySpreadConstraints ?? [];
  if (own.length > 0)
    return {
      constraints: own
        .filter(({ whenUnsatisfiable }) => whenUnsatisfiable === 'ScheduleAnyway')
        .map(constraint => compile(constraint, pod)),
      required: true,
    };
  const { controllerUid } = pod;
  if (!controllerUid) return { constraints: [], required: false };
  const byDefault = (topologyKey: string, maxSkew: number): Constraint => ({
    topologyKey,
    maxSkew,
    minDomains: 1,
    selfMatch: true,
    counted: () => true,
    count: node => node.byController.get(controllerUid) ?? 0,
  });
  return { constraints: [byDefault(HOSTNAME, 3), byDefault(ZONE, 5)], required: false };
}

export const podTopologySpread: Plugin = {
  name: 'PodTopologySpread',
  weight: 2,
  wakesOn: ['node-added', 'node-labels', 'node-taints', 'pod-added', 'pod-removed'],
  filter: hard,
  score: (pod, cluster, feasible) => {
    const { constraints, required } = softConstraints(pod);
    // Every node is its own host, whether or not it carries the label.
    const domainOf = (node: NodeInfo, key: string) => node.labels[key] ?? (key === HOSTNAME ? node.name : undefined);
    const usable = required
      ? constraints
      : constraints.filter(({ topologyKey }) => feasible.some(node => domainOf(node, topologyKey) !== undefined));
    if (usable.length === 0) return undefined;
    const states = usable.map(constraint => {
      const counts = new Map<string, number>();
      for (const node of feasible) {
        const domain = domainOf(node, constraint.topologyKey);
        if (domain !== undefined) counts.set(domain, 0);
      }
      for (const node of cluster.nodes.values()) {
        const domain = domainOf(node, constraint.topologyKey);
        if (domain !== undefined && counts.has(domain) && constraint.counted(node))
          counts.set(domain, counts.get(domain)! + constraint.count(node));
      }
      return { constraint, counts, weight: Math.log(counts.size + 2) };
    });
    return {
      score: node => {
        let cost = 0;
        for (const { constraint, counts, weight } of states) {
          const domain = domainOf(node, constraint.topologyKey);
          if (domain === undefined) {
            if (required) return Number.POSITIVE_INFINITY;
            continue;
          }
          cost += counts.get(domain)! * weight + constraint.maxSkew - 1;
        }
        return Math.round(cost);
      },
      normalize: costs => {
        const finite = costs.filter(Number.isFinite);
        const [least, most] = [Math.min(...finite), Math.max(...finite)];
        return costs.map(cost =>
          !Number.isFinite(cost) ? 0 : most === 0 ? SCORE_MAX : Math.floor((SCORE_MAX * (most + least - cost)) / most),
        );
      },
    };
  },
};
