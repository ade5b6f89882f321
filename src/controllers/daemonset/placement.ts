/** On which nodes a DaemonSet's pods run, and what its pods look like there. Pure. */

import type { DaemonSet } from '../../api/apps/v1.gen.ts';
import type { Affinity, Node, Pod, Toleration } from '../../api/core/v1.gen.ts';
import { requiredNodeMatch } from '../../api/machinery/node-selector.ts';
import { untolerated } from '../../api/machinery/tolerations.ts';
import { REVISION_HASH } from '../runtime/history.ts';
import { podFromTemplate } from '../runtime/pod-control.ts';

const NODE_NAME_FIELD = 'metadata.name';

/** Daemons stay on nodes that have trouble. */
export function daemonTolerations(spec: { hostNetwork?: boolean; tolerations?: Toleration[] }): Toleration[] {
  const own: [string, string][] = [
    ['node.kubernetes.io/not-ready', 'NoExecute'],
    ['node.kubernetes.io/unreachable', 'NoExecute'],
    ['node.kubernetes.io/disk-pressure', 'NoSchedule'],
    ['node.kubernetes.io/memory-pressure', 'NoSchedule'],
    ['node.kubernetes.io/pid-pressure', 'NoSchedule'],
    ['node.kubernetes.io/unschedulable', 'NoSchedule'],
    ...(spec.hostNetwork ? ([['node.kubernetes.io/network-unavailable', 'NoSchedule']] as [string, string][]) : []),
  ];
  const present = spec.tolerations ?? [];
  const added = own.filter(
    ([key, effect]) =>
      !present.some(
        toleration => toleration.key === key && toleration.effect === effect && toleration.operator === 'Exists',
      ),
  );
  return [...present, ...added.map(([key, effect]) => ({ key, operator: 'Exists', effect }))];
}

export function placement(set: DaemonSet, node: Node): { shouldRun: boolean; mayStay: boolean } {
  const spec = set.spec.template.spec!;
  if (spec.nodeName && spec.nodeName !== node.metadata.name) return { shouldRun: false, mayStay: false };
  if (!(requiredNodeMatch(spec)?.(node) ?? true)) return { shouldRun: false, mayStay: false };
  const tolerations = daemonTolerations(spec);
  if (!untolerated(node.spec?.taints, tolerations, ['NoSchedule', 'NoExecute']))
    return { shouldRun: true, mayStay: true };
  return { shouldRun: false, mayStay: !untolerated(node.spec?.taints, tolerations, ['NoExecute']) };
}

function pinned(affinity: Affinity | undefined, node: string): Affinity {
  const field = { matchFields: [{ key: NODE_NAME_FIELD, operator: 'In', values: [node] }] };
  const terms = affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  const nodeSelectorTerms = terms?.length ? terms.map(term => ({ ...term, ...field })) : [field];
  return {
    ...affinity,
    nodeAffinity: { ...affinity?.nodeAffinity, requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms } },
  };
}

export function daemonPod(set: DaemonSet, node: string, hash: string): Pod {
  const pod = podFromTemplate(set.spec.template, set);
  const generation = set.metadata.annotations?.['deprecated.daemonset.template.generation'];
  return {
    ...pod,
    metadata: {
      ...pod.metadata,
      labels: {
        ...pod.metadata.labels,
        ...(generation ? { 'pod-template-generation': generation } : {}),
        [REVISION_HASH]: hash,
      },
    },
    spec: { ...pod.spec!, tolerations: daemonTolerations(pod.spec!), affinity: pinned(pod.spec!.affinity, node) },
  };
}

/** The node a daemon pod is for, also before it is scheduled. */
export function targetNode(pod: Pod): string | undefined {
  if (pod.spec?.nodeName) return pod.spec.nodeName;
  for (const term of pod.spec?.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution
    ?.nodeSelectorTerms ?? []) {
    for (const { key, operator, values } of term.matchFields ?? [])
      if (key === NODE_NAME_FIELD && operator === 'In' && values?.length === 1) return values[0];
  }
  return undefined;
}
