/** Prefers nodes whose CPU and memory would be used in like proportion. Says nothing about pods that request neither. */

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
        const deviation = Math.abs(fraction('cpu', cpu) - fraction('memory', memory)) / 2;
        return Math.floor((1 - deviation) * SCORE_MAX);
      },
    };
  },
};
