/** nodeSelector and node affinity: required terms filter, preferred ones score. */

import { nodeTermMatch, requiredNodeMatch } from '../../api/machinery/node-selector.ts';
import { type Plugin, refuseForGood } from '../plugin.ts';

export const nodeAffinity: Plugin = {
  name: 'NodeAffinity',
  weight: 2,
  wakesOn: ['node-added', 'node-labels'],
  filter: ({ pod }) => {
    const matches = requiredNodeMatch(pod.spec);
    return (
      matches &&
      (({ node }) => (matches(node) ? undefined : refuseForGood("node(s) didn't match Pod's node affinity/selector")))
    );
  },
  score: ({ pod }) => {
    const preferred = pod.spec?.affinity?.nodeAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [];
    if (preferred.length === 0) return undefined;
    const terms = preferred.map(({ weight, preference }) => ({ weight, matches: nodeTermMatch(preference) }));
    return {
      normalize: 'scale',
      score: ({ node }) => terms.reduce((sum, { weight, matches }) => sum + (matches(node) ? weight : 0), 0),
    };
  },
};
