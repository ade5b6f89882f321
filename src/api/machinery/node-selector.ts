/** Node selectors and required node affinity, as corev1 `nodeaffinity`: shared by the scheduler and the DaemonSet controller. Pure. */

import type { NodeSelector, NodeSelectorTerm, PodSpec } from '../core/v1.gen.ts';
import { labelSelectorMatch } from './labels.ts';

export type NodeMatch = (node: { metadata: { name: string; labels?: Readonly<Record<string, string>> } }) => boolean;

/** An empty term matches nothing; fields know only `metadata.name`. */
export function nodeTermMatch(term: NodeSelectorTerm): NodeMatch {
  const { matchExpressions = [], matchFields = [] } = term;
  if (matchExpressions.length === 0 && matchFields.length === 0) return () => false;
  const labels = labelSelectorMatch({ matchExpressions });
  const fields = labelSelectorMatch({ matchExpressions: matchFields });
  return ({ metadata }) => labels(metadata.labels) && fields({ 'metadata.name': metadata.name });
}

/** True when any term matches. */
export function nodeSelectorMatch(selector: NodeSelector): NodeMatch {
  const terms = (selector.nodeSelectorTerms ?? []).map(nodeTermMatch);
  return node => terms.some(matches => matches(node));
}

/** What nodeSelector and required affinity of a pod demand together; undefined when they demand nothing. */
export function requiredNodeMatch(spec: PodSpec | undefined): NodeMatch | undefined {
  const required = spec?.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
  const labels =
    spec?.nodeSelector && Object.keys(spec.nodeSelector).length > 0
      ? labelSelectorMatch({ matchLabels: spec.nodeSelector })
      : undefined;
  const terms = required && nodeSelectorMatch(required);
  if (!labels && !terms) return undefined;
  return node => (labels?.(node.metadata.labels) ?? true) && (terms?.(node) ?? true);
}
