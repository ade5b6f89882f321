/** Requests must fit into what is left of allocatable; of the nodes where they do, the emptier scores higher (LeastAllocated). */

import { isServedOn, servingClasses } from '../extended-resources.ts';
import type { NodeInfo, PodInfo } from '../node-info.ts';
import { type Plugin, SCORE_MAX } from '../plugin.ts';

const share = (allocatable: number, requested: number): number =>
  allocatable === 0 || requested > allocatable ? 0 : Math.floor(((allocatable - requested) * SCORE_MAX) / allocatable);

export function leastAllocated(pod: PodInfo, node: NodeInfo): number {
  const cpu = node.allocatable['cpu'] ?? 0;
  const memory = node.allocatable['memory'] ?? 0;
  const shares: number[] = [];
  if (cpu > 0) shares.push(share(cpu, node.assumedCpu + pod.assumedCpu));
  if (memory > 0) shares.push(share(memory, node.assumedMemory + pod.assumedMemory));
  return shares.length === 0 ? 0 : Math.floor(shares.reduce((sum, value) => sum + value, 0) / shares.length);
}

export const nodeResourcesFit: Plugin = {
  name: 'NodeResourcesFit',
  weight: 1,
  wakesOn: ['node-added', 'node-allocatable', 'pod-removed', 'device-class'],
  filter: (pod, { lookup }) => {
    const classes = servingClasses(pod, lookup);
    const wanted = Object.entries(pod.requests).filter(([, amount]) => amount > 0);
    return node => {
      const reasons: string[] = [];
      let unresolvable = false;
      if (node.pods.size + 1 > (node.allocatable['pods'] ?? 0)) reasons.push('Too many pods');
      for (const [name, amount] of wanted) {
        if (isServedOn(node, name, classes)) continue;
        const allocatable = node.allocatable[name] ?? 0;
        if (amount <= allocatable - (node.requested[name] ?? 0)) continue;
        reasons.push(`Insufficient ${name}`);
        if (amount > allocatable) unresolvable = true;
      }
      return reasons.length > 0 ? { reasons, unresolvable } : undefined;
    };
  },
  score: pod => ({ normalize: 'none', score: node => leastAllocated(pod, node) }),
};
