/**
 * The scheduler's picture of the cluster: nodes with the pods on them. A pod that has just been given a node is assumed
 * there at once, so that a burst spreads although no watch event has come back yet. Invariant: a pod counts on exactly
 * one node.
 */

import type { Node, Pod } from '../api/core/v1.gen.ts';
import { isPodTerminal } from '../api/machinery/pod.ts';
import { NodeInfo, podInfo } from './node-info.ts';

export class SchedulerCache {
  readonly nodes = new Map<string, NodeInfo>();
  /** Where each counted pod is; its node may not be known yet. */
  readonly #placed = new Map<string, { pod: Pod; node: string }>();
  readonly #assumed = new Set<string>();

  setNode(node: Node): void {
    const known = this.nodes.get(node.metadata.name);
    if (known) {
      known.setNode(node);
      return;
    }
    const info = new NodeInfo(node);
    this.nodes.set(info.name, info);
    for (const { pod, node: name } of this.#placed.values()) if (name === info.name) info.add(podInfo(pod));
  }
  removeNode(name: string): void {
    this.nodes.delete(name);
  }
  /** A pod as the API shows it; true when it was not counted on that node before. */
  setPod(pod: Pod): boolean {
    const uid = pod.metadata.uid!;
    const node = pod.spec?.nodeName;
    if (!node) return false;
    if (isPodTerminal(pod)) {
      this.removePod(uid);
      return false;
    }
    this.#assumed.delete(uid);
    const before = this.#placed.get(uid);
    this.#place(pod, node);
    return before?.node !== node;
  }
  assume(pod: Pod, node: string): void {
    this.#assumed.add(pod.metadata.uid!);
    this.#place(pod, node);
  }
  /** The binding failed. One that the API has confirmed meanwhile stays. */
  forget(uid: string): void {
    if (this.#assumed.has(uid)) this.removePod(uid);
  }
  /** How much there is, for the metrics. */
  get sizes(): Readonly<Record<'nodes' | 'pods' | 'assumed_pods', number>> {
    return { nodes: this.nodes.size, pods: this.#placed.size, assumed_pods: this.#assumed.size };
  }
  isPlaced(uid: string): boolean {
    return this.#placed.has(uid);
  }
  /** True when it was counted. */
  removePod(uid: string): boolean {
    const placed = this.#placed.get(uid);
    if (!placed) return false;
    this.nodes.get(placed.node)?.remove(uid);
    this.#placed.delete(uid);
    this.#assumed.delete(uid);
    return true;
  }
  #place(pod: Pod, node: string): void {
    const uid = pod.metadata.uid!;
    const before = this.#placed.get(uid);
    if (before && before.node !== node) this.nodes.get(before.node)?.remove(uid);
    this.#placed.set(uid, { pod, node });
    this.nodes.get(node)?.add(podInfo(pod));
  }
}
