/** Pods that need a feature too new for every node to have go to nodes that say they have it. */

import { featuresNeeded, missingFeatures } from '../../api/machinery/node-features.ts';
import { type Plugin, refuseForGood } from '../plugin.ts';

export const nodeDeclaredFeatures: Plugin = {
  name: 'NodeDeclaredFeatures',
  weight: 0,
  wakesOn: ['node-added', 'node-features'],
  filter: ({ pod }) => {
    const needed = featuresNeeded(pod);
    if (needed.length === 0) return undefined;
    return ({ node }) => {
      const missing = missingFeatures(needed, node);
      return missing.length > 0
        ? refuseForGood(`node declared features check failed - unsatisfied requirements: ${missing.join(', ')}`)
        : undefined;
    };
  },
};
