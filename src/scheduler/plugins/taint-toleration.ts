/** NoSchedule and NoExecute taints keep pods away that do not tolerate them; PreferNoSchedule ones cost score. */

import { tolerates, untolerated } from '../../api/machinery/tolerations.ts';
import { type Plugin, refuseForGood } from '../plugin.ts';

export const taintToleration: Plugin = {
  name: 'TaintToleration',
  weight: 3,
  wakesOn: ['node-added', 'node-taints'],
  filter: ({ pod }) => {
    const tolerations = pod.spec?.tolerations;
    return ({ node }) => {
      const taint = untolerated(node.spec?.taints, tolerations, ['NoSchedule', 'NoExecute']);
      // Upstream names no keys or values since v1.34.2: a pod's owner need not learn them.
      return taint && refuseForGood('node(s) had untolerated taint(s)');
    };
  },
  score: ({ pod }, _cluster, feasible) => {
    if (!feasible.some(({ node }) => node.spec?.taints?.some(taint => taint.effect === 'PreferNoSchedule')))
      return undefined;
    const tolerations = (pod.spec?.tolerations ?? []).filter(({ effect }) => !effect || effect === 'PreferNoSchedule');
    return {
      normalize: 'reverse',
      score: ({ node }) =>
        (node.spec?.taints ?? []).filter(
          taint => taint.effect === 'PreferNoSchedule' && !tolerations.some(toleration => tolerates(toleration, taint)),
        ).length,
    };
  },
};
