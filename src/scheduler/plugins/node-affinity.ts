/** nodeSelector and node affinity: required terms filter, preferred ones score. */

import type { NodeSelector, NodeSelectorTerm } from '../../api/core/v1.gen.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import type { NodeInfo } from '../node-info.ts';
import { type Plugin, refuseForGood } from '../plugin.ts';

type NodeMatch = (node: NodeInfo) => boolean;

/** An empty term matches nothing; fields know only `metadata.name`. */
export function termMatch(term: NodeSelectorTerm): NodeMatch {
  const { matchExpressions = [], matchFields = [] } = term;
  if (matchExpressions.length === 0 && matchFields.length === 0) return () => false;
  const labels = labelSelectorMatch({ matchExpressions });
  const fields = labelSelectorMatch({ matchExpressions: matchFields });
  return node => labels(node.labels) && fields({ 'metadata.name': node.name });
}

/** True when any term matches. */
export function nodeSelectorMatch(selector: NodeSelector): NodeMatch {
  const terms = (selector.nodeSelectorTerms ?? []).map(termMatch);
  return node => terms.some(matches => matches(node));
}

/** What nodeSelector and required affinity of a pod demand together; undefined when they demand nothing. */
export function requiredNodeMatch(spec: { nodeSelector?: Record<string, string>; affinity?: { nodeAffinity?: { requiredDuringSchedulingIgnoredDuringExecution?: NodeSelector } } } | undefined): NodeMatch | undefined {
  const required = spec?.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  const labels = spec?.nodeSelector && Object.keys(spec.nodeSelector).length > 0 ? labelSelectorMatch({ matchLabels: spec.nodeSelector }) : undefined;
  const terms = required && nodeSelectorMatch(required);
  if (!labels && !terms) return undefined;
  return node => (labels?.(node.labels) ?? true) && (terms?.(node) ?? true);
}

export const nodeAffinity: Plugin = {
  name: 'NodeAffinity',
  weight: 2,
  wakesOn: ['node-added', 'node-labels'],
  filter: ({ pod }) => {
    const matches = requiredNodeMatch(pod.spec);
    return matches && (node => (matches(node) ? undefined : refuseForGood("node(s) didn't match Pod's node affinity/selector")));
  },
  score: ({ pod }) => {
    const preferred = pod.spec?.affinity?.nodeAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [];
    if (preferred.length === 0) return undefined;
    const terms = preferred.map(({ weight, preference }) => ({ weight, matches: termMatch(preference) }));
    return { normalize: 'scale', score: node => terms.reduce((sum, { weight, matches }) => sum + (matches(node) ? weight : 0), 0) };
  },
};
