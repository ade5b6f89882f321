/**
 * Prefers nodes whose CPU and memory would come to be used in more alike proportion than they are now. Says nothing about pods that
 * request neither.
 */

import { type Plugin, SCORE_MAX } from '../plugin.ts';

export const nodeResourcesBalancedAllocation: Plugin = {
  name: 'NodeResourcesBalancedAllocation',
  weight: 1,
  wakesOn: [],
  score: pod => {
    const { cpu = 0, memory = 0 } = pod.requests;
    if (cpu === 0 && memory === 0) return undefined;
    return {
      normalize: 'none',
      score: node => {
        const fraction = (name: string, more: number) =>
          Math.min(1, ((node.requested[name] ?? 0) + more) / (node.allocatable[name] || 1));
        // The standard deviation of two values is half their distance.
        const balance = (cpuMore: number, memoryMore: number) =>
          Math.floor((1 - Math.abs(fraction('cpu', cpuMore) - fraction('memory', memoryMore)) / 2) * SCORE_MAX);
        return SCORE_MAX / 2 + Math.trunc((SCORE_MAX / 2 + balance(cpu, memory) - balance(0, 0)) / 2);
      },
    };
  },
};
