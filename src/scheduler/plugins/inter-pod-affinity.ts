/**
 * Pod affinity and anti-affinity. Required terms filter, in both directions for anti-affinity (pods that are there may
 * refuse the new one); preferred terms score, also in both directions.
 */

import type { PodAffinityTerm } from '../../api/core/v1.gen.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import type { NodeInfo, PodInfo } from '../node-info.ts';
import { type Cluster, type Plugin, refuse, refuseForGood, SCORE_MAX } from '../plugin.ts';

/** Weight of other pods' required affinity in scores: upstream's default hardPodAffinityWeight. */
const HARD_AFFINITY_WEIGHT = 1;

interface Term {
  readonly topologyKey: string;
  readonly matches: (pod: PodInfo) => boolean;
}

function compile(term: PodAffinityTerm, owner: PodInfo, cluster: Cluster): Term {
  const labels = owner.pod.metadata.labels ?? {};
  const merged = [
    ...(term.matchLabelKeys ?? [])
      .filter(key => key in labels)
      .map(key => ({ key, operator: 'In', values: [labels[key]!] })),
    ...(term.mismatchLabelKeys ?? [])
      .filter(key => key in labels)
      .map(key => ({ key, operator: 'NotIn', values: [labels[key]!] })),
  ];
  const selector = labelSelectorMatch(
    term.labelSelector && {
      ...term.labelSelector,
      matchExpressions: [...(term.labelSelector.matchExpressions ?? []), ...merged],
    },
  );
  const named = new Set(term.namespaces ?? []);
  const inNamespace = term.namespaceSelector && labelSelectorMatch(term.namespaceSelector);
  if (named.size === 0 && !inNamespace) named.add(owner.pod.metadata.namespace ?? '');
  return {
    topologyKey: term.topologyKey,
    matches: ({ pod }) => {
      const namespace = pod.metadata.namespace ?? '';
      return (
        (named.has(namespace) || inNamespace?.(cluster.lookup.namespace(namespace)?.metadata.labels) === true) &&
        selector(pod.metadata.labels)
      );
    },
  };
}

const requiredAffinity = (pod: PodInfo) =>
  pod.pod.spec?.affinity?.podAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? [];
const requiredAntiAffinity = (pod: PodInfo) =>
  pod.pod.spec?.affinity?.podAntiAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? [];

/** `key=value` of the domain, or undefined when the node is in none. */
function domain(node: NodeInfo, key: string): string | undefined {
  return key in node.labels ? `${key}=${node.labels[key]}` : undefined;
}

/** Domains in which some pod matches, for each term. */
function domainsWithMatch(
  terms: readonly Term[],
  cluster: Cluster,
  isMatch: (pod: PodInfo, term: Term) => boolean,
): Set<string>[] {
  const found = terms.map(() => new Set<string>());
  if (terms.length === 0) return found;
  for (const node of cluster.nodes.values()) {
    for (const other of node.pods.values()) {
      terms.forEach((term, i) => {
        const at = domain(node, term.topologyKey);
        if (at !== undefined && !found[i]!.has(at) && isMatch(other, term)) found[i]!.add(at);
      });
    }
  }
  return found;
}

/** Domains from which the required anti-affinity of pods that are there keeps this pod. */
function domainsClosedBy(pod: PodInfo, cluster: Cluster): Set<string> {
  const closed = new Set<string>();
  for (const node of cluster.nodes.values()) {
    for (const other of node.withAffinity) {
      for (const term of requiredAntiAffinity(other)) {
        const at = domain(node, term.topologyKey);
        if (at !== undefined && !closed.has(at) && compile(term, other, cluster).matches(pod)) closed.add(at);
      }
    }
  }
  return closed;
}

function scoreDomains(pod: PodInfo, cluster: Cluster): Map<string, number> {
  const scores = new Map<string, number>();
  const note = (node: NodeInfo, key: string, weight: number) => {
    const at = domain(node, key);
    if (at !== undefined) scores.set(at, (scores.get(at) ?? 0) + weight);
  };
  const { podAffinity, podAntiAffinity } = pod.pod.spec?.affinity ?? {};
  const own = [
    ...(podAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []).map(({ weight, podAffinityTerm }) => ({
      weight,
      term: compile(podAffinityTerm, pod, cluster),
    })),
    ...(podAntiAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []).map(({ weight, podAffinityTerm }) => ({
      weight: -weight,
      term: compile(podAffinityTerm, pod, cluster),
    })),
  ];
  for (const node of cluster.nodes.values()) {
    if (own.length > 0)
      for (const other of node.pods.values())
        for (const { weight, term } of own) if (term.matches(other)) note(node, term.topologyKey, weight);
    for (const other of node.withAffinity) {
      const theirs = other.pod.spec?.affinity;
      for (const term of requiredAffinity(other))
        if (compile(term, other, cluster).matches(pod)) note(node, term.topologyKey, HARD_AFFINITY_WEIGHT);
      for (const { weight, podAffinityTerm } of theirs?.podAffinity?.preferredDuringSchedulingIgnoredDuringExecution ??
        [])
        if (compile(podAffinityTerm, other, cluster).matches(pod)) note(node, podAffinityTerm.topologyKey, weight);
      for (const { weight, podAffinityTerm } of theirs?.podAntiAffinity
        ?.preferredDuringSchedulingIgnoredDuringExecution ?? [])
        if (compile(podAffinityTerm, other, cluster).matches(pod)) note(node, podAffinityTerm.topologyKey, -weight);
    }
  }
  return scores;
}

export const interPodAffinity: Plugin = {
  name: 'InterPodAffinity',
  weight: 2,
  wakesOn: ['node-added', 'node-labels', 'pod-added', 'pod-removed', 'namespace'],
  filter: (pod, cluster) => {
    const closed = domainsClosedBy(pod, cluster);
    const affinity = requiredAffinity(pod).map(term => compile(term, pod, cluster));
    const antiAffinity = requiredAntiAffinity(pod).map(term => compile(term, pod, cluster));
    if (closed.size === 0 && affinity.length === 0 && antiAffinity.length === 0) return undefined;
    // A pod must match all affinity terms at once to count for any of them.
    const near = domainsWithMatch(affinity, cluster, other => affinity.every(term => term.matches(other)));
    const far = domainsWithMatch(antiAffinity, cluster, (other, term) => term.matches(other));
    // The first pod of a group that is to be near itself may go anywhere.
    const first = near.every(domains => domains.size === 0) && affinity.every(term => term.matches(pod));
    return node => {
      const at = affinity.map(({ topologyKey }) => domain(node, topologyKey));
      if (at.includes(undefined) || (!first && at.some((value, i) => !near[i]!.has(value!))))
        return refuseForGood("node(s) didn't match pod affinity rules");
      if (antiAffinity.some(({ topologyKey }, i) => far[i]!.has(domain(node, topologyKey) ?? '')))
        return refuse("node(s) didn't match pod anti-affinity rules");
      if (closed.size > 0)
        for (const key in node.labels)
          if (closed.has(`${key}=${node.labels[key]}`))
            return refuse("node(s) didn't satisfy existing pods anti-affinity rules");
      return undefined;
    };
  },
  score: (pod, cluster) => {
    const scores = scoreDomains(pod, cluster);
    if (scores.size === 0) return undefined;
    return {
      score: node => {
        let sum = 0;
        for (const key in node.labels) sum += scores.get(`${key}=${node.labels[key]}`) ?? 0;
        return sum;
      },
      normalize: raw => {
        const [least, most] = [Math.min(...raw), Math.max(...raw)];
        return raw.map(value => (most === least ? 0 : Math.floor((SCORE_MAX * (value - least)) / (most - least))));
      },
    };
  },
};
