/**
 * One scheduling attempt: filters narrow the nodes, scores rank them. Pure and synchronous; it changes neither pod nor
 * cluster.
 */

import type { Clock } from '../base/clock.ts';
import type { Random } from '../base/random.ts';
import { countEvaluation, countPoint, PluginTimes, type PointStatus } from './metrics.ts';
import type { NodeInfo, PodInfo } from './node-info.ts';
import {
  type Cluster,
  type ClusterEvent,
  type Filter,
  type Plugin,
  type Refusal,
  SCORE_MAX,
  type Scorer,
} from './plugin.ts';

/** Below this many nodes all are looked at; above, a share that shrinks with size, as upstream's percentageOfNodesToScore. */
const FEASIBLE_NODES_MIN = 100;

export interface Infeasible {
  readonly node: undefined;
  /** Refused by all nodes at once, for this reason. */
  readonly rejection: string | undefined;
  readonly refusals: ReadonlyMap<string, Refusal>;
  readonly nodesTotal: number;
  /** Names of the plugins that refused it somewhere. */
  readonly refusedBy: ReadonlySet<string>;
  /** Events that may change the verdict. */
  readonly wakesOn: ReadonlySet<ClusterEvent>;
}
export type Outcome = { readonly node: NodeInfo } | Infeasible;

interface NamedFilter {
  readonly plugin: Plugin;
  readonly filter: Filter;
}

/** The filters that concern the pod; or what rejects it everywhere. */
export function prepareFilters(
  plugins: readonly Plugin[],
  pod: PodInfo,
  cluster: Cluster,
  times?: PluginTimes,
): { filters: NamedFilter[] } | { rejection: string; plugin: Plugin } {
  const filters: NamedFilter[] = [];
  for (const plugin of plugins) {
    if (!plugin.filter) continue;
    const prepared = times
      ? times.run(plugin.name, { point: 'PreFilter', work: () => plugin.filter!(pod, cluster), statusOf: preparedAs })
      : plugin.filter(pod, cluster);
    if (!prepared) continue;
    if ('rejection' in prepared) return { rejection: prepared.rejection, plugin };
    filters.push({ plugin, filter: prepared });
  }
  return { filters };
}

function feasibleWanted(nodes: number): number {
  if (nodes <= FEASIBLE_NODES_MIN) return nodes;
  const percent = Math.max(5, 50 - Math.floor(nodes / 125));
  return Math.max(FEASIBLE_NODES_MIN, Math.floor((nodes * percent) / 100));
}

export class Framework {
  readonly #plugins: readonly Plugin[];
  readonly #random: Random;
  readonly #clock: Clock;
  readonly #times: PluginTimes;
  #startAt = 0;

  constructor(options: { plugins: readonly Plugin[]; random: Random; clock: Clock }) {
    this.#plugins = options.plugins;
    this.#random = options.random;
    this.#clock = options.clock;
    this.#times = new PluginTimes(options.clock);
  }

  schedule(pod: PodInfo, cluster: Cluster): Outcome {
    const nodesTotal = cluster.nodes.size;
    const times = this.#times.next();
    const startMs = this.#clock.monotonic();
    const prepared = prepareFilters(this.#plugins, pod, cluster, times);
    const preparedMs = this.#clock.monotonic();
    const isRejected = 'rejection' in prepared;
    countPoint('PreFilter', isRejected ? 'UnschedulableAndUnresolvable' : 'Success', preparedMs - startMs);
    if (isRejected)
      return {
        node: undefined,
        rejection: prepared.rejection,
        refusals: new Map(),
        nodesTotal,
        refusedBy: new Set([prepared.plugin.name]),
        wakesOn: new Set(prepared.plugin.wakesOn),
      };
    const refusals = new Map<string, Refusal>();
    const wakesOn = new Set<ClusterEvent>(nodesTotal === 0 ? ['node-added'] : []);
    const refusedBy = new Set<string>();
    for (const { plugin } of prepared.filters) countEvaluation(plugin.name, 'Filter');
    const feasible: NodeInfo[] = [];
    const nodes = [...cluster.nodes.values()];
    const wanted = feasibleWanted(nodes.length);
    for (let i = 0; i < nodes.length && feasible.length < wanted; i++) {
      const node = nodes[(this.#startAt + i) % nodes.length]!;
      const refused = firstRefusal(prepared.filters, node, times);
      if (!refused) {
        feasible.push(node);
        continue;
      }
      refusals.set(node.name, refused.refusal);
      refusedBy.add(refused.plugin.name);
      for (const event of refused.plugin.wakesOn) wakesOn.add(event);
    }
    // Nodes that are refused are no failure of the point.
    countPoint('Filter', 'Success', this.#clock.monotonic() - preparedMs);
    if (nodes.length > FEASIBLE_NODES_MIN)
      this.#startAt = (this.#startAt + feasible.length + refusals.size) % nodes.length;
    if (feasible.length === 0)
      return { node: undefined, rejection: undefined, refusals, nodesTotal, refusedBy, wakesOn };
    return { node: feasible.length === 1 ? feasible[0]! : this.#best(pod, cluster, { feasible, times }) };
  }

  #best(
    pod: PodInfo,
    cluster: Cluster,
    { feasible, times }: { readonly feasible: readonly NodeInfo[]; readonly times: PluginTimes | undefined },
  ): NodeInfo {
    const totals = new Array<number>(feasible.length).fill(0);
    const startMs = this.#clock.monotonic();
    const scorers: { name: string; weight: number; scorer: Scorer }[] = [];
    for (const plugin of this.#plugins) {
      const scorer = plugin.weight > 0 ? plugin.score?.(pod, cluster, feasible) : undefined;
      if (!scorer) continue;
      countEvaluation(plugin.name, 'Score');
      scorers.push({ name: plugin.name, weight: plugin.weight, scorer });
    }
    const preparedMs = this.#clock.monotonic();
    countPoint('PreScore', 'Success', preparedMs - startMs);
    for (const { name, weight, scorer } of scorers) {
      const work = () =>
        normalized(
          scorer,
          feasible.map(node => scorer.score(node)),
        );
      const scores = times ? times.run(name, { point: 'Score', work }) : work();
      for (let i = 0; i < totals.length; i++) totals[i]! += weight * scores[i]!;
    }
    countPoint('Score', 'Success', this.#clock.monotonic() - preparedMs);
    const most = Math.max(...totals);
    const best = feasible.filter((_, i) => totals[i] === most);
    return best[Math.floor(this.#random.next() * best.length)]!;
  }
}

const preparedAs = (prepared: ReturnType<NonNullable<Plugin['filter']>>): PointStatus =>
  prepared && 'rejection' in prepared ? 'UnschedulableAndUnresolvable' : 'Success';
const refusedAs = (refusal: Refusal | undefined): PointStatus => {
  if (!refusal) return 'Success';
  return refusal.unresolvable ? 'UnschedulableAndUnresolvable' : 'Unschedulable';
};

export function firstRefusal(
  filters: readonly NamedFilter[],
  node: NodeInfo,
  times?: PluginTimes,
): { plugin: Plugin; refusal: Refusal } | undefined {
  for (const { plugin, filter } of filters) {
    const refusal = times
      ? times.run(plugin.name, { point: 'Filter', work: () => filter(node), statusOf: refusedAs })
      : filter(node);
    if (refusal) return { plugin, refusal };
  }
  return undefined;
}

function normalized(scorer: Scorer, scores: number[]): number[] {
  const { normalize } = scorer;
  if (typeof normalize === 'function') return normalize(scores);
  if (normalize === 'none') return scores;
  const most = Math.max(...scores);
  if (most === 0) return scores.map(() => (normalize === 'reverse' ? SCORE_MAX : 0));
  return scores.map(score => {
    const scaled = Math.floor((score * SCORE_MAX) / most);
    return normalize === 'reverse' ? SCORE_MAX - scaled : scaled;
  });
}

/** `0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable.` and what preemption had to say. */
export function describe(infeasible: Infeasible, postscript = ''): string {
  const { nodesTotal, rejection, refusals } = infeasible;
  if (nodesTotal === 0 && !rejection) return 'no nodes available to schedule pods';
  let text = `0/${nodesTotal} nodes are available:`;
  if (rejection) text += ` ${rejection}.`;
  else {
    const counts = new Map<string, number>();
    for (const { reasons } of refusals.values())
      for (const reason of reasons) counts.set(reason, (counts.get(reason) ?? 0) + 1);
    const parts = [...counts].map(([reason, count]) => `${count} ${reason}`).sort();
    if (parts.length > 0) text += ` ${parts.join(', ')}.`;
  }
  return postscript ? `${text} ${postscript}` : text;
}
